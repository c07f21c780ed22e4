//! JetStream's administration: a second connection, in the account where JetStream stands, which has a name for the
//! API of the queue's account too. The controller alone makes one, so that nothing else can so much as name what it
//! does.

use async_nats::{Client, jetstream};
use tokio::sync::watch;

use super::{Counts, connect, subject};
use crate::config;

/// The user in JetStream's account.
pub const USER: &str = "jetstream";

/// May create, change and delete streams and consumers. Lanes and streams say how.
#[derive(Clone, Debug)]
pub struct Administration {
    pub(super) client: Client,
    pub(super) jetstream: jetstream::Context,
    /// Of the queue's account.
    pub(super) queue: jetstream::Context,
    connections: watch::Receiver<u64>,
}

impl Administration {
    /// Connects, retrying until the server is there, and reconnects for ever.
    pub async fn connect(config: &config::Nats) -> anyhow::Result<Self> {
        let counts = Counts::default();
        let connections = counts.made.subscribe();
        let client = connect(config, USER, format!("switchboard-{USER}"), counts).await?;
        let queue = jetstream::with_prefix(client.clone(), subject::QUEUE_API_PREFIX);
        Ok(Self { jetstream: jetstream::new(client.clone()), queue, client, connections })
    }

    /// Counts connections made: a change means that NATS may have been restarted in between.
    pub fn connections(&self) -> watch::Receiver<u64> {
        self.connections.clone()
    }
}
