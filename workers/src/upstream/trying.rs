//! Opening a client for a trial: not kept, not shared, and with an account of how far it came.

use std::{sync::Arc, time::Instant};

use shared::{
    Code, Fault,
    command::configurations::{Credential, Stage},
};
use url::Url;

use super::{Client, Inner, Kind, Specification, Upstreams, native::Native};

/// A client that was opened for a trial.
#[derive(Debug)]
pub struct Opened {
    /// The client. Nobody else has it.
    pub client: Arc<Client>,
    /// The version of the protocol that was agreed upon.
    pub version: String,
    /// When the server first answered; `None` where another process speaks to it.
    pub answered_at: Option<Instant>,
}

/// How opening one failed.
#[derive(Debug)]
pub struct Unopened {
    /// Where on its way.
    pub stage: Stage,
    /// What the caller of a tool would be told.
    pub fault: Fault,
    /// When the server first answered, if it did.
    pub answered_at: Option<Instant>,
}

impl Upstreams {
    /// Opens a client that is not kept. Configuration and workspace must be nobody else's, since they
    /// end with it. An error is ours; that the server is not what it should be is an outcome.
    pub async fn try_out(&self, specification: &Specification) -> Result<Result<Opened, Unopened>, Fault> {
        match (self.0.service(specification)?, specification.target.endpoint()) {
            (None, Some(endpoint)) => Ok(self.0.try_native(endpoint, &specification.credential).await),
            _ => self.0.try_service(specification).await,
        }
    }
}

impl Inner {
    async fn try_native(&self, endpoint: &Url, credential: &Credential) -> Result<Opened, Unopened> {
        let native = Native::connect(&self.egress, endpoint, credential).await.map_err(|failed| Unopened {
            stage: failed.stage,
            fault: failed.fault,
            answered_at: failed.answered_at,
        })?;
        let (version, answered_at) = native.met();
        Ok(Opened { client: client(Kind::Native(Box::new(native))), version, answered_at })
    }

    async fn try_service(&self, specification: &Specification) -> Result<Result<Opened, Unopened>, Fault> {
        match self.open(specification, &specification.digest()).await {
            Ok(mut kind) => {
                let mut version = String::new();
                if let Kind::FastMcp(remote) = &mut kind {
                    remote.is_shared = false;
                    version.clone_from(&remote.version);
                }
                Ok(Ok(Opened { client: client(kind), version, answered_at: None }))
            }
            Err(fault) => {
                let stage = match fault.code {
                    Code::Reconnect => Stage::Auth,
                    Code::Invalid if fault.field.as_deref() == Some("catalogue") => Stage::Program,
                    Code::UpstreamFailed if fault == super::failure::unreachable() => Stage::Http,
                    Code::UpstreamFailed | Code::Invalid => Stage::Protocol,
                    Code::Timeout => Stage::Http,
                    // The service, not the server.
                    _ => return Err(fault),
                };
                Ok(Err(Unopened { stage, fault, answered_at: None }))
            }
        }
    }
}

fn client(kind: Kind) -> Arc<Client> {
    Arc::new(Client::of(kind))
}

impl Client {
    /// Ends it, on the server too, without anybody waiting for that.
    pub fn let_go(self: Arc<Self>) {
        tokio::spawn(self.retire());
    }
}
