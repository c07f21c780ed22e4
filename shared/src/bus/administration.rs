//! JetStream's administration: a second connection, in the account where JetStream stands. The
//! controller alone makes one, so that nothing else can so much as name what it does.

use async_nats::{Client, jetstream};
use tokio::sync::watch;

use super::{Counts, connect};
use crate::config;

/// The user in JetStream's account.
pub const USER: &str = "jetstream";

/// May create, change and delete streams and consumers. Lanes and streams say how.
#[derive(Clone, Debug)]
pub struct Administration {
    pub(super) client: Client,
    pub(super) jetstream: jetstream::Context,
    connections: watch::Receiver<u64>,
}

impl Administration {
    /// Connects, retrying until the server is there, and reconnects for ever.
    pub async fn connect(config: &config::Nats) -> anyhow::Result<Self> {
        let counts = Counts::default();
        let connections = counts.made.subscribe();
        let client = connect(config, USER, format!("switchboard-{USER}"), counts).await?;
        Ok(Self { jetstream: jetstream::new(client.clone()), client, connections })
    }

    /// Counts connections made: a change means that NATS may have been restarted in between.
    pub fn connections(&self) -> watch::Receiver<u64> {
        self.connections.clone()
    }
}
