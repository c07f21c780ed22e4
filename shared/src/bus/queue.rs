//! The queue: a second connection of gateways and tool workers, in an account that holds nothing but calls that wait
//! and run. Commands and deliveries go by it: crossing from one account to another was a third of what the server did
//! for a call, and a subscription that is imported cannot be ended at a certain message (ADR 20).

use async_nats::Client;
use tokio::sync::watch;

use super::{Counts, Role, connect, is_up, link::Link, subject};
use crate::{command::Pool, config, fault::Fault};

/// Who connects there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Gateways: publish calls and hear what the queue says about them.
    Calling,
    /// Tool workers: hear lanes and say that their slots are held.
    Working,
}

impl Side {
    /// Both.
    pub(super) const ALL: [Self; 2] = [Self::Calling, Self::Working];

    /// That of a role, where it has one.
    pub(super) const fn of(role: Role) -> Option<Self> {
        match role {
            Role::Gateway => Some(Self::Calling),
            Role::Pool(Pool::Tool) => Some(Self::Working),
            Role::Pool(_) => None,
        }
    }

    /// The user in the queue's account.
    pub(super) const fn user(self) -> &'static str {
        match self {
            Self::Calling => "caller",
            Self::Working => "lanes",
        }
    }
}

/// A connection to the queue. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    pub(super) client: Client,
    side: Side,
    connections: watch::Receiver<u64>,
    losses: watch::Receiver<u64>,
}

impl Queue {
    /// Connects, retrying until the server is there, and reconnects for ever.
    pub(super) async fn connect(config: &config::Nats, side: Side, instance: &str) -> anyhow::Result<Self> {
        let counts = Counts::default();
        let (connections, losses) = (counts.made.subscribe(), counts.lost.subscribe());
        let client = connect(config, side.user(), format!("switchboard-{}-{instance}", side.user()), counts).await?;
        Ok(Self { client, side, connections, losses })
    }

    /// Counts connections lost.
    pub(super) fn losses(&self) -> watch::Receiver<u64> {
        self.losses.clone()
    }

    /// True while the connection stands.
    pub(super) fn is_connected(&self) -> bool {
        is_up(&self.client)
    }

    /// As [`super::Bus::ensure_connected`].
    pub(super) fn ensure_connected(&self) -> Result<(), Fault> {
        if self.is_connected() { Ok(()) } else { Err(Fault::unavailable("The queue", "not connected")) }
    }

    /// Waits until everything written so far has left.
    pub(super) async fn flush(&self) -> Result<(), Fault> {
        self.client.flush().await.map_err(|cause| Fault::unavailable("The queue", cause))
    }

    /// For who hears lanes.
    pub(super) fn link(&self) -> Link {
        let Self { client, side, connections, losses } = self.clone();
        Link { client, connections, losses, nobody: subject::nobody(side.user()) }
    }
}
