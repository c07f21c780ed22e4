//! Files of sessions. A row is one content, whose parts lie in the stream ([`crate::bus::files`]).
//! Whoever changes files holds the lock of the session's row first and of the content's row second;
//! whoever writes or removes parts holds the content's alone.

use chrono::{DateTime, Utc};
use sqlx::FromRow;
use uuid::Uuid;

use super::{Transaction, fault, page};
use crate::{
    command::{
        MAX_PAGE, Page,
        files::{Conditions, File, FilePath, List, MAX_FILES, Written},
    },
    fault::{Code, Fault},
    id::{ObjectId, SessionId},
};

mod leftovers;
mod writing;

pub use leftovers::{Buried, doom_abandoned, doom_all, forget, left, lock_doomed, with_leftovers};
pub use writing::{Reserved, extend, hold, reserve};

use writing::lock;

/// Who changes the files of a session.
#[derive(Clone, Copy, Debug)]
pub struct Author<'a> {
    /// The member whose session it is.
    pub subject: &'a str,
    /// The lease on the workspace that is written under, if one is: once it is another's, nothing changes.
    pub holder: Option<Uuid>,
}

#[derive(FromRow)]
struct Row {
    id: ObjectId,
    path: String,
    size_bytes: i64,
    sha256: String,
    touched_at: DateTime<Utc>,
}

/// The columns of a [`Row`].
macro_rules! columns {
    ($head:literal, $tail:literal) => {
        concat!($head, " id, path, size_bytes, encode(sha256, 'hex') AS sha256, touched_at ", $tail)
    };
}

impl Row {
    fn read(self) -> Result<(ObjectId, File), Fault> {
        let path = FilePath::parse(&self.path).map_err(Fault::internal)?;
        let size_bytes = u64::try_from(self.size_bytes).map_err(Fault::internal)?;
        Ok((self.id, File { path, size_bytes, sha256: self.sha256, written_at: self.touched_at }))
    }
}

fn unknown() -> Fault {
    Fault::unknown("file")
}

fn number(size_bytes: u64) -> i64 {
    i64::try_from(size_bytes).unwrap_or(i64::MAX)
}

/// Those whose paths begin as asked, by path.
pub async fn list(transaction: &mut Transaction, command: &List) -> Result<Page<File>, Fault> {
    let limit = command.limit.clamp(1, MAX_PAGE);
    let rows: Vec<Row> = sqlx::query_as(columns!(
        "SELECT",
        "FROM session_files WHERE organization_id = $1 AND session_id = $2 AND path IS NOT NULL \
             AND ($3::text IS NULL OR path > $3) AND ($4::text IS NULL OR (path >= $4 AND starts_with(path, $4))) \
         ORDER BY path LIMIT $5"
    ))
    .bind(transaction.organization())
    .bind(command.session)
    .bind(&command.cursor)
    .bind(&command.prefix)
    .bind(i64::from(limit) + 1)
    .fetch_all(transaction.connection())
    .await
    .map_err(fault)?;
    let files = rows.into_iter().map(|row| row.read().map(|(_, file)| file)).collect::<Result<Vec<_>, _>>()?;
    Ok(page(files, limit, |file: &File| file.path.to_string()))
}

/// Every file of a session by path, with the content it has now.
pub async fn manifest(transaction: &mut Transaction, session: SessionId) -> Result<Vec<(ObjectId, File)>, Fault> {
    let rows: Vec<Row> = sqlx::query_as(columns!(
        "SELECT",
        "FROM session_files WHERE organization_id = $1 AND session_id = $2 AND path IS NOT NULL ORDER BY path"
    ))
    .bind(transaction.organization())
    .bind(session)
    .fetch_all(transaction.connection())
    .await
    .map_err(fault)?;
    rows.into_iter().map(Row::read).collect()
}

/// The file at a path, and the content it has now.
pub async fn get(
    transaction: &mut Transaction,
    session: SessionId,
    path: &FilePath,
) -> Result<(ObjectId, File), Fault> {
    at(transaction, session, path).await?.ok_or_else(unknown)
}

async fn at(
    transaction: &mut Transaction,
    session: SessionId,
    path: &FilePath,
) -> Result<Option<(ObjectId, File)>, Fault> {
    let row: Option<Row> = sqlx::query_as(columns!(
        "SELECT",
        "FROM session_files WHERE organization_id = $1 AND session_id = $2 AND path = $3"
    ))
    .bind(transaction.organization())
    .bind(session)
    .bind(path.as_str())
    .fetch_optional(transaction.connection())
    .await
    .map_err(fault)?;
    row.map(Row::read).transpose()
}

/// How many parts a content of the session has that is a file, or was one until a moment ago.
pub async fn parts(transaction: &mut Transaction, session: SessionId, id: ObjectId) -> Result<u32, Fault> {
    let parts: Option<i32> = sqlx::query_scalar(
        "SELECT parts FROM session_files WHERE organization_id = $1 AND session_id = $2 AND id = $3 AND sha256 IS NOT NULL",
    )
    .bind(transaction.organization())
    .bind(session)
    .bind(id)
    .fetch_optional(transaction.connection())
    .await
    .map_err(fault)?;
    Ok(parts.ok_or_else(unknown)?.cast_unsigned())
}

/// A content that is to become a file: all its parts are in the stream.
#[derive(Clone, Copy, Debug)]
pub struct Placing<'a> {
    /// Which.
    pub id: ObjectId,
    /// Where.
    pub path: &'a FilePath,
    /// How many parts were written.
    pub parts: u32,
    /// Of the whole, in hexadecimal digits.
    pub sha256: &'a str,
    /// If this holds.
    pub conditions: &'a Conditions,
}

/// Makes a content the file at a path, and dooms the one that was there.
pub async fn place(
    transaction: &mut Transaction,
    session: SessionId,
    author: Author<'_>,
    placing: Placing<'_>,
) -> Result<Written, Fault> {
    lock(transaction, session, author).await?;
    let there = at(transaction, session, placing.path).await?;
    placing.conditions.check(there.as_ref().map(|(_, file)| file.sha256.as_str()))?;
    match &there {
        Some((replaced, _)) => doom(transaction, session, *replaced).await?,
        None => check_place(transaction, session, placing.path).await?,
    }
    let row: Option<Row> = sqlx::query_as(columns!(
        "UPDATE session_files SET state = 'file', path = $4, sha256 = decode($5, 'hex'), touched_at = clock_timestamp() \
         WHERE organization_id = $1 AND session_id = $2 AND id = $3 AND state = 'writing' AND parts = $6 RETURNING",
        ""
    ))
    .bind(transaction.organization())
    .bind(session)
    .bind(placing.id)
    .bind(placing.path.as_str())
    .bind(placing.sha256)
    .bind(placing.parts.cast_signed())
    .fetch_optional(transaction.connection())
    .await
    .map_err(fault)?;
    changed(transaction, session).await?;
    let (_, file) = row.ok_or_else(|| Fault::unknown("upload"))?.read()?;
    Ok(Written { file, created: there.is_none() })
}

/// Refuses a file where a directory is, one within a file, and one too many.
async fn check_place(transaction: &mut Transaction, session: SessionId, path: &FilePath) -> Result<(), Fault> {
    let ancestors: Vec<&str> = path.ancestors().collect();
    let (within, above, files): (Option<String>, bool, i64) = sqlx::query_as(
        "SELECT min(path) FILTER (WHERE path = ANY ($3)), \
             coalesce(bool_or(starts_with(path, $4)), false), count(*) \
         FROM session_files WHERE organization_id = $1 AND session_id = $2 AND path IS NOT NULL",
    )
    .bind(transaction.organization())
    .bind(session)
    .bind(ancestors)
    .bind(format!("{path}/"))
    .fetch_one(transaction.connection())
    .await
    .map_err(fault)?;
    if let Some(file) = within {
        return Err(Fault::new(Code::Conflict, format!("`{file}` is a file, so that nothing can stand in it.")));
    }
    if above {
        return Err(Fault::new(Code::Conflict, "There is a directory of that name."));
    }
    if files >= MAX_FILES {
        return Err(Fault::new(Code::Throttled, format!("A session has at most {MAX_FILES} files.")));
    }
    Ok(())
}

/// Removes the file at a path.
pub async fn remove(
    transaction: &mut Transaction,
    session: SessionId,
    author: Author<'_>,
    path: &FilePath,
    conditions: &Conditions,
) -> Result<(), Fault> {
    lock(transaction, session, author).await?;
    let (id, file) = get(transaction, session, path).await?;
    conditions.check(Some(&file.sha256))?;
    doom(transaction, session, id).await?;
    changed(transaction, session).await
}

/// Gives up a content that is being written. Nothing happens where it is gone, or a file.
pub async fn discard(
    transaction: &mut Transaction,
    session: SessionId,
    author: Author<'_>,
    id: ObjectId,
) -> Result<(), Fault> {
    lock(transaction, session, author).await?;
    let is_writing: Option<bool> = sqlx::query_scalar(
        "SELECT state = 'writing' FROM session_files WHERE organization_id = $1 AND session_id = $2 AND id = $3",
    )
    .bind(transaction.organization())
    .bind(session)
    .bind(id)
    .fetch_optional(transaction.connection())
    .await
    .map_err(fault)?;
    if is_writing == Some(true) { doom(transaction, session, id).await } else { Ok(()) }
}

/// Dooms a content and gives its room back. The session's row is locked.
async fn doom(transaction: &mut Transaction, session: SessionId, id: ObjectId) -> Result<(), Fault> {
    sqlx::query(
        "WITH doomed AS (UPDATE session_files SET state = 'doomed', path = NULL, touched_at = clock_timestamp() \
             WHERE organization_id = $1 AND session_id = $2 AND id = $3 AND state <> 'doomed' RETURNING size_bytes) \
         UPDATE sessions SET files_bytes = files_bytes - doomed.size_bytes FROM doomed \
         WHERE organization_id = $1 AND sessions.id = $2",
    )
    .bind(transaction.organization())
    .bind(session)
    .bind(id)
    .execute(transaction.connection())
    .await
    .map(drop)
    .map_err(fault)
}

/// Something in the workspace is not as it was.
async fn changed(transaction: &mut Transaction, session: SessionId) -> Result<(), Fault> {
    sqlx::query("UPDATE sessions SET workspace_version = workspace_version + 1 WHERE organization_id = $1 AND id = $2")
        .bind(transaction.organization())
        .bind(session)
        .execute(transaction.connection())
        .await
        .map(drop)
        .map_err(fault)
}
