//! Starting a pool: reads its configuration, connects, runs its loops until a signal, then drains.

use std::{sync::Arc, time::Duration};

use serde::Deserialize;
use shared::{
    Fault,
    bus::{Bus, Role, administration::Administration, kv::Bucket, standing::Standing, streams::Sizes},
    command::Pool,
    config::{self, Reader},
    db::Database,
    telemetry,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    announce::Announcer,
    beginnings::Beginnings,
    catalogue::{CatalogueConfig, Programs},
    controller, direct,
    egress::{Egress, EgressConfig, proxy::Proxy},
    files::burying,
    lanes::LaneLocks,
    ops::{self, Window},
    outbox,
    pools::{Audit, Controller, Dispatch, Session, Token, Tool},
    prompts::Composer,
    queued::{self, Load},
    reconcile, rotation,
    sessions::{self, Openings, SessionsConfig},
    tools::{self, Catalogue, Sessions},
    trail,
    upstream::{FastMcpConfig, Upstreams},
    vault::{Vault, VaultConfig},
};

/// `OPS_*`: the operator's window.
#[derive(Clone, Debug, Deserialize)]
struct Ops {
    /// `address:port`; port 0 takes a free one.
    #[serde(default = "default_listen")]
    listen: String,
}

fn default_listen() -> String {
    "127.0.0.1:0".to_owned()
}

/// `WORKER_*`: how much one worker takes on.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Worker {
    /// Queued calls at once.
    #[serde(default = "default_capacity", deserialize_with = "config::number")]
    capacity: usize,
    /// Seconds that running work has after a stop signal. At least the longest call.
    #[serde(default = "default_grace", deserialize_with = "config::number")]
    grace_seconds: u64,
}

const fn default_capacity() -> usize {
    256
}

const fn default_grace() -> u64 {
    310
}

/// `QUEUE_*`: the streams' sizes, for the controller.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Streams {
    /// Most calls of one organization, waiting and running together.
    #[serde(default = "default_bound", deserialize_with = "config::number")]
    calls_per_organization: u16,
    /// What the files of all sessions may take together, in mebibytes.
    #[serde(default = "default_files", deserialize_with = "config::number")]
    files_mebibytes: u32,
    /// Copies of what must survive the loss of a server.
    #[serde(default = "default_replicas", deserialize_with = "config::number")]
    replicas: u8,
}

const fn default_bound() -> u16 {
    1_000
}

const fn default_files() -> u32 {
    4_096
}

const fn default_replicas() -> u8 {
    1
}

struct Configuration {
    nats: config::Nats,
    jetstream: config::Jetstream,
    database: config::Database,
    ops: Ops,
    worker: Worker,
    streams: Streams,
    egress: EgressConfig,
    vault: Option<VaultConfig>,
    fastmcp: Option<FastMcpConfig>,
    stdio: Option<FastMcpConfig>,
    catalogue: CatalogueConfig,
    sessions: SessionsConfig,
}

/// Reads everything the pool needs; all problems come at once.
fn read(pool: Pool) -> Result<Configuration, config::Problems> {
    let mut reader = Reader::default();
    let seals = matches!(pool, Pool::Token | Pool::Tool);
    let nats = reader.read("nats");
    let jetstream = reader.read("jetstream");
    let database = reader.read("database");
    let ops = reader.read("ops");
    let worker = reader.read("worker");
    let streams = reader.read("queue");
    let egress = reader.read("egress");
    let vault = if seals { reader.read("vault").map(Some) } else { Some(None) };
    let mut service = |prefix: &str, url: &str| {
        let is_there = pool == Pool::Tool && std::env::var(url).is_ok_and(|url| !url.is_empty());
        if is_there { reader.read(prefix).map(Some) } else { Some(None) }
    };
    let fastmcp = service("fastmcp", "FASTMCP_URL");
    let stdio = service("fastmcp_stdio", "FASTMCP_STDIO_URL");
    let catalogue = if pool == Pool::Token { reader.read("fastmcp") } else { Some(CatalogueConfig::default()) };
    let sessions = reader.read("sessions");
    let complete = (|| {
        Some(Configuration {
            nats: nats?,
            jetstream: jetstream?,
            database: database?,
            ops: ops?,
            worker: worker?,
            streams: streams?,
            egress: egress?,
            vault: vault?,
            fastmcp: fastmcp?,
            stdio: stdio?,
            catalogue: catalogue?,
            sessions: sessions?,
        })
    })();
    reader.finish()?;
    let complete = complete.map(closed_to_tenants);
    complete.ok_or_else(|| config::Problems::one("the configuration is incomplete"))
}

/// Wherever our own services are, tenants do not get there.
fn closed_to_tenants(mut configuration: Configuration) -> Configuration {
    let nats = configuration.nats.url.split(',').map(str::trim);
    let urls = nats.chain([configuration.database.url.reveal().as_str()]);
    let mut own: Vec<url::Url> = urls.filter_map(|url| url.parse().ok()).collect();
    own.extend(configuration.fastmcp.iter().chain(&configuration.stdio).map(|service| service.url.clone()));
    configuration.egress.own = own;
    configuration
}

/// How long the last words may take to leave.
const FLUSH_PATIENCE: Duration = Duration::from_secs(2);

/// Runs one pool until SIGTERM or SIGINT, then finishes what it has begun.
pub async fn run(pool: Pool) -> anyhow::Result<()> {
    let mut reader = Reader::default();
    let log: Option<telemetry::Log> = reader.read("log");
    reader.finish()?;
    let _logs = telemetry::start_logs_aside(&log.unwrap_or_default())?;
    let metrics = telemetry::start_metrics()?;
    let configuration = read(pool)?;
    let queue = configuration.jetstream.on(&configuration.nats);
    let bus = Bus::connect(&configuration.nats, Role::Pool(pool), Some(&queue)).await?;
    let database = Database::open(&configuration.database, &format!("switchboard-{}", pool.name()))?;
    let stop = CancellationToken::new();
    // Before anybody is told that this worker is ready.
    let keys = match &configuration.vault {
        Some(vault) => Some(rotation::needed::require(&database, &Vault::new(vault)?, &stop).await?),
        None => None,
    };
    let load = (pool == Pool::Tool).then(|| Load::new(configuration.worker.capacity));
    // Direct commands, calls, or both.
    let beginnings = Beginnings::of(match pool {
        Pool::Tool => 2,
        Pool::Session | Pool::Token | Pool::Controller => 1,
        Pool::Audit => 0,
    });
    let window = Window {
        bus: bus.clone(),
        database: database.clone(),
        load: load.clone(),
        beginnings: beginnings.clone(),
        stop: stop.clone(),
    };
    let (address, server) = ops::serve(&configuration.ops.listen, window.clone(), metrics).await?;
    tokio::spawn(server);
    let heart = tokio::spawn(window.beat());
    tracing::info!(pool = pool.name(), instance = bus.instance(), ops = %address, "worker started");

    let grace = Duration::from_secs(configuration.worker.grace_seconds);
    let shift = Shift { beginnings, tasks: TaskTracker::new(), stop: stop.clone(), grace };
    let signal = tokio::spawn(stop_on_signal(stop.clone()));
    match pool {
        Pool::Session => session(configuration.sessions, bus.clone(), database.clone(), shift).await?,
        Pool::Token => token(configuration, bus.clone(), database.clone(), shift).await?,
        Pool::Tool => tool(configuration, bus.clone(), database.clone(), load, shift).await?,
        Pool::Audit => audit(bus.clone(), database.clone(), shift).await?,
        Pool::Controller => control(configuration, bus.clone(), database.clone(), shift).await?,
    }
    // Even a loop that ended by itself takes the process down in order.
    stop.cancel();
    heart.await?;
    // What was written must leave before the process does; while NATS is away it cannot.
    let _ = tokio::time::timeout(FLUSH_PATIENCE, bus.flush()).await;
    database.close().await;
    signal.abort();
    if let Some(keys) = keys {
        keys.await??;
    }
    tracing::info!(pool = pool.name(), "worker stopped");
    Ok(())
}

async fn stop_on_signal(stop: CancellationToken) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("draining");
    stop.cancel();
    Ok(())
}

/// A worker's shift: its tasks, the sign to stop, and the time to finish.
#[derive(Clone)]
struct Shift {
    beginnings: Beginnings,
    tasks: TaskTracker,
    stop: CancellationToken,
    grace: Duration,
}

impl Shift {
    /// Answers direct commands until the sign, then waits for what runs.
    async fn answer<P: Dispatch>(&self, parts: Arc<P>) -> anyhow::Result<()> {
        self.hear_direct(parts).await?;
        self.finish().await;
        Ok(())
    }

    async fn hear_direct<P: Dispatch>(&self, parts: Arc<P>) -> Result<(), Fault> {
        direct::serve(parts, self.beginnings.clone(), self.tasks.clone(), self.stop.clone()).await
    }

    async fn finish(&self) {
        self.tasks.close();
        if tokio::time::timeout(self.grace, self.tasks.wait()).await.is_err() {
            tracing::warn!(left = self.tasks.len(), "work was cut at the end of the grace period");
        }
    }
}

async fn session(sessions: SessionsConfig, bus: Bus, database: Database, shift: Shift) -> anyhow::Result<()> {
    let (leftovers, known) = burying::leftovers();
    let writes = [Bucket::Limits, Bucket::Access, Bucket::Sessions, Bucket::Prompts];
    let announcer = Announcer::new(&bus, &writes).naming(leftovers);
    let standing = Standing::new(announcer.access.clone(), announcer.limits.clone());
    let prompts = Composer::new(&announcer);
    let openings = Openings::default();
    let parts = Arc::new(Session { bus, database, announcer, standing, sessions, openings, prompts });
    tokio::spawn(sessions::upkeep::serve(Arc::clone(&parts), shift.stop.clone()));
    tokio::spawn(reconcile::serve(Arc::clone(&parts), shift.stop.clone()));
    tokio::spawn(burying::serve(Arc::clone(&parts), known, shift.stop.clone()));
    shift.answer(parts).await
}

async fn token(configuration: Configuration, bus: Bus, database: Database, shift: Shift) -> anyhow::Result<()> {
    let vault = vault(configuration.vault)?;
    let egress = Egress::new(&configuration.egress)?;
    let programs = Programs::read(&configuration.catalogue)?;
    let (announcer, standing) = (Announcer::new(&bus, &[Bucket::Configs]), standing(&bus));
    let parts = Arc::new(Token { bus, database, standing, vault, egress, programs, announcer });
    tokio::spawn(rotation::serve(Arc::clone(&parts), shift.stop.clone()));
    shift.answer(parts).await
}

/// Who may act, as a pool hears it that does not write it.
fn standing(bus: &Bus) -> Standing {
    Standing::new(bus.watch(Bucket::Access), bus.watch(Bucket::Limits))
}

async fn tool(
    configuration: Configuration,
    bus: Bus,
    database: Database,
    load: Option<Load>,
    shift: Shift,
) -> anyhow::Result<()> {
    let vault = vault(configuration.vault)?;
    let egress = Egress::new(&configuration.egress)?;
    let mut proxy_url = None;
    if configuration.fastmcp.is_some() {
        let listen =
            configuration.egress.proxy_listen.unwrap_or_else(|| std::net::SocketAddr::from(([127, 0, 0, 1], 0)));
        let mut proxy = Proxy::bind(egress.clone(), listen).await?;
        if let Some(host) = configuration.egress.proxy_host {
            proxy = proxy.reached_as(host);
        }
        proxy_url = Some(proxy.url());
        let stop = shift.stop.clone();
        let tasks = shift.tasks.clone();
        // The proxy outlives the sign: running calls still need it.
        let quiet = CancellationToken::new();
        let end = quiet.clone();
        tokio::spawn(async move {
            stop.cancelled().await;
            tasks.wait().await;
            end.cancel();
        });
        tokio::spawn(async move { proxy.serve(quiet).await });
    }
    let configurations = bus.watch(Bucket::Configs);
    let session_news = bus.watch(Bucket::Sessions);
    let (catalogue, sessions) = (Catalogue::default(), Sessions::default());
    let (standing, upstreams) =
        (standing(&bus), Upstreams::new(egress, configuration.fastmcp, proxy_url, configuration.stdio));
    let kept_open = upstreams.clone();
    let parts =
        Arc::new(Tool { bus, database, standing, vault, upstreams, catalogue, configurations, sessions, session_news });
    tokio::spawn(tools::news::follow(Arc::clone(&parts), shift.stop.clone()));
    tokio::spawn(tools::news::follow_sessions(Arc::clone(&parts), shift.stop.clone()));
    let load = load.unwrap_or_else(|| Load::new(configuration.worker.capacity));
    let Shift { beginnings, tasks, stop, .. } = shift.clone();
    let queue = tokio::spawn(queued::serve(Arc::clone(&parts), load, beginnings, tasks, stop));
    shift.hear_direct(parts).await?;
    queue.await??;
    shift.finish().await;
    kept_open.close_all().await;
    Ok(())
}

fn vault(configuration: Option<VaultConfig>) -> anyhow::Result<Vault> {
    let configuration = configuration.ok_or_else(|| anyhow::anyhow!("VAULT_KEYS is missing"))?;
    Vault::new(&configuration)
}

async fn audit(bus: Bus, database: Database, shift: Shift) -> anyhow::Result<()> {
    let parts = Arc::new(Audit { bus, database });
    tokio::spawn(outbox::serve(Arc::clone(&parts), shift.stop.clone()));
    trail::serve(parts, shift.stop.clone()).await;
    Ok(())
}

async fn control(configuration: Configuration, bus: Bus, database: Database, shift: Shift) -> anyhow::Result<()> {
    let Streams { calls_per_organization, files_mebibytes, replicas } = configuration.streams;
    let sizes = Sizes { calls_per_organization, files_mebibytes, replicas };
    let administration = Administration::connect(&configuration.jetstream.on(&configuration.nats)).await?;
    let limits = bus.watch(Bucket::Limits);
    let parts = Arc::new(Controller { bus, administration, database, limits, locks: LaneLocks::default() });
    tokio::spawn(controller::serve(Arc::clone(&parts), sizes, shift.stop.clone()));
    tokio::spawn(sessions::sweep::serve(Arc::clone(&parts), shift.stop.clone()));
    shift.answer(parts).await
}
