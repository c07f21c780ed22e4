//! The inbox of a process: where all answers to its commands come, on each of its connections.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use async_nats::{Client, Message, StatusCode};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::StreamExt;
use tokio::sync::mpsc;

use super::{Bus, frame, queue::Side, subject};
use crate::fault::Fault;

/// Between the lines that one message is for.
pub(super) const LINES: char = '+';

/// What came for one command.
#[derive(Debug)]
pub(super) enum Reply {
    /// Nobody heard the command.
    NoResponders,
    /// A frame, or an acknowledgement.
    Content(Bytes),
    /// The command did not leave this process.
    NotSent(Fault),
}

type Lines = HashMap<u64, Open>;

/// The end of a line that the inbox holds.
#[derive(Debug)]
struct Open {
    replies: mpsc::UnboundedSender<Reply>,
    /// The queue has said that it keeps the call. Noted here, because who waits for the end of a call need not be
    /// woken for its beginning.
    is_kept: bool,
    /// Of a queued command: the queue has nothing to say about others.
    is_queued: bool,
}

/// What all replies to this process come by; a token per command tells them apart.
#[derive(Clone, Debug)]
pub(super) struct Inbox {
    /// Where workers answer.
    answers: Arc<str>,
    /// Where the queue says whether it keeps a call.
    words: Arc<str>,
    next: Arc<AtomicU64>,
    lines: Arc<Mutex<Lines>>,
}

/// One command's replies; closing it drops what comes late.
pub(super) struct Line {
    token: u64,
    /// Where the answer goes.
    pub(super) subject: String,
    pub(super) replies: mpsc::UnboundedReceiver<Reply>,
    /// Where the caller hears.
    pub(super) sender: mpsc::UnboundedSender<Reply>,
    inbox: Inbox,
}

impl Inbox {
    pub(super) async fn subscribe(bus: &Bus) -> Result<Self, Fault> {
        // The tail cannot be guessed by another process of the same role.
        let inbox_of = |user: &str| Arc::from(format!("{}.{}", subject::inbox_prefix(user), bus.instance()));
        let (answers, words) = (inbox_of(bus.role().name()), inbox_of(Side::Calling.user()));
        let inbox = Self { answers, words, next: Arc::default(), lines: Arc::default() };
        inbox.hear(&bus.0.client, &inbox.answers, hand_out).await?;
        if let Some(queue) = &bus.0.queue {
            inbox.hear(&queue.client, &inbox.words, hear_the_queue).await?;
        }
        Ok(inbox)
    }

    async fn hear(&self, client: &Client, at: &str, hand_out: fn(&mut Lines, Message)) -> Result<(), Fault> {
        let mut subscription = client
            .subscribe(format!("{at}.*"))
            .await
            .map_err(|cause| Fault::unavailable("The message queue", cause))?;
        let lines = Arc::clone(&self.lines);
        tokio::spawn(async move {
            while let Some(message) = subscription.next().await {
                hand_out(&mut lines.lock().unwrap_or_else(PoisonError::into_inner), message);
            }
        });
        Ok(())
    }

    pub(super) fn open(&self, is_queued: bool) -> Line {
        let token = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, replies) = mpsc::unbounded_channel();
        let open = Open { replies: sender.clone(), is_kept: false, is_queued };
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).insert(token, open);
        Line { token, subject: format!("{}.{token:x}", self.answers), replies, sender, inbox: self.clone() }
    }
}

impl Line {
    /// Where the queue says whether it keeps the call.
    pub(super) fn of_the_queue(&self) -> String {
        format!("{}.{:x}", self.inbox.words, self.token)
    }

    /// Whether the queue has said that it keeps the call.
    pub(super) fn is_kept(&self) -> bool {
        let lines = self.inbox.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.get(&self.token).is_some_and(|line| line.is_kept)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.inbox.lines.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.token);
    }
}

/// What comes by the connection to the queue is about a queued command, and says that it is kept, or why not. Whoever
/// administers JetStream could have stored bytes delivered there: they are no answer, and no word about a record.
fn hear_the_queue(lines: &mut Lines, message: Message) {
    let token = message.subject.rsplit_once('.').and_then(|(_, token)| u64::from_str_radix(token, 16).ok());
    let line = token.and_then(|token| lines.get_mut(&token));
    // Whoever waited is gone.
    let Some(line) = line.filter(|line| line.is_queued) else { return };
    // The receiver closes only with its line, which removes the entry.
    if message.status == Some(StatusCode::NO_RESPONDERS) {
        let _ = line.replies.send(Reply::NoResponders);
    } else if frame::says_that_a_call_is_kept(&message.payload) {
        line.is_kept = true;
    } else if frame::says_that_a_call_is_refused(&message.payload) {
        let _ = line.replies.send(Reply::Content(message.payload));
    } else {
        tracing::warn!("the queue delivered what is not its own word");
        metrics::counter!("switchboard_messages_refused_total", "reason" => "not_of_the_queue").increment(1);
    }
}

/// Gives a message to the line, or the lines, that its subject names.
fn hand_out(lines: &mut Lines, message: Message) {
    let give = |token: &str, reply: Reply| {
        let Some(line) = u64::from_str_radix(token, 16).ok().and_then(|token| lines.get(&token)) else { return };
        // The receiver closes only with its line, which removes the entry.
        let _ = line.replies.send(reply);
    };
    let Some((_, tokens)) = message.subject.rsplit_once('.') else { return };
    if message.status == Some(StatusCode::NO_RESPONDERS) {
        give(tokens, Reply::NoResponders);
    } else if !tokens.contains(LINES) {
        give(tokens, Reply::Content(message.payload));
    } else if frame::is_acknowledgement(&message.payload) {
        for token in tokens.split(LINES) {
            give(token, Reply::Content(message.payload.clone()));
        }
    } else {
        let mut rest = message.payload;
        for token in tokens.split(LINES) {
            match next_frame(&mut rest) {
                Some(frame) if frame.is_empty() => {}
                Some(frame) => give(token, Reply::Content(frame)),
                None => return tracing::error!("frames that do not agree with their lines"),
            }
        }
    }
}

/// Frames of several lines as one message, each after its length in four bytes: never long enough to
/// begin like an acknowledgement. `None` where all are empty: they went alone.
pub(super) fn joined(mut frames: Vec<Bytes>) -> Option<Bytes> {
    if frames.iter().all(Bytes::is_empty) {
        return None;
    }
    if frames.len() == 1 {
        return frames.pop();
    }
    let mut joined = BytesMut::with_capacity(frames.iter().map(|frame| 4 + frame.len()).sum());
    for frame in frames {
        joined.put_u32(u32::try_from(frame.len()).unwrap_or_default());
        joined.put(frame);
    }
    Some(joined.freeze())
}

/// Takes the first of joined frames.
fn next_frame(rest: &mut Bytes) -> Option<Bytes> {
    let length = usize::try_from(rest.try_get_u32().ok()?).ok()?;
    (length <= rest.len()).then(|| rest.split_to(length))
}

#[cfg(test)]
mod tests {
    use super::{super::frame::Frame, *};

    fn message(subject: &str, payload: Bytes) -> Message {
        let (status, description, headers) = (None, None, None);
        Message { subject: subject.into(), reply: None, payload, headers, status, description, length: 0 }
    }

    fn lines(tokens: [u64; 3]) -> (Lines, Vec<mpsc::UnboundedReceiver<Reply>>) {
        let opened = tokens.map(|token| (token, mpsc::unbounded_channel()));
        let mut receivers = Vec::new();
        let senders = opened.into_iter().map(|(token, (sender, receiver))| {
            receivers.push(receiver);
            (token, Open { replies: sender, is_kept: false, is_queued: true })
        });
        (senders.collect(), receivers)
    }

    fn heard(line: &mut mpsc::UnboundedReceiver<Reply>) -> Option<Bytes> {
        match line.try_recv().ok()? {
            Reply::Content(content) => Some(content),
            other => panic!("nobody said so: {other:?}"),
        }
    }

    #[test]
    fn each_line_gets_its_own_frame_and_all_get_the_acknowledgement() {
        let (mut lines, mut heard_by) = lines([0x1, 0xaf, 0x3]);
        let frames = [Bytes::from_static(b"one"), Bytes::new(), Bytes::from_static(b"three")];
        hand_out(&mut lines, message("_INBOX_gateway.x.1+af+3", joined(frames.to_vec()).unwrap()));
        let ack = Bytes::from_static(br#"{"stream":"AUDIT","seq":1}"#);
        hand_out(&mut lines, message("_INBOX_gateway.x.1+af+3", ack.clone()));
        for (line, frame) in heard_by.iter_mut().zip(frames) {
            if !frame.is_empty() {
                assert_eq!(heard(line).unwrap(), frame);
            }
            assert_eq!(heard(line).unwrap(), ack);
            assert!(heard(line).is_none());
        }
        hand_out(&mut lines, message("_INBOX_gateway.x.af", joined(vec![Bytes::from_static(b"alone")]).unwrap()));
        assert_eq!(heard(&mut heard_by[1]).unwrap(), "alone");
    }

    #[test]
    fn who_waits_is_not_woken_to_hear_that_a_call_is_kept() {
        let (mut lines, mut heard_by) = lines([1, 2, 3]);
        let kept = Bytes::from_static(br#"{"stream":"CALLS_7","seq":1}"#);
        hear_the_queue(&mut lines, message("_INBOX_caller.x.1", kept));
        let refused = Bytes::from_static(br#"{"error":{"err_code":10077},"stream":"CALLS_7","seq":0}"#);
        hear_the_queue(&mut lines, message("_INBOX_caller.x.2", refused.clone()));
        assert!(heard(&mut heard_by[0]).is_none());
        assert_eq!(heard(&mut heard_by[1]).unwrap(), refused);
        assert_eq!([1, 2, 3].map(|token| lines[&token].is_kept), [true, false, false]);
    }

    #[test]
    fn by_way_of_the_queue_comes_nothing_but_whether_a_call_is_kept() {
        let (mut lines, mut heard_by) = lines([1, 2, 3]);
        lines.get_mut(&3).unwrap().is_queued = false;
        let forged = Frame::Done(Ok("forged")).encode().unwrap();
        let refused = Bytes::from_static(br#"{"error":{"err_code":10077},"stream":"CALLS_7","seq":0}"#);
        for content in [
            forged,
            Bytes::from_static(br#"{"stream":"AUDIT","seq":1}"#),
            Bytes::from_static(br#"{"error":{"err_code":10077},"stream":"AUDIT"}"#),
            Bytes::from_static(br#"{"error":{"err_code":10077}}"#),
            Bytes::from_static(b"{}"),
            Bytes::new(),
        ] {
            hear_the_queue(&mut lines, message("_INBOX_caller.x.1", content));
        }
        let nobody = |subject| Message { status: Some(StatusCode::NO_RESPONDERS), ..message(subject, Bytes::new()) };
        hear_the_queue(&mut lines, nobody("_INBOX_caller.x.1+2"));
        hear_the_queue(&mut lines, nobody("_INBOX_caller.x.3"));
        hear_the_queue(&mut lines, message("_INBOX_caller.x.3", refused));
        assert!(heard_by.iter_mut().all(|line| heard(line).is_none()), "not about a queued command, or not its word");
        hear_the_queue(&mut lines, nobody("_INBOX_caller.x.2"));
        assert!(matches!(heard_by[1].try_recv(), Ok(Reply::NoResponders)));
    }

    #[test]
    fn frames_that_do_not_agree_with_their_lines_are_nobodys() {
        assert!(joined(vec![Bytes::new(), Bytes::new()]).is_none());
        for malformed in [&b""[..], b"\0", b"\0\0\0\x05abc", b"\xff\xff\xff\xffabc"] {
            let (mut lines, mut heard_by) = lines([1, 2, 3]);
            hand_out(&mut lines, message("_INBOX_gateway.x.1+2+3", Bytes::copy_from_slice(malformed)));
            hand_out(
                &mut lines,
                message("_INBOX_gateway.x.+x+99", Bytes::from_static(b"\0\0\0\0\0\0\0\x01a\0\0\0\x01b")),
            );
            assert!(heard_by.iter_mut().all(|line| heard(line).is_none()));
        }
    }
}
