//! The loop that works off lanes. A slot of an organization is held exactly as long as its call:
//! the result goes out first, then the slot is released.

use std::{sync::Arc, time::Duration};

use shared::{
    Fault,
    bus::work::{Delivered, Slot},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{direct::answer, pools::Dispatch, run::Job};

mod hold;
mod load;

pub use load::Load;

use self::{hold::Hold, load::Place};

/// What deliveries share.
#[derive(Debug)]
struct Shift<P> {
    parts: Arc<P>,
    load: Load,
    tasks: TaskTracker,
}

/// Works until told to stop, then finishes what was delivered. A worker over its capacity keeps its
/// subscription, and what comes waits in hand with its slot kept: a subscription that is ended and made
/// anew under load loses about one delivery in a thousand, which then counts as a second attempt.
pub async fn serve<P: Dispatch>(
    parts: Arc<P>,
    load: Load,
    tasks: TaskTracker,
    stop: CancellationToken,
) -> Result<(), Fault> {
    let shift = Shift { parts, load, tasks };
    while !stop.is_cancelled() {
        let mut work = shift.parts.bus().work(P::POOL).await?;
        loop {
            tokio::select! {
                delivered = work.next() => match delivered {
                    Some(delivered) => take(&shift, delivered),
                    None => break,
                },
                () = stop.cancelled() => break,
            }
        }
        work.end().await;
        while let Some(delivered) = work.next().await {
            take(&shift, delivered);
        }
    }
    Ok(())
}

fn take<P: Dispatch>(shift: &Shift<P>, delivered: Delivered) {
    let (place, parts) = (shift.load.enter(), Arc::clone(&shift.parts));
    shift.tasks.spawn(async move { one(&*parts, delivered, place).await });
}

async fn one<P: Dispatch>(parts: &P, delivered: Delivered, place: Place) {
    let hold = Hold::since(delivered.since);
    if hold.is_lost() {
        // It lay here while the process or its network stood still, and may be another's by now.
        tracing::warn!("a delivery from before a standstill was left to others");
        return;
    }
    let Delivered { envelope, attempt, queued_at_ms, slot, .. } = delivered;
    match envelope {
        Ok(envelope) => {
            let queued_ms = shared::context::now_unix_ms().saturating_sub(queued_at_ms);
            run_in_slot(parts, Job { envelope: &envelope, attempt, queued_ms }, &slot, &hold, &place).await;
        }
        Err(refusal) => {
            tracing::warn!(reason = refusal.reason(), "a queued message was refused");
            metrics::counter!("switchboard_messages_refused_total", "reason" => refusal.reason()).increment(1);
            release(&slot).await;
        }
    }
}

async fn run_in_slot<P: Dispatch>(parts: &P, job: Job<'_>, slot: &Slot, hold: &Hold, place: &Place) {
    metrics::histogram!("switchboard_call_queued_seconds").record(Duration::from_millis(job.queued_ms));
    if job.attempt > 1 {
        metrics::counter!("switchboard_calls_redelivered_total").increment(1);
    }
    let run = async {
        // Over the worker's capacity a call waits here, its slot kept.
        let _turn = place.turn().await;
        parts.dispatch(job).await
    };
    let ended = tokio::select! {
        ended = run => Some(ended),
        () = hold.keep(slot) => None,
    };
    // A frozen process wakes up with a result for a slot that was given to another: theirs counts.
    if let Some(ended) = ended.filter(|_| !hold.is_lost()) {
        answer(parts.bus(), job.envelope, ended).await;
        release(slot).await;
    } else {
        tracing::warn!(call = %job.envelope.call, "the slot was lost; the call was aborted");
    }
}

async fn release(slot: &Slot) {
    if let Err(fault) = slot.release().await {
        // The server will deliver it again; the audit id and the redelivery rule make that harmless.
        tracing::warn!(%fault, "a slot's release was not confirmed");
    }
}
