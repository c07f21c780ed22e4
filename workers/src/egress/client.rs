//! The guarded HTTP client: what makes it impossible to use it around the guard.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use reqwest::{
    Client, Proxy, StatusCode,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect::{Attempt, Policy},
};
use url::Url;

use super::{Guard, Refused};

/// How long name resolution, TCP and TLS may take together.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long an unused connection is kept.
const IDLE_LIMIT: Duration = Duration::from_secs(90);
/// Connections kept per host without a request on them.
const IDLE_CONNECTIONS_PER_HOST: usize = 64;
/// Redirects followed for one request.
const MAX_REDIRECTS: usize = 3;
/// Most header fields of an HTTP/1.1 answer.
const MAX_HEADERS: usize = 128;
/// Largest header list of an HTTP/2 answer, in bytes.
const MAX_HEADER_LIST_BYTES: u32 = 64 * 1024;
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
        .tcp_keepalive(Duration::from_secs(30))
        .http1_max_headers(MAX_HEADERS)
        .http2_max_header_list_size(MAX_HEADER_LIST_BYTES)
        // What an upstream answers is not unpacked: 1 MiB of gzip can be 1 GiB of text.
        .no_gzip()
        .no_brotli()
        .no_deflate()
        .no_zstd()
        .build()?;
    Ok(client)
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
    let keeps_method = matches!(attempt.status(), StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
    let same_origin = attempt.previous().last().map(Url::origin) == Some(attempt.url().origin());
    let has_credentials = !attempt.url().username().is_empty() || attempt.url().password().is_some();
    if !keeps_method || !same_origin || has_credentials {
        return Err(Refused::Redirect);
    }
    // The first of the previous is the request itself.
    if attempt.previous().len() > MAX_REDIRECTS { Err(Refused::RedirectLoop) } else { Ok(()) }
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
    Broken(#[source] reqwest::Error),
}

/// Reads a body as it comes and stops at the first byte over the cap, whatever its length claims.
pub async fn read_capped(mut response: reqwest::Response, max_bytes: usize) -> Result<Bytes, BodyError> {
    let too_large = BodyError::TooLarge { max_bytes };
    let claimed_bytes = response.content_length().unwrap_or(0);
    if claimed_bytes > max_bytes as u64 {
        return Err(too_large);
    }
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(BodyError::Broken)? {
        if body.len() + chunk.len() > max_bytes {
            return Err(too_large);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}
