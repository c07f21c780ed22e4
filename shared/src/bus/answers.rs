//! Answers: a command's last frame to its caller, and its event to the audit stream, whose
//! acknowledgement goes to that caller too. Answers of one organization that come fast share messages
//! (ADR 19): one of frames, one of events, for each process that waits for them.

use std::{
    any::Any,
    collections::HashMap,
    fmt::Write as _,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{
    Bus,
    inbox::{self, LINES},
    subject,
    work::Slot,
};
use crate::{
    audit::Event,
    fault::{Code, Fault},
    id::OrganizationId,
};

#[cfg(test)]
mod tests;

/// How long an answer may wait for others since some left.
const PATIENCE: Duration = Duration::from_millis(2);
/// It waits where so many of its organization are likely to come in that time, as they have lately.
const LIKELY: u32 = 4;
/// The longest time between answers that counts: a pause is forgotten after some fifteen.
const LONGEST_PACE: Duration = Duration::from_millis(4);
/// Organizations whose pace is remembered.
const REMEMBERED: usize = 4_096;
/// Most answers of one message.
const MOST: usize = 64;
/// Most bytes of one message's frames and events together; the last not counted.
const MOST_BYTES: usize = 128 * 1024;
/// A longer frame goes alone, as it is.
const LONG: usize = 8 * 1024;

/// What a process is about to answer.
#[derive(Debug, Default)]
pub(super) struct Answers(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    left_at: Option<Instant>,
    gathered: Vec<Gathered>,
    /// Queued calls among those who wait.
    queued: usize,
    /// Somebody looks at the clock for those who wait.
    is_timed: bool,
    paces: HashMap<OrganizationId, Pace>,
}

/// How fast an organization's answers come.
#[derive(Clone, Copy, Debug)]
struct Pace {
    last: Instant,
    /// The time between two, a moving average.
    between: Duration,
}

/// Answers that leave together: of one organization, to one process.
#[derive(Debug)]
struct Gathered {
    organization: OrganizationId,
    /// Where they go: the process's inbox, and a line of it for each.
    reply: String,
    /// How much of it is the inbox.
    inbox: usize,
    /// They may not leave later.
    until: Option<Instant>,
    frames: Vec<Bytes>,
    /// A JSON array that is not closed.
    events: Vec<u8>,
    bytes: usize,
    ends: Vec<End>,
}

/// What is held until an answer has left.
pub type Held = Box<dyn Any + Send>;

/// What is done once an answer has left, or cannot.
#[derive(Debug)]
enum End {
    /// Somebody waits to know which.
    Tell(oneshot::Sender<Result<(), Fault>>),
    /// The slot is released if it has. Nobody waits: to wake a task for each costs more than to release it from here.
    Release(Slot, Held),
}

impl End {
    async fn come(self, left: &Result<(), Fault>) {
        match (self, left) {
            // A worker that gave up on its command waits no more.
            (Self::Tell(sender), left) => drop(sender.send(left.clone())),
            (Self::Release(slot, _held), Ok(())) => slot.release().await,
            // What has not left is delivered again, and the rule for repetitions tells of it.
            (Self::Release(slot, _held), Err(fault)) => tracing::error!(%fault, ?slot, "an answer was not sent"),
        }
    }
}

/// One answer.
struct Answer<'a> {
    organization: OrganizationId,
    inbox: &'a str,
    line: &'a str,
    until: Option<Instant>,
    frame: Bytes,
    event: &'a [u8],
    /// Queued calls that this process has: this one, those that run and those whose answers wait.
    in_hand: Option<usize>,
}

/// What is to be done about an answer that was added.
#[derive(Debug)]
enum Next {
    /// They leave, it among them.
    Leave(Vec<Gathered>),
    /// It waits until then, and nobody looks at the clock yet.
    LeaveAt(Instant),
    /// It waits.
    Wait,
}

impl Bus {
    /// Answers a command: sends its last frame to the caller's inbox, and its event to the audit stream,
    /// whose acknowledgement goes there too, so that the caller and nobody in between waits for it.
    /// Returns once both have left. A process that stood still until after `until` sends neither: the call
    /// may be another's by then. Not to be dropped before it is done: others' answers may leave with it.
    pub async fn answer(&self, reply: &str, frame: Bytes, event: &Event, until: Option<Instant>) -> Result<(), Fault> {
        self.answer_as(reply, frame, event, until, None).await
    }

    /// The same for a queued command, whose slot is released once both have left; `held` is dropped then. It may return
    /// before that, so `held` is also what keeps the process. `in_hand` is how many queued commands the process has, this
    /// one included: once the answers of all of them wait, no other is waited for.
    pub async fn answer_and_release(
        &self,
        reply: &str,
        (frame, event): (Bytes, &Event),
        until: Instant,
        in_hand: usize,
        (slot, held): (Slot, Held),
    ) {
        let (until, in_hand, organization) = (Some(until), Some(in_hand), event.organization);
        let line = inbox_and_line(reply).filter(|_| frame.len() <= LONG);
        if let Some((inbox, line)) = line
            && let Ok(written) = serde_json::to_vec(event)
        {
            let answer = Answer { organization, inbox, line, until, frame, event: &written, in_hand };
            self.gather(answer, End::Release(slot, held)).await;
        } else {
            let left = Box::pin(self.answer_as(reply, frame, event, until, in_hand)).await;
            End::Release(slot, held).come(&left).await;
        }
    }

    async fn answer_as(
        &self,
        reply: &str,
        frame: Bytes,
        event: &Event,
        until: Option<Instant>,
        in_hand: Option<usize>,
    ) -> Result<(), Fault> {
        let event_bytes = serde_json::to_vec(event).map_err(Fault::internal)?;
        let (told, frame) =
            if frame.len() > LONG { (Box::pin(self.reply(reply, frame)).await, Bytes::new()) } else { (Ok(()), frame) };
        let organization = event.organization;
        let left = if let Some((inbox, line)) = inbox_and_line(reply) {
            let answer = Answer { organization, inbox, line, until, frame, event: &event_bytes, in_hand };
            let (sender, left) = oneshot::channel();
            self.gather(answer, End::Tell(sender)).await;
            left.await.unwrap_or_else(|_| Err(Fault::internal("an answer never left")))
        } else {
            let mut alone = Gathered::new(organization, reply, until);
            alone.put(frame, &event_bytes);
            Box::pin(self.send(alone)).await
        };
        told.and(left)
    }

    async fn gather(&self, answer: Answer<'_>, end: End) {
        match self.0.answers.add(answer, end, Instant::now()) {
            // Boxed: one of many leaves with all, and the future of each would be as large.
            Next::Leave(gathered) => Box::pin(self.leave(gathered)).await,
            Next::LeaveAt(at) => drop(tokio::spawn(self.clone().let_leave(at))),
            Next::Wait => {}
        }
    }

    /// Lets those leave whose time comes, until none waits.
    async fn let_leave(self, mut at: Instant) {
        loop {
            tokio::time::sleep_until(at.into()).await;
            let (gathered, then) = self.0.answers.state().due(Instant::now());
            self.leave(gathered).await;
            match then {
                Some(then) => at = then,
                None => return,
            }
        }
    }

    async fn leave(&self, gathered: Vec<Gathered>) {
        for mut gathered in gathered {
            let ends = mem::take(&mut gathered.ends);
            let left = self.send(gathered).await;
            for end in ends {
                end.come(&left).await;
            }
        }
    }

    /// Sends frames and events, each whatever becomes of the other.
    async fn send(&self, gathered: Gathered) -> Result<(), Fault> {
        let Gathered { organization, reply, until, frames, mut events, .. } = gathered;
        if until.is_some_and(|until| until <= Instant::now()) {
            return Err(Fault::new(Code::OutcomeUnknown, "The worker stood still, and the call may be another's."));
        }
        events.push(b']');
        // First, because the caller waits for both and this takes the server longer.
        let recorded = self
            .0
            .client
            .publish_with_reply(subject::audit(organization), reply.clone(), events.into())
            .await
            .map_err(|cause| Fault::unavailable("The audit stream", cause));
        let told = match inbox::joined(frames) {
            Some(frames) => self.reply(&reply, frames).await,
            None => Ok(()),
        };
        told.and(recorded)
    }
}

/// A reply subject in two, if it is a line of an inbox of ours. Any other gets its answer alone.
fn inbox_and_line(reply: &str) -> Option<(&str, &str)> {
    let (inbox, line) = reply.rsplit_once('.')?;
    let is_line = (1..=16).contains(&line.len()) && line.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_line.then_some((inbox, line))
}

impl Answers {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, answer: Answer<'_>, end: End, now: Instant) -> Next {
        let mut state = self.state();
        let others_are_likely = state.came(answer.organization, now) * LIKELY <= PATIENCE;
        state.queued += usize::from(answer.in_hand.is_some());
        let all_wait = answer.in_hand.is_some_and(|in_hand| in_hand <= state.queued);
        let gathered = state.gathered_for(&answer);
        gathered.add(answer, end);
        let due = state.leave_at().unwrap_or(now);
        if state.has_full() || due <= now || !others_are_likely || all_wait {
            Next::Leave(state.take(now))
        } else if mem::replace(&mut state.is_timed, true) {
            Next::Wait
        } else {
            Next::LeaveAt(due)
        }
    }
}

impl State {
    /// An answer came; how long after another they come by now.
    fn came(&mut self, organization: OrganizationId, now: Instant) -> Duration {
        if self.paces.len() >= REMEMBERED && !self.paces.contains_key(&organization) {
            // Whoever is forgotten waits for nobody until it is known again.
            self.paces.clear();
        }
        let before = self.paces.entry(organization).or_insert(Pace { last: now, between: LONGEST_PACE });
        let since = now.saturating_duration_since(before.last).min(LONGEST_PACE);
        *before = Pace { last: now, between: (before.between * 7 + since) / 8 };
        before.between
    }

    fn gathered_for(&mut self, answer: &Answer<'_>) -> &mut Gathered {
        let at = self.gathered.iter().position(|gathered| gathered.is_for(answer)).unwrap_or_else(|| {
            self.gathered.push(Gathered::new(answer.organization, answer.inbox, answer.until));
            self.gathered.len() - 1
        });
        &mut self.gathered[at]
    }

    fn has_full(&self) -> bool {
        self.gathered.iter().any(|gathered| gathered.ends.len() >= MOST || gathered.bytes >= MOST_BYTES)
    }

    /// When those who wait leave.
    fn leave_at(&self) -> Option<Instant> {
        self.left_at.map(|left_at| left_at + PATIENCE)
    }

    /// Those whose time has come, or when that is; neither where none waits, and nobody looks at the clock any more.
    fn due(&mut self, now: Instant) -> (Vec<Gathered>, Option<Instant>) {
        match self.leave_at().filter(|_| !self.gathered.is_empty()) {
            Some(at) if at > now => (Vec::new(), Some(at)),
            _ => {
                self.is_timed = false;
                (self.take(now), None)
            }
        }
    }

    fn take(&mut self, now: Instant) -> Vec<Gathered> {
        if !self.gathered.is_empty() {
            self.left_at = Some(now);
        }
        self.queued = 0;
        mem::take(&mut self.gathered)
    }
}

impl Gathered {
    fn new(organization: OrganizationId, inbox: &str, until: Option<Instant>) -> Self {
        Self {
            organization,
            reply: inbox.to_owned(),
            inbox: inbox.len(),
            until,
            frames: Vec::new(),
            events: Vec::new(),
            bytes: 0,
            ends: Vec::new(),
        }
    }

    fn is_for(&self, answer: &Answer<'_>) -> bool {
        // What may be late is not mixed with what may not: it would take the other along.
        self.organization == answer.organization
            && self.until.is_some() == answer.until.is_some()
            && self.reply[..self.inbox] == *answer.inbox
    }

    fn add(&mut self, answer: Answer<'_>, end: End) {
        let between = if self.ends.is_empty() { '.' } else { LINES };
        // Writing to a string cannot fail.
        let _ = write!(self.reply, "{between}{}", answer.line);
        self.until = self.until.min(answer.until);
        self.put(answer.frame, answer.event);
        self.ends.push(end);
    }

    fn put(&mut self, frame: Bytes, event: &[u8]) {
        self.events.push(if self.events.is_empty() { b'[' } else { b',' });
        self.events.extend_from_slice(event);
        self.bytes += frame.len() + event.len();
        self.frames.push(frame);
    }
}
