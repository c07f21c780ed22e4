//! A scripted MCP server on a real socket: the script decides every byte of every answer, the
//! server remembers everything it was asked, and tests wait for what they expect to see.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use bytes::Bytes;
use futures::StreamExt as _;
use http::{HeaderMap, Method, Request, Response, header::CONTENT_TYPE};
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::mpsc, sync::watch, task::JoinSet};
use url::Url;

use super::PATIENCE;

/// What reached the server.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) http: Method,
    pub(super) headers: HeaderMap,
    /// Null without a body.
    pub(super) body: Value,
}

impl Asked {
    pub(super) fn method(&self) -> &str {
        self.body["method"].as_str().unwrap_or_default()
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// A result for this request, from the JSON text of its inside.
    pub(super) fn result(&self, result: &str) -> Reply {
        Reply::json(200, &format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, self.body["id"]))
    }

    pub(super) fn error(&self, status: u16, code: i64, message: &str) -> Reply {
        let error = json!({"jsonrpc": "2.0", "id": self.body["id"], "error": {"code": code, "message": message}});
        Reply::json(status, &error.to_string())
    }
}

/// What the server does about it.
pub(super) enum Reply {
    /// A whole answer.
    Whole { status: u16, headers: Vec<(&'static str, String)>, body: Bytes },
    /// An event stream that the test feeds; each item is a chunk on the wire.
    Stream(mpsc::Receiver<Bytes>),
    /// Silence.
    Hang,
    /// The connection is closed.
    Hangup,
}

impl Reply {
    pub(super) fn json(status: u16, body: &str) -> Self {
        Self::typed(status, "application/json", body)
    }

    pub(super) fn typed(status: u16, content_type: &str, body: &str) -> Self {
        let headers = vec![("content-type", content_type.to_owned())];
        Self::Whole { status, headers, body: Bytes::copy_from_slice(body.as_bytes()) }
    }

    pub(super) fn bare(status: u16) -> Self {
        Self::Whole { status, headers: Vec::new(), body: Bytes::new() }
    }

    pub(super) fn with(mut self, name: &'static str, value: &str) -> Self {
        if let Self::Whole { headers, .. } = &mut self {
            headers.push((name, value.to_owned()));
        }
        self
    }

    /// An event stream of these chunks.
    pub(super) fn events(chunks: &[&str]) -> Self {
        let (sender, stream) = mpsc::channel(chunks.len().max(1));
        for chunk in chunks {
            sender.try_send(Bytes::copy_from_slice(chunk.as_bytes())).unwrap();
        }
        Self::Stream(stream)
    }
}

type Script = dyn Fn(&Asked) -> Reply + Send + Sync;

/// A server that ends with its handle.
pub(super) struct Server {
    pub(super) url: Url,
    asked: watch::Receiver<Vec<Asked>>,
    connections: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Server {
    pub(super) async fn start(script: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}/mcp", listener.local_addr().unwrap())).unwrap();
        let (log, asked) = watch::channel(Vec::new());
        let (log, script): (_, Arc<Script>) = (Arc::new(log), Arc::new(script));
        let connections = Arc::<AtomicUsize>::default();
        let counter = Arc::clone(&connections);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                counter.fetch_add(1, SeqCst);
                stream.set_nodelay(true).unwrap();
                let (log, script) = (Arc::clone(&log), Arc::clone(&script));
                open.spawn(async move {
                    let service = service_fn(|request| answer(request, &log, &*script));
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { url, asked, connections, _tasks: tasks }
    }

    /// A server of 2026-07-28; the script sees everything but the probe.
    pub(super) async fn modern(script: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        Self::start(move |asked| discovered(asked).unwrap_or_else(|| script(asked))).await
    }

    /// A server of 2025-11-25 with sessions `session-1`, `session-2`, ..; the script sees everything
    /// but the handshake and the goodbye.
    pub(super) async fn handshake(script: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let sessions = AtomicUsize::new(0);
        Self::start(move |asked| match (&asked.http, asked.method()) {
            (&Method::GET, _) if asked.header("last-event-id").is_empty() => Reply::bare(405),
            (&Method::DELETE, _) => Reply::bare(200),
            (_, "server/discover") => Reply::json(
                400,
                r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: Server not initialized"},"id":null}"#,
            ),
            (_, "initialize") => {
                let session = format!("session-{}", sessions.fetch_add(1, SeqCst) + 1);
                let info = r#"{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"old","version":"1"}}"#;
                asked.result(info).with("mcp-session-id", &session)
            }
            (_, "notifications/initialized") => Reply::bare(202),
            _ => script(asked),
        })
        .await
    }

    /// Everything that was asked, in order.
    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.borrow().clone()
    }

    /// What was asked by this JSON-RPC method.
    pub(super) fn asked_for(&self, method: &str) -> Vec<Asked> {
        self.asked().into_iter().filter(|asked| asked.method() == method).collect()
    }

    /// Waits until something was asked.
    pub(super) async fn until(&self, expected: impl Fn(&Asked) -> bool) -> Asked {
        let mut asked = self.asked.clone();
        let found = asked.wait_for(|all| all.iter().any(&expected));
        let all = tokio::time::timeout(PATIENCE, found).await.expect("it was never asked").unwrap();
        all.iter().find(|asked| expected(asked)).unwrap().clone()
    }

    /// TCP connections so far.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }
}

/// The answer to `server/discover`, if that is what was asked.
pub(super) fn discovered(asked: &Asked) -> Option<Reply> {
    const KNOWN: &str = r#"{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{}},"ttlMs":1000,"cacheScope":"private"}"#;
    (asked.method() == "server/discover").then(|| asked.result(KNOWN))
}

/// A script that answers with these replies in turn, the last one for ever.
pub(super) fn in_turn<F>(steps: Vec<F>) -> impl Fn(&Asked) -> Reply + Send + Sync
where
    F: Fn(&Asked) -> Reply + Send + Sync + 'static,
{
    let steps = Mutex::new(steps.into_iter().collect::<VecDeque<F>>());
    move |asked| {
        let mut steps = steps.lock().unwrap();
        if steps.len() > 1 { steps.pop_front().unwrap()(asked) } else { steps[0](asked) }
    }
}

async fn answer(
    request: Request<Incoming>,
    log: &watch::Sender<Vec<Asked>>,
    script: &Script,
) -> Result<Response<BoxBody<Bytes, Infallible>>, std::io::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let asked = Asked { http: head.method, headers: head.headers, body };
    log.send_modify(|all| all.push(asked.clone()));
    match script(&asked) {
        Reply::Hang => std::future::pending().await,
        Reply::Hangup => Err(std::io::Error::other("as scripted")),
        Reply::Whole { status, headers, body } => {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            Ok(response.body(http_body_util::Full::new(body).boxed()).unwrap())
        }
        Reply::Stream(chunks) => {
            let frames = futures::stream::unfold(chunks, |mut chunks| async {
                let chunk = chunks.recv().await?;
                Some((chunk, chunks))
            });
            let body = StreamBody::new(frames.map(|chunk| Ok(Frame::data(chunk))));
            Ok(Response::builder().header(CONTENT_TYPE, "text/event-stream").body(BodyExt::boxed(body)).unwrap())
        }
    }
}
