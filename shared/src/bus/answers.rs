//! Answers: a command's last frame to its caller, and its event to the audit stream, whose
//! acknowledgement goes to that caller too. Answers of one organization that come fast share messages
//! (ADR 19): one of frames, one of events, for each process that waits for them.

use std::{
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
};
use crate::{
    audit::Event,
    fault::{Code, Fault},
    id::OrganizationId,
};

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
    senders: Vec<oneshot::Sender<Result<(), Fault>>>,
}

/// One answer.
struct Answer<'a> {
    organization: OrganizationId,
    inbox: &'a str,
    line: &'a str,
    until: Option<Instant>,
    frame: Bytes,
    event: &'a [u8],
}

/// What is to be done about an answer that was added.
#[derive(Debug)]
enum Next {
    /// They leave, it among them.
    Leave(Vec<Gathered>),
    /// It is the first that waits: whatever waits leaves then.
    LeaveAt(Instant),
    /// It waits for others to leave.
    Wait,
}

impl Bus {
    /// Answers a command: sends its last frame to the caller's inbox, and its event to the audit stream,
    /// whose acknowledgement goes there too, so that the caller and nobody in between waits for it.
    /// Returns once both have left. A process that stood still until after `until` sends neither: the call
    /// may be another's by then. Not to be dropped before it is done: others' answers may leave with it.
    pub async fn answer(&self, reply: &str, frame: Bytes, event: &Event, until: Option<Instant>) -> Result<(), Fault> {
        let event_bytes = serde_json::to_vec(event).map_err(Fault::internal)?;
        let (told, frame) =
            if frame.len() > LONG { (Box::pin(self.reply(reply, frame)).await, Bytes::new()) } else { (Ok(()), frame) };
        let organization = event.organization;
        let left = if let Some((inbox, line)) = inbox_and_line(reply) {
            let answer = Answer { organization, inbox, line, until, frame, event: &event_bytes };
            self.gather(answer).await
        } else {
            let mut alone = Gathered::new(organization, reply, until);
            alone.put(frame, &event_bytes);
            Box::pin(self.send(alone)).await
        };
        told.and(left)
    }

    async fn gather(&self, answer: Answer<'_>) -> Result<(), Fault> {
        let (next, left) = self.0.answers.add(answer, Instant::now());
        match next {
            // Boxed: one of many leaves with all, and the future of each would be as large.
            Next::Leave(gathered) => Box::pin(self.leave(gathered)).await,
            Next::LeaveAt(at) => {
                let bus = self.clone();
                tokio::spawn(async move {
                    tokio::time::sleep_until(at.into()).await;
                    let gathered = bus.0.answers.state().take(Instant::now());
                    bus.leave(gathered).await;
                });
            }
            Next::Wait => {}
        }
        left.await.unwrap_or_else(|_| Err(Fault::internal("an answer never left")))
    }

    async fn leave(&self, gathered: Vec<Gathered>) {
        for mut gathered in gathered {
            let senders = mem::take(&mut gathered.senders);
            let sent = self.send(gathered).await;
            for sender in senders {
                // A worker that gave up on its command waits no more.
                let _ = sender.send(sent.clone());
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

type Left = oneshot::Receiver<Result<(), Fault>>;

impl Answers {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, answer: Answer<'_>, now: Instant) -> (Next, Left) {
        let (sender, left) = oneshot::channel();
        let mut state = self.state();
        let is_first = state.gathered.is_empty();
        let others_are_likely = state.came(answer.organization, now) * LIKELY <= PATIENCE;
        let gathered = state.gathered_for(&answer);
        gathered.add(answer, sender);
        let due = state.left_at.map_or(now, |left_at| left_at + PATIENCE);
        let next = if state.has_full() || due <= now || !others_are_likely {
            Next::Leave(state.take(now))
        } else if is_first {
            Next::LeaveAt(due)
        } else {
            Next::Wait
        };
        drop(state);
        (next, left)
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
        self.gathered.iter().any(|gathered| gathered.senders.len() >= MOST || gathered.bytes >= MOST_BYTES)
    }

    fn take(&mut self, now: Instant) -> Vec<Gathered> {
        if !self.gathered.is_empty() {
            self.left_at = Some(now);
        }
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
            senders: Vec::new(),
        }
    }

    fn is_for(&self, answer: &Answer<'_>) -> bool {
        // What may be late is not mixed with what may not: it would take the other along.
        self.organization == answer.organization
            && self.until.is_some() == answer.until.is_some()
            && self.reply[..self.inbox] == *answer.inbox
    }

    fn add(&mut self, answer: Answer<'_>, sender: oneshot::Sender<Result<(), Fault>>) {
        let between = if self.senders.is_empty() { '.' } else { LINES };
        // Writing to a string cannot fail.
        let _ = write!(self.reply, "{between}{}", answer.line);
        self.until = self.until.min(answer.until);
        self.put(answer.frame, answer.event);
        self.senders.push(sender);
    }

    fn put(&mut self, frame: Bytes, event: &[u8]) {
        self.events.push(if self.events.is_empty() { b'[' } else { b',' });
        self.events.extend_from_slice(event);
        self.bytes += frame.len() + event.len();
        self.frames.push(frame);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INBOX: &str = "_INBOX_gateway.a";

    fn answer<'a>(organization: OrganizationId, inbox: &'a str, line: &'a str) -> Answer<'a> {
        let frame = Bytes::copy_from_slice(line.as_bytes());
        Answer { organization, inbox, line, until: None, frame, event: b"{}" }
    }

    /// As after many answers in no time, some of which left at a moment.
    fn busy(organizations: &[OrganizationId], left_at: Instant) -> Answers {
        let answers = Answers::default();
        {
            let mut state = answers.state();
            state.left_at = Some(left_at);
            let pace = Pace { last: left_at, between: Duration::ZERO };
            state.paces.extend(organizations.iter().map(|organization| (*organization, pace)));
        }
        answers
    }

    fn replies(gathered: &[Gathered]) -> Vec<&str> {
        gathered.iter().map(|gathered| gathered.reply.as_str()).collect()
    }

    #[test]
    fn an_answer_that_none_is_likely_to_join_leaves_at_once() {
        let (answers, organization, start) = (Answers::default(), OrganizationId::new(), Instant::now());
        for number in 0..40 {
            let now = start + Duration::from_millis(1) * number;
            let (next, _left) = answers.add(answer(organization, INBOX, "1f"), now);
            let Next::Leave(gathered) = next else { panic!("it waits: {next:?}") };
            assert_eq!(replies(&gathered), ["_INBOX_gateway.a.1f"]);
            assert_eq!(gathered[0].events, b"[{}");
        }
    }

    #[test]
    fn answers_that_come_fast_wait_for_others_of_their_organization_alone() {
        let (answers, organization, start) = (Answers::default(), OrganizationId::new(), Instant::now());
        let add = |organization, micros| {
            answers.add(answer(organization, INBOX, "1"), start + Duration::from_micros(micros)).0
        };
        let waits = (0..60).map(|number| !matches!(add(organization, number * 100), Next::Leave(_)));
        let waits: Vec<bool> = waits.collect();
        assert!(waits[..10].iter().all(|waits| !waits), "not before it is known that they come fast: {waits:?}");
        assert!(waits[30..].iter().filter(|waits| **waits).count() > 25, "{waits:?}");
        let next = add(OrganizationId::new(), 6_010);
        assert!(matches!(next, Next::Leave(_)), "another organization's does not wait for them: {next:?}");
    }

    #[test]
    fn an_answer_waits_no_longer_than_its_time() {
        let (organization, now) = (OrganizationId::new(), Instant::now());
        let answers = busy(&[organization], now);
        let (next, _left) = answers.add(answer(organization, INBOX, "2"), now);
        assert!(matches!(next, Next::LeaveAt(at) if at == now + PATIENCE), "{next:?}");
        let (next, _left) = answers.add(answer(organization, INBOX, "3"), now + PATIENCE);
        assert!(matches!(next, Next::Leave(_)), "{next:?}");
        assert!(answers.state().take(now).is_empty());
        assert_eq!(answers.state().left_at, Some(now + PATIENCE), "nothing left then");
    }

    #[test]
    fn who_waits_leaves_by_organization_process_and_fence() {
        let (one, other, now) = (OrganizationId::new(), OrganizationId::new(), Instant::now());
        let answers = busy(&[one, other], now);
        assert!(matches!(answers.add(answer(one, INBOX, "1"), now).0, Next::LeaveAt(_)));
        for (organization, inbox, line) in [(one, "_INBOX_gateway.b", "1"), (other, INBOX, "2"), (one, INBOX, "3")] {
            assert!(matches!(answers.add(answer(organization, inbox, line), now).0, Next::Wait));
        }
        for after in [9, 5, 7] {
            let until = Some(now + Duration::from_secs(after));
            let (next, _left) = answers.add(Answer { until, ..answer(one, INBOX, "f") }, now);
            assert!(matches!(next, Next::Wait));
        }
        let gathered = answers.state().take(now);
        let expected = ["_INBOX_gateway.a.1+3", "_INBOX_gateway.b.1", "_INBOX_gateway.a.2", "_INBOX_gateway.a.f+f+f"];
        assert_eq!(replies(&gathered), expected);
        assert_eq!(gathered[0].events, b"[{},{}");
        assert_eq!(gathered[2].organization, other, "no message holds two organizations' events");
        assert_eq!(gathered[3].until, Some(now + Duration::from_secs(5)), "the first to be late");
    }

    #[test]
    fn no_more_wait_than_one_message_shall_hold() {
        let (organization, now) = (OrganizationId::new(), Instant::now());
        let answers = busy(&[organization], now);
        for line in 1..MOST {
            assert!(!matches!(answers.add(answer(organization, INBOX, &line.to_string()), now).0, Next::Leave(_)));
        }
        assert!(matches!(answers.add(answer(organization, INBOX, "64"), now).0, Next::Leave(_)));
        let large = vec![b'x'; MOST_BYTES];
        let (next, _left) = answers.add(Answer { event: &large, ..answer(organization, INBOX, "1") }, now);
        assert!(matches!(next, Next::Leave(_)));
    }

    #[test]
    fn only_lines_of_our_inboxes_are_put_together() {
        assert_eq!(inbox_and_line("_INBOX_gateway.0af.1f"), Some(("_INBOX_gateway.0af", "1f")));
        for other in
            ["_INBOX_gateway", "_INBOX_gateway.", "_INBOX_x.1+2", "_INBOX_x.a b", "_INBOX_x.Zk1", "a.00000000000000001"]
        {
            assert_eq!(inbox_and_line(other), None, "{other}");
        }
    }
}
