//! What reconcilers find and note of sessions: those that should be over, what must still happen, and
//! what may be forgotten.

use std::time::Duration;

use sqlx::{FromRow, postgres::types::PgInterval};

use super::{
    super::{Database, Transaction, fault},
    Row,
};
use crate::{
    command::sessions::{EndReason, Session},
    fault::Fault,
    id::{OrganizationId, SessionId},
};

/// Where a session is: what crosses organizations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromRow)]
pub struct Place {
    /// The tenant.
    pub organization_id: OrganizationId,
    /// The session.
    pub id: SessionId,
}

/// Up to 1,000 that are active and should not be, and why.
pub async fn to_end(database: &Database) -> Result<Vec<(Place, EndReason)>, Fault> {
    let mut transaction = database.on_behalf_of(OrganizationId::PLATFORM).await?;
    let rows: Vec<(OrganizationId, SessionId, String)> =
        sqlx::query_as("SELECT organization_id, id, reason FROM app.sessions_to_end(1000)")
            .fetch_all(transaction.connection())
            .await
            .map_err(fault)?;
    let read = |(organization_id, id, reason): (OrganizationId, SessionId, String)| {
        let reason = EndReason::parse(&reason).ok_or_else(|| Fault::internal("a reason the code does not know"))?;
        Ok((Place { organization_id, id }, reason))
    };
    rows.into_iter().map(read).collect()
}

/// Up to 100 of which something must still happen that is not among `others`, after one.
pub async fn with_pending(database: &Database, others: &[String], after: Option<Place>) -> Result<Vec<Place>, Fault> {
    let mut transaction = database.on_behalf_of(OrganizationId::PLATFORM).await?;
    sqlx::query_as("SELECT organization_id, id FROM app.sessions_with_hooks($1, $2, $3, 100)")
        .bind(others)
        .bind(after.map(|place| place.organization_id))
        .bind(after.map(|place| place.id))
        .fetch_all(transaction.connection())
        .await
        .map_err(fault)
}

/// A session, without what its member wrote into it, and what must still happen because of what has
/// happened to it, in that order. `None` where it is forgotten.
pub async fn pending(transaction: &mut Transaction, id: SessionId) -> Result<Option<(Session, Vec<String>)>, Fault> {
    let hooks: Option<Vec<String>> =
        sqlx::query_scalar("SELECT pending_hooks FROM sessions WHERE organization_id = $1 AND id = $2")
            .bind(transaction.organization())
            .bind(id)
            .fetch_optional(transaction.connection())
            .await
            .map_err(fault)?;
    let Some(hooks) = hooks else { return Ok(None) };
    let row: Row = sqlx::query_as(columns!(
        "SELECT",
        "'{}'::jsonb",
        "NULL::jsonb",
        "FROM sessions WHERE organization_id = $1 AND id = $2"
    ))
    .bind(transaction.organization())
    .bind(id)
    .fetch_one(transaction.connection())
    .await
    .map_err(fault)?;
    Ok(Some((row.read()?, hooks)))
}

/// These have happened to a session as it was read. Was it used since, that is still to be told.
pub async fn happened(transaction: &mut Transaction, session: &Session, hooks: &[String]) -> Result<(), Fault> {
    sqlx::query(
        "UPDATE sessions SET pending_hooks = ARRAY(SELECT hook FROM unnest(pending_hooks) WITH ORDINALITY AS t (hook, n) \
             WHERE hook <> ALL ($3::text[]) OR (hook LIKE 'session.touched/%' AND touched_at <> $4) ORDER BY n) \
         WHERE organization_id = $1 AND id = $2",
    )
    .bind(transaction.organization())
    .bind(session.id)
    .bind(hooks)
    .bind(session.touched_at)
    .execute(transaction.connection())
    .await
    .map(drop)
    .map_err(fault)
}

/// Up to 1,000 that were over for longer than `age`, with nothing left to do.
pub async fn long_gone(database: &Database, age: Duration) -> Result<Vec<Place>, Fault> {
    let age = PgInterval::try_from(age).map_err(Fault::internal)?;
    let mut transaction = database.on_behalf_of(OrganizationId::PLATFORM).await?;
    sqlx::query_as("SELECT organization_id, id FROM app.sessions_long_gone($1, 1000)")
        .bind(age)
        .fetch_all(transaction.connection())
        .await
        .map_err(fault)
}

/// Forgets those of the organization that are over and have nothing left to do, nor a row of a file.
pub async fn forget(transaction: &mut Transaction, ids: &[SessionId]) -> Result<(), Fault> {
    sqlx::query(
        "DELETE FROM sessions s WHERE organization_id = $1 AND id = ANY ($2) AND state <> 'active' \
             AND pending_hooks = '{}' AND NOT EXISTS (SELECT FROM session_files f \
                 WHERE f.organization_id = s.organization_id AND f.session_id = s.id)",
    )
    .bind(transaction.organization())
    .bind(ids.iter().map(|id| id.0).collect::<Vec<_>>())
    .execute(transaction.connection())
    .await
    .map(drop)
    .map_err(fault)
}

/// Lets the transaction wait for rows that others hold a moment only: for reconcilers, which come again.
pub async fn wait_briefly(transaction: &mut Transaction) -> Result<(), Fault> {
    sqlx::query("SELECT set_config('lock_timeout', '1s', true)")
        .execute(transaction.connection())
        .await
        .map(drop)
        .map_err(fault)
}
