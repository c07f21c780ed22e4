//! NATS: subjects, envelopes, frames, lanes and the shared state in key-value buckets. Nothing
//! outside this module names a NATS type.

use std::{sync::Arc, time::Duration};

use async_nats::{Client, ConnectOptions, jetstream};
use tokio::sync::watch;

use self::queue::{Queue, Side};
use crate::{command::Pool, config, fault::Fault};

pub mod administration;
pub mod answers;
pub mod audit;
pub mod caller;
pub mod envelope;
pub mod events;
pub mod files;
pub mod frame;
mod heard;
mod inbox;
mod inflow;
pub mod instances;
pub mod kv;
pub mod lanes;
mod link;
mod outgoing;
mod pace;
pub mod pass;
mod queue;
pub mod service;
pub mod standing;
pub mod state;
pub mod streams;
pub mod subject;
pub mod topology;
mod waiting;
pub mod work;

/// A role on the bus: one NATS user each, with exactly the subjects it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// The HTTP side.
    Gateway,
    /// A pool of workers.
    Pool(Pool),
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 6] = [
        Self::Gateway,
        Self::Pool(Pool::Session),
        Self::Pool(Pool::Token),
        Self::Pool(Pool::Tool),
        Self::Pool(Pool::Audit),
        Self::Pool(Pool::Controller),
    ];

    /// The NATS user's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Pool(pool) => pool.name(),
        }
    }
}

/// A connection to NATS in one role. Clones share it.
#[derive(Clone, Debug)]
pub struct Bus(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    client: Client,
    jetstream: jetstream::Context,
    role: Role,
    instance: String,
    connections: watch::Receiver<u64>,
    losses: watch::Receiver<u64>,
    queue: Option<Queue>,
    answers: answers::Answers,
}

/// How often the connection is tried: a peer that vanished without a word is noticed after two.
const PING_EVERY: Duration = Duration::from_secs(5);

/// How long JetStream's own API may take.
const API_PATIENCE: Duration = Duration::from_secs(5);

/// Connections made and lost so far.
#[derive(Clone, Debug)]
struct Counts {
    made: watch::Sender<u64>,
    lost: watch::Sender<u64>,
}

impl Default for Counts {
    fn default() -> Self {
        Self { made: watch::Sender::new(0), lost: watch::Sender::new(0) }
    }
}

/// Connects as a user, retrying until the server is there, and reconnects for ever.
async fn connect(config: &config::Nats, user: &str, name: String, counts: Counts) -> anyhow::Result<Client> {
    let mut options = ConnectOptions::new()
        .name(name)
        .custom_inbox_prefix(subject::inbox_prefix(user))
        .ping_interval(PING_EVERY)
        .retry_on_initial_connect()
        .max_reconnects(None)
        .reconnect_delay_callback(|attempt| Duration::from_millis(50) * (1_u32 << attempt.min(5)))
        .request_timeout(Some(API_PATIENCE))
        .event_callback(move |event| {
            match event {
                async_nats::Event::Connected => counts.made.send_modify(|count| *count += 1),
                async_nats::Event::Disconnected => counts.lost.send_modify(|count| *count += 1),
                _ => {}
            }
            async move {
                match event {
                    async_nats::Event::Connected => tracing::info!("connected to NATS"),
                    other => tracing::warn!(event = %other, "NATS"),
                }
            }
        });
    if let Some(path) = &config.credentials {
        options = options.credentials_file(path).await?;
    } else {
        let user = config.user.clone().unwrap_or_else(|| user.to_owned());
        let password = config.password.as_ref().map(|secret| secret.reveal().clone());
        options = options.user_and_password(user, password.unwrap_or_default());
    }
    if let Some(path) = &config.root_certificates {
        options = options.add_root_certificates(path.clone());
    }
    let servers: Vec<String> = config.url.split(',').map(|url| url.trim().to_owned()).collect();
    // Servers that a cluster announces later come without a scheme: they are held to it too.
    let encrypted = servers.iter().all(|url| url.starts_with("tls://"));
    Ok(options.require_tls(encrypted).connect(servers).await?)
}

fn is_up(client: &Client) -> bool {
    client.connection_state() == async_nats::connection::State::Connected
}

impl Bus {
    /// Connects in a role; as gateways and tool workers also to the queue.
    pub async fn connect(config: &config::Nats, role: Role, queue: Option<&config::Nats>) -> anyhow::Result<Self> {
        let instance = uuid::Uuid::new_v4().simple().to_string();
        let queue = match queue.zip(Side::of(role)) {
            Some((config, side)) => Some(Queue::connect(config, side, &instance).await?),
            None => None,
        };
        let counts = Counts::default();
        let (connections, losses) = (counts.made.subscribe(), counts.lost.subscribe());
        let client = connect(config, role.name(), format!("switchboard-{}-{instance}", role.name()), counts).await?;
        // JetStream stands in an account of its own: what of it a role may ask is imported under this prefix.
        let jetstream = jetstream::with_prefix(client.clone(), subject::API_PREFIX);
        let answers = answers::Answers::default();
        Ok(Self(Arc::new(Inner { client, jetstream, role, instance, connections, losses, queue, answers })))
    }

    /// This process's name on the bus: 32 hexadecimal digits, new at each start.
    pub fn instance(&self) -> &str {
        &self.0.instance
    }

    /// The role it connected in.
    pub fn role(&self) -> Role {
        self.0.role
    }

    /// Counts connections made: a change means that NATS may have been restarted in between.
    pub fn connections(&self) -> watch::Receiver<u64> {
        self.0.connections.clone()
    }

    /// The connection to the queue, which may be down.
    fn queue(&self) -> Result<&Queue, Fault> {
        let none = || Fault::internal(format!("{} has no connection to the queue", self.role().name()));
        self.0.queue.as_ref().ok_or_else(none)
    }

    fn link(&self) -> link::Link {
        let Inner { client, connections, losses, .. } = &*self.0;
        link::Link {
            client: client.clone(),
            connections: connections.clone(),
            losses: losses.clone(),
            // Every pool may publish there.
            nobody: subject::nobody(Role::Gateway.name()),
        }
    }

    /// Counts connections lost.
    pub(crate) fn losses(&self) -> watch::Receiver<u64> {
        self.0.losses.clone()
    }

    /// True while the connection stands, and that to the queue.
    pub fn is_connected(&self) -> bool {
        is_up(&self.0.client) && self.0.queue.as_ref().is_none_or(Queue::is_connected)
    }

    /// Waits until everything written so far has left.
    pub async fn flush(&self) -> Result<(), Fault> {
        let queue = async {
            match &self.0.queue {
                Some(queue) => queue.flush().await,
                None => Ok(()),
            }
        };
        // Both at once: one that is down must not keep the other from it.
        let (own, queue) = tokio::join!(self.0.client.flush(), queue);
        own.map_err(|cause| Fault::unavailable("The message queue", cause)).and(queue)
    }

    /// A connection that is down accepts nothing: writes would wait in memory and arrive late.
    pub(crate) fn ensure_connected(&self) -> Result<(), Fault> {
        if is_up(&self.0.client) { Ok(()) } else { Err(Fault::unavailable("The message queue", "not connected")) }
    }
}
