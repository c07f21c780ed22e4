//! The native demo MCP server: a real upstream for the development stack, the end-to-end tests and the bench.
//!
//! It speaks both eras of the protocol on one endpoint (2026-07-28 without sessions, and the older handshake),
//! so that whatever is promised about upstreams is shown against a server that runs for real. Tests watch it
//! through `/control/*`, which tells what reached the server, not what a client believes it sent.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

mod front;
mod odd;
mod stats;
#[cfg(test)]
mod tests;
mod tools;

use front::{Connection, Front};

/// How long open connections may take to finish once the server was told to stop.
const DRAIN: Duration = Duration::from_secs(2);
/// Pause after a refused `accept` (file descriptors exhausted), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// How a demo server behaves.
#[derive(Clone, Default)]
pub struct Options {
    /// When set, `/mcp` answers 401 unless `Authorization: Bearer <this>` is sent.
    pub bearer: Option<String>,
    /// Knows nothing of 2026-07-28 and refuses it the way servers of that time do.
    pub legacy_only: bool,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("bearer", &self.bearer.is_some())
            .field("legacy_only", &self.legacy_only)
            .finish()
    }
}

/// Serves the demo on `listener` until `shutdown` is cancelled; the MCP endpoint is `/mcp`.
///
/// # Errors
/// Only when the listener has no local address.
pub async fn serve(listener: TcpListener, options: Options, shutdown: CancellationToken) -> anyhow::Result<()> {
    let address = listener.local_addr().context("the demo's listener has no address")?;
    let front = Arc::new(Front::new(options, shutdown.child_token()));
    let connections = TaskTracker::new();
    tracing::debug!(%address, "demo MCP server listening");
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _peer)) => {
                connections.spawn(connection(stream, Arc::clone(&front), shutdown.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "the demo could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    connections.close();
    connections.wait().await;
    Ok(())
}

/// The address a client is given for a demo that listens on `address`.
pub fn endpoint(address: SocketAddr) -> String {
    format!("http://{address}/mcp")
}

/// One TCP connection. Nodelay is set because small event-stream frames otherwise wait 40 ms for a delayed ACK.
async fn connection(stream: TcpStream, front: Arc<Front>, shutdown: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY was refused");
    }
    let seen = Connection::default();
    let service = service_fn(|request| front.answer(request, &seen));
    let served = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    tokio::pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = shutdown.cancelled() => {
            served.as_mut().graceful_shutdown();
            tokio::time::timeout(DRAIN, served).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the demo ended early");
    }
}
