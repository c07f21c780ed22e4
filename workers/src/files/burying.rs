//! Removing what is no file any more: its parts first, then its row. Every worker of the session pool
//! does it, told by its own commands and by looking each some seconds; what one is busy with, the others
//! pass by. Nothing here may be done only once.

use std::{sync::Arc, time::Duration};

use shared::{
    Fault,
    bus::{Bus, files::Object},
    db::{self, Database, sessions::Place},
    id::ObjectId,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::pools::Session;

/// How often all sessions are looked at.
const EVERY: Duration = Duration::from_secs(10);
/// Sessions that are known to have something to remove; more are found by looking.
const KNOWN: usize = 1_024;

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
        tokio::select! {
            () = stop.cancelled() => return,
            Some(place) = known.recv() => attempt(&parts, place).await,
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
        for place in places {
            attempt(parts, place).await;
        }
        after = Some(last);
    }
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

/// Removes what is doomed in a session.
async fn bury(database: &Database, bus: &Bus, place: Place) -> Result<(), Fault> {
    let mut transaction = database.on_behalf_of(place.organization_id).await?;
    let left = db::files::left(&mut transaction, place.id).await?;
    transaction.give_up().await?;
    for id in left {
        bury_one(database, bus, place, id).await?;
    }
    Ok(())
}

async fn bury_one(database: &Database, bus: &Bus, place: Place, id: ObjectId) -> Result<(), Fault> {
    let mut transaction = database.on_behalf_of(place.organization_id).await?;
    let Some(doomed) = db::files::lock_doomed(&mut transaction, place.id, id).await? else { return Ok(()) };
    let object = Object { organization: place.organization_id, session: place.id, id };
    bus.remove_parts(&object, doomed.parts()).await?;
    if doomed.is_settled {
        db::files::forget(&mut transaction, place.id, id).await?;
        metrics::counter!("switchboard_files_contents_removed_total").increment(1);
    }
    transaction.commit().await
}
