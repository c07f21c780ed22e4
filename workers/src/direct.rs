//! The loop that answers direct commands.

use std::{sync::Arc, time::Duration};

use moka::sync::Cache;
use shared::{
    Code, Deadline, Fault,
    bus::{Bus, envelope::Envelope},
    id::OrganizationId,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    beginnings::Beginnings,
    pools::Dispatch,
    run::{Ended, Job, refuse},
};

/// Direct commands one worker runs at once.
const CONCURRENCY: usize = 256;
/// Of them, those of one organization.
const PER_ORGANIZATION: usize = 32;
/// Those of one organization that may wait for their turn; more are refused at once.
const WAITING_PER_ORGANIZATION: usize = 64;

/// Answers until told to stop, then finishes what was delivered.
pub async fn serve<P: Dispatch>(
    parts: Arc<P>,
    beginnings: Beginnings,
    tasks: TaskTracker,
    stop: CancellationToken,
) -> Result<(), Fault> {
    let mut service = parts.bus().serve(P::POOL).await?;
    tokio::select! {
        () = service.wait_until_known() => beginnings.one_began(),
        () = stop.cancelled() => {}
    }
    let turns = Turns::default();
    let mut ending = false;
    loop {
        let message = tokio::select! {
            message = service.next() => message,
            () = stop.cancelled(), if !ending => {
                ending = true;
                service.end().await;
                continue;
            }
        };
        let envelope = match message {
            Some(Ok(envelope)) => envelope,
            Some(Err(refusal)) => {
                tracing::warn!(reason = refusal.reason(), pool = P::POOL.name(), "a message was refused");
                metrics::counter!("switchboard_messages_refused_total", "reason" => refusal.reason()).increment(1);
                continue;
            }
            None => return Ok(()),
        };
        let (parts, turns) = (Arc::clone(&parts), turns.clone());
        tasks.spawn(async move {
            let ended = one(&*parts, &turns, &envelope).await;
            answer(parts.bus(), &envelope, ended).await;
        });
    }
}

async fn one<P: Dispatch>(parts: &P, turns: &Turns, envelope: &Envelope) -> Ended {
    let job = Job { envelope, attempt: 1, queued_ms: 0 };
    if let Some(_turn) = turns.take(envelope.context.organization, envelope.context.deadline).await {
        parts.dispatch(job).await
    } else {
        let fault =
            Fault::new(Code::Throttled, "The organization has too much under way.").after(Duration::from_secs(1));
        refuse(&envelope.command, job, fault)
    }
}

/// Sends the result and the audit event.
async fn answer(bus: &Bus, envelope: &Envelope, ended: Ended) {
    if let Err(fault) = bus.answer(&envelope.reply, ended.frame, &ended.event, None).await {
        tracing::error!(%fault, request_id = envelope.context.request_id, "an answer was not sent");
    }
}

/// One organization's burst shall take neither all places of a worker nor its memory.
#[derive(Clone, Debug)]
struct Turns {
    room: Arc<Semaphore>,
    organizations: Cache<OrganizationId, Arc<Queue>>,
}

#[derive(Debug)]
struct Queue {
    turns: Arc<Semaphore>,
    places: Arc<Semaphore>,
}

/// A turn: given back when dropped, the organization's before the worker's.
#[derive(Debug)]
struct Turn {
    _place: OwnedSemaphorePermit,
    _own: OwnedSemaphorePermit,
    _room: OwnedSemaphorePermit,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            room: Arc::new(Semaphore::new(CONCURRENCY)),
            organizations: Cache::builder().time_to_idle(Duration::from_mins(10)).build(),
        }
    }
}

impl Turns {
    /// A turn by the deadline; `None` when too many wait already, or it passed.
    async fn take(&self, organization: OrganizationId, deadline: Deadline) -> Option<Turn> {
        let queue = self.organizations.get_with(organization, || {
            Arc::new(Queue {
                turns: Arc::new(Semaphore::new(PER_ORGANIZATION)),
                places: Arc::new(Semaphore::new(PER_ORGANIZATION + WAITING_PER_ORGANIZATION)),
            })
        });
        let place = Arc::clone(&queue.places).try_acquire_owned().ok()?;
        let wait = async {
            let turn = Arc::clone(&queue.turns).acquire_owned().await.ok()?;
            // Last, so that who waits for a turn of its own holds no place of the worker.
            let room = Arc::clone(&self.room).acquire_owned().await.ok()?;
            Some(Turn { _place: place, _own: turn, _room: room })
        };
        tokio::time::timeout(deadline.remaining(), wait).await.ok()?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_organization_cannot_take_all_places() {
        let (turns, greedy, other) = (Turns::default(), OrganizationId::new(), OrganizationId::new());
        let soon = || Deadline::after(Duration::from_millis(50));
        let mut held = Vec::new();
        for _ in 0..PER_ORGANIZATION {
            held.push(turns.take(greedy, soon()).await.expect("a turn"));
        }
        let waiting: Vec<_> = (0..2 * WAITING_PER_ORGANIZATION).map(|_| turns.take(greedy, soon())).collect();
        assert!(futures::future::join_all(waiting).await.iter().all(Option::is_none));
        assert!(turns.take(other, soon()).await.is_some());
        held.pop();
        assert!(turns.take(greedy, soon()).await.is_some());
    }
}
