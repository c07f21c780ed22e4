//! The audit stream: publishing events that no answer goes with, and reading all of them in batches.

use std::{collections::BTreeSet, time::Duration};

use async_nats::jetstream::{self, AckKind};
use bytes::Bytes;
use futures::StreamExt;
use serde_json::value::RawValue;

use super::{Bus, streams, subject};
use crate::{
    audit::Event,
    fault::Fault,
    id::{EventId, OrganizationId},
};

/// The longest pause between the messages of a batch: what waits in the stream comes at once.
const SILENCE: Duration = Duration::from_secs(5);

impl Bus {
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

    /// What waits in the audit stream, up to `most` messages. Does not wait for more: a reader that did would be sent
    /// each message by itself, and the server and the reader would be woken for each.
    pub async fn audit_batch(&self, most: usize) -> Result<AuditBatch, Fault> {
        let unavailable = |cause: &dyn std::fmt::Display| Fault::unavailable("The audit stream", cause);
        let consumer: jetstream::consumer::PullConsumer = self
            .0
            .jetstream
            .get_consumer_from_stream(streams::AUDIT_WRITER, streams::AUDIT)
            .await
            .map_err(|cause| unavailable(&cause))?;
        let mut batch = consumer.fetch().max_messages(most).messages().await.map_err(|cause| unavailable(&cause))?;
        let mut messages = Vec::new();
        // What ends a batch is lost with a connection: nobody else would tell us.
        while let Ok(Some(message)) = tokio::time::timeout(SILENCE, batch.next()).await {
            match message {
                Ok(message) => messages.push(message),
                // What is here already is worth keeping; the next batch meets the same.
                Err(cause) if messages.is_empty() => return Err(unavailable(&cause)),
                Err(_) => break,
            }
        }
        Ok(AuditBatch { messages })
    }
}

/// The stream keeps an event that goes alone once within its window, however often it is published; the
/// table keeps every event once.
fn once(id: EventId) -> async_nats::HeaderMap {
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Nats-Msg-Id", id.to_string().as_str());
    headers
}

/// A message is an event, or a JSON array of those that left together.
fn events_of(message: &Bytes) -> Vec<Bytes> {
    if message.first() != Some(&b'[') {
        return vec![message.clone()];
    }
    match serde_json::from_slice::<Vec<&RawValue>>(message) {
        Ok(events) => events.into_iter().map(|event| message.slice_ref(event.get().as_bytes())).collect(),
        Err(_) => vec![message.clone()],
    }
}

/// A batch of the audit stream.
#[derive(Debug)]
pub struct AuditBatch {
    messages: Vec<jetstream::Message>,
}

impl AuditBatch {
    /// The events of its messages, each as its bytes and with the number of its message; a message that is none and no
    /// list of events whole.
    pub fn events(&self) -> impl Iterator<Item = (usize, Bytes)> {
        let messages = self.messages.iter().enumerate();
        messages.flat_map(|(number, message)| events_of(&message.payload).into_iter().map(move |event| (number, event)))
    }

    /// How many messages it has.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// True when nothing waited.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// They are kept, and the stream forgets them, but for those of `unkept` messages: it delivers these again after
    /// `wait`, and holds them until then for an operator to look at.
    pub async fn ack_but(self, unkept: &BTreeSet<usize>, wait: Duration) {
        for (number, message) in self.messages.into_iter().enumerate() {
            let kind = if unkept.contains(&number) { AckKind::Nak(Some(wait)) } else { AckKind::Ack };
            if let Err(cause) = message.ack_with(kind).await {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_holds_one_event_or_several_each_as_it_was_written() {
        let read = |message: &'static str| -> Vec<Bytes> { events_of(&Bytes::from_static(message.as_bytes())) };
        assert_eq!(read(r#"{"id":1}"#), [r#"{"id":1}"#]);
        assert_eq!(read(r#"[{"id": 1,"x":"]["},{"id":2}]"#), [r#"{"id": 1,"x":"]["}"#, r#"{"id":2}"#]);
        assert_eq!(read(r#"[{"id":1}"#), [r#"[{"id":1}"#], "told as unreadable, not dropped");
    }
}
