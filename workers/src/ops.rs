//! The operator's window into a worker: a port of its own with liveness, readiness and metrics.

use std::{future::Future, sync::Arc};

use metrics_exporter_prometheus::PrometheusHandle;
use poem::{
    EndpointExt, IntoResponse, Response, Route, Server, get, handler,
    http::StatusCode,
    listener::{Acceptor, Listener, TcpListener},
    web::{Data, Json},
};
use shared::{
    bus::{Bus, instances},
    db::Database,
};
use tokio_util::sync::CancellationToken;

use crate::{beginnings::Beginnings, queued::Load};

/// What is looked at.
#[derive(Clone, Debug)]
pub struct Window {
    /// NATS.
    pub bus: Bus,
    /// PostgreSQL.
    pub database: Database,
    /// Queued calls, where the pool has them.
    pub load: Option<Load>,
    /// What has yet to hear its work.
    pub beginnings: Beginnings,
    /// Draining: alive, but not ready.
    pub stop: CancellationToken,
}

/// What was seen.
#[derive(Clone, Copy, Debug, serde::Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "a document of yes and no")]
pub struct Health {
    /// Connected to NATS.
    pub nats: bool,
    /// PostgreSQL answers.
    pub database: bool,
    /// Hears its work.
    pub serving: bool,
    /// Told to stop.
    pub draining: bool,
}

impl Window {
    /// Looks.
    pub async fn look(&self) -> Health {
        let database = tokio::time::timeout(std::time::Duration::from_secs(2), self.database.is_reachable()).await;
        Health {
            nats: self.bus.is_connected(),
            database: database.unwrap_or(false),
            serving: self.beginnings.are_over(),
            draining: self.stop.is_cancelled(),
        }
    }

    fn running(&self) -> u64 {
        self.load.as_ref().map_or(0, |load| u64::try_from(load.running()).unwrap_or(u64::MAX))
    }

    /// Says to everybody that this worker lives, from when it hears its work until it is told to stop.
    pub async fn beat(self) {
        tokio::select! {
            () = self.beginnings.over() => {}
            () = self.stop.cancelled() => return,
        }
        let (bus, stop) = (self.bus.clone(), self.stop.clone());
        let look = || async {
            let health = self.look().await;
            (health.nats && health.database, self.running())
        };
        instances::beat(bus, look, stop).await;
    }
}

impl Health {
    const fn is_ready(self) -> bool {
        self.nats && self.database && self.serving && !self.draining
    }
}

/// Serves until told to stop. Answers the address it listens on.
pub async fn serve(
    listen: &str,
    window: Window,
    metrics: PrometheusHandle,
) -> anyhow::Result<(std::net::SocketAddr, impl Future<Output = std::io::Result<()>> + Send + use<>)> {
    let acceptor = TcpListener::bind(listen.to_owned()).into_acceptor().await?;
    let address = acceptor.local_addr().first().and_then(|local| local.as_socket_addr().copied());
    let address = address.ok_or_else(|| anyhow::anyhow!("no socket address"))?;
    let stop = window.stop.clone();
    let routes = Route::new()
        .at("/live", get(live))
        .at("/ready", get(ready))
        .at("/health", get(ready))
        .at("/metrics", get(render))
        .data(Arc::new(window))
        .data(metrics);
    let server = Server::new_with_acceptor(acceptor).run_with_graceful_shutdown(
        routes,
        async move { stop.cancelled().await },
        Some(std::time::Duration::from_secs(1)),
    );
    Ok((address, server))
}

#[handler]
fn live() -> &'static str {
    "alive\n"
}

#[handler]
async fn ready(window: Data<&Arc<Window>>) -> Response {
    let health = window.look().await;
    let status = if health.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Json(health).with_status(status).into_response()
}

#[handler]
#[expect(clippy::needless_pass_by_value, reason = "an extractor")]
fn render(metrics: Data<&PrometheusHandle>) -> Response {
    Response::builder().content_type("text/plain; version=0.0.4; charset=utf-8").body(metrics.render())
}
