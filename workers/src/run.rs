//! The wrapper around every command: deadline, role, transaction, audit. A handler cannot forget
//! any of them because none of them is its business.

use std::{panic::AssertUnwindSafe, time::Instant};

use bytes::Bytes;
use futures::FutureExt;
use shared::{
    Code, Fault,
    audit::{Event, Notes},
    bus::{envelope::Envelope, frame::Frame},
    command::Command,
    db,
};

use crate::{pools::Parts, scope::{Remains, Scope}};

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

/// Runs one delivery of command `C` to its end. Never panics, never outlasts the deadline.
pub async fn execute<C: Run>(parts: &C::Parts, job: Job<'_>) -> Ended {
    let started = Instant::now();
    let (outcome, notes) = attempt::<C>(parts, job).await;
    let end = outcome.as_ref().map(drop).map_err(|fault| fault.code);
    let label = end.err().map_or("done", |code| code.face().name);
    metrics::counter!("switchboard_commands_total", "command" => C::NAME, "end" => label).increment(1);
    metrics::histogram!("switchboard_command_seconds", "command" => C::NAME).record(started.elapsed());
    finish(C::NAME, job, outcome, &notes)
}

/// Ends a command that could not be run at all.
pub fn refuse(name: &str, job: Job<'_>, fault: Fault) -> Ended {
    finish::<()>(name, job, Err(fault), &Notes::default())
}

fn finish<T: serde::Serialize>(name: &str, job: Job<'_>, outcome: Result<T, Fault>, notes: &Notes) -> Ended {
    let Job { envelope, attempt, .. } = job;
    let end = outcome.as_ref().map(drop).map_err(|fault| fault.code);
    let event = Event::of(&envelope.context, name, envelope.call, attempt, notes, end);
    let frame = Frame::Done(outcome).encode().or_else(|fault| Frame::<()>::Done(Err(fault)).encode()).unwrap_or_default();
    tracing::info!(
        command = name,
        request_id = envelope.context.request_id,
        organization = %envelope.context.organization,
        call = %envelope.call,
        attempt,
        end = end.err().map_or("done", |code| code.face().name),
        "command"
    );
    Ended { frame, event }
}

async fn attempt<C: Run>(parts: &C::Parts, job: Job<'_>) -> (Result<C::Reply, Fault>, Notes) {
    let envelope = job.envelope;
    let context = &envelope.context;
    if context.deadline.has_passed() {
        return (Err(Fault::timeout("The deadline passed before the command could start.")), Notes::default());
    }
    if !C::ACCESS.admits(&context.actor) {
        return (Err(Fault::new(Code::Forbidden, "Your role does not allow this.")), Notes::default());
    }
    let command: C = match envelope.unpack() {
        Ok(command) => command,
        Err(fault) => return (Err(fault), Notes::default()),
    };
    let mut scope = Scope::new(parts, envelope, job.attempt, job.queued_ms);
    let running = AssertUnwindSafe(command.run(&mut scope)).catch_unwind();
    let outcome = match tokio::time::timeout(context.deadline.remaining(), running).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_panic)) => Err(Fault::internal("a command panicked")),
        Err(_) => Err(Fault::timeout("The deadline passed while the command ran.")),
    };
    settle::<C>(parts, job, outcome, scope.remains()).await
}

/// Keeps or drops the transaction, its audit event within it, then spreads the news.
async fn settle<C: Run>(
    parts: &C::Parts,
    job: Job<'_>,
    outcome: Result<C::Reply, Fault>,
    remains: Remains,
) -> (Result<C::Reply, Fault>, Notes) {
    let Remains { notes, transaction, wrote, announcements } = remains;
    let outcome = match (outcome, transaction) {
        (Ok(reply), Some(transaction)) if wrote => keep::<C>(job, transaction, &notes).await.map(|()| reply),
        (outcome, _) => outcome,
    };
    if outcome.is_ok() {
        for announcement in &announcements {
            announcement.spread(parts.bus()).await;
        }
    }
    (outcome, notes)
}

async fn keep<C: Run>(job: Job<'_>, mut transaction: db::Transaction, notes: &Notes) -> Result<(), Fault> {
    let event = Event::of(&job.envelope.context, C::NAME, job.envelope.call, job.attempt, notes, Ok(()));
    db::audit::leave(&mut transaction, &event).await?;
    transaction.commit().await
}
