//! The guarded HTTP client that libraries are given: what makes it impossible to use it around the guard.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Body;
use reqwest::{
    Client, Proxy, StatusCode,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect::{Attempt, Policy},
};
use url::Url;

use super::{BoxError, Guard, Refused};

/// How long name resolution, TCP and TLS may take together.
pub(super) const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long an unused connection is kept.
pub(super) const IDLE_LIMIT: Duration = Duration::from_secs(90);
/// Connections kept per host without a request on them.
pub(super) const IDLE_CONNECTIONS_PER_HOST: usize = 64;
/// How long a connection may be silent before the other side is asked whether it is there.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How often it is asked then, and how long each time is waited for its word.
pub(super) const KEEP_ALIVE_TRIES: u32 = 3;
pub(super) const KEEP_ALIVE_BETWEEN: Duration = Duration::from_secs(15);
/// How long what was sent may stay unconfirmed: a connection that a firewall forgot is given up.
#[cfg(target_os = "linux")]
pub(super) const UNCONFIRMED_LIMIT: Duration = Duration::from_secs(30);
/// Redirects followed for one request.
pub(super) const MAX_REDIRECTS: usize = 3;
/// Largest header list of an HTTP/2 answer, in bytes.
pub(super) const MAX_HEADER_LIST_BYTES: u32 = 64 * 1024;
/// Top-level domain that never resolves (RFC 6761 section 6.4); see [`gate`].
const NOWHERE: &str = ".refused.invalid";

/// A client that reaches what the guard lets it reach.
pub(super) fn guarded(guard: &Guard, redirects: Policy) -> anyhow::Result<Client> {
    // Fails where another part of the process came first with the same provider: that is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder()
        .no_proxy()
        .proxy(gate(guard.clone()))
        .dns_resolver(Arc::new(Resolver(guard.clone())))
        .redirect(redirects)
        .referer(false)
        .https_only(!guard.allow_http)
        .connect_timeout(CONNECT_LIMIT)
        .pool_idle_timeout(IDLE_LIMIT)
        .pool_max_idle_per_host(IDLE_CONNECTIONS_PER_HOST)
        .tcp_nodelay(true)
        .tcp_keepalive(KEEP_ALIVE)
        .tcp_keepalive_interval(KEEP_ALIVE_BETWEEN)
        .tcp_keepalive_retries(KEEP_ALIVE_TRIES)
        // HTTP/1.1: hyper's own 100 header fields; any other number costs an allocation per answer.
        .http2_max_header_list_size(MAX_HEADER_LIST_BYTES)
        // What an upstream answers is not unpacked: 1 MiB of gzip can be 1 GiB of text.
        .no_gzip()
        .no_brotli()
        .no_deflate()
        .no_zstd();
    #[cfg(target_os = "linux")]
    let client = client.tcp_user_timeout(UNCONFIRMED_LIMIT);
    Ok(client.build()?)
}

/// Judges the URL of every new connection. reqwest asks its proxy rule, and nothing else of ours,
/// with scheme, host and port before it connects: a refused URL is sent to a proxy under a name
/// that the resolver below answers with that very refusal. Nothing is looked up or connected to.
/// Without this an IP literal would pass by the resolver, and a port would be judged by nobody.
fn gate(guard: Guard) -> Proxy {
    Proxy::custom(move |url| match guard.check(url) {
        Ok(()) => None,
        Err(refused) => Some(format!("http://{}{NOWHERE}", refused.reason().replace('_', "-"))),
    })
}

/// Answers with the addresses that may be connected to, so that there is no second look-up
/// between the judgement and the connection.
struct Resolver(Guard);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.0.clone();
        Box::pin(async move {
            if let Some(label) = name.as_str().strip_suffix(NOWHERE) {
                return Err(Refused::from_reason(&label.replace('-', "_")).unwrap_or(Refused::Host).into());
            }
            let addresses = guard.addresses(name.as_str()).await?;
            // Port 0 stands for the URL's own.
            Ok(Box::new(addresses.into_iter().map(|address| SocketAddr::new(address, 0))) as Addrs)
        })
    }
}

/// At most [`MAX_REDIRECTS`] by 307 and 308, which keep method and body, to the same origin: a
/// credential sent to one server is not sent to another because the first says so.
pub(super) fn same_origin() -> Policy {
    Policy::custom(|attempt| match judge_redirect(&attempt) {
        Ok(()) => attempt.follow(),
        Err(refused) => attempt.error(refused),
    })
}

fn judge_redirect(attempt: &Attempt<'_>) -> Result<(), Refused> {
    let from = attempt.previous().last().ok_or(Refused::Redirect)?;
    judge_step(attempt.status(), from, attempt.url())?;
    // The first of the previous is the request itself.
    if attempt.previous().len() > MAX_REDIRECTS { Err(Refused::RedirectLoop) } else { Ok(()) }
}

/// Judges one redirect by its status and where it leads.
pub(super) fn judge_step(status: StatusCode, from: &Url, to: &Url) -> Result<(), Refused> {
    let keeps_method = matches!(status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
    let has_credentials = !to.username().is_empty() || to.password().is_some();
    if keeps_method && from.origin() == to.origin() && !has_credentials { Ok(()) } else { Err(Refused::Redirect) }
}

/// Why a body was not read to its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It is longer than the cap.
    #[error("the body is longer than {max_bytes} bytes")]
    TooLarge {
        /// The cap.
        max_bytes: usize,
    },
    /// The connection failed within it.
    #[error("the body broke off")]
    Broken(#[source] BoxError),
}

/// Reads a body as it comes and stops at the first byte over the cap, whatever its length claims.
pub async fn read_capped<B>(mut body: B, max_bytes: usize) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let too_large = BodyError::TooLarge { max_bytes };
    if body.size_hint().lower() > max_bytes as u64 {
        return Err(too_large);
    }
    let mut read = Bytes::new();
    let mut joined = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(chunk) = frame.map_err(|cause| BodyError::Broken(cause.into()))?.into_data() else { continue };
        if read.len() + joined.len() + chunk.len() > max_bytes {
            return Err(too_large);
        }
        if read.is_empty() && joined.is_empty() {
            // Most bodies come in one piece, which is the answer.
            read = chunk;
        } else {
            joined.extend_from_slice(&std::mem::take(&mut read));
            joined.extend_from_slice(&chunk);
        }
    }
    Ok(if joined.is_empty() { read } else { joined.freeze() })
}
