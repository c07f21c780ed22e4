//! The relay of the outbox: publishes events whose worker committed and then did not live to.

use std::{sync::Arc, time::Duration};

use shared::{Fault, db};
use tokio_util::sync::CancellationToken;

use crate::pools::Audit;

const EVERY: Duration = Duration::from_secs(15);
/// Younger ones are still on their way through the stream.
const LEFT_BEHIND: Duration = Duration::from_secs(30);

/// Relays until told to stop.
pub async fn serve(parts: Arc<Audit>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = stop.cancelled() => return,
        }
        if let Err(fault) = relay(&parts).await {
            tracing::warn!(%fault, "the outbox waits");
        }
    }
}

async fn relay(parts: &Audit) -> Result<(), Fault> {
    db::audit::ensure_partitions(&parts.database).await?;
    for leftover in db::audit::leftovers(&parts.database, LEFT_BEHIND).await? {
        parts.bus.audit_and_wait(leftover.organization_id, leftover.event_id, leftover.event.into()).await?;
        metrics::counter!("switchboard_audit_events_total", "fate" => "relayed").increment(1);
    }
    Ok(())
}
