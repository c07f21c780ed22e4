//! The loop that answers direct commands.

use std::{sync::Arc, time::Duration};

use moka::sync::Cache;
use shared::{
    Code, Fault,
    bus::{Bus, envelope::Envelope},
    id::OrganizationId,
};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    pools::Dispatch,
    run::{Ended, Job, refuse},
};

/// Direct commands one worker runs at once.
const CONCURRENCY: usize = 256;
/// Of them, those of one organization.
const PER_ORGANIZATION: usize = 32;

/// Answers until told to stop, then finishes what was delivered.
pub async fn serve<P: Dispatch>(parts: Arc<P>, tasks: TaskTracker, stop: CancellationToken) -> Result<(), Fault> {
    let mut service = parts.bus().serve(P::POOL).await?;
    let room = Arc::new(Semaphore::new(CONCURRENCY));
    let turns = Turns::default();
    let mut draining = false;
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return Ok(()) };
        let message = tokio::select! {
            message = service.next() => message,
            () = stop.cancelled(), if !draining => {
                draining = true;
                service.drain().await;
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
            drop(place);
        });
    }
}

async fn one<P: Dispatch>(parts: &P, turns: &Turns, envelope: &Envelope) -> Ended {
    let job = Job { envelope, attempt: 1, queued_ms: 0 };
    let turn = turns.of(envelope.context.organization);
    match tokio::time::timeout(envelope.context.deadline.remaining(), turn.acquire()).await {
        Ok(Ok(_turn)) => parts.dispatch(job).await,
        _ => {
            let fault = Fault::new(Code::Throttled, "The organization has too much under way.").after(Duration::from_secs(1));
            refuse(&envelope.command, job, fault)
        }
    }
}

/// Sends the result, then the audit event: the caller tells a lost audit stream from lost workers
/// by that order.
pub async fn answer(bus: &Bus, envelope: &Envelope, ended: Ended) {
    let sent = match bus.reply(&envelope.reply, ended.frame).await {
        Ok(()) => bus.audit(&ended.event, &envelope.reply).await,
        failed => failed,
    };
    if let Err(fault) = sent {
        tracing::error!(%fault, request_id = envelope.context.request_id, "an answer was not sent");
    }
}

/// One organization's burst shall not take all places of a worker.
#[derive(Clone, Debug)]
struct Turns(Cache<OrganizationId, Arc<Semaphore>>);

impl Default for Turns {
    fn default() -> Self {
        Self(Cache::builder().time_to_idle(Duration::from_secs(600)).build())
    }
}

impl Turns {
    fn of(&self, organization: OrganizationId) -> Arc<Semaphore> {
        self.0.get_with(organization, || Arc::new(Semaphore::new(PER_ORGANIZATION)))
    }
}
