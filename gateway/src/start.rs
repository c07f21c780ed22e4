//! Starting the gateway: reads its configuration, connects, serves until a signal, then drains.

use std::{sync::Arc, time::Duration};

use poem::{Server, listener::Acceptor};
use serde::Deserialize;
use shared::{
    bus::{Bus, Role, caller::Caller, instances, kv::Bucket, standing::Standing},
    config::{self, Reader},
    telemetry,
};
use tokio_util::sync::CancellationToken;

use crate::{
    access::AccessControl,
    auth::{AuthConfig, Authenticator},
    http::{
        self, Gateway,
        cors::Origins,
        events::Places,
        health::{self, Seen},
        openapi::Published,
    },
    listener,
    rates::Rates,
};

/// `GATEWAY_*`.
#[derive(Clone, Debug, Deserialize)]
struct GatewayConfig {
    /// `address:port`.
    #[serde(default = "default_listen")]
    listen: String,
    /// Where people reach this gateway, e.g. `https://mcp.example.com`.
    public_url: url::Url,
    /// The most connections at once; more wait in the system's queue.
    #[serde(default = "default_connections", deserialize_with = "config::number")]
    connections: usize,
    /// Seconds between saying "not ready" and closing the door after a stop signal, so that whoever
    /// balances load has looked elsewhere.
    #[serde(default = "default_drain", deserialize_with = "config::number")]
    drain_seconds: u64,
    /// Seconds that running requests have after a stop signal.
    #[serde(default = "default_grace", deserialize_with = "config::number")]
    grace_seconds: u64,
}

fn default_listen() -> String {
    "127.0.0.1:8080".to_owned()
}

const fn default_connections() -> usize {
    10_000
}

const fn default_drain() -> u64 {
    5
}

const fn default_grace() -> u64 {
    310
}

/// Runs the gateway until SIGTERM or SIGINT.
pub async fn run() -> anyhow::Result<()> {
    let mut reader = Reader::default();
    let log: Option<telemetry::Log> = reader.read("log");
    let nats: Option<config::Nats> = reader.read("nats");
    let jetstream: Option<config::Jetstream> = reader.read("jetstream");
    let auth: Option<AuthConfig> = reader.read("auth");
    let gateway: Option<GatewayConfig> = reader.read("gateway");
    reader.finish()?;
    let (Some(nats), Some(jetstream), Some(auth), Some(config)) = (nats, jetstream, auth, gateway) else {
        anyhow::bail!("the configuration is incomplete");
    };
    let _logs = telemetry::start_logs_aside(&log.unwrap_or_default())?;
    let metrics = telemetry::start_metrics()?;
    let bus = Bus::connect(&nats, Role::Gateway, Some(&jetstream.on(&nats))).await?;
    let caller = Caller::start(bus.clone()).await?;
    let limits = bus.watch(Bucket::Limits);
    let access = AccessControl::new(Standing::new(bus.watch(Bucket::Access), limits.clone()), caller.clone());
    let stop = CancellationToken::new();
    let public_url = config.public_url.as_str().trim_end_matches('/').to_owned();
    let gateway = Arc::new(Gateway {
        stop: stop.clone(),
        caller,
        authenticator: Authenticator::new(&auth)?,
        access,
        origins: Origins::new(&config.public_url, limits.clone()),
        limits,
        rates: Rates::default(),
        places: Places::default(),
        instances: bus.watch(Bucket::Instances),
        published: Published::new(&public_url),
        public_url,
        metrics,
        seen: Seen::default(),
        bus: bus.clone(),
    });
    let heart = tokio::spawn(beat(Arc::clone(&gateway), stop.clone()));
    let acceptor = listener::bind(&config.listen, config.connections.max(1)).await?;
    tracing::info!(listen = ?acceptor.local_addr(), instance = bus.instance(), "gateway started");
    let sign = stop.clone();
    Server::new_with_acceptor(acceptor)
        .run_with_graceful_shutdown(
            http::routes(gateway),
            stop_on_signal(sign, Duration::from_secs(config.drain_seconds)),
            Some(Duration::from_secs(config.grace_seconds)),
        )
        .await?;
    stop.cancel();
    heart.await?;
    // While NATS is away nothing can leave.
    let _ = tokio::time::timeout(Duration::from_secs(2), bus.flush()).await;
    tracing::info!("gateway stopped");
    Ok(())
}

async fn beat(gateway: Arc<Gateway>, stop: CancellationToken) {
    let look = || async {
        // Pools are remembered even where nobody asks whether this gateway is ready.
        health::workers(&gateway);
        gateway.rates.share_among(instances::healthy(&gateway.instances, Role::Gateway));
        (gateway.access.is_fresh(), 0)
    };
    instances::beat(gateway.bus.clone(), look, stop).await;
}

/// Returns once the door may close.
async fn stop_on_signal(stop: CancellationToken, drain: Duration) {
    use tokio::signal::unix::{SignalKind, signal};
    let terminate = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending::<()>().await,
        }
    };
    tokio::select! {
        () = terminate => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    tracing::info!("draining");
    stop.cancel();
    tokio::time::sleep(drain).await;
}
