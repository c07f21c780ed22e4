//! The audit stream: publishing events, and reading them in batches.

use std::time::Duration;

use async_nats::jetstream::{self, AckKind};
use bytes::Bytes;
use futures::StreamExt;

use super::{Bus, streams, subject};
use crate::{
    audit::Event,
    fault::Fault,
    id::{EventId, OrganizationId},
};

impl Bus {
    /// Sends an event to the audit stream. Its acknowledgement goes to `reply`: the caller's
    /// inbox, so that the caller and nobody in between waits for it.
    pub async fn audit(&self, event: &Event, reply: &str) -> Result<(), Fault> {
        let payload = Bytes::from(serde_json::to_vec(event).map_err(Fault::internal)?);
        let subject = subject::audit(event.organization);
        self.0
            .client
            .publish_with_reply_and_headers(subject, reply.to_owned(), once(event.id), payload)
            .await
            .map_err(|cause| Fault::unavailable("The audit stream", cause))
    }

    /// Sends an event that nobody waits for, and waits until it is stored.
    pub async fn audit_beside(&self, event: &Event) -> Result<(), Fault> {
        let bytes = serde_json::to_vec(event).map_err(Fault::internal)?;
        self.audit_and_wait(event.organization, event.id, bytes.into()).await
    }

    /// Sends an event and waits until it is stored: for events whose caller is gone.
    pub async fn audit_and_wait(&self, organization: OrganizationId, id: EventId, event: Bytes) -> Result<(), Fault> {
        self.ensure_connected()?;
        let unavailable = |cause: &dyn std::fmt::Display| Fault::unavailable("The audit stream", cause);
        let ack = self
            .0
            .jetstream
            .publish_with_headers(subject::audit(organization), once(id), event)
            .await
            .map_err(|cause| unavailable(&cause))?;
        ack.await.map(drop).map_err(|cause| unavailable(&cause))
    }

    /// Up to `most` audit events, waiting at most `patience` for the first.
    pub async fn audit_batch(&self, most: usize, patience: Duration) -> Result<AuditBatch, Fault> {
        let unavailable = |cause: &dyn std::fmt::Display| Fault::unavailable("The audit stream", cause);
        let consumer: jetstream::consumer::PullConsumer = self
            .0
            .jetstream
            .get_consumer_from_stream(streams::AUDIT_WRITER, streams::AUDIT)
            .await
            .map_err(|cause| unavailable(&cause))?;
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
}

/// The stream keeps an event once within its window, however often it is published.
fn once(id: EventId) -> async_nats::HeaderMap {
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Nats-Msg-Id", id.to_string().as_str());
    headers
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

    /// They could not be kept: the stream delivers them again after `wait`, rather than once its own
    /// patience is over.
    pub async fn put_back(self, wait: Duration) {
        for message in self.messages {
            if let Err(cause) = message.ack_with(AckKind::Nak(Some(wait))).await {
                tracing::debug!(%cause, "audit events put back");
            }
        }
    }
}
