//! The working side of lanes: deliveries, in-progress confirmations and the final acknowledgement.

use std::time::Instant;

use bytes::Bytes;

use super::{
    Bus,
    envelope::{Envelope, Refusal, Stored},
    heard::Heard,
    inflow::Inflow,
    subject,
};
use crate::{command::Pool, fault::Fault};

/// A worker's share of its pool's lanes.
#[derive(Debug)]
pub struct Work {
    inflow: Inflow,
    heard: Heard,
    bus: Bus,
}

/// One delivery of a queued command.
#[derive(Debug)]
pub struct Delivered {
    /// What was delivered, or why it cannot be read.
    pub envelope: Result<Envelope, Refusal>,
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

/// A slot of the organization's concurrency, held until acknowledged.
#[derive(Debug)]
pub struct Slot {
    ack: async_nats::Subject,
    bus: Bus,
}

impl Bus {
    /// Subscribes the pool's lanes.
    pub async fn work(&self, pool: Pool) -> Result<Work, Fault> {
        let inflow = Inflow::join(self, subject::work(pool), subject::WORK_GROUP).await?;
        Ok(Work { inflow, heard: Heard::start(self), bus: self.clone() })
    }
}

impl Work {
    /// The next delivery; `None` once ended. Cancel safe.
    pub async fn next(&mut self) -> Option<Delivered> {
        loop {
            let message = self.inflow.next().await?;
            let stored = message.reply.as_ref().and_then(|ack| Stored::parse(ack));
            let (Some(ack), Some(stored)) = (message.reply.clone(), stored) else {
                tracing::warn!(subject = %message.subject, "work that no stream delivered");
                metrics::counter!("switchboard_messages_refused_total", "reason" => "not_from_a_stream").increment(1);
                continue;
            };
            return Some(Delivered {
                attempt: stored.delivered,
                since: self.heard.since(),
                queued_at_ms: stored.at_ns / 1_000_000,
                envelope: Envelope::read(&message, Some(&stored), stored.call()),
                slot: Slot { ack, bus: self.bus.clone() },
            });
        }
    }

    /// Takes nothing new; what was sent until then is still handed out by [`Self::next`].
    pub async fn end(&mut self) {
        self.inflow.end().await;
    }
}

impl Slot {
    /// Says that the call is still running; an error means that nobody confirmed it.
    pub async fn extend(&self) -> Result<(), Fault> {
        self.tell("+WPI").await
    }

    /// Ends the delivery and frees the slot; returns once the server confirmed it.
    pub async fn release(&self) -> Result<(), Fault> {
        self.tell("+ACK").await
    }

    async fn tell(&self, word: &'static str) -> Result<(), Fault> {
        self.bus
            .0
            .client
            .request(self.ack.clone(), Bytes::from_static(word.as_bytes()))
            .await
            .map(drop)
            .map_err(|cause| Fault::unavailable("The queue", cause))
    }
}
