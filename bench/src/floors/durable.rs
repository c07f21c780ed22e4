//! The durable skeleton: the skeleton with what the product promises on the way, by the parts that the product has it
//! from, and nothing else. A call is kept in a JetStream stream until its end is acknowledged, a push consumer lets so
//! many run at once, and its audit record is in a file before its caller is answered. No authentication, no roles, no
//! tenants and no accounts between them, nothing parsed: what is above this in the table is ours.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use async_nats::jetstream::consumer::{AckPolicy, push};
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use async_nats::{Client, HeaderMap};
use bytes::Bytes;
use futures::StreamExt as _;
use poem::listener::{Acceptor as _, Listener as _, TcpListener};
use poem::web::Data;
use poem::{EndpointExt as _, Request, Response, Route, Server, handler, http::StatusCode, post};
use tokio::sync::mpsc;

use super::skeleton::{Prompt, Upstream};
use super::{announce, runtime};

const WORK: &str = "work";
const GROUP: &str = "workers";
const AUDIT: &str = "audit.bench";
/// Where the answer goes: a stream has the message's own reply.
const REPLY: &str = "Reply-To";
/// As the product's lane in the bench.
const RUNNING_AT_ONCE: i64 = 256;
const WAITING_AND_RUNNING: i64 = 1_000;
/// About as long as the product's record of a call.
const RECORD_BYTES: usize = 500;
const MEBIBYTE: i64 = 1024 * 1024;
const PATIENCE: Duration = Duration::from_secs(10);

/// Serves the HTTP side until it is killed.
///
/// # Errors
/// When it cannot listen or NATS does not answer.
pub(crate) fn gateway(nats: &str) -> Result<()> {
    runtime()?.block_on(async {
        let caller = Caller::start(async_nats::connect(nats).await?).await?;
        let acceptor = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).into_acceptor().await?;
        let address = acceptor.local_addr().first().and_then(|address| address.as_socket_addr().copied());
        announce(&address.context("no address")?.to_string())?;
        Ok(Server::new_with_acceptor(Prompt(acceptor)).run(Route::new().at("/mcp", post(call)).data(caller)).await?)
    })
}

#[handler]
async fn call(request: &Request, caller: Data<&Caller>, body: Bytes) -> poem::Result<Response> {
    let tool = request.header("mcp-name").unwrap_or("none");
    let answer = caller.call(tool, body).await.ok_or(StatusCode::BAD_GATEWAY)?;
    Ok(Response::builder().content_type("application/json").body(answer))
}

type Lines = Arc<Mutex<HashMap<u64, mpsc::UnboundedSender<Bytes>>>>;

/// Sends calls; one subscription hears all answers.
#[derive(Clone)]
struct Caller {
    client: Client,
    inbox: Arc<str>,
    next: Arc<AtomicU64>,
    lines: Lines,
}

impl Caller {
    async fn start(client: Client) -> Result<Self> {
        let inbox: Arc<str> = client.new_inbox().into();
        let mut replies = client.subscribe(format!("{inbox}.*")).await?;
        let lines = Lines::default();
        let hearing = Arc::clone(&lines);
        tokio::spawn(async move {
            while let Some(reply) = replies.next().await {
                let line = reply.subject.rsplit('.').next().and_then(|line| line.parse().ok());
                let lines = hearing.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(line) = line.and_then(|line: u64| lines.get(&line)) {
                    let _ = line.send(reply.payload);
                }
            }
        });
        Ok(Self { client, inbox, next: Arc::default(), lines })
    }

    /// The answer, once the server has said that the call and the record are kept.
    async fn call(&self, tool: &str, body: Bytes) -> Option<Bytes> {
        let (line, (sender, mut replies)) = (self.next.fetch_add(1, Ordering::Relaxed), mpsc::unbounded_channel());
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).insert(line, sender);
        let reply = format!("{}.{line}", self.inbox);
        let mut headers = HeaderMap::new();
        headers.insert(REPLY, reply.as_str());
        let subject = format!("calls.{tool}");
        let sent = self.client.publish_with_reply_and_headers(subject, reply, headers, body).await;
        let (mut answer, mut kept) = (None, 0);
        while sent.is_ok() && (answer.is_none() || kept < 2) {
            let said = tokio::time::timeout(PATIENCE, replies.recv()).await.ok().flatten();
            match said {
                // An acknowledgement names its stream first; an answer of the demo server its version of JSON-RPC.
                Some(said) if said.starts_with(br#"{"stream":"#) => kept += 1,
                Some(said) if !said.is_empty() && !said.starts_with(br#"{"error":"#) => answer = Some(said),
                // Refused by the queue, failed at the upstream, or nothing.
                _ => break,
            }
        }
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).remove(&line);
        answer.filter(|_| kept == 2)
    }
}

/// Makes streams and consumer, and works on calls until it is killed. What fails is answered with an empty message,
/// which is nobody's answer.
///
/// # Errors
/// When NATS does not answer.
pub(crate) fn worker(nats: &str, upstream: SocketAddr) -> Result<()> {
    runtime()?.block_on(async {
        let client = async_nats::connect(nats).await?;
        let mut work = client.queue_subscribe(WORK, GROUP.to_owned()).await?;
        client.flush().await?;
        make_streams(&client).await?;
        let at = Arc::new(Upstream::new(upstream)?);
        announce(&upstream.to_string())?;
        while let Some(message) = work.next().await {
            let (client, at) = (client.clone(), Arc::clone(&at));
            tokio::spawn(async move {
                let reply = message.headers.as_ref().and_then(|headers| headers.get(REPLY)).map(ToString::to_string);
                let (Some(slot), Some(reply)) = (message.reply, reply) else { return };
                let tool = message.subject.rsplit('.').next().unwrap_or_default();
                let answer = at.ask(tool, message.payload).await.unwrap_or_default();
                let _ = client.publish(reply.clone(), answer).await;
                let _ = client.publish_with_reply(AUDIT, reply, vec![b'x'; RECORD_BYTES].into()).await;
                let _ = client.publish(slot, Bytes::from_static(b"+ACK")).await;
            });
        }
        Ok(())
    })
}

/// The product's: calls in memory, bounded, gone when they are done; records in a file.
async fn make_streams(client: &Client) -> Result<()> {
    let jetstream = async_nats::jetstream::new(client.clone());
    let calls = Config {
        name: "CALLS".to_owned(),
        subjects: vec!["calls.*".to_owned()],
        retention: RetentionPolicy::WorkQueue,
        storage: StorageType::Memory,
        max_messages_per_subject: WAITING_AND_RUNNING,
        discard: DiscardPolicy::New,
        discard_new_per_subject: true,
        max_bytes: 64 * MEBIBYTE,
        ..Config::default()
    };
    let records = Config {
        name: "AUDIT".to_owned(),
        subjects: vec![AUDIT.to_owned()],
        storage: StorageType::File,
        discard: DiscardPolicy::Old,
        max_bytes: 256 * MEBIBYTE,
        ..Config::default()
    };
    jetstream.create_stream(records).await?;
    let calls = jetstream.create_stream(calls).await?;
    let lane = push::Config {
        durable_name: Some("lane".to_owned()),
        deliver_subject: WORK.to_owned(),
        deliver_group: Some(GROUP.to_owned()),
        ack_policy: AckPolicy::Explicit,
        ack_wait: Duration::from_secs(30),
        max_ack_pending: RUNNING_AT_ONCE,
        memory_storage: true,
        ..push::Config::default()
    };
    calls.create_consumer(lane).await?;
    Ok(())
}
