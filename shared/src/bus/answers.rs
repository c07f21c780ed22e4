//! Answers: a command's last frame to its caller, and its event to the audit stream, whose
//! acknowledgement goes to that caller too. Commands that end at about the same time share the messages
//! (ADR 19): one to each caller's process, and one of events for each organization and process.

use std::{
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
use crate::{audit::Event, fault::Fault, id::OrganizationId};

/// How long an answer may wait for others since some left.
const PATIENCE: Duration = Duration::from_millis(2);
/// It waits where so many are likely to join it in that time, as answers have come lately.
const LIKELY: u32 = 3;
/// Most answers of one message.
const MOST: usize = 64;
/// Most bytes of one message's frames, and of its events; the last not counted.
const MOST_BYTES: usize = 128 * 1024;
/// A longer frame goes alone, as it is.
const LONG: usize = 8 * 1024;

/// What a process is about to answer.
#[derive(Debug, Default)]
pub(super) struct Answers(Mutex<State>);

#[derive(Debug)]
struct State {
    /// When the last answer came.
    came_at: Option<Instant>,
    /// The time between answers, a moving average.
    pace: Duration,
    left_at: Option<Instant>,
    gathered: Vec<Gathered>,
}

/// The longest time between answers that counts, so that a pause is forgotten after a few.
const LONGEST_PACE: Duration = Duration::from_millis(8);

impl Default for State {
    fn default() -> Self {
        Self { came_at: None, pace: LONGEST_PACE, left_at: None, gathered: Vec::new() }
    }
}

/// Answers that leave together: of one organization, to one process.
#[derive(Debug)]
struct Gathered {
    organization: OrganizationId,
    /// Where they go: the process's inbox, and a line of it for each.
    reply: String,
    /// How much of it is the inbox.
    inbox: usize,
    frames: Vec<Bytes>,
    /// A JSON array that is not closed.
    events: Vec<u8>,
    bytes: usize,
    senders: Vec<oneshot::Sender<Result<(), Fault>>>,
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
    /// Returns when both have left.
    pub async fn answer(&self, reply: &str, frame: Bytes, event: &Event) -> Result<(), Fault> {
        let event_bytes = serde_json::to_vec(event).map_err(Fault::internal);
        let Some((inbox, line)) = reply.rsplit_once('.') else {
            return Err(Fault::internal("a reply subject without a line"));
        };
        let frame = if frame.len() > LONG || event_bytes.is_err() {
            self.reply(reply, frame).await?;
            Bytes::new()
        } else {
            frame
        };
        let (next, left) = self.0.answers.add(event.organization, (inbox, line), frame, &event_bytes?);
        match next {
            Next::Leave(gathered) => self.leave(gathered).await,
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

    /// Frames and events, each whatever becomes of the other.
    async fn send(&self, gathered: Gathered) -> Result<(), Fault> {
        let Gathered { organization, reply, frames, mut events, .. } = gathered;
        let told = match inbox::joined(frames) {
            Some(frames) => self.reply(&reply, frames).await,
            None => Ok(()),
        };
        events.push(b']');
        let recorded = self
            .0
            .client
            .publish_with_reply(subject::audit(organization), reply, events.into())
            .await
            .map_err(|cause| Fault::unavailable("The audit stream", cause));
        told.and(recorded)
    }
}

type Left = oneshot::Receiver<Result<(), Fault>>;

impl Answers {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, organization: OrganizationId, to: (&str, &str), frame: Bytes, event: &[u8]) -> (Next, Left) {
        let (sender, left) = oneshot::channel();
        let now = Instant::now();
        let mut state = self.state();
        let is_first = state.gathered.is_empty();
        let is_full = state.gathered_for(organization, to.0).add(to.1, frame, event, sender);
        let others_are_likely = state.came(now) * LIKELY <= PATIENCE;
        let due = state.left_at.map_or(now, |left_at| left_at + PATIENCE);
        let next = if is_full || due <= now || !others_are_likely {
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
    fn gathered_for(&mut self, organization: OrganizationId, inbox: &str) -> &mut Gathered {
        let is_for = |gathered: &Gathered| gathered.organization == organization && gathered.inbox() == inbox;
        let at = self.gathered.iter().position(is_for).unwrap_or_else(|| {
            self.gathered.push(Gathered::new(organization, inbox));
            self.gathered.len() - 1
        });
        &mut self.gathered[at]
    }

    /// An answer came; how long after another they come by now.
    fn came(&mut self, now: Instant) -> Duration {
        let since = self.came_at.map_or(PATIENCE, |before| now.saturating_duration_since(before));
        self.came_at = Some(now);
        self.pace = (self.pace * 7 + since.min(LONGEST_PACE)) / 8;
        self.pace
    }

    fn take(&mut self, now: Instant) -> Vec<Gathered> {
        self.left_at = Some(now);
        mem::take(&mut self.gathered)
    }
}

impl Gathered {
    fn new(organization: OrganizationId, inbox: &str) -> Self {
        Self {
            organization,
            reply: inbox.to_owned(),
            inbox: inbox.len(),
            frames: Vec::new(),
            events: Vec::new(),
            bytes: 0,
            senders: Vec::new(),
        }
    }

    fn inbox(&self) -> &str {
        &self.reply[..self.inbox]
    }

    /// True once nothing more shall be added.
    fn add(&mut self, line: &str, frame: Bytes, event: &[u8], sender: oneshot::Sender<Result<(), Fault>>) -> bool {
        let is_first = self.senders.is_empty();
        // Writing to a string cannot fail.
        let _ = write!(self.reply, "{}{line}", if is_first { '.' } else { LINES });
        self.events.push(if is_first { b'[' } else { b',' });
        self.events.extend_from_slice(event);
        self.bytes += frame.len() + event.len();
        self.frames.push(frame);
        self.senders.push(sender);
        self.senders.len() >= MOST || self.bytes >= MOST_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(answers: &Answers, organization: OrganizationId, inbox: &str, line: &str) -> (Next, Left) {
        answers.add(organization, (inbox, line), Bytes::copy_from_slice(line.as_bytes()), b"{}")
    }

    /// As after many answers in no time, some of which left in a while.
    fn busy() -> Answers {
        let answers = Answers::default();
        {
            let mut state = answers.state();
            (state.pace, state.left_at) = (Duration::ZERO, Some(Instant::now() + Duration::from_mins(1)));
        }
        answers
    }

    #[test]
    fn an_answer_that_none_is_likely_to_join_leaves_at_once() {
        let (answers, organization) = (busy(), OrganizationId::new());
        answers.state().pace = PATIENCE * 2;
        for _ in 0..2 {
            let (next, _left) = added(&answers, organization, "_INBOX_gateway.a", "1f");
            let Next::Leave(gathered) = next else { panic!("it waits: {next:?}") };
            assert_eq!((gathered.len(), gathered[0].reply.as_str()), (1, "_INBOX_gateway.a.1f"));
            assert_eq!(gathered[0].events, b"[{}");
        }
    }

    #[test]
    fn an_answer_waits_no_longer_than_its_time() {
        let (answers, organization) = (Answers::default(), OrganizationId::new());
        assert!(matches!(added(&answers, organization, "_INBOX_gateway.a", "1").0, Next::Leave(_)));
        let left_at = answers.state().left_at.expect("some left");
        answers.state().pace = Duration::ZERO;
        let (next, _left) = added(&answers, organization, "_INBOX_gateway.a", "2");
        assert!(matches!(next, Next::LeaveAt(at) if at == left_at + PATIENCE), "{next:?}");
        answers.state().left_at = left_at.checked_sub(PATIENCE);
        assert!(matches!(added(&answers, organization, "_INBOX_gateway.a", "3").0, Next::Leave(_)));
    }

    #[test]
    fn who_waits_leaves_by_organization_and_process() {
        let (answers, one, other) = (busy(), OrganizationId::new(), OrganizationId::new());
        assert!(matches!(added(&answers, one, "_INBOX_gateway.a", "1").0, Next::LeaveAt(_)));
        for (organization, inbox, line) in [(one, "_INBOX_gateway.b", "1"), (other, "_INBOX_gateway.a", "2")] {
            assert!(matches!(added(&answers, organization, inbox, line).0, Next::Wait));
        }
        assert!(matches!(added(&answers, one, "_INBOX_gateway.a", "3").0, Next::Wait));
        let gathered = answers.state().take(Instant::now());
        let replies: Vec<&str> = gathered.iter().map(|gathered| gathered.reply.as_str()).collect();
        assert_eq!(replies, ["_INBOX_gateway.a.1+3", "_INBOX_gateway.b.1", "_INBOX_gateway.a.2"]);
        assert_eq!(gathered[0].events, b"[{},{}");
        assert_eq!(gathered[2].organization, other, "no message holds two organizations' events");
    }

    #[test]
    fn no_more_wait_than_one_message_shall_hold() {
        let (answers, organization) = (busy(), OrganizationId::new());
        for line in 1..MOST {
            assert!(!matches!(added(&answers, organization, "_INBOX_gateway.a", &line.to_string()).0, Next::Leave(_)));
        }
        assert!(matches!(added(&answers, organization, "_INBOX_gateway.a", "64").0, Next::Leave(_)));
        let large = vec![b'x'; MOST_BYTES];
        let (next, _left) = answers.add(organization, ("_INBOX_gateway.a", "1"), Bytes::new(), &large);
        assert!(matches!(next, Next::Leave(_)));
    }
}
