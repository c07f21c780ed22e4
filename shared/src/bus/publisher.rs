//! Publishing audit events.

use bytes::Bytes;

use super::{Bus, subject};
use crate::{audit::Event, fault::Fault};

impl Bus {
    /// Sends an event to the audit stream. Its acknowledgement goes to `reply`: the caller's
    /// inbox, so that the caller and nobody in between waits for it.
    pub async fn audit(&self, event: &Event, reply: &str) -> Result<(), Fault> {
        let payload = Bytes::from(serde_json::to_vec(event).map_err(Fault::internal)?);
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Msg-Id", event.id.to_string().as_str());
        self.client
            .publish_with_reply_and_headers(subject::audit(event.organization), reply.to_owned(), headers, payload)
            .await
            .map_err(|cause| Fault::unavailable("The audit stream", cause))
    }

    /// Sends an event and waits until it is stored: for events whose caller is gone.
    pub async fn audit_and_wait(&self, organization: crate::id::OrganizationId, id: crate::id::EventId, event: Bytes) -> Result<(), Fault> {
        self.ensure_connected()?;
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Msg-Id", id.to_string().as_str());
        let unavailable = |cause: &dyn std::fmt::Display| Fault::unavailable("The audit stream", cause);
        let ack = self
            .jetstream
            .publish_with_headers(subject::audit(organization), headers, event)
            .await
            .map_err(|cause| unavailable(&cause))?;
        ack.await.map(drop).map_err(|cause| unavailable(&cause))
    }
}
