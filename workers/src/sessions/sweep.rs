//! The controller's sweep of sessions: those whose time is over become expired, those whose member or
//! organization is gone are ended. What follows is kept with the row, and the session pool's. A row
//! changes its state once, so that several sweeps do nothing twice.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use shared::{
    Fault,
    command::sessions::EndReason,
    db::{self, sessions::Place},
};
use tokio_util::sync::CancellationToken;

use super::{
    end,
    hooks::{By, Event, trail},
};
use crate::pools::Controller;

const EVERY: Duration = Duration::from_secs(2);
/// Sessions that are ended at once.
const AT_ONCE: usize = 4;
/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sweeps until told to stop.
pub async fn serve(parts: Arc<Controller>, stop: CancellationToken) {
    loop {
        if let Err(fault) = pass(&parts).await {
            tracing::warn!(%fault, "sessions whose time is over wait for the next sweep");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

async fn pass(parts: &Controller) -> Result<(), Fault> {
    let found = db::sessions::to_end(&parts.database).await?;
    stream::iter(found)
        .for_each_concurrent(AT_ONCE, async |(place, reason)| {
            let swept = tokio::time::timeout(PATIENCE, one(parts, place, reason)).await;
            let swept = swept.unwrap_or_else(|_| Err(Fault::timeout("The end of a session took too long.")));
            if let Err(fault) = swept {
                tracing::warn!(%fault, session = %place.id, "a session waits for the next sweep");
            }
        })
        .await;
    Ok(())
}

async fn one(parts: &Controller, place: Place, reason: EndReason) -> Result<(), Fault> {
    let mut transaction = parts.database.on_behalf_of(place.organization_id).await?;
    db::sessions::wait_briefly(&mut transaction).await?;
    let Some(session) = end(&mut transaction, place.id, reason, By::Sweep).await? else { return Ok(()) };
    transaction.commit().await?;
    metrics::counter!("switchboard_sessions_swept_total", "reason" => reason.name()).increment(1);
    // The very event that lies in the outbox; should this fail, the relay publishes it.
    let event = trail(Event::of(reason), place.organization_id, &session);
    parts.bus.audit_beside(&event).await
}
