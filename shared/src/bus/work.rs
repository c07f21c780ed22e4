//! The working side of lanes: deliveries, in-progress confirmations and the final acknowledgement.

use async_nats::{Subscriber, jetstream};
use bytes::Bytes;
use futures::StreamExt;

use super::{Bus, envelope::{Envelope, Refusal}, streams, subject};
use crate::{command::Pool, fault::Fault};

/// A worker's share of its pool's lanes.
#[derive(Debug)]
pub struct Work {
    subscription: Subscriber,
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
    /// The slot it holds.
    pub slot: Slot,
}

/// A slot of the organization's concurrency, held until acknowledged.
#[derive(Clone, Debug)]
pub struct Slot {
    ack: String,
    bus: Bus,
}

impl Bus {
    /// Subscribes the pool's lanes.
    pub async fn work(&self, pool: Pool) -> Result<Work, Fault> {
        let subscription = self
            .client
            .queue_subscribe(subject::work(pool), subject::WORK_GROUP.to_owned())
            .await
            .map_err(|cause| Fault::unavailable("The message queue", cause))?;
        Ok(Work { subscription, bus: self.clone() })
    }
}

impl Work {
    /// The next delivery; `None` once drained.
    pub async fn next(&mut self) -> Option<Delivered> {
        loop {
            let message = self.subscription.next().await?;
            let Some(ack) = message.reply.as_ref().map(ToString::to_string) else {
                tracing::warn!(subject = %message.subject, "work that no stream delivered");
                metrics::counter!("switchboard_messages_refused_total", "reason" => "not_from_a_stream").increment(1);
                continue;
            };
            let envelope = Envelope::read(&message, true);
            let message = jetstream::Message { message, context: self.bus.jetstream.clone() };
            let Ok(info) = message.info() else {
                tracing::warn!("work with a foreign reply subject");
                metrics::counter!("switchboard_messages_refused_total", "reason" => "not_from_a_stream").increment(1);
                continue;
            };
            return Some(Delivered {
                attempt: u64::try_from(info.delivered).unwrap_or(1),
                queued_at_ms: u64::try_from(info.published.unix_timestamp_nanos() / 1_000_000).unwrap_or_default(),
                envelope,
                slot: Slot { ack, bus: self.bus.clone() },
            });
        }
    }

    /// Takes nothing new; what was delivered is still handed out by [`Self::next`].
    pub async fn drain(&mut self) {
        if let Err(cause) = self.subscription.drain().await {
            tracing::debug!(%cause, "draining");
        }
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
            .client
            .request(self.ack.clone(), Bytes::from_static(word.as_bytes()))
            .await
            .map(drop)
            .map_err(|cause| Fault::unavailable("The queue", cause))
    }
}

/// A batch of the audit stream.
#[derive(Debug)]
pub struct AuditBatch {
    messages: Vec<jetstream::Message>,
}

impl AuditBatch {
    /// The events as bytes.
    pub fn events(&self) -> impl Iterator<Item = &Bytes> {
        self.messages.iter().map(|message| &message.payload)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// True when nothing came in time.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// They are kept: the stream need not deliver them again.
    pub async fn ack(self) {
        for message in self.messages {
            if let Err(cause) = message.ack().await {
                // They come again, and the event id makes that harmless.
                tracing::warn!(%cause, "audit acknowledgement");
            }
        }
    }
}

impl Bus {
    /// Up to `most` audit events, waiting at most `patience` for the first.
    pub async fn audit_batch(&self, most: usize, patience: std::time::Duration) -> Result<AuditBatch, Fault> {
        let unavailable = |cause: &dyn std::fmt::Display| Fault::unavailable("The audit stream", cause);
        let consumer: jetstream::consumer::PullConsumer = self.audit_consumer().await?;
        let mut batch = consumer
            .batch()
            .max_messages(most)
            .expires(patience)
            .messages()
            .await
            .map_err(|cause| unavailable(&cause))?;
        let mut messages = Vec::new();
        while let Some(message) = batch.next().await {
            messages.push(message.map_err(|cause| unavailable(&cause))?);
        }
        Ok(AuditBatch { messages })
    }

    async fn audit_consumer(&self) -> Result<jetstream::consumer::PullConsumer, Fault> {
        self.jetstream
            .get_consumer_from_stream(streams::AUDIT_WRITER, streams::AUDIT)
            .await
            .map_err(|cause| Fault::unavailable("The audit stream", cause))
    }
}
