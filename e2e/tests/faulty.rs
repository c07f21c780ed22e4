//! An MCP server that misbehaves on demand: the path says how. It speaks just enough of the protocol
//! to be asked, on raw sockets so that it can be wrong at any layer.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

mod speaking;

pub(crate) use speaking::{FOREIGN_TOOL, Recorded, TOOL};

/// The running server. Paths:
/// `/hang` never answers; `/garbage` answers bytes that are no HTTP; `/not-json` answers 200 with
/// text; `/status/<n>` answers that status with a body that must not be echoed; `/cut` closes in
/// the middle of the body; `/redirect?<location>` answers 307 and `/redirect/<n>?<location>` that
/// status; `/huge` streams without end; `/late/<one of these>` is a proper server of 2026-07-28 with
/// the tool [`TOOL`] until the tool is called. `/record/modern/<key>` and `/record/legacy/<key>` are
/// proper servers that write down what they are asked; where the key begins with `repeatable`, their
/// tools say that they only read.
#[derive(Clone, Debug)]
pub(crate) struct Faulty {
    address: SocketAddr,
    log: Arc<Log>,
}

/// What was asked, and what is answered where a test changes it.
#[derive(Debug, Default)]
struct Log {
    recorded: Mutex<Vec<Recorded>>,
    descriptions: Mutex<HashMap<String, String>>,
    /// How many more calls of a tool fail, by path.
    failing: Mutex<HashMap<String, u32>>,
    sessions: AtomicU64,
    /// Connections that are being hung now, by path and query.
    hanging: Mutex<HashMap<String, u64>>,
    /// Redirects that were answered, by path and query.
    redirects: Mutex<HashMap<String, u64>>,
}

/// What the server says in bodies that tenants must never see.
pub(crate) const UPSTREAM_BODY: &str = "upstream-internal-detail-7f3a";

impl Faulty {
    pub(crate) async fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let server = Self { address, log: Arc::default() };
        let state = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = state.clone();
                tokio::spawn(async move {
                    // A peer that hangs up in the middle is part of the exercise.
                    let _ = state.serve(stream).await;
                });
            }
        });
        Ok(server)
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What a path was asked so far, in order.
    pub(crate) fn recorded(&self, path: &str) -> Vec<Recorded> {
        let recorded = self.log.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.iter().filter(|asked| asked.path == path).cloned().collect()
    }

    /// From now on the tools of this path are described so.
    pub(crate) fn describe(&self, path: &str, description: &str) {
        let mut descriptions = self.log.descriptions.lock().unwrap_or_else(PoisonError::into_inner);
        descriptions.insert(path.to_owned(), description.to_owned());
    }

    /// The next calls of a tool at this path are answered 503.
    pub(crate) fn fail(&self, path: &str, times: u32) {
        self.log.failing.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), times);
    }

    fn fails(&self, asked: &Recorded) -> bool {
        let mut failing = self.log.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let left = failing.get_mut(&asked.path).filter(|left| **left > 0 && asked.method() == "tools/call");
        left.map(|left| *left -= 1).is_some()
    }

    /// Connections that hang now on a request to this path and query.
    pub(crate) fn hanging(&self, target: &str) -> u64 {
        self.log.hanging.lock().unwrap_or_else(PoisonError::into_inner).get(target).copied().unwrap_or(0)
    }

    /// How often this path and query answered with its redirect.
    pub(crate) fn redirects(&self, target: &str) -> u64 {
        self.log.redirects.lock().unwrap_or_else(PoisonError::into_inner).get(target).copied().unwrap_or(0)
    }

    async fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        loop {
            let Some((target, asked)) = read_request(&mut stream).await? else { return Ok(()) };
            let query = target.split_once('?').map_or("", |(_, query)| query);
            if let Some(said) = self.speak(&asked) {
                respond(&mut stream, said.status, &said.headers, "application/json", &said.body).await?;
                continue;
            }
            match asked.path.strip_prefix("/late").unwrap_or(&asked.path) {
                "/hang" => return self.hang(&mut stream, &target).await,
                "/garbage" => return stream.write_all(b"\x00\x01 this is no HTTP \xff\r\n\r\n").await,
                "/not-json" => respond(&mut stream, "200 OK", "", "application/json", UPSTREAM_BODY).await?,
                "/cut" => {
                    stream
                        .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 999\r\n\r\n{")
                        .await?;
                    return Ok(());
                }
                "/huge" => return endless(&mut stream).await,
                other => {
                    if let Some(status) = other.strip_prefix("/redirect") {
                        *self
                            .log
                            .redirects
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .entry(target.clone())
                            .or_default() += 1;
                        let status = format!("{} Redirect", status.strip_prefix('/').unwrap_or("307"));
                        respond(&mut stream, &status, &format!("location: {query}\r\n"), "text/plain", "").await?;
                    } else {
                        let status = other.strip_prefix("/status/").unwrap_or("404");
                        respond(&mut stream, &format!("{status} Status"), "", "text/plain", UPSTREAM_BODY).await?;
                    }
                }
            }
        }
    }

    /// The answer of a proper server, where the path is one.
    fn speak(&self, asked: &Recorded) -> Option<speaking::Said> {
        if asked.path.starts_with("/late/") {
            return (asked.method() != "tools/call").then(|| speaking::modern(asked, "late"));
        }
        let era = asked.path.strip_prefix("/record/")?;
        self.log.recorded.lock().unwrap_or_else(PoisonError::into_inner).push(asked.clone());
        if self.fails(asked) {
            return Some(speaking::Said::unwell());
        }
        let descriptions = self.log.descriptions.lock().unwrap_or_else(PoisonError::into_inner);
        let description = descriptions.get(&asked.path).map_or("as it was", String::as_str);
        Some(if era.starts_with("modern") {
            speaking::modern(asked, description)
        } else {
            let session = || format!("session-{}", self.log.sessions.fetch_add(1, Ordering::SeqCst));
            speaking::legacy(asked, description, session)
        })
    }

    /// Silence until the peer gives up.
    async fn hang(&self, stream: &mut TcpStream, target: &str) -> std::io::Result<()> {
        let count = |by: i64| {
            let mut hanging = self.log.hanging.lock().unwrap_or_else(PoisonError::into_inner);
            let now = hanging.entry(target.to_owned()).or_default();
            *now = now.saturating_add_signed(by);
        };
        count(1);
        let mut rest = [0_u8; 1024];
        while matches!(stream.read(&mut rest).await, Ok(bytes) if bytes > 0) {}
        count(-1);
        Ok(())
    }
}

/// Reads one request to the end of its body; answers its target (path and query) and what it was.
async fn read_request(stream: &mut TcpStream) -> std::io::Result<Option<(String, Recorded)>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return Ok(None),
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let (line, fields) = head.split_once("\r\n").unwrap_or((&head, ""));
    let headers: Vec<(String, String)> = fields
        .lines()
        .filter_map(|field| field.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length").map(|(_, length)| length.parse::<usize>());
    let mut body = vec![0_u8; length.and_then(Result::ok).unwrap_or(0)];
    stream.read_exact(&mut body).await?;
    let mut line = line.split(' ');
    let http = line.next().unwrap_or_default().to_owned();
    let target = line.next().unwrap_or("/");
    // A request through a proxy names the whole address.
    let target = match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("/", |slash| &rest[slash..]),
        None => target,
    };
    let path = target.split('?').next().unwrap_or(target).to_owned();
    let text = String::from_utf8_lossy(&body).into_owned();
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    Ok(Some((target.to_owned(), Recorded { http, path, headers, body, text })))
}

async fn respond(stream: &mut TcpStream, status: &str, headers: &str, kind: &str, body: &str) -> std::io::Result<()> {
    let text =
        format!("HTTP/1.1 {status}\r\n{headers}content-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(text.as_bytes()).await
}

async fn endless(stream: &mut TcpStream) -> std::io::Result<()> {
    stream
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
        .await?;
    let chunk = format!("{:x}\r\n{}\r\n", 64 * 1024, "x".repeat(64 * 1024));
    loop {
        stream.write_all(chunk.as_bytes()).await?;
    }
}
