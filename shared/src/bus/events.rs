//! Tenant events: what an organization's members are told as it happens. They are kept for an hour, and
//! heard as the server republishes them: no consumer is created, as with buckets (`kv`). What a
//! connection that was lost, or a client that comes back, has missed is read from the stream.

use std::{
    collections::{HashMap, VecDeque},
    time::Instant,
};

use async_nats::{HeaderMap, Message, Subscriber};
use base64::{Engine as _, prelude::BASE64_STANDARD as STANDARD};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::StreamExt;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{
    Bus,
    streams::{EVENTS, EVENTS_PER_ORGANIZATION},
    subject,
};
use crate::{
    fault::Fault,
    id::{OrganizationId, SessionId},
};

/// Something that happened, as members read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantEvent {
    /// The same however often it is told.
    pub id: Uuid,
    /// What, in the past: `session.opened`, `session.touched`, `session.expired`, `session.ended`.
    pub event: String,
    /// When.
    pub at: DateTime<Utc>,
    /// Whose it is: they and admins are told.
    pub subject: String,
    /// The session it happened to.
    pub session: Option<SessionId>,
    /// Why, where there is a reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl TenantEvent {
    /// Told to a member in place of what the stream has forgotten.
    pub fn missed(subject: &str) -> Self {
        Self {
            id: Uuid::now_v7(),
            event: "events.missed".to_owned(),
            at: Utc::now(),
            subject: subject.to_owned(),
            session: None,
            reason: None,
        }
    }
}

/// The most events that are read from the stream before one is taken.
const MOST_AT_ONCE: usize = 64;

impl Bus {
    /// Tells an organization; once, however often it is tried within two minutes.
    pub async fn tell(&self, organization: OrganizationId, event: &TenantEvent) -> Result<(), Fault> {
        self.ensure_connected()?;
        let unavailable = |cause: &dyn std::fmt::Display| Fault::unavailable("The stream of events", cause);
        let payload = serde_json::to_vec(event).map_err(Fault::internal)?;
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", event.id.to_string().as_str());
        let subject = subject::events_of(&organization.to_string());
        let ack = self
            .0
            .jetstream
            .publish_with_headers(subject, headers, payload.into())
            .await
            .map_err(|cause| unavailable(&cause))?;
        ack.await.map(drop).map_err(|cause| unavailable(&cause))
    }

    /// Hears an organization's events: those after a position where one is given, else those to come.
    pub async fn listen(&self, organization: OrganizationId, after: Option<Position>) -> Result<Listening, Fault> {
        self.ensure_connected()?;
        let organization = organization.to_string();
        let news = self
            .0
            .client
            .subscribe(subject::told(&organization))
            .await
            .map_err(|cause| Fault::unavailable("The stream of events", cause))?;
        let mut listening = Listening {
            bus: self.clone(),
            subject: subject::events_of(&organization),
            news,
            connections: self.connections(),
            at: Position::default(),
            waiting: VecDeque::new(),
            end: 0,
            has_more: false,
        };
        listening.connections.mark_unchanged();
        listening.start(after).await?;
        Ok(listening)
    }
}

/// How far somebody has heard: a number in one life of the stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Which stream: one that was lost and made anew counts from one again.
    stream: String,
    sequence: u64,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.stream, self.sequence)
    }
}

impl std::str::FromStr for Position {
    type Err = NotAPosition;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (stream, sequence) = text.split_once('-').ok_or(NotAPosition)?;
        let is_mark = stream.len() == MARK_DIGITS && stream.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_number = sequence.bytes().all(|byte| byte.is_ascii_digit());
        match sequence.parse() {
            Ok(sequence) if is_mark && is_number => Ok(Self { stream: stream.to_owned(), sequence }),
            _ => Err(NotAPosition),
        }
    }
}

/// The text is no position.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the id of an event")]
pub struct NotAPosition;

/// Hexadecimal digits that stand for one life of the stream.
const MARK_DIGITS: usize = 8;

/// What is heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// An event, and the position after it.
    Event(Position, TenantEvent),
    /// Events may have been missed, up to this position.
    Gap(Position),
}

/// Hears one organization's events, each once and in their order.
#[derive(Debug)]
pub struct Listening {
    bus: Bus,
    subject: String,
    news: Subscriber,
    connections: tokio::sync::watch::Receiver<u64>,
    at: Position,
    waiting: VecDeque<Heard>,
    /// Where the stream ended when it was last asked.
    end: u64,
    /// True while the stream holds more than was read of it.
    has_more: bool,
}

impl Listening {
    /// How far it has come, what waits to be taken not counted.
    pub const fn position(&self) -> &Position {
        &self.at
    }

    /// What comes next, or nothing until a moment: then the stream was asked too, so that nothing is
    /// missed because one message was lost. May be dropped and called again.
    pub async fn next(&mut self, until: Instant) -> Result<Option<Heard>, Fault> {
        loop {
            if let Some(heard) = self.waiting.pop_front() {
                return Ok(Some(heard));
            }
            if self.has_more {
                self.catch_up().await?;
                continue;
            }
            tokio::select! {
                message = self.news.next() => match message {
                    Some(message) => self.hear(&message).await?,
                    None => return Err(Fault::unavailable("The stream of events", "the subscription ended")),
                },
                // What was said while the connection was gone was not heard.
                Ok(()) = self.connections.changed() => self.start(Some(self.at.clone())).await?,
                () = tokio::time::sleep_until(until.into()) => {
                    self.start(Some(self.at.clone())).await?;
                    return Ok(self.waiting.pop_front());
                }
            }
        }
    }

    /// Takes in what the server republished; a hole before it is read from the stream first.
    async fn hear(&mut self, message: &Message) -> Result<(), Fault> {
        let Some(headers) = message.headers.as_ref() else { return Ok(()) };
        // The last of a name is the server's.
        let header = |name: &str| headers.get_last(name).map(async_nats::HeaderValue::as_str);
        let number = |name: &str| header(name).and_then(|text| text.parse::<u64>().ok());
        let (Some(EVENTS), Some(sequence), Some(before)) =
            (header("Nats-Stream"), number("Nats-Sequence"), number("Nats-Last-Sequence"))
        else {
            return Ok(());
        };
        if sequence <= self.at.sequence {
            // Known. Should the stream be another that counts anew, the next look at it says so.
            return Ok(());
        }
        if before > self.at.sequence {
            // One was lost on the way.
            return self.start(Some(self.at.clone())).await;
        }
        self.take(sequence, &message.payload);
        Ok(())
    }

    fn take(&mut self, sequence: u64, payload: &[u8]) {
        self.at.sequence = sequence;
        match serde_json::from_slice(payload) {
            Ok(event) => self.waiting.push_back(Heard::Event(self.at.clone(), event)),
            Err(cause) => tracing::error!(%cause, "an unreadable event"),
        }
    }

    /// Goes on after a position, telling of a gap where the stream has forgotten what came next; without
    /// one, at the stream's end.
    async fn start(&mut self, after: Option<Position>) -> Result<(), Fault> {
        let now = self.info().await?;
        let end = Position { stream: now.mark, sequence: now.last };
        self.end = now.last;
        let Some(after) = after else {
            self.at = end;
            return Ok(());
        };
        let mut oldest = now.first;
        if now.own >= EVENTS_PER_ORGANIZATION {
            // Of this organization it may have forgotten younger ones than of others.
            oldest = oldest.max(self.read(1).await?.map_or(oldest, |(sequence, _)| sequence));
        }
        let is_whole = after.stream == end.stream && after.sequence <= end.sequence && after.sequence + 1 >= oldest;
        self.at = if is_whole {
            after
        } else {
            let from = Position { sequence: oldest.saturating_sub(1).min(end.sequence), ..end };
            self.waiting.push_back(Heard::Gap(from.clone()));
            from
        };
        self.has_more = true;
        self.catch_up().await
    }

    /// Reads what the stream holds, a part at a time.
    async fn catch_up(&mut self) -> Result<(), Fault> {
        for _ in 0..MOST_AT_ONCE {
            let Some((sequence, payload)) = self.read(self.at.sequence + 1).await? else {
                // Whatever lies between is other organizations'.
                self.at.sequence = self.at.sequence.max(self.end);
                self.has_more = false;
                return Ok(());
            };
            self.take(sequence, &payload);
        }
        Ok(())
    }

    /// The organization's first event from a number on. Not by a direct read (see `kv`).
    async fn read(&self, from: u64) -> Result<Option<(u64, Vec<u8>)>, Fault> {
        #[derive(Deserialize)]
        struct Answer {
            message: Option<Stored>,
            error: Option<Refused>,
        }
        #[derive(Deserialize)]
        struct Stored {
            seq: u64,
            #[serde(default)]
            data: String,
        }
        #[derive(Deserialize)]
        struct Refused {
            code: u16,
        }
        const NOTHING_MORE: u16 = 404;

        let question = serde_json::json!({ "seq": from, "next_by_subj": self.subject });
        match self.ask(&format!("STREAM.MSG.GET.{EVENTS}"), &question).await? {
            Answer { message: Some(stored), .. } => {
                Ok(Some((stored.seq, STANDARD.decode(stored.data).map_err(Fault::internal)?)))
            }
            Answer { error: Some(Refused { code: NOTHING_MORE }), .. } => Ok(None),
            Answer { .. } => Err(Fault::unavailable("The stream of events", "it does not answer")),
        }
    }

    async fn info(&self) -> Result<Info, Fault> {
        #[derive(Deserialize)]
        struct Answer {
            created: Option<String>,
            state: Option<State>,
        }
        #[derive(Deserialize)]
        struct State {
            first_seq: u64,
            last_seq: u64,
            #[serde(default)]
            subjects: Option<HashMap<String, i64>>,
        }

        let question = serde_json::json!({ "subjects_filter": self.subject });
        match self.ask(&format!("STREAM.INFO.{EVENTS}"), &question).await? {
            Answer { created: Some(created), state: Some(state) } => {
                let digest = Sha256::digest(created.as_bytes());
                let mark = format!("{:08x}", u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]));
                let own = state.subjects.unwrap_or_default().values().sum();
                Ok(Info { mark, first: state.first_seq, last: state.last_seq, own })
            }
            Answer { .. } => Err(Fault::unavailable("The stream of events", "it does not exist yet")),
        }
    }

    async fn ask<T: DeserializeOwned>(&self, request: &str, question: &serde_json::Value) -> Result<T, Fault> {
        let unavailable = |cause: &dyn std::fmt::Display| Fault::unavailable("The stream of events", cause);
        let question = Bytes::from(question.to_string());
        let answer =
            self.bus.0.client.request(subject::api(request), question).await.map_err(|cause| unavailable(&cause))?;
        serde_json::from_slice(&answer.payload).map_err(|cause| unavailable(&cause))
    }
}

/// The stream as it is.
#[derive(Debug)]
struct Info {
    /// Stands for this life of it.
    mark: String,
    first: u64,
    last: u64,
    /// How many events of the organization it holds.
    own: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_reads_back_and_nothing_else_does() {
        let position = Position { stream: "0a1b2c3d".into(), sequence: 42 };
        assert_eq!(position.to_string().parse(), Ok(position));
        for text in ["", "42", "-42", "0a1b2c3d-", "0a1b2c3d-x", "0a1b2c3d-+1", "xxxxxxxx-1", "0a1b2c3d-1-1", "0a1b-1"]
        {
            assert_eq!(text.parse::<Position>(), Err(NotAPosition), "{text}");
        }
    }
}
