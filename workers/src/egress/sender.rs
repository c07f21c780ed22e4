//! Requests of our own, on their way to a tenant's server: hyper's pooled client behind the guard,
//! with nothing between. What a client library adds to each request (its own reading of the address,
//! rules for proxies, layers for redirects and repetitions) took an eighth of a worker
//! (docs/performance.md).

use std::{
    error::Error,
    fmt,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header::LOCATION};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::{
    client::legacy::{
        self, Client,
        connect::{HttpConnector, dns::Name},
    },
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use tokio::net::TcpStream;
use tower_service::Service;
use url::Url;

use super::{
    BoxError, Guard, Refused,
    client::{
        CONNECT_LIMIT, IDLE_CONNECTIONS_PER_HOST, IDLE_LIMIT, KEEP_ALIVE, KEEP_ALIVE_BETWEEN, KEEP_ALIVE_TRIES,
        MAX_HEADER_LIST_BYTES, MAX_REDIRECTS, judge_step,
    },
    reach, refusal_in,
};

#[cfg(test)]
mod tests;

/// An address in the two forms that requests need.
#[derive(Clone)]
pub struct Destination {
    url: Url,
    uri: Uri,
}

impl fmt::Debug for Destination {
    /// Without path and query, which may hold a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Destination").field(&self.uri.authority()).finish()
    }
}

impl Destination {
    /// Fails where the address is none that HTTP can carry.
    pub fn of(url: &Url) -> Result<Self, Refused> {
        let uri = url.as_str().parse().map_err(|_| Refused::Host)?;
        Ok(Self { url: url.clone(), uri })
    }

    /// The address.
    pub const fn url(&self) -> &Url {
        &self.url
    }
}

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The guard, or where the answer redirects to.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// No connection: nothing was sent.
    #[error("no connection")]
    Unreachable(#[source] legacy::Error),
    /// The connection ended between request and answer.
    #[error("the connection was lost")]
    Broken(#[source] legacy::Error),
}

impl From<legacy::Error> for SendError {
    fn from(error: legacy::Error) -> Self {
        match refusal_in(&error) {
            Some(refused) => Self::Refused(refused),
            None if error.is_connect() => Self::Unreachable(error),
            None => Self::Broken(error),
        }
    }
}

/// The pooled client. Clones share the pool.
#[derive(Clone, Debug)]
pub(super) struct Sender(Client<Door, Full<Bytes>>);

impl Sender {
    /// Fails where the machine has no root certificates.
    pub(super) fn new(guard: &Guard) -> anyhow::Result<Self> {
        let mut tcp = HttpConnector::new_with_resolver(Resolver(guard.clone()));
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEP_ALIVE));
        tcp.set_keepalive_interval(Some(KEEP_ALIVE_BETWEEN));
        tcp.set_keepalive_retries(Some(KEEP_ALIVE_TRIES));
        #[cfg(target_os = "linux")]
        tcp.set_tcp_user_timeout(Some(super::client::UNCONFIRMED_LIMIT));
        // Of several addresses each gets its share of the time.
        tcp.set_connect_timeout(Some(CONNECT_LIMIT));
        let tls = HttpsConnectorBuilder::new().with_tls_config(reach::tls()?);
        let tls = if guard.allow_http { tls.https_or_http() } else { tls.https_only() };
        let inner = tls.enable_all_versions().wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_LIMIT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_PER_HOST)
            .http2_max_header_list_size(MAX_HEADER_LIST_BYTES)
            .build(Door { guard: guard.clone(), inner });
        Ok(Self(client))
    }

    /// Sends a request and follows redirects as [`super::Egress::send`] says.
    pub(super) async fn send(
        &self,
        to: &Destination,
        method: Method,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response<Incoming>, SendError> {
        let mut redirected: Option<Destination> = None;
        let mut followed = 0;
        loop {
            let to = redirected.as_ref().unwrap_or(to);
            let response = self.once(to, &method, &headers, &body).await?;
            let Some(next) = location(&response, to) else { return Ok(response) };
            judge_step(response.status(), &to.url, &next)?;
            if followed == MAX_REDIRECTS {
                return Err(Refused::RedirectLoop.into());
            }
            followed += 1;
            redirected = Some(Destination::of(&next)?);
        }
    }

    async fn once(
        &self,
        to: &Destination,
        method: &Method,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Response<Incoming>, SendError> {
        let request = || {
            let mut request = Request::new(Full::new(body.clone()));
            *request.method_mut() = method.clone();
            *request.uri_mut() = to.uri.clone();
            *request.headers_mut() = headers.clone();
            request
        };
        match self.0.request(request()).await {
            // Once: whoever wants more repetitions has them in the configuration.
            Err(error) if was_left_unread(&error) => Ok(self.0.request(request()).await?),
            outcome => Ok(outcome?),
        }
    }
}

/// Whether an HTTP/2 server says that it did not look at the request: it shuts down, or refuses the
/// stream (RFC 9113 section 8.7). To send that again repeats nothing.
fn was_left_unread(error: &legacy::Error) -> bool {
    let Some(error) = error.source().and_then(Error::source).and_then(|cause| cause.downcast_ref::<h2::Error>()) else {
        return false;
    };
    let goes_away = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
    let refuses = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    error.is_remote() && (goes_away || refuses)
}

/// Where an answer redirects to. A location that leads nowhere is none.
fn location<B>(response: &Response<B>, from: &Destination) -> Option<Url> {
    let redirects = matches!(
        response.status(),
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    let location = redirects.then(|| response.headers().get(LOCATION))??;
    from.url.join(std::str::from_utf8(location.as_bytes()).ok()?).ok()
}

/// The only way to a connection: judges the address of every new one before anything is looked up.
#[derive(Clone, Debug)]
struct Door {
    guard: Guard,
    inner: HttpsConnector<HttpConnector<Resolver>>,
}

impl Service<Uri> for Door {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let url = Url::parse(&uri.to_string()).map_err(|_| Refused::Host);
        match url.and_then(|url| self.guard.check(&url)) {
            Ok(()) => {
                let connecting = tokio::time::timeout(CONNECT_LIMIT, self.inner.call(uri));
                Box::pin(async move { connecting.await? })
            }
            Err(refused) => Box::pin(async move { Err(refused.into()) }),
        }
    }
}

/// Answers with the addresses that may be connected to, so that there is no second look-up
/// between the judgement and the connection.
#[derive(Clone, Debug)]
struct Resolver(Guard);

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<std::net::SocketAddr>;
    type Error = Refused;
    type Future = BoxFuture<'static, Result<Self::Response, Refused>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Refused>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let guard = self.0.clone();
        // Port 0 stands for the address's own.
        Box::pin(async move {
            let addresses = guard.addresses(name.as_str()).await?;
            Ok(addresses.into_iter().map(|address| (address, 0).into()).collect::<Vec<_>>().into_iter())
        })
    }
}
