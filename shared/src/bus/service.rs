//! The answering side of direct commands, and the way back for all of them.

use async_nats::{Message, Subscriber};
use bytes::Bytes;
use futures::StreamExt;

use super::{Bus, envelope::{Envelope, Refusal}, subject};
use crate::{command::Pool, fault::Fault};

/// A pool's direct commands, shared with its other workers.
#[derive(Debug)]
pub struct Service {
    subscription: Subscriber,
}

impl Bus {
    /// Subscribes a pool's direct commands in its queue group.
    pub async fn serve(&self, pool: Pool) -> Result<Service, Fault> {
        let subscription = self
            .client
            .queue_subscribe(subject::direct_to(pool), pool.name().to_owned())
            .await
            .map_err(|cause| Fault::unavailable("The message queue", cause))?;
        Ok(Service { subscription })
    }

    /// Sends bytes to a caller's inbox.
    pub async fn reply(&self, inbox: &str, frame: Bytes) -> Result<(), Fault> {
        self.client.publish(inbox.to_owned(), frame).await.map_err(|cause| Fault::unavailable("The message queue", cause))
    }
}

impl Service {
    /// The next command; `None` once drained.
    pub async fn next(&mut self) -> Option<Result<Envelope, Refusal>> {
        let message: Message = self.subscription.next().await?;
        Some(Envelope::read(&message, false))
    }

    /// Takes nothing new; what was delivered is still handed out by [`Self::next`].
    pub async fn drain(&mut self) {
        if let Err(cause) = self.subscription.drain().await {
            tracing::debug!(%cause, "draining");
        }
    }
}
