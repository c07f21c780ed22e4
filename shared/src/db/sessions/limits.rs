//! How many sessions may be open, and be opened.

use std::time::Duration;

use super::super::{Transaction, fault, is_locked};
use crate::{
    command::organizations::Organization,
    fault::{Code, Fault},
    id::UserId,
};

/// Refuses one session more than the organization, or one member of it, may have open.
pub async fn check_room(transaction: &mut Transaction, user: UserId, organization: &Organization) -> Result<(), Fault> {
    let (all, own): (i64, i64) = sqlx::query_as(
        "SELECT count(*), count(*) FILTER (WHERE user_id = $2) FROM sessions \
         WHERE organization_id = $1 AND state = 'active' AND usable_until > clock_timestamp()",
    )
    .bind(transaction.organization())
    .bind(user)
    .fetch_one(transaction.connection())
    .await
    .map_err(fault)?;
    if own >= i64::from(organization.user_session_limit) {
        let limit = organization.user_session_limit;
        return throttled(format!("You have {limit} sessions open, as many as one member may (user_session_limit)."));
    }
    if all >= i64::from(organization.session_limit) {
        let limit = organization.session_limit;
        return throttled(format!("The organization has {limit} sessions open, as many as it may (session_limit)."));
    }
    check_pace(transaction, user, organization).await
}

fn throttled(message: String) -> Result<(), Fault> {
    Err(Fault::new(Code::Throttled, message).after(Duration::from_mins(1)))
}

/// Sessions that may be opened in an hour, for each that may be open: what is over leaves a row behind for
/// days, and news of its end.
const OPENINGS_PER_HOUR: i64 = 20;

/// Refuses whoever opens and ends sessions without end.
async fn check_pace(transaction: &mut Transaction, user: UserId, organization: &Organization) -> Result<(), Fault> {
    let (all, own): (i64, i64) = sqlx::query_as(
        "SELECT count(*), count(*) FILTER (WHERE user_id = $2) FROM sessions \
         WHERE organization_id = $1 AND created_at > clock_timestamp() - interval '1 hour'",
    )
    .bind(transaction.organization())
    .bind(user)
    .fetch_one(transaction.connection())
    .await
    .map_err(fault)?;
    let most = OPENINGS_PER_HOUR * i64::from(organization.user_session_limit);
    if own >= most {
        return throttled(format!("You opened {own} sessions within an hour; a member may open {most}."));
    }
    let most = OPENINGS_PER_HOUR * i64::from(organization.session_limit);
    if all >= most {
        return throttled(format!("The organization opened {all} sessions within an hour; it may open {most}."));
    }
    Ok(())
}

/// Lets one transaction of the organization at a time count sessions and add one, until its end. Whoever
/// holds the turn may stand still: nobody waits for it long, with a connection that others need.
pub async fn take_turn(transaction: &mut Transaction) -> Result<(), Fault> {
    sqlx::query(
        "SELECT set_config('lock_timeout', '2s', true), pg_advisory_xact_lock(hashtextextended($1, 0)), \
             set_config('lock_timeout', '10s', true)",
    )
    .bind(format!("sessions of {}", transaction.organization()))
    .execute(transaction.connection())
    .await
    .map(drop)
    .map_err(|cause| if is_locked(&cause) { busy() } else { fault(cause) })
}

/// Others are opening sessions of the organization.
pub fn busy() -> Fault {
    Fault::new(Code::Throttled, "Many sessions of the organization are being opened.").after(Duration::from_secs(1))
}
