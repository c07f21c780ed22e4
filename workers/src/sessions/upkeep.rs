//! The session pool's reconciler of sessions: runs what must still happen after something happened to
//! one, whoever's command it followed from and whatever became of that worker; and forgets sessions that
//! have long been over.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use shared::{
    Fault,
    db::{
        self,
        sessions::{Place, with_pending},
    },
};
use tokio_util::sync::CancellationToken;

use super::hooks;
use crate::pools::Session;

/// How often it is looked for what others left; what this worker's own commands leave is told to it.
const EVERY: Duration = Duration::from_secs(2);
/// How often sessions are forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(10);
/// Sessions whose hooks run at once.
const AT_ONCE: usize = 8;
const DAY: Duration = Duration::from_hours(24);

/// Reconciles until told to stop.
pub async fn serve(parts: Arc<Session>, stop: CancellationToken) {
    let mut connections = parts.bus.connections();
    let mut forgotten: Option<Instant> = None;
    loop {
        connections.borrow_and_update();
        // Every hook needs NATS: without it the list would only be run through again and again.
        if parts.bus.is_connected() {
            if let Err(fault) = pass(&parts).await {
                tracing::warn!(%fault, "sessions wait for their hooks; the next pass goes on");
            }
            if forgotten.is_none_or(|at| at.elapsed() >= FORGET_EVERY) {
                forgotten = Some(Instant::now());
                if let Err(fault) = forget(&parts).await {
                    tracing::warn!(%fault, "old sessions are not forgotten yet");
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
            () = parts.announcer.happened.notified() => {}
            Ok(()) = connections.changed() => {}
        }
    }
}

async fn pass(parts: &Session) -> Result<(), Fault> {
    let mut after = None;
    loop {
        let places = with_pending(&parts.database, after).await?;
        let Some(last) = places.last().copied() else { return Ok(()) };
        stream::iter(places)
            .for_each_concurrent(AT_ONCE, async |place| {
                if let Err(fault) = one(parts, place).await {
                    tracing::warn!(%fault, session = %place.id, "a session waits for its hooks");
                }
            })
            .await;
        after = Some(last);
    }
}

/// Runs the hooks of one session in their order, each whatever becomes of the others. No transaction is
/// open meanwhile.
async fn one(parts: &Session, place: Place) -> Result<(), Fault> {
    let mut transaction = parts.database.on_behalf_of(place.organization_id).await?;
    let found = db::sessions::pending(&mut transaction, place.id).await?;
    drop(transaction);
    let Some((session, hooks)) = found else { return Ok(()) };
    let mut done = Vec::new();
    for hook in hooks {
        if hooks::run(parts, place.organization_id, &session, &hook).await {
            done.push(hook);
        }
    }
    if done.is_empty() {
        return Ok(());
    }
    let mut transaction = parts.database.on_behalf_of(place.organization_id).await?;
    db::sessions::happened(&mut transaction, place.id, &done).await?;
    transaction.commit().await
}

async fn forget(parts: &Session) -> Result<(), Fault> {
    let age = DAY * u32::from(parts.sessions.kept_days);
    for place in db::sessions::long_gone(&parts.database, age).await? {
        let mut transaction = parts.database.on_behalf_of(place.organization_id).await?;
        db::sessions::forget(&mut transaction, place.id).await?;
        transaction.commit().await?;
    }
    Ok(())
}
