//! The demo's HTTP face: who may come in, which requests are the protocol's and which the tests' control channel.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN, WWW_AUTHENTICATE},
    uri::Authority,
};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::Incoming;
use rmcp::transport::streamable_http_server::{
    StreamableHttpServerConfig, StreamableHttpService, session::local::LocalSessionManager,
};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::{Options, odd::Odd, stats::Stats, tools::Tools};

pub(super) type Answer = Response<BoxBody<Bytes, Infallible>>;

/// The first protocol revision without a handshake; revisions are dates and compare as text.
const FIRST_MODERN: &str = "2026-07-28";
const LOOPBACK: [&str; 3] = ["127.0.0.1", "localhost", "[::1]"];

/// Whether this connection was counted: control requests alone do not make it one.
#[derive(Debug, Default)]
pub(super) struct Connection {
    counted: AtomicBool,
}

pub(super) struct Front {
    mcp: StreamableHttpService<Tools, LocalSessionManager>,
    stats: Arc<Stats>,
    odd: Arc<Odd>,
    bearer: Option<[u8; 32]>,
    legacy_only: bool,
}

impl Front {
    pub(super) fn new(options: Options, shutdown: CancellationToken) -> Self {
        let stats = Arc::new(Stats::default());
        let odd = Arc::new(Odd::new());
        let tools = Tools::new(Arc::clone(&stats), Arc::clone(&odd), options.legacy_only);
        let config = StreamableHttpServerConfig::default()
            .with_json_response(true)
            .enforce_origin_validation()
            .with_cancellation_token(shutdown);
        Self {
            mcp: StreamableHttpService::new(move || Ok(tools.clone()), Arc::default(), config),
            stats,
            odd,
            bearer: options.bearer.map(|token| digest(token.as_bytes())),
            legacy_only: options.legacy_only,
        }
    }

    pub(super) async fn answer(
        &self,
        request: Request<Incoming>,
        connection: &Connection,
    ) -> Result<Answer, Infallible> {
        Ok(match (request.method(), request.uri().path()) {
            (_, "/mcp") => {
                if !connection.counted.swap(true, Relaxed) {
                    self.stats.count_connection();
                }
                self.mcp(request).await
            }
            (_, path) if !path.starts_with("/control/") => plain(StatusCode::NOT_FOUND),
            _ if !from_this_machine(request.headers()) => plain(StatusCode::FORBIDDEN),
            (&Method::GET, "/control/stats") => self.snapshot(),
            (&Method::POST, "/control/reset") => {
                self.stats.reset();
                plain(StatusCode::NO_CONTENT)
            }
            (_, "/control/stats" | "/control/reset") => plain(StatusCode::METHOD_NOT_ALLOWED),
            _ => plain(StatusCode::NOT_FOUND),
        })
    }

    async fn mcp(&self, request: Request<Incoming>) -> Answer {
        let headers = request.headers();
        if !self.admits(headers) {
            return unauthorized();
        }
        let modern = text(headers, "mcp-protocol-version").is_some_and(|v| v >= FIRST_MODERN);
        if modern && self.legacy_only {
            return not_initialized();
        }
        // In the modern era the headers say whether `odd` can be in the answer, and the hot path is left alone.
        let may_be_odd = match text(headers, "mcp-method") {
            Some("tools/call") => text(headers, "mcp-name") == Some("odd"),
            Some(method) => method == "tools/list",
            None => true,
        };
        let answer = self.mcp.handle(request).await;
        if may_be_odd { self.reveal(answer) } else { answer }
    }

    /// Every frame of an answer is a whole message, so a marker never straddles two of them.
    fn reveal(&self, answer: Answer) -> Answer {
        let odd = Arc::clone(&self.odd);
        answer.map(|body| {
            body.map_frame(move |frame| frame.map_data(|data| odd.reveal(&data).map_or(data, Bytes::from))).boxed()
        })
    }

    /// Compares digests, so that the time taken tells nothing of the token.
    fn admits(&self, headers: &HeaderMap) -> bool {
        let Some(expected) = self.bearer else {
            return true;
        };
        text(headers, AUTHORIZATION.as_str())
            .and_then(|value| value.strip_prefix("Bearer "))
            .is_some_and(|token| digest(token.as_bytes()) == expected)
    }

    fn snapshot(&self) -> Answer {
        match serde_json::to_vec(&self.stats.snapshot()) {
            Ok(body) => json(StatusCode::OK, body),
            Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR),
        }
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// A page in a browser can reach loopback through a name it controls; it cannot hide that name or its origin.
fn from_this_machine(headers: &HeaderMap) -> bool {
    let host = text(headers, HOST.as_str()).and_then(|host| host.parse::<Authority>().ok());
    !headers.contains_key(ORIGIN) && host.is_some_and(|host| LOOPBACK.contains(&host.host()))
}

fn unauthorized() -> Answer {
    let mut answer = plain(StatusCode::UNAUTHORIZED);
    answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    answer
}

/// What servers older than 2026-07-28 say to a request outside a session.
fn not_initialized() -> Answer {
    let body = r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: Server not initialized"},"id":null}"#;
    json(StatusCode::BAD_REQUEST, body.into())
}

fn json(status: StatusCode, body: Vec<u8>) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)).boxed());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn plain(status: StatusCode) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::new()).boxed());
    *answer.status_mut() = status;
    answer
}
