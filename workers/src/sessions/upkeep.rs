//! The session pool's reconciler of sessions: runs what must still happen after something happened to
//! one, whoever's command it followed from and whatever became of that worker; and forgets sessions that
//! have long been over. Removing a workspace takes as long as it is large, and so it has a loop of its own.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use shared::{
    Fault,
    db::{
        self,
        sessions::{Place, with_pending},
    },
    id::SessionId,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::hooks::{self, Effort};
use crate::pools::Session;

/// How often it is looked for what others left; what this worker's own commands leave is told to it.
const EVERY: Duration = Duration::from_secs(2);
/// How often sessions are forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(10);
/// How long the hooks of one session may take together, and those that remove its workspace.
const PATIENCE: Duration = Duration::from_secs(30);
const WORKSPACE_PATIENCE: Duration = Duration::from_secs(75);
/// How long a session waits at most whose hooks failed again and again.
const MOST_PAUSE: Duration = Duration::from_secs(30);
const DAY: Duration = Duration::from_hours(24);

/// Reconciles until told to stop.
pub async fn serve(parts: Arc<Session>, stop: CancellationToken) {
    let happened = Arc::clone(&parts.announcer.happened);
    let more = Arc::new(Notify::new());
    let (messages, workspaces) = (Upkeep::new(&parts, Effort::Message), Upkeep::new(&parts, Effort::Workspace));
    tokio::join!(
        messages.serve(&happened, Some(&more), &stop),
        workspaces.serve(&more, None, &stop),
        forget_all(&parts, &stop)
    );
}

/// Runs the hooks of one effort.
struct Upkeep<'a> {
    parts: &'a Session,
    effort: Effort,
    others: Vec<String>,
    failed: Mutex<HashMap<SessionId, Pause>>,
}

/// How long a session waits whose hooks failed.
#[derive(Clone, Copy, Debug)]
struct Pause {
    length: Duration,
    until: Instant,
}

impl<'a> Upkeep<'a> {
    fn new(parts: &'a Session, effort: Effort) -> Self {
        Self { parts, effort, others: hooks::others(effort), failed: Mutex::default() }
    }

    /// Sessions whose hooks run at once, and for how long.
    const fn bounds(&self) -> (usize, Duration) {
        match self.effort {
            Effort::Message => (8, PATIENCE),
            Effort::Workspace => (3, WORKSPACE_PATIENCE),
        }
    }

    async fn serve(&self, happened: &Notify, more: Option<&Notify>, stop: &CancellationToken) {
        let mut connections = self.parts.bus.connections();
        loop {
            connections.borrow_and_update();
            // Every hook needs NATS: without it the list would only be run through again and again.
            if self.parts.bus.is_connected() {
                tokio::select! {
                    () = stop.cancelled() => return,
                    passed = self.pass() => {
                        if let Err(fault) = passed {
                            tracing::warn!(%fault, "sessions wait for their hooks; the next pass goes on");
                        }
                    }
                }
                if let Some(more) = more {
                    more.notify_one();
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
                () = happened.notified() => {}
                Ok(()) = connections.changed() => self.pauses().clear(),
            }
        }
    }

    async fn pass(&self) -> Result<(), Fault> {
        let (at_once, patience) = self.bounds();
        // Whoever is not heard of any more is done, by another worker.
        self.pauses().retain(|_, pause| pause.until.elapsed() < 2 * MOST_PAUSE);
        let mut after = None;
        loop {
            let places = with_pending(&self.parts.database, &self.others, after).await?;
            let Some(last) = places.last().copied() else { return Ok(()) };
            stream::iter(places.into_iter().filter(|place| self.is_due(place.id)))
                .for_each_concurrent(at_once, async |place| {
                    let ran = tokio::time::timeout(patience, self.one(place)).await;
                    let ran = ran.unwrap_or_else(|_| Err(Fault::timeout("What follows took too long.")));
                    if let Err(fault) = &ran {
                        tracing::warn!(%fault, session = %place.id, "a session waits for its hooks");
                    }
                    self.note(place.id, matches!(ran, Ok(true)));
                })
                .await;
            after = Some(last);
        }
    }

    /// Runs the hooks of one session in their order, each whatever becomes of the others, except that
    /// nothing is told before what happened earlier. No transaction is open meanwhile. Answers whether all
    /// are done.
    async fn one(&self, place: Place) -> Result<bool, Fault> {
        let mut transaction = self.parts.database.on_behalf_of(place.organization_id).await?;
        let found = db::sessions::pending(&mut transaction, place.id).await?;
        transaction.give_up().await?;
        let Some((session, mut pending)) = found else { return Ok(true) };
        pending.retain(|hook| !self.others.contains(hook));
        let (mut done, mut is_behind) = (Vec::new(), false);
        for hook in &pending {
            if is_behind && hooks::is_told(hook) {
                continue;
            }
            if hooks::run(self.parts, place.organization_id, &session, hook).await {
                done.push(hook.clone());
            } else {
                is_behind |= hooks::is_told(hook);
            }
        }
        if !done.is_empty() {
            let mut transaction = self.parts.database.on_behalf_of(place.organization_id).await?;
            db::sessions::wait_briefly(&mut transaction).await?;
            db::sessions::happened(&mut transaction, &session, &done).await?;
            transaction.commit().await?;
        }
        Ok(done.len() == pending.len())
    }

    fn pauses(&self) -> std::sync::MutexGuard<'_, HashMap<SessionId, Pause>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_due(&self, id: SessionId) -> bool {
        self.pauses().get(&id).is_none_or(|pause| pause.until <= Instant::now())
    }

    fn note(&self, id: SessionId, is_done: bool) {
        let mut pauses = self.pauses();
        if is_done {
            pauses.remove(&id);
            return;
        }
        let length = pauses.get(&id).map_or(EVERY / 2, |pause| (pause.length * 2).min(MOST_PAUSE));
        pauses.insert(id, Pause { length, until: Instant::now() + length });
    }
}

async fn forget_all(parts: &Session, stop: &CancellationToken) {
    loop {
        let forgotten = tokio::time::timeout(PATIENCE, forget(parts)).await;
        let forgotten = forgotten.unwrap_or_else(|_| Err(Fault::timeout("Forgetting took too long.")));
        if let Err(fault) = forgotten {
            tracing::warn!(%fault, "old sessions are not forgotten yet");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(FORGET_EVERY) => {}
        }
    }
}

/// A transaction for each organization.
async fn forget(parts: &Session) -> Result<(), Fault> {
    let age = DAY * u32::from(parts.sessions.kept_days);
    let mut by_organization = BTreeMap::<_, Vec<SessionId>>::new();
    for place in db::sessions::long_gone(&parts.database, age).await? {
        by_organization.entry(place.organization_id.0).or_default().push(place.id);
    }
    for (organization, ids) in by_organization {
        let mut transaction = parts.database.on_behalf_of(shared::id::OrganizationId(organization)).await?;
        db::sessions::wait_briefly(&mut transaction).await?;
        db::sessions::forget(&mut transaction, &ids).await?;
        transaction.commit().await?;
    }
    Ok(())
}
