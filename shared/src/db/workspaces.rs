//! The lease on a session's workspace: one call of a program at a time, on all workers together. It is
//! two columns of the session's row, so whoever writes files under it finds out in the same transaction
//! whether it is still theirs.

use std::time::Duration;

use sqlx::postgres::types::PgInterval;
use uuid::Uuid;

use super::{Transaction, fault};
use crate::{fault::Fault, id::SessionId};

/// How long a holder that is not heard of keeps it.
pub const LEASE: Duration = Duration::from_secs(10);

fn lease() -> Result<PgInterval, Fault> {
    PgInterval::try_from(LEASE).map_err(Fault::internal)
}

/// Takes the lease, unless somebody has it or the session is over; answers whether it did.
pub async fn take(transaction: &mut Transaction, session: SessionId, holder: Uuid) -> Result<bool, Fault> {
    let taken = sqlx::query(
        "UPDATE sessions SET workspace_holder = $3, workspace_held_until = clock_timestamp() + $4 \
         WHERE organization_id = $1 AND id = $2 AND state = 'active' \
             AND (workspace_holder IS NULL OR workspace_held_until <= clock_timestamp())",
    )
    .bind(transaction.organization())
    .bind(session)
    .bind(holder)
    .bind(lease()?)
    .execute(transaction.connection())
    .await
    .map_err(fault)?;
    Ok(taken.rows_affected() > 0)
}

/// Keeps it for another while, and the session in use; answers whether it was still the holder's.
pub async fn renew(transaction: &mut Transaction, session: SessionId, holder: Uuid) -> Result<bool, Fault> {
    let renewed = sqlx::query(
        "UPDATE sessions SET workspace_held_until = clock_timestamp() + $4, touched_at = clock_timestamp() \
         WHERE organization_id = $1 AND id = $2 AND state = 'active' AND workspace_holder = $3",
    )
    .bind(transaction.organization())
    .bind(session)
    .bind(holder)
    .bind(lease()?)
    .execute(transaction.connection())
    .await
    .map_err(fault)?;
    Ok(renewed.rows_affected() > 0)
}

/// Gives it back, if it is still the holder's.
pub async fn release(transaction: &mut Transaction, session: SessionId, holder: Uuid) -> Result<(), Fault> {
    sqlx::query(
        "UPDATE sessions SET workspace_holder = NULL, workspace_held_until = NULL \
         WHERE organization_id = $1 AND id = $2 AND workspace_holder = $3",
    )
    .bind(transaction.organization())
    .bind(session)
    .bind(holder)
    .execute(transaction.connection())
    .await
    .map(drop)
    .map_err(fault)
}
