//! The inbox of a process: where all answers to its commands come, on each of its connections.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use async_nats::{Client, Message};
use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::oneshot;

use self::lines::{Lines, Open, hand_out, hear_the_queue};
use super::{Bus, caller::Progress, frame::PublishError, queue::Side, subject};
use crate::fault::Fault;

mod lines;

pub(super) use self::lines::joined;

/// Between the lines that one message is for.
pub(super) const LINES: char = '+';

/// How a command ended.
#[derive(Debug)]
pub(super) enum Reply {
    /// Its last frame; the audit stream has its record.
    Ended(Bytes),
    /// The stream of this name did not take in the command, or the record of it.
    Refused(String, PublishError),
    /// Nobody heard the command.
    NoResponders,
    /// The command did not leave this process.
    NotSent(Fault),
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

/// One command's reply; closing it drops what comes late.
pub(super) struct Line {
    place: Place,
    /// Where the answer goes.
    pub(super) subject: String,
    pub(super) reply: oneshot::Receiver<Reply>,
}

/// A line's place in its inbox.
#[derive(Clone, Debug)]
pub(super) struct Place {
    token: u64,
    inbox: Inbox,
}

/// What is known of a command whose end is not.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    /// The queue has said that it keeps the call.
    pub(super) is_kept: bool,
    /// When its last frame came; whether its record is kept is not known.
    pub(super) ended_at: Option<Instant>,
}

impl Inbox {
    pub(super) async fn subscribe(bus: &Bus) -> Result<Self, Fault> {
        // The tail cannot be guessed by another process of the same role.
        let inbox_of = |user: &str| Arc::from(format!("{}.{}", subject::inbox_prefix(user), bus.instance()));
        let inbox = Self::at(inbox_of(bus.role().name()), inbox_of(Side::Calling.user()));
        inbox.hear(&bus.0.client, &inbox.answers, hand_out).await?;
        if let Some(queue) = &bus.0.queue {
            inbox.hear(&queue.client, &inbox.words, hear_the_queue).await?;
        }
        Ok(inbox)
    }

    pub(super) fn at(answers: Arc<str>, words: Arc<str>) -> Self {
        Self { answers, words, next: Arc::default(), lines: Arc::default() }
    }

    async fn hear(&self, client: &Client, at: &str, hand_out: fn(&mut Lines, &Message)) -> Result<(), Fault> {
        let mut subscription = client
            .subscribe(format!("{at}.*"))
            .await
            .map_err(|cause| Fault::unavailable("The message queue", cause))?;
        let lines = Arc::clone(&self.lines);
        tokio::spawn(async move {
            while let Some(message) = subscription.next().await {
                hand_out(&mut lines.lock().unwrap_or_else(PoisonError::into_inner), &message);
            }
        });
        Ok(())
    }

    pub(super) fn open(&self, is_queued: bool, progress: Option<Progress>) -> Line {
        let token = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, reply) = oneshot::channel();
        self.lines().insert(token, Open::new(sender, is_queued, progress));
        let place = Place { token, inbox: self.clone() };
        Line { place, subject: format!("{}.{token:x}", self.answers), reply }
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    /// Where the queue says whether it keeps the call.
    pub(super) fn of_the_queue(&self) -> String {
        format!("{}.{:x}", self.place.inbox.words, self.place.token)
    }

    pub(super) fn place(&self) -> Place {
        self.place.clone()
    }

    pub(super) fn known(&self) -> Known {
        let lines = self.place.inbox.lines();
        let line = lines.get(&self.place.token);
        line.map(|line| Known { is_kept: line.is_kept, ended_at: line.ended_at }).unwrap_or_default()
    }
}

impl Place {
    /// Tells whoever waits there, if anybody does.
    pub(super) fn tell(&self, reply: Reply) {
        if let Some(line) = self.inbox.lines().get_mut(&self.token) {
            line.tell(reply);
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.place.inbox.lines().remove(&self.place.token);
    }
}
