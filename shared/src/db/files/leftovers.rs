//! What is to go: files that were replaced or removed, uploads that were given up, and the workspaces of
//! sessions that are over.

use std::time::Duration;

use sqlx::{FromRow, postgres::types::PgInterval};

use crate::{
    command::files::UPLOAD_PATIENCE_SECONDS,
    db::{Database, Transaction, fault, sessions::Place},
    fault::Fault,
    id::{ObjectId, OrganizationId, SessionId},
};

/// A content that is doomed.
#[derive(Clone, Copy, Debug, FromRow)]
pub struct Buried {
    /// Which.
    pub id: ObjectId,
    parts: i32,
    /// True when no part of it can be on its way any more: all were confirmed, or the last one was sent so
    /// long ago that whoever sent it has ended or reconnected.
    pub is_settled: bool,
}

impl Buried {
    /// How many parts there may be.
    pub const fn parts(&self) -> u32 {
        self.parts.cast_unsigned()
    }
}

/// Locks the session's row, whatever state it is in.
async fn lock(transaction: &mut Transaction, session: SessionId) -> Result<(), Fault> {
    sqlx::query("SELECT FROM sessions WHERE organization_id = $1 AND id = $2 FOR NO KEY UPDATE")
        .bind(transaction.organization())
        .bind(session)
        .execute(transaction.connection())
        .await
        .map(drop)
        .map_err(fault)
}

/// Dooms everything of a session that is over. Waits for parts on their way.
pub async fn doom_all(transaction: &mut Transaction, session: SessionId) -> Result<(), Fault> {
    doom_older(transaction, session, None).await
}

/// Dooms uploads of a session that nobody went on with for too long.
pub async fn doom_abandoned(transaction: &mut Transaction, session: SessionId) -> Result<(), Fault> {
    doom_older(transaction, session, Some(UPLOAD_PATIENCE_SECONDS)).await
}

/// Uploads that stood still for so many seconds; all contents, files too, where none are named.
async fn doom_older(transaction: &mut Transaction, session: SessionId, seconds: Option<u32>) -> Result<(), Fault> {
    lock(transaction, session).await?;
    sqlx::query(
        "WITH doomed AS (UPDATE session_files SET state = 'doomed', path = NULL, touched_at = clock_timestamp() \
             WHERE organization_id = $1 AND session_id = $2 AND state <> 'doomed' \
                 AND ($3::float8 IS NULL OR (state = 'writing' AND touched_at < clock_timestamp() - make_interval(secs => $3))) \
             RETURNING size_bytes) \
         UPDATE sessions SET files_bytes = files_bytes - (SELECT coalesce(sum(size_bytes), 0) FROM doomed)::bigint \
         WHERE organization_id = $1 AND id = $2",
    )
    .bind(transaction.organization())
    .bind(session)
    .bind(seconds.map(f64::from))
    .execute(transaction.connection())
    .await
    .map(drop)
    .map_err(fault)
}

/// What is doomed in a session.
pub async fn left(transaction: &mut Transaction, session: SessionId) -> Result<Vec<ObjectId>, Fault> {
    sqlx::query_scalar(
        "SELECT id FROM session_files WHERE organization_id = $1 AND session_id = $2 AND state = 'doomed'",
    )
    .bind(transaction.organization())
    .bind(session)
    .fetch_all(transaction.connection())
    .await
    .map_err(fault)
}

/// Holds a doomed content until the end of the transaction; `None` where it is gone, or somebody else
/// holds it.
pub async fn lock_doomed(
    transaction: &mut Transaction,
    session: SessionId,
    id: ObjectId,
) -> Result<Option<Buried>, Fault> {
    sqlx::query_as(
        "SELECT id, parts, sha256 IS NOT NULL OR touched_at < clock_timestamp() - interval '1 minute' AS is_settled \
         FROM session_files WHERE organization_id = $1 AND session_id = $2 AND id = $3 AND state = 'doomed' \
         FOR UPDATE SKIP LOCKED",
    )
    .bind(transaction.organization())
    .bind(session)
    .bind(id)
    .fetch_optional(transaction.connection())
    .await
    .map_err(fault)
}

/// Forgets a doomed content, of which nothing is in the stream any more.
pub async fn forget(transaction: &mut Transaction, session: SessionId, id: ObjectId) -> Result<(), Fault> {
    sqlx::query(
        "DELETE FROM session_files WHERE organization_id = $1 AND session_id = $2 AND id = $3 AND state = 'doomed'",
    )
    .bind(transaction.organization())
    .bind(session)
    .bind(id)
    .execute(transaction.connection())
    .await
    .map(drop)
    .map_err(fault)
}

/// Up to 100 sessions of which something is to go, after one.
pub async fn with_leftovers(database: &Database, after: Option<Place>) -> Result<Vec<Place>, Fault> {
    let age = PgInterval::try_from(Duration::from_secs(UPLOAD_PATIENCE_SECONDS.into())).map_err(Fault::internal)?;
    let mut transaction = database.on_behalf_of(OrganizationId::PLATFORM).await?;
    sqlx::query_as("SELECT organization_id, id FROM app.sessions_with_leftover_files($1, $2, $3, 100)")
        .bind(age)
        .bind(after.map(|place| place.organization_id))
        .bind(after.map(|place| place.id))
        .fetch_all(transaction.connection())
        .await
        .map_err(fault)
}
