//! The queue: a second connection of gateways and tool workers, in an account that holds nothing but calls that wait and
//! run. Commands and deliveries go by it: crossing from one account to another costs the server more than all
//! else that it does for a call, and a subscription that is imported cannot be ended at a certain message (ADR 20).

use async_nats::{Client, connection::State};
use tokio::sync::watch;

use super::{Counts, connect, link::Link, subject};
use crate::{config, fault::Fault};

/// Who connects there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Gateways: publish calls and hear what the queue says about them.
    Calling,
    /// Tool workers: hear lanes.
    Working,
}

impl Side {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Calling, Self::Working];

    /// The user in the queue's account.
    pub const fn user(self) -> &'static str {
        match self {
            Self::Calling => "caller",
            Self::Working => "lanes",
        }
    }
}

/// A connection to the queue. Clones share it.
#[derive(Clone, Debug)]
pub struct Queue {
    pub(super) client: Client,
    connections: watch::Receiver<u64>,
    losses: watch::Receiver<u64>,
}

impl Queue {
    /// Connects, retrying until the server is there, and reconnects for ever.
    pub async fn connect(config: &config::Nats, side: Side) -> anyhow::Result<Self> {
        let counts = Counts::default();
        let (connections, losses) = (counts.made.subscribe(), counts.lost.subscribe());
        let client = connect(config, side.user(), format!("switchboard-{}", side.user()), counts).await?;
        Ok(Self { client, connections, losses })
    }

    /// Counts connections made: a change means that NATS may have been restarted in between.
    pub(super) fn connections(&self) -> watch::Receiver<u64> {
        self.connections.clone()
    }

    /// True while the connection stands.
    pub(super) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Waits until everything written so far has left.
    pub(super) async fn flush(&self) -> Result<(), Fault> {
        self.client.flush().await.map_err(|cause| Fault::unavailable("The queue", cause))
    }

    /// For who hears lanes.
    pub(super) fn link(&self) -> Link {
        let Self { client, connections, losses } = self.clone();
        Link { client, connections, losses, nobody: subject::nobody(Side::Working.user()) }
    }
}
