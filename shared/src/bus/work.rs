//! The working side of lanes: deliveries, in-progress confirmations and the final acknowledgement.

use std::time::Instant;

use async_nats::{HeaderMap, Message};
use bytes::Bytes;

use super::{
    Bus,
    envelope::{Envelope, Refusal, Stored},
    heard::Heard,
    inflow::{Group, Inflow},
    subject,
};
use crate::{command::Pool, fault::Fault};

/// How many deliveries ahead the end of hearing them is announced ([`super::inflow`]).
const AHEAD: u64 = 512;

/// A worker's share of its pool's lanes.
#[derive(Debug)]
pub struct Work {
    inflow: Inflow,
    heard: Heard,
    bus: Bus,
}

/// One delivery of a queued command.
pub struct Delivered {
    message: Message,
    stored: Stored,
    /// How often it was delivered, this time included.
    pub attempt: u64,
    /// When the queue took it in, in milliseconds since the Unix epoch.
    pub queued_at_ms: u64,
    /// It was not made before this; later than [`super::lanes::ACK_WAIT`] after it was made, the
    /// slot may be another's.
    pub since: Instant,
    /// The slot it holds.
    pub slot: Slot,
}

impl std::fmt::Debug for Delivered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivered").field("slot", &self.slot.ack).finish_non_exhaustive()
    }
}

/// A slot of the organization's concurrency, held until acknowledged.
pub struct Slot {
    ack: async_nats::Subject,
    bus: Bus,
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Slot").field(&self.ack.as_str()).finish()
    }
}

impl Bus {
    /// Subscribes the pool's lanes.
    pub async fn work(&self, pool: Pool) -> Result<Work, Fault> {
        let link = self.queue()?.link();
        let heard = Heard::start(link.clone());
        let subject = subject::work(pool);
        let group = Group { own: subject.clone(), subject, name: subject::WORK_GROUP, ahead: AHEAD };
        let inflow = Inflow::join(link, group).await?;
        Ok(Work { inflow, heard, bus: self.clone() })
    }
}

impl Work {
    /// Waits until deliveries come here.
    pub async fn wait_until_known(&self) {
        self.inflow.wait_until_known().await;
    }

    /// The next delivery; `None` once ended. Cancel safe.
    pub async fn next(&mut self) -> Option<Delivered> {
        loop {
            let message = self.inflow.next().await?;
            if let Some(delivered) = Delivered::read(&self.bus, message, self.heard.since()) {
                return Some(delivered);
            }
        }
    }

    /// Takes nothing new; what was sent until then is still handed out by [`Self::next`].
    pub async fn end(&mut self) {
        self.inflow.end().await;
    }
}

impl Delivered {
    /// What a stream delivered, no earlier than `since`; `None` for anything else.
    pub(super) fn read(bus: &Bus, message: Message, since: Instant) -> Option<Self> {
        let stored = message.reply.as_ref().and_then(|ack| Stored::parse(ack));
        let (Some(ack), Some(stored)) = (message.reply.clone(), stored) else {
            tracing::warn!(subject = %message.subject, "work that no stream delivered");
            metrics::counter!("switchboard_messages_refused_total", "reason" => "not_from_a_stream").increment(1);
            return None;
        };
        let (attempt, queued_at_ms) = (stored.delivered, stored.at_ns / 1_000_000);
        Some(Self { message, stored, attempt, queued_at_ms, since, slot: Slot { ack, bus: bus.clone() } })
    }

    /// What was delivered, or why it cannot be read.
    pub fn envelope(&self) -> Result<Envelope, Refusal> {
        let stored = self.stored;
        if !stored.holds(&self.message.subject) {
            return Err(Refusal::Subject);
        }
        Envelope::read(&self.message, Some(&stored), stored.call())
    }

    /// The subject it was sent to.
    pub(super) fn subject(&self) -> &str {
        &self.message.subject
    }

    /// What was sent.
    pub(super) fn content(&self) -> (HeaderMap, Bytes) {
        (self.message.headers.clone().unwrap_or_default(), self.message.payload.clone())
    }
}

impl Slot {
    /// Where it is acknowledged.
    pub(super) fn subject(&self) -> &str {
        &self.ack
    }

    /// Says that the call is still running; an error means that nobody confirmed it. The confirmation comes where it
    /// was asked for: in the queue's account. A worker that could not answer by now has nothing to hold a slot for.
    pub async fn extend(&self) -> Result<(), Fault> {
        self.bus.ensure_connected()?;
        let client = &self.bus.queue()?.client;
        // Boxed: only a call that takes long says so.
        Box::pin(client.request(self.ack.clone(), Bytes::from_static(b"+WPI"))).await.map(drop).map_err(unavailable)
    }

    /// Ends the delivery and frees the slot. Nobody confirms it (ADR 15): one that is lost with its
    /// connection, or cannot be sent, is a delivery that comes again, and the rule for those holds. It goes by the same connection as the
    /// answer before it, though that crosses an account: what frees a slot may not arrive where the answer did not.
    pub async fn release(self) {
        if let Err(cause) = self.bus.0.client.publish(self.ack, Bytes::from_static(b"+ACK")).await {
            tracing::warn!(%cause, "a slot was not released");
        }
    }
}

fn unavailable(cause: impl std::fmt::Display) -> Fault {
    Fault::unavailable("The queue", cause)
}
