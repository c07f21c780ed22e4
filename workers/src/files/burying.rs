//! Removing what is no file any more: its parts first, then its row. Every worker of the session pool
//! does it, told by its own commands and by looking each some seconds. All of it may be done twice, and by
//! two at once: no part of a doomed content is written any more.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt as _, stream};
use shared::{
    Fault,
    bus::{Bus, files::Object},
    db::{self, Database, sessions::Place},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::pools::Session;

/// How often all sessions are looked at.
const EVERY: Duration = Duration::from_secs(10);
/// Sessions that are known to have something to remove; more are found by looking.
const KNOWN: usize = 1_024;
/// Sessions whose leftovers are removed at once: half of the connections that a worker has by default.
const AT_ONCE: usize = 4;

/// Where sessions are named of which something is to be removed.
pub type Leftovers = mpsc::Sender<Place>;

/// The two ends of that.
pub fn leftovers() -> (Leftovers, mpsc::Receiver<Place>) {
    mpsc::channel(KNOWN)
}

/// Removes until told to stop.
pub async fn serve(parts: Arc<Session>, mut known: mpsc::Receiver<Place>, stop: CancellationToken) {
    let mut look = tokio::time::interval(EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let mut places = Vec::new();
        tokio::select! {
            () = stop.cancelled() => return,
            1.. = known.recv_many(&mut places, KNOWN) => attempt_all(&parts, places).await,
            _ = look.tick() => {
                if let Err(fault) = pass(&parts).await {
                    tracing::warn!(%fault, "leftover files were not looked for; the next pass will");
                }
            }
        }
    }
}

async fn pass(parts: &Session) -> Result<(), Fault> {
    let mut after = None;
    loop {
        let places = db::files::with_leftovers(&parts.database, after).await?;
        let Some(last) = places.last().copied() else { return Ok(()) };
        attempt_all(parts, places).await;
        after = Some(last);
    }
}

async fn attempt_all(parts: &Session, places: Vec<Place>) {
    stream::iter(places).for_each_concurrent(AT_ONCE, async |place| attempt(parts, place).await).await;
}

/// One session whose files cannot be removed now keeps nobody else's.
async fn attempt(parts: &Session, place: Place) {
    if let Err(fault) = of_session(&parts.database, &parts.bus, place).await {
        tracing::warn!(%fault, session = %place.id, "leftover files were not removed; the next pass tries again");
    }
}

async fn of_session(database: &Database, bus: &Bus, place: Place) -> Result<(), Fault> {
    let mut transaction = database.on_behalf_of(place.organization_id).await?;
    db::files::doom_abandoned(&mut transaction, place.id).await?;
    transaction.commit().await?;
    bury(database, bus, place).await
}

/// Removes the workspace of a session that is over. May be repeated.
pub async fn workspace(database: &Database, bus: &Bus, place: Place) -> Result<(), Fault> {
    let mut transaction = database.on_behalf_of(place.organization_id).await?;
    db::sessions::wait_briefly(&mut transaction).await?;
    db::files::doom_all(&mut transaction, place.id).await?;
    transaction.commit().await?;
    bury(database, bus, place).await
}

/// Removes what is doomed in a session. What cannot be removed now keeps nothing else.
async fn bury(database: &Database, bus: &Bus, place: Place) -> Result<(), Fault> {
    let mut transaction = database.on_behalf_of(place.organization_id).await?;
    let left = db::files::left(&mut transaction, place.id).await?;
    transaction.give_up().await?;
    let (mut gone, mut removed, mut failed) = (Vec::new(), Vec::new(), None);
    for doomed in left {
        let object = Object { organization: place.organization_id, session: place.id, id: doomed.id };
        match bus.remove_parts(&object, doomed.parts()).await {
            Ok(()) if doomed.is_settled => gone.push(doomed.id),
            // Once more, when nothing of it can be on its way any more.
            Ok(()) => removed.push(doomed.id),
            Err(fault) => {
                failed.get_or_insert(fault);
            }
        }
    }
    if !gone.is_empty() || !removed.is_empty() {
        let mut transaction = database.on_behalf_of(place.organization_id).await?;
        db::files::forget(&mut transaction, place.id, &gone).await?;
        db::files::removed(&mut transaction, place.id, &removed).await?;
        transaction.commit().await?;
        metrics::counter!("switchboard_files_contents_removed_total").increment(gone.len() as u64);
    }
    failed.map_or(Ok(()), Err)
}
