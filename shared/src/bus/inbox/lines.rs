//! The lines of an inbox: what comes is noted at the line that it is for, and the end is told.

use std::{collections::HashMap, fmt, mem, time::Instant};

use async_nats::{Message, StatusCode};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::sync::oneshot;

use super::{
    super::{caller::Progress, frame},
    LINES, Reply,
};

pub(super) type Lines = HashMap<u64, Open>;

/// The end of a line that the inbox holds. Who waits at the other is woken once, by the end of the command: what
/// comes before it is noted here.
pub(super) struct Open {
    reply: Option<oneshot::Sender<Reply>>,
    progress: Option<Progress>,
    /// Of a queued command: the queue has nothing to say about others.
    is_queued: bool,
    /// The queue has said that it keeps the call.
    pub(super) is_kept: bool,
    /// The last frame, until the record is kept.
    pub(super) last: Option<Bytes>,
    /// When it came.
    pub(super) ended_at: Option<Instant>,
    /// The audit stream has said that it keeps the record.
    is_recorded: bool,
}

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What it holds is a payload.
        let Self { is_queued, is_kept, ended_at, is_recorded, .. } = self;
        let mut shown = f.debug_struct("Open");
        shown.field("is_queued", is_queued).field("is_kept", is_kept).field("ended_at", ended_at);
        shown.field("is_recorded", is_recorded).finish_non_exhaustive()
    }
}

impl Open {
    pub(super) fn new(reply: oneshot::Sender<Reply>, is_queued: bool, progress: Option<Progress>) -> Self {
        Self { reply: Some(reply), progress, is_queued, is_kept: false, last: None, ended_at: None, is_recorded: false }
    }

    pub(super) fn tell(&mut self, reply: Reply) {
        if let Some(sender) = self.reply.take() {
            // The receiver closes only with its line, which removes the entry.
            let _ = sender.send(reply);
        }
    }

    fn frame(&mut self, frame: Bytes) {
        if let Some(params) = frame::progress(&frame) {
            if let Some(progress) = &self.progress {
                // A caller that stopped listening to progress still awaits the end.
                let _ = progress.send(params);
            }
            return;
        }
        self.ended_at = Some(Instant::now());
        if self.is_recorded {
            self.tell(Reply::Ended(frame));
        } else {
            self.last = Some(frame);
        }
    }

    fn recorded(&mut self) {
        self.is_recorded = true;
        if let Some(last) = self.last.take() {
            self.tell(Reply::Ended(last));
        }
    }
}

/// What comes by the connection to the queue is about a queued command, and says that it is kept, or why not. Whoever
/// administers JetStream could have stored bytes delivered there: they are no answer, and no word about a record.
pub(super) fn hear_the_queue(lines: &mut Lines, message: &Message) {
    let line = message.subject.rsplit_once('.').and_then(|(_, token)| at(lines, token));
    // Whoever waited is gone.
    let Some(line) = line.filter(|line| line.is_queued) else { return };
    if message.status == Some(StatusCode::NO_RESPONDERS) {
        line.tell(Reply::NoResponders);
    } else if frame::says_that_a_call_is_kept(&message.payload) {
        line.is_kept = true;
    } else if let Some((stream, error)) = frame::refusal(&message.payload).filter(|(stream, _)| is_of_calls(stream)) {
        line.tell(Reply::Refused(stream, error));
    } else {
        not_understood("the queue delivered what is not its own word", "not_of_the_queue");
    }
}

fn is_of_calls(stream: &str) -> bool {
    stream.starts_with("CALLS_")
}

fn not_understood(what: &'static str, reason: &'static str) {
    tracing::warn!(reason, "{what}");
    metrics::counter!("switchboard_messages_refused_total", "reason" => reason).increment(1);
}

/// Gives a message to the line, or the lines, that its subject names.
pub(super) fn hand_out(lines: &mut Lines, message: &Message) {
    let Some((_, tokens)) = message.subject.rsplit_once('.') else { return };
    let tokens = tokens.split(LINES);
    if message.status == Some(StatusCode::NO_RESPONDERS) {
        for_each(lines, tokens, |line| line.tell(Reply::NoResponders));
    } else if frame::says_that_a_record_is_kept(&message.payload) {
        for_each(lines, tokens, Open::recorded);
    } else if let Some((stream, error)) = frame::refusal(&message.payload) {
        for_each(lines, tokens, |line| line.tell(Reply::Refused(stream.clone(), error.clone())));
    } else if frame::is_acknowledgement(&message.payload) {
        not_understood("a word of the server that says nothing", "unknown_word");
    } else {
        hand_out_frames(lines, tokens, &message.payload);
    }
}

fn for_each<'t>(lines: &mut Lines, tokens: impl Iterator<Item = &'t str>, told: impl Fn(&mut Open)) {
    for token in tokens {
        // Whoever waited may be gone.
        if let Some(line) = at(lines, token) {
            told(line);
        }
    }
}

/// A frame of one line is all of its message.
fn hand_out_frames<'t>(lines: &mut Lines, tokens: impl Iterator<Item = &'t str> + Clone, message: &Bytes) {
    let is_alone = tokens.clone().nth(1).is_none();
    let mut rest = message.clone();
    for token in tokens {
        let frame = if is_alone { Some(mem::take(&mut rest)) } else { next_frame(&mut rest) };
        let Some(frame) = frame else { return tracing::error!("frames that do not agree with their lines") };
        if let Some(line) = at(lines, token).filter(|_| is_alone || !frame.is_empty()) {
            line.frame(frame);
        }
    }
}

fn at<'l>(lines: &'l mut Lines, token: &str) -> Option<&'l mut Open> {
    u64::from_str_radix(token, 16).ok().and_then(|token| lines.get_mut(&token))
}

/// Frames of several lines as one message, each after its length in four bytes: never long enough to
/// begin like an acknowledgement. `None` where all are empty: they went alone.
pub(in super::super) fn joined(mut frames: Vec<Bytes>) -> Option<Bytes> {
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
    use tokio::sync::mpsc;

    use super::{frame::Frame, *};
    use crate::json::Raw;

    fn message(subject: &str, payload: Bytes) -> Message {
        let (status, description, headers) = (None, None, None);
        Message { subject: subject.into(), reply: None, payload, headers, status, description, length: 0 }
    }

    type Heard = oneshot::Receiver<Reply>;

    fn lines(tokens: [u64; 3]) -> (Lines, [Heard; 3]) {
        let mut lines = Lines::new();
        let heard = tokens.map(|token| {
            let (sender, heard) = oneshot::channel();
            lines.insert(token, Open::new(sender, true, None));
            heard
        });
        (lines, heard)
    }

    fn ended(heard: &mut Heard) -> Bytes {
        match heard.try_recv() {
            Ok(Reply::Ended(frame)) => frame,
            other => panic!("nobody said so: {other:?}"),
        }
    }

    fn refused(heard: &mut Heard) -> u32 {
        match heard.try_recv() {
            Ok(Reply::Refused(_, error)) => error.err_code,
            other => panic!("nobody said so: {other:?}"),
        }
    }

    const KEPT: &[u8] = br#"{"stream":"AUDIT","seq":1}"#;

    #[test]
    fn each_line_is_told_its_own_end_once_the_record_is_kept() {
        let (mut lines, mut heard) = lines([0x1, 0xaf, 0x3]);
        let frames = [Bytes::from_static(b"one"), Bytes::new(), Bytes::from_static(b"three")];
        hand_out(&mut lines, &message("_INBOX_gateway.x.1+af+3", joined(frames.to_vec()).unwrap()));
        assert!(heard.iter_mut().all(|heard| heard.try_recv().is_err()), "no record is kept");
        assert_eq!([0x1, 0xaf, 0x3].map(|token| lines[&token].last.is_some()), [true, false, true]);
        hand_out(&mut lines, &message("_INBOX_gateway.x.1+af+3", Bytes::from_static(KEPT)));
        assert_eq!([ended(&mut heard[0]), ended(&mut heard[2])], ["one", "three"]);
        assert!(heard[1].try_recv().is_err(), "its frame is long, and comes alone");
        hand_out(&mut lines, &message("_INBOX_gateway.x.af", joined(vec![Bytes::from_static(b"alone")]).unwrap()));
        assert_eq!(ended(&mut heard[1]), "alone");
    }

    #[test]
    fn progress_is_no_end() {
        let (sender, mut heard) = oneshot::channel();
        let (progress, mut steps) = mpsc::unbounded_channel();
        let mut lines = Lines::from([(1, Open::new(sender, true, Some(progress)))]);
        hand_out(&mut lines, &message("_INBOX_gateway.x.1", Bytes::from_static(KEPT)));
        let params = Raw::of(&serde_json::json!({ "progress": 1 })).unwrap();
        hand_out(&mut lines, &message("_INBOX_gateway.x.1", Frame::<()>::Progress(params.clone()).encode().unwrap()));
        assert_eq!(steps.try_recv().unwrap().bytes(), params.bytes());
        assert!(heard.try_recv().is_err());
        let last = Frame::Done(Ok(7)).encode().unwrap();
        hand_out(&mut lines, &message("_INBOX_gateway.x.1", last.clone()));
        assert_eq!(ended(&mut heard), last);
    }

    #[test]
    fn a_record_that_is_refused_ends_every_command_of_it() {
        let (mut lines, mut heard) = lines([1, 2, 3]);
        let full = Bytes::from_static(br#"{"error":{"err_code":10077},"stream":"AUDIT","seq":0}"#);
        hand_out(
            &mut lines,
            &message(
                "_INBOX_gateway.x.1+2",
                joined(vec![Bytes::from_static(b"one"), Bytes::from_static(b"two")]).unwrap(),
            ),
        );
        hand_out(&mut lines, &message("_INBOX_gateway.x.1+2", full));
        hand_out(&mut lines, &message("_INBOX_gateway.x.3", Bytes::from_static(b"{}")));
        assert_eq!([refused(&mut heard[0]), refused(&mut heard[1])], [10077, 10077]);
        assert!(heard[2].try_recv().is_err(), "it says nothing");
    }

    #[test]
    fn who_waits_is_not_woken_to_hear_that_a_call_is_kept() {
        let (mut lines, mut heard) = lines([1, 2, 3]);
        let kept = Bytes::from_static(br#"{"stream":"CALLS_7","seq":1}"#);
        hear_the_queue(&mut lines, &message("_INBOX_caller.x.1", kept));
        let full = Bytes::from_static(br#"{"error":{"err_code":10077},"stream":"CALLS_7","seq":0}"#);
        hear_the_queue(&mut lines, &message("_INBOX_caller.x.2", full));
        assert!(heard[0].try_recv().is_err());
        assert_eq!(refused(&mut heard[1]), 10077);
        assert_eq!([1, 2, 3].map(|token| lines[&token].is_kept), [true, false, false]);
    }

    #[test]
    fn by_way_of_the_queue_comes_nothing_but_whether_a_call_is_kept() {
        let (mut lines, mut heard) = lines([1, 2, 3]);
        lines.get_mut(&3).unwrap().is_queued = false;
        let forged = Frame::Done(Ok("forged")).encode().unwrap();
        let full = Bytes::from_static(br#"{"error":{"err_code":10077},"stream":"CALLS_7","seq":0}"#);
        for content in [
            forged,
            Bytes::from_static(KEPT),
            Bytes::from_static(br#"{"error":{"err_code":10077},"stream":"AUDIT"}"#),
            Bytes::from_static(br#"{"error":{"err_code":10077}}"#),
            Bytes::from_static(b"{}"),
            Bytes::new(),
        ] {
            hear_the_queue(&mut lines, &message("_INBOX_caller.x.1", content));
        }
        let nobody = |subject| Message { status: Some(StatusCode::NO_RESPONDERS), ..message(subject, Bytes::new()) };
        hear_the_queue(&mut lines, &nobody("_INBOX_caller.x.1+2"));
        hear_the_queue(&mut lines, &nobody("_INBOX_caller.x.3"));
        hear_the_queue(&mut lines, &message("_INBOX_caller.x.3", full));
        assert!(heard.iter_mut().all(|heard| heard.try_recv().is_err()), "not of a queued command, or not its word");
        assert!(!lines[&1].is_recorded && lines[&1].last.is_none());
        hear_the_queue(&mut lines, &nobody("_INBOX_caller.x.2"));
        assert!(matches!(heard[1].try_recv(), Ok(Reply::NoResponders)));
    }

    #[test]
    fn frames_that_do_not_agree_with_their_lines_are_nobodys() {
        assert!(joined(vec![Bytes::new(), Bytes::new()]).is_none());
        for malformed in [&b""[..], b"\0", b"\0\0\0\x05abc", b"\xff\xff\xff\xffabc"] {
            let (mut lines, mut heard) = lines([1, 2, 3]);
            hand_out(&mut lines, &message("_INBOX_gateway.x.1+2+3", Bytes::copy_from_slice(malformed)));
            hand_out(
                &mut lines,
                &message("_INBOX_gateway.x.+x+99", Bytes::from_static(b"\0\0\0\0\0\0\0\x01a\0\0\0\x01b")),
            );
            hand_out(&mut lines, &message("_INBOX_gateway.x.1+2+3", Bytes::from_static(KEPT)));
            assert!(heard.iter_mut().all(|heard| heard.try_recv().is_err()));
        }
    }
}
