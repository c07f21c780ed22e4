//! The answering side of direct commands, and the way back for all of them.

use bytes::Bytes;

use super::{
    Bus,
    envelope::{Envelope, Refusal},
    inflow::{Group, Inflow},
    subject,
};
use crate::{command::Pool, fault::Fault, id::CallId};

/// How many commands ahead the end of hearing them is announced ([`super::inflow`]).
const AHEAD: u64 = 512;

/// A pool's direct commands, shared with its other workers.
#[derive(Debug)]
pub struct Service {
    inflow: Inflow,
}

impl Bus {
    /// Subscribes a pool's direct commands in its queue group.
    pub async fn serve(&self, pool: Pool) -> Result<Service, Fault> {
        let (subject, own) = (subject::direct_to(pool), subject::filler(pool));
        let group = Group { subject, name: pool.name(), own, ahead: AHEAD };
        Ok(Service { inflow: Inflow::join(self.link(), group).await? })
    }

    /// Sends bytes to a caller's inbox.
    pub async fn reply(&self, inbox: &str, frame: Bytes) -> Result<(), Fault> {
        self.0
            .client
            .publish(inbox.to_owned(), frame)
            .await
            .map_err(|cause| Fault::unavailable("The message queue", cause))
    }
}

impl Service {
    /// Waits until commands come here.
    pub async fn wait_until_known(&self) {
        self.inflow.wait_until_known().await;
    }

    /// The next command; `None` once ended. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<Envelope, Refusal>> {
        let message = self.inflow.next().await?;
        // The receiver names the call: a sender that repeats a name would hide its second command
        // from the audit trail, which keeps each event once.
        Some(Envelope::read(&message, None, CallId::new()))
    }

    /// Takes nothing new; what was sent until then is still handed out by [`Self::next`].
    pub async fn end(&mut self) {
        self.inflow.end().await;
    }
}
