//! The filtering proxy that tool workers serve for the `FastMCP` service, so that the guard holds in
//! a process that is not ours to compile. HTTP/1.1, two kinds of request: `CONNECT host:port`
//! (RFC 9110 section 9.3.6) for `https`, and the absolute form (RFC 9112 section 3.2.2) for
//! `http`. Both ask the guard; a refusal is 403 with the reason in `X-Switchboard-Refused`, and
//! what the proxy says instead of a server it never reached carries `Proxy-Status` (RFC 9209): by
//! that the service tells our 403 from the server's.
//!
//! The password is drawn anew by every process and travels in the proxy's URL, over the network
//! between worker and `FastMCP` service.

mod forward;
#[cfg(test)]
mod tests;
mod tunnel;

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rand::{TryRng as _, rngs::SysRng};
use shared::secret::Secret;
use subtle::ConstantTimeEq as _;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use zeroize::Zeroizing;

use super::{Egress, Refused};

/// The header that names the reason of a refusal ([`Refused::reason`]).
pub const REFUSED_HEADER: &str = "x-switchboard-refused";
/// The header that marks an answer as the proxy's own (RFC 9209 section 2).
pub const STATUS_HEADER: &str = "proxy-status";

const USER: &str = "switchboard";
/// Connections of the `FastMCP` service at once, tunnels included.
const MAX_CONNECTIONS: usize = 1024;
/// Tunnels at once.
const MAX_TUNNELS: usize = 512;
/// How long a client may take over a request's header section, the pause before it included: longer than the
/// HTTP libraries of the service keep an idle connection.
const HEADER_LIMIT: Duration = Duration::from_secs(30);
/// Largest header section read from a client, in bytes.
const MAX_HEADER_BYTES: usize = 64 * 1024;
/// Most header fields read from a client.
const MAX_HEADERS: usize = 100;
/// How long running exchanges may go on after the stop.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

type Body = BoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// A bound proxy. Bound before it serves, so that its URL is known.
#[derive(Debug)]
pub struct Proxy {
    listener: TcpListener,
    addr: SocketAddr,
    host: String,
    password: Secret<String>,
    max_tunnels: usize,
    egress: Egress,
}

/// What every request needs.
#[derive(Debug)]
struct Shared {
    egress: Egress,
    /// `user:password` in base64, as it stands in the header (RFC 7617 section 2).
    credentials: Secret<String>,
    tunnels: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Proxy {
    /// Binds the address; port 0 takes a free one.
    pub async fn bind(egress: Egress, addr: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        let mut random = Zeroizing::new([0_u8; 32]);
        SysRng.try_fill_bytes(random.as_mut_slice())?;
        let password = Secret::new(URL_SAFE_NO_PAD.encode(*random));
        Ok(Self { listener, addr, host: addr.ip().to_string(), password, max_tunnels: MAX_TUNNELS, egress })
    }

    /// Names the host by which clients reach this proxy, where it is not the bound address.
    #[must_use]
    pub fn reached_as(mut self, host: impl Into<String>) -> Self {
        self.host = host.into();
        self
    }

    /// The bound address.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://user:password@host:port`, for the `FastMCP` service.
    pub fn url(&self) -> Secret<String> {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        Secret::new(format!("http://{USER}:{}@{host}:{}", self.password.reveal(), self.addr.port()))
    }

    /// Serves until the token is cancelled. Tunnels are cut then, other exchanges have 5 s to end:
    /// cancel it once no call is running.
    pub async fn serve(self, stop: CancellationToken) {
        let shared = Arc::new(Shared {
            egress: self.egress,
            credentials: Secret::new(STANDARD.encode(format!("{USER}:{}", self.password.reveal()))),
            tunnels: Arc::new(Semaphore::new(self.max_tunnels)),
            tasks: TaskTracker::new(),
            stop: stop.clone(),
        });
        let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            // The place is taken before the connection: over the bound, clients wait in the backlog.
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = async {
                    let place = connections.clone().acquire_owned().await;
                    (place, self.listener.accept().await)
                } => accepted,
            };
            let (Ok(place), accepted) = accepted else { break };
            match accepted {
                Ok((stream, _)) => {
                    let serving = connection(shared.clone(), stream);
                    shared.tasks.spawn(async move {
                        serving.await;
                        drop(place);
                    });
                }
                Err(error) => {
                    // Out of file descriptors, most likely: an accept loop without a pause would spin.
                    tracing::warn!(%error, "the egress proxy could not accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        drop(self.listener);
        shared.tasks.close();
        shared.tasks.wait().await;
    }
}

async fn connection(shared: Arc<Shared>, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let stop = shared.stop.clone();
    let service = service_fn(move |request| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(answer(&shared, request).await) }
    });
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_LIMIT)
        .max_buf_size(MAX_HEADER_BYTES)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            let Ok(ended) = tokio::time::timeout(DRAIN_LIMIT, serving).await else { return };
            ended
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an egress proxy connection ended early");
    }
}

async fn answer(shared: &Arc<Shared>, request: Request<Incoming>) -> Response<Body> {
    if !shared.admits(request.headers().get(header::PROXY_AUTHORIZATION)) {
        let mut response = plain(StatusCode::PROXY_AUTHENTICATION_REQUIRED, "The proxy needs its password.");
        response
            .headers_mut()
            .insert(header::PROXY_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"switchboard\""));
        return response;
    }
    if request.method() == Method::CONNECT {
        tunnel::open(shared, request).await
    } else {
        forward::send(shared, request).await
    }
}

impl Shared {
    /// Basic authentication (RFC 7617), compared in constant time.
    fn admits(&self, given: Option<&HeaderValue>) -> bool {
        let Some((scheme, given)) = given.and_then(|value| value.to_str().ok()).and_then(|value| value.split_once(' '))
        else {
            return false;
        };
        let same: bool = given.trim().as_bytes().ct_eq(self.credentials.reveal().as_bytes()).into();
        scheme.eq_ignore_ascii_case("basic") && same
    }
}

fn plain(status: StatusCode, sentence: &'static str) -> Response<Body> {
    let body = Full::new(Bytes::from_static(sentence.as_bytes())).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

pub(super) fn refusal(refused: Refused) -> Response<Body> {
    let reason = refused.reason();
    refused.count();
    tracing::info!(reason, "the egress proxy refused a request");
    let mut response = plain(StatusCode::FORBIDDEN, refused.message());
    response.headers_mut().insert(REFUSED_HEADER, HeaderValue::from_static(reason));
    let status = format!(r#"{USER}; error=destination_ip_prohibited; details="{reason}""#);
    // Labels are letters and underscores, which every header can carry.
    if let Ok(status) = HeaderValue::try_from(status) {
        response.headers_mut().insert(STATUS_HEADER, status);
    }
    response
}

/// No connection came about, so that nothing was delivered.
fn unreachable() -> Response<Body> {
    let mut response = plain(StatusCode::BAD_GATEWAY, "The host cannot be reached.");
    let status = HeaderValue::from_static("switchboard; error=destination_unavailable");
    response.headers_mut().insert(STATUS_HEADER, status);
    response
}
