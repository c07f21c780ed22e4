//! Taking room for contents that are being written, and holding them meanwhile.

use chrono::{DateTime, Utc};

use super::{Author, number};
use crate::{
    command::files::{MAX_FILE_BYTES, MAX_OBJECTS, PART_BYTES, parts_of},
    db::{
        Transaction, broken_constraint, fault,
        sessions::{self, Usable},
    },
    fault::{Code, Fault},
    id::{ObjectId, SessionId},
};

/// The session, locked for a change of its files: usable, its member's, and held as the author says.
pub(super) async fn lock(
    transaction: &mut Transaction,
    session: SessionId,
    author: Author<'_>,
) -> Result<Usable, Fault> {
    let locked = sessions::lock_usable(transaction, session, author.subject).await?;
    let Some(holder) = author.holder else { return Ok(locked) };
    let holds: bool = sqlx::query_scalar(
        "SELECT workspace_holder IS NOT DISTINCT FROM $3 AND workspace_held_until > clock_timestamp() FROM sessions \
         WHERE organization_id = $1 AND id = $2",
    )
    .bind(transaction.organization())
    .bind(session)
    .bind(holder)
    .fetch_one(transaction.connection())
    .await
    .map_err(fault)?;
    if holds {
        return Ok(locked);
    }
    Err(Fault::new(Code::Conflict, "Another call has the session's workspace by now."))
}

/// Takes room for bytes that are about to come.
async fn take_room(transaction: &mut Transaction, locked: &Usable, size_bytes: u64) -> Result<(), Fault> {
    let quota = locked.files_quota_bytes;
    if locked.files_bytes.saturating_add(number(size_bytes)) > quota {
        let message = format!(
            "The session's files take {} of {quota} bytes, uploads and what they replace included: no room for {size_bytes} more.",
            locked.files_bytes
        );
        return Err(Fault::new(Code::Throttled, message));
    }
    sqlx::query("UPDATE sessions SET files_bytes = files_bytes + $3 WHERE organization_id = $1 AND id = $2")
        .bind(transaction.organization())
        .bind(locked.id)
        .bind(number(size_bytes))
        .execute(transaction.connection())
        .await
        .map(drop)
        .map_err(fault)
}

fn too_large() -> Fault {
    Fault::invalid("", format!("A file has at most {MAX_FILE_BYTES} bytes."))
}

/// A content whose parts may be written once the transaction is kept.
#[derive(Clone, Copy, Debug)]
pub struct Reserved {
    /// Names the parts.
    pub id: ObjectId,
    /// When the session is over in any case: the parts need not be kept much longer.
    pub until: DateTime<Utc>,
}

/// Takes room for a content of a size, all of it at once.
pub async fn reserve(
    transaction: &mut Transaction,
    session: SessionId,
    author: Author<'_>,
    size_bytes: u64,
) -> Result<Reserved, Fault> {
    if size_bytes > MAX_FILE_BYTES {
        return Err(too_large());
    }
    let locked = lock(transaction, session, author).await?;
    take_room(transaction, &locked, size_bytes).await?;
    let objects: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM session_files WHERE organization_id = $1 AND session_id = $2 AND state <> 'doomed'",
    )
    .bind(transaction.organization())
    .bind(session)
    .fetch_one(transaction.connection())
    .await
    .map_err(fault)?;
    if objects >= MAX_OBJECTS {
        let message = format!("A session has at most {MAX_OBJECTS} files and uploads together.");
        return Err(Fault::new(Code::Throttled, message));
    }
    let id = ObjectId::new();
    sqlx::query(
        "INSERT INTO session_files (organization_id, session_id, id, size_bytes, parts) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(transaction.organization())
    .bind(session)
    .bind(id)
    .bind(number(size_bytes))
    .bind(parts_of(size_bytes).cast_signed())
    .execute(transaction.connection())
    .await
    .map_err(fault)?;
    Ok(Reserved { id, until: locked.expires_at })
}

/// Takes room for the next part of an upload.
pub async fn extend(
    transaction: &mut Transaction,
    session: SessionId,
    author: Author<'_>,
    (upload, part): (ObjectId, u32),
    size_bytes: u64,
) -> Result<Reserved, Fault> {
    let locked = lock(transaction, session, author).await?;
    take_room(transaction, &locked, size_bytes).await?;
    // Parts before this one are whole ones, or there would be a hole.
    let extended: Option<ObjectId> = sqlx::query_scalar(
        "UPDATE session_files SET parts = parts + 1, size_bytes = size_bytes + $5, touched_at = clock_timestamp() \
         WHERE organization_id = $1 AND session_id = $2 AND id = $3 AND state = 'writing' AND parts = $4 \
             AND size_bytes = $4::bigint * $6 RETURNING id",
    )
    .bind(transaction.organization())
    .bind(session)
    .bind(upload)
    .bind(part.cast_signed())
    .bind(number(size_bytes))
    .bind(number(PART_BYTES as u64))
    .fetch_optional(transaction.connection())
    .await
    .map_err(|cause| match broken_constraint(&cause) {
        Some("session_files_size_check") => too_large(),
        _ => fault(cause),
    })?;
    let id = extended.ok_or_else(|| Fault::unknown("upload"))?;
    Ok(Reserved { id, until: locked.expires_at })
}

/// Holds a content that is being written until the end of the transaction: nobody removes its parts
/// while some are on their way.
pub async fn hold(transaction: &mut Transaction, session: SessionId, id: ObjectId) -> Result<(), Fault> {
    let held: Option<ObjectId> = sqlx::query_scalar(
        "SELECT id FROM session_files WHERE organization_id = $1 AND session_id = $2 AND id = $3 AND state = 'writing' \
         FOR UPDATE",
    )
    .bind(transaction.organization())
    .bind(session)
    .bind(id)
    .fetch_optional(transaction.connection())
    .await
    .map_err(fault)?;
    held.map(drop).ok_or_else(|| Fault::unknown("upload"))
}
