//! The skeleton: the product's road with everything taken off it. poem takes the request, one core NATS request carries
//! its bytes to a worker, reqwest carries them to the upstream, and the answer's bytes come back the same way. No
//! authentication, no roles, no JetStream, no limit, no audit, nothing parsed.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use futures::StreamExt as _;
use poem::http::uri::Scheme;
use poem::listener::{Acceptor, Listener as _, TcpAcceptor, TcpListener};
use poem::web::{Data, LocalAddr, RemoteAddr};
use poem::{EndpointExt as _, Request, Response, Route, Server, handler, http::StatusCode, post};
use tokio::net::TcpStream;

use super::{announce, runtime};
use crate::targets::aim;

/// Subjects are `skeleton.<tool>`: the worker needs the tool's name for a header, and a subject costs nothing.
const SUBJECTS: &str = "skeleton.*";

/// Serves the HTTP side until it is killed.
///
/// # Errors
/// When it cannot listen or NATS does not answer.
pub(crate) fn gateway(nats: &str) -> Result<()> {
    runtime()?.block_on(async {
        let client = async_nats::connect(nats).await?;
        let acceptor = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).into_acceptor().await?;
        let address = acceptor.local_addr().first().and_then(|address| address.as_socket_addr().copied());
        announce(&address.context("no address")?.to_string())?;
        Ok(Server::new_with_acceptor(Prompt(acceptor)).run(Route::new().at("/mcp", post(call)).data(client)).await?)
    })
}

#[handler]
async fn call(request: &Request, client: Data<&async_nats::Client>, body: Bytes) -> poem::Result<Response> {
    let unavailable = |error| poem::Error::new(error, StatusCode::BAD_GATEWAY);
    let tool = request.header("mcp-name").unwrap_or("none");
    let answer = client.request(format!("skeleton.{tool}"), body).await.map_err(unavailable)?;
    Ok(Response::builder().content_type("application/json").body(answer.payload))
}

/// Accepts with `TCP_NODELAY` set, as the product does.
pub(super) struct Prompt(pub(super) TcpAcceptor);

impl Acceptor for Prompt {
    type Io = TcpStream;

    fn local_addr(&self) -> Vec<LocalAddr> {
        self.0.local_addr()
    }

    async fn accept(&mut self) -> std::io::Result<(TcpStream, LocalAddr, RemoteAddr, Scheme)> {
        let accepted = self.0.accept().await?;
        accepted.0.set_nodelay(true)?;
        Ok(accepted)
    }
}

/// Works on requests until it is killed. What fails is answered with an empty message, which is nobody's answer.
///
/// # Errors
/// When NATS does not answer.
pub(crate) fn worker(nats: &str, upstream: SocketAddr) -> Result<()> {
    runtime()?.block_on(async {
        let client = async_nats::connect(nats).await?;
        let mut work = client.queue_subscribe(SUBJECTS, "workers".to_owned()).await?;
        client.flush().await?;
        announce(&upstream.to_string())?;
        let upstream = Arc::new(Upstream::new(upstream)?);
        while let Some(message) = work.next().await {
            let (client, upstream) = (client.clone(), Arc::clone(&upstream));
            tokio::spawn(async move {
                let Some(reply) = message.reply else { return };
                let tool = message.subject.rsplit('.').next().unwrap_or_default();
                let answer = upstream.ask(tool, message.payload).await.unwrap_or_default();
                let _ = client.publish(reply, answer).await;
            });
        }
        Ok(())
    })
}

/// The demo server, over kept connections.
pub(super) struct Upstream {
    http: reqwest::Client,
    url: reqwest::Url,
}

impl Upstream {
    pub(super) fn new(address: SocketAddr) -> Result<Self> {
        let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(1_024).build()?;
        Ok(Self { http, url: format!("http://{address}/mcp").parse()? })
    }

    pub(super) async fn ask(&self, tool: &str, body: Bytes) -> reqwest::Result<Bytes> {
        let mut request = self.http.post(self.url.clone()).body(body);
        for (name, value) in aim::MCP_HEADERS {
            request = request.header(name, value);
        }
        request.header("mcp-name", tool).send().await?.bytes().await
    }
}
