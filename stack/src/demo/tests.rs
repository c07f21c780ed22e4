//! The demo's promises, checked over real HTTP with raw JSON-RPC, in both eras.

use std::{net::Ipv4Addr, time::Duration};

use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{Options, odd, serve};

mod eras;
mod witness;

/// How long anything here may take; a figure that only a hang reaches.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running demo and a client of it.
struct Demo {
    origin: String,
    http: reqwest::Client,
    shutdown: CancellationToken,
    server: JoinHandle<anyhow::Result<()>>,
}

impl Demo {
    async fn start(options: Options) -> Self {
        rustls::crypto::ring::default_provider().install_default().ok();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(serve(listener, options, shutdown.clone()));
        Self { origin, http: reqwest::Client::new(), shutdown, server }
    }

    fn post(&self, body: &Value) -> RequestBuilder {
        self.http
            .post(format!("{}/mcp", self.origin))
            .header("accept", "application/json, text/event-stream")
            .header("content-type", "application/json")
            .body(body.to_string())
    }

    /// A request of 2026-07-28: no session, everything stated with it.
    fn modern(&self, method: &str, mut params: Value) -> RequestBuilder {
        let meta = &mut params["_meta"];
        meta["io.modelcontextprotocol/protocolVersion"] = json!("2026-07-28");
        meta["io.modelcontextprotocol/clientCapabilities"] = json!({});
        let name = params["name"].as_str().map(str::to_owned);
        let request = self
            .post(&json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params }))
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", method);
        match name {
            Some(name) => request.header("mcp-name", name),
            None => request,
        }
    }

    /// A modern call's result.
    async fn call(&self, tool: &str, arguments: Value) -> Value {
        let answer = self.modern("tools/call", json!({ "name": tool, "arguments": arguments })).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["content-type"], "application/json");
        let body = parse(&answer.text().await.unwrap());
        assert_eq!(body["id"], 7);
        body["result"].clone()
    }

    /// The handshake of the older revisions; the session's id.
    async fn handshake(&self) -> String {
        let hello = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": { "name": "test", "version": "1" },
        }});
        let answer = self.post(&hello).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        let session = answer.headers()["mcp-session-id"].to_str().unwrap().to_owned();
        let hello = messages(answer).await.pop().unwrap();
        assert_eq!(hello["result"]["protocolVersion"], "2025-11-25");
        let ready = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        let accepted = self.in_session(&session, &ready).send().await.unwrap();
        assert_eq!(accepted.status(), StatusCode::ACCEPTED);
        session
    }

    fn in_session(&self, session: &str, body: &Value) -> RequestBuilder {
        self.post(body).header("mcp-session-id", session).header("mcp-protocol-version", "2025-11-25")
    }

    async fn legacy_call(&self, session: &str, params: Value) -> Response {
        let body = json!({ "jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": params });
        self.in_session(session, &body).send().await.unwrap()
    }

    async fn stats(&self) -> Value {
        let url = format!("{}/control/stats", self.origin);
        parse(&self.http.get(url).send().await.unwrap().text().await.unwrap())
    }

    /// Waits until the server's counts say so, asking again and again.
    async fn until(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let waited = timeout(PATIENCE, async {
            loop {
                let stats = self.stats().await;
                if holds(&stats) {
                    return stats;
                }
                tokio::task::yield_now().await;
            }
        });
        let Ok(stats) = waited.await else {
            panic!("never seen: {what}; last: {}", self.stats().await);
        };
        stats
    }

    async fn stop(self) {
        self.shutdown.cancel();
        timeout(PATIENCE, self.server).await.expect("the server did not stop").unwrap().unwrap();
    }
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The JSON-RPC messages of an event stream that ended.
async fn messages(answer: Response) -> Vec<Value> {
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let text = timeout(PATIENCE, answer.text()).await.unwrap().unwrap();
    data(&text).map(parse).collect()
}

fn data(stream: &str) -> impl Iterator<Item = &str> {
    stream.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim).filter(|data| !data.is_empty())
}
