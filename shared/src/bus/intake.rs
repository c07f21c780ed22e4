//! Where lanes are heard: a second connection of the tool pool, in the account where JetStream stands.
//! A subscription that is imported from another account cannot be ended at a certain message (measured
//! on nats-server 2.15.1: the maximum is not kept), and so not without losing some. The user may hear
//! its pool's work, fill its own end there ([`super::inflow`]) and nothing else; it acknowledges as the tool pool, by way
//! of the import.

use async_nats::Client;
use tokio::sync::watch;

use super::{Counts, connect, link::Link, subject};
use crate::config;

/// The user in JetStream's account.
pub const USER: &str = "lanes";

/// Hears lanes. Clones share the connection.
#[derive(Clone, Debug)]
pub struct Intake {
    client: Client,
    connections: watch::Receiver<u64>,
    losses: watch::Receiver<u64>,
}

impl Intake {
    /// Connects, retrying until the server is there, and reconnects for ever.
    pub async fn connect(config: &config::Nats) -> anyhow::Result<Self> {
        let counts = Counts::default();
        let (connections, losses) = (counts.made.subscribe(), counts.lost.subscribe());
        let client = connect(config, USER, format!("switchboard-{USER}"), counts).await?;
        Ok(Self { client, connections, losses })
    }

    pub(super) fn link(&self) -> Link {
        let Self { client, connections, losses } = self.clone();
        Link { client, connections, losses, nobody: subject::nobody(USER) }
    }
}
