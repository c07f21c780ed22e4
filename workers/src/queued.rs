//! The loop that works off lanes. A slot of an organization is held exactly as long as its call:
//! the result goes out first, then the slot is released.

use std::{sync::Arc, time::Duration};

use shared::{
    Fault,
    bus::{
        answers::Held,
        envelope::{Envelope, Refusal},
        work::Delivered,
    },
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    beginnings::Beginnings,
    pools::Dispatch,
    run::{Ended, Job},
};

mod hold;
mod load;
mod passing;

pub use load::Load;

use self::{
    hold::Hold,
    load::{Place, Turn},
    passing::{take_over, turn_or_pass_on},
};

/// What deliveries share.
#[derive(Debug)]
struct Shift<P> {
    parts: Arc<P>,
    load: Load,
    tasks: TaskTracker,
}

impl<P> Clone for Shift<P> {
    fn clone(&self) -> Self {
        let Self { parts, load, tasks } = self;
        Self { parts: Arc::clone(parts), load: load.clone(), tasks: tasks.clone() }
    }
}

/// Works until told to stop, then finishes what was delivered. A worker at its capacity keeps its
/// subscription: leaving the group while calls wait loses some. What comes waits in its hand, as much
/// as the organizations' limits allow, until there is a turn here or another worker has room.
pub async fn serve<P: Dispatch>(
    parts: Arc<P>,
    load: Load,
    beginnings: Beginnings,
    tasks: TaskTracker,
    stop: CancellationToken,
) -> Result<(), Fault> {
    let shift = Shift { parts, load, tasks };
    let (worked, taken_over) = tokio::join!(work_off(&shift, beginnings, &stop), take_over(&shift, &stop));
    worked.and(taken_over)
}

async fn work_off<P: Dispatch>(
    shift: &Shift<P>,
    beginnings: Beginnings,
    stop: &CancellationToken,
) -> Result<(), Fault> {
    let mut first = Some(beginnings);
    while !stop.is_cancelled() {
        let mut work = shift.parts.bus().work(P::POOL).await?;
        if let Some(beginnings) = first.take() {
            tokio::select! {
                () = work.wait_until_known() => beginnings.one_began(),
                () = stop.cancelled() => {}
            }
        }
        loop {
            tokio::select! {
                delivered = work.next() => match delivered {
                    Some(delivered) => take(shift, delivered),
                    None => break,
                },
                () = stop.cancelled() => break,
            }
        }
        work.end().await;
        while let Some(delivered) = work.next().await {
            take(shift, delivered);
        }
    }
    Ok(())
}

fn take<P: Dispatch>(shift: &Shift<P>, delivered: Delivered) {
    let (shift, place) = (shift.clone(), shift.load.enter());
    shift.tasks.clone().spawn(async move { one(&shift, place, delivered, None).await });
}

/// What became of a delivery.
enum Left {
    /// It ran.
    Ended(Box<(Envelope, Ended)>),
    /// It is no envelope of ours.
    Refused(Refusal),
    /// Another worker has it, and its slot.
    PassedOn,
}

async fn one<P: Dispatch>(shift: &Shift<P>, place: Place, delivered: Delivered, turn: Option<Turn>) {
    let hold = Hold::since(delivered.since);
    if hold.is_lost() {
        // It lay here while the process or its network stood still, and may be another's by now.
        tracing::warn!("a delivery from before a standstill was left to others");
        return;
    }
    let left = tokio::select! {
        left = run_in_turn(shift, &delivered, &hold, turn) => Some(left),
        () = hold.keep(&delivered.slot) => None,
    };
    match left {
        Some(Left::PassedOn) => {}
        // A frozen process wakes up with a result for a slot that was given to another: theirs counts.
        Some(Left::Ended(ended)) if !hold.is_lost() => {
            let (envelope, Ended { frame, event }) = *ended;
            // It may leave after us, with others: until then the place is taken, and the process stays.
            let ours = (delivered.slot, Box::new((place, shift.tasks.token())) as Held);
            let (bus, in_hand) = (shift.parts.bus(), shift.load.in_hand());
            bus.answer_and_release(&envelope.reply, (frame, &event), hold.lost_at(), in_hand, ours).await;
        }
        Some(Left::Refused(refusal)) => {
            tracing::warn!(reason = refusal.reason(), "a queued message was refused");
            metrics::counter!("switchboard_messages_refused_total", "reason" => refusal.reason()).increment(1);
            delivered.slot.release().await;
        }
        Some(Left::Ended(..)) | None => tracing::warn!(?delivered, "the slot was lost; the call was aborted"),
    }
}

async fn run_in_turn<P: Dispatch>(shift: &Shift<P>, delivered: &Delivered, hold: &Hold, turn: Option<Turn>) -> Left {
    let parts = &*shift.parts;
    let _turn = match turn.or_else(|| shift.load.turn_now()) {
        Some(turn) => turn,
        None => match Box::pin(turn_or_pass_on(parts, &shift.load, delivered, hold)).await {
            Some(turn) => turn,
            None => return Left::PassedOn,
        },
    };
    let envelope = match delivered.envelope() {
        Ok(envelope) => envelope,
        Err(refusal) => return Left::Refused(refusal),
    };
    let attempt = delivered.attempt;
    let queued_ms = shared::context::now_unix_ms().saturating_sub(delivered.queued_at_ms);
    shift.load.queued(Duration::from_millis(queued_ms));
    if attempt > 1 {
        metrics::counter!("switchboard_calls_redelivered_total").increment(1);
    }
    let ended = parts.dispatch(Job { envelope: &envelope, attempt, queued_ms }).await;
    Left::Ended(Box::new((envelope, ended)))
}
