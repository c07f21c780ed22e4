//! The wrapper around every command: deadline, role, transaction, audit. A handler cannot forget
//! any of them because none of them is its business.

use std::{
    panic::AssertUnwindSafe,
    sync::LazyLock,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::FutureExt;
use metrics::{Counter, Histogram};
use shared::{
    Code, Fault,
    audit::{Event, Notes},
    bus::{envelope::Envelope, frame::Frame},
    command::{Command, Delivery},
    context::{Context, Role},
    db,
    telemetry::Handles,
};
use uuid::Uuid;

use crate::{
    pools::Parts,
    scope::{Remains, Scope},
};

/// How a command is run. A row of the command table without this does not compile.
pub trait Run: Command {
    /// The pool's parts it needs.
    type Parts: Parts;

    /// Runs it. The deadline is enforced from outside: the future may be dropped at any await.
    fn run(self, scope: &mut Scope<'_, Self::Parts>) -> impl Future<Output = Result<Self::Reply, Fault>> + Send;
}

/// One delivery of a command.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// What was sent.
    pub envelope: &'a Envelope,
    /// Which delivery, from 1.
    pub attempt: u64,
    /// Milliseconds in the lane.
    pub queued_ms: u64,
}

/// A command that ended, one way or the other.
#[derive(Debug)]
pub struct Ended {
    /// The final frame for the caller.
    pub frame: Bytes,
    /// What goes into the audit trail.
    pub event: Event,
}

/// The largest frame that is sent; one message of NATS holds 8 MiB.
const MAX_FRAME_BYTES: usize = 7 * 1024 * 1024 + 512 * 1024;

/// Runs one delivery of command `C` to its end. Never panics, never outlasts the deadline.
pub async fn execute<C: Run>(parts: &C::Parts, job: Job<'_>) -> Ended {
    let started = Instant::now();
    let (outcome, remains) = attempt::<C>(parts, job).await;
    let ended = settle::<C>(parts, job, outcome, remains).await;
    let label = ended.event.code.map_or("done", |code| code.face().name);
    count(C::NAME, label, started.elapsed());
    log(C::NAME, job, label);
    ended
}

/// Ends a command that could not be run at all.
pub fn refuse(name: &str, job: Job<'_>, fault: Fault) -> Ended {
    let code = fault.code;
    log(name, job, code.face().name);
    Ended {
        event: event(name, job, Notes::default(), Err(code)),
        frame: Frame::<()>::Done(Err(fault)).encode().unwrap_or_default(),
    }
}

/// Tells the metrics of a command that ended.
fn count(command: &'static str, end: &'static str, elapsed: Duration) {
    type ByEnd = Handles<(&'static str, &'static str), (Counter, Histogram)>;
    static ENDS: LazyLock<ByEnd> = LazyLock::new(Handles::default);
    let (commands, seconds) = ENDS.of((command, end), |_| {
        let seconds = metrics::histogram!("switchboard_command_seconds", "command" => command);
        (metrics::counter!("switchboard_commands_total", "command" => command, "end" => end), seconds)
    });
    commands.increment(1);
    seconds.record(elapsed);
}

fn log(name: &str, job: Job<'_>, end: &str) {
    let Job { envelope, attempt, .. } = job;
    // Text as text, not by way of its formatting: a line is written for every call.
    let (mut organization, mut call) = (Uuid::encode_buffer(), Uuid::encode_buffer());
    tracing::info!(
        command = name,
        request_id = envelope.context.request_id,
        organization = envelope.context.organization.text(&mut organization),
        call = envelope.call.text(&mut call),
        attempt,
        end,
        "command"
    );
}

fn event(name: &str, job: Job<'_>, notes: Notes, end: Result<(), Code>) -> Event {
    Event::of(&job.envelope.context, name, job.envelope.call, job.attempt, notes, end)
}

async fn attempt<C: Run>(parts: &C::Parts, job: Job<'_>) -> (Result<C::Reply, Fault>, Remains) {
    let envelope = job.envelope;
    let mut context = &envelope.context;
    // Nobody gets more time than the command may take, whatever the sender wrote.
    let patience = context.deadline.remaining().min(C::DEADLINE);
    let refused = |fault| (Err(fault), Remains::default());
    if patience.is_zero() {
        return refused(Fault::timeout("The deadline passed before the command could start."));
    }
    let lowered;
    match standing::<C>(parts, context, patience).await {
        Ok(role) if role == context.actor.role => {}
        Ok(role) => {
            let mut lower = context.clone();
            lower.actor.role = role;
            lowered = lower;
            context = &lowered;
        }
        // An earlier delivery may have got further than this one: it cannot say that nothing happened.
        Err(_) if job.attempt > 1 => return refused(of_a_lost_worker()),
        Err(fault) => return refused(fault),
    }
    if !C::ACCESS.admits(&context.actor) {
        return refused(Fault::new(Code::Forbidden, "Your role does not allow this."));
    }
    if envelope.queued != (C::DELIVERY == Delivery::Queued) {
        // A queued command sent past its lane would not be bounded by it.
        return refused(Fault::new(Code::Invalid, "The command came the wrong way."));
    }
    let command: C = match envelope.unpack() {
        Ok(command) => command,
        Err(fault) => return refused(fault),
    };
    let mut scope = Scope::new(parts, job, context);
    // Boxed: the largest future of all would be copied at each layer around it, and copying memory was a
    // tenth of a worker's processor time (docs/performance.md).
    let running = AssertUnwindSafe(Box::pin(command.run(&mut scope))).catch_unwind();
    let outcome = match tokio::time::timeout(patience, running).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_panic)) => Err(Fault::internal("a command panicked")),
        Err(_) => Err(Fault::timeout("The deadline passed while the command ran.")),
    };
    (outcome, scope.remains())
}

/// How long a command waits for news that a lost connection kept from its worker.
const NEWS_PATIENCE: Duration = Duration::from_secs(5);

/// The role in which the sender may act now: they may have been removed or demoted while the command
/// was on its way, and their organization may be gone.
async fn standing<C: Run>(parts: &C::Parts, context: &Context, patience: Duration) -> Result<Role, Fault> {
    let Some(standing) = parts.standing() else { return Ok(context.actor.role) };
    if !standing.is_fresh_within(patience.min(NEWS_PATIENCE)).await {
        return Err(Fault::unavailable("The list of members", "the watch is stale"));
    }
    standing.role(context.organization, &context.actor)
}

/// What a later delivery says that cannot know how far an earlier one got.
pub fn of_a_lost_worker() -> Fault {
    Fault::new(Code::OutcomeUnknown, "A worker was lost during the call; whether the tool ran is not known.")
}

/// Keeps or drops the transaction, its audit event within it, then spreads the news.
async fn settle<C: Run>(parts: &C::Parts, job: Job<'_>, outcome: Result<C::Reply, Fault>, remains: Remains) -> Ended {
    let Remains { notes, transaction, wrote, announcements } = remains;
    let mut outcome = outcome;
    let mut kept = None;
    if let (Ok(_), Some(transaction), true) = (&outcome, transaction, wrote) {
        // The very event that is published afterwards: the trail keeps one of the two.
        let event = event(C::NAME, job, notes.clone(), Ok(()));
        match Box::pin(keep(transaction, &event)).await {
            Ok(()) => kept = Some(event),
            Err(fault) => outcome = Err(fault),
        }
    }
    if let (Ok(_), Some(announcer)) = (&outcome, parts.announcer()) {
        for announcement in &announcements {
            Box::pin(announcer.spread(announcement)).await;
        }
    }
    let end = outcome.as_ref().map(drop).map_err(|fault| fault.code);
    let (frame, end) = pack(outcome, end);
    Ended { frame, event: kept.unwrap_or_else(|| event(C::NAME, job, notes, end)) }
}

async fn keep(mut transaction: db::Transaction, event: &Event) -> Result<(), Fault> {
    db::audit::leave(&mut transaction, event).await?;
    transaction.commit().await
}

/// The final frame; a fault instead of one that no message can hold.
fn pack<T: serde::Serialize>(outcome: Result<T, Fault>, end: Result<(), Code>) -> (Bytes, Result<(), Code>) {
    let fault = match Frame::Done(outcome).encode() {
        Ok(frame) if frame.len() <= MAX_FRAME_BYTES => return (frame, end),
        Ok(_) => Fault::new(Code::UpstreamFailed, "The answer is larger than 7 MiB."),
        Err(fault) => fault,
    };
    let code = fault.code;
    (Frame::<()>::Done(Err(fault)).encode().unwrap_or_default(), Err(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_no_message_can_hold_becomes_a_fault() {
        let (frame, end) = pack(Ok("x".repeat(MAX_FRAME_BYTES)), Ok(()));
        assert_eq!(end, Err(Code::UpstreamFailed));
        assert!(
            matches!(Frame::<String>::decode(&frame), Ok(Frame::Done(Err(fault))) if fault.code == Code::UpstreamFailed)
        );
        let (frame, end) = pack(Ok("x".to_owned()), Ok(()));
        assert_eq!(end, Ok(()));
        assert!(matches!(Frame::<String>::decode(&frame), Ok(Frame::Done(Ok(text))) if text == "x"));
    }
}
