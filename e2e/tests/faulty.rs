//! An MCP server that misbehaves on demand: the path says how. It speaks just enough of the protocol
//! to be asked, on raw sockets so that it can be wrong at any layer.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::{AtomicU64, Ordering}},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// The running server. Paths:
/// `/hang` never answers; `/garbage` answers bytes that are no HTTP; `/not-json` answers 200 with
/// text; `/status/<n>` answers that status with a body that must not be echoed; `/cut` closes in
/// the middle of the body; `/redirect?<location>` answers 307; `/huge` streams without end.
#[derive(Clone, Debug)]
pub(crate) struct Faulty {
    address: SocketAddr,
    requests: Arc<AtomicU64>,
    open: Arc<AtomicU64>,
}

/// What the server says in bodies that tenants must never see.
pub(crate) const UPSTREAM_BODY: &str = "upstream-internal-detail-7f3a";

impl Faulty {
    pub(crate) async fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let server = Self { address: listener.local_addr()?, requests: Arc::default(), open: Arc::default() };
        let state = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = state.clone();
                tokio::spawn(async move {
                    state.open.fetch_add(1, Ordering::SeqCst);
                    // A peer that hangs up in the middle is part of the exercise.
                    let _ = state.serve(stream).await;
                    state.open.fetch_sub(1, Ordering::SeqCst);
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

    /// Requests read so far.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }

    /// Connections open now.
    pub(crate) fn open_connections(&self) -> u64 {
        self.open.load(Ordering::SeqCst)
    }

    async fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        loop {
            let Some(target) = read_request(&mut stream).await? else { return Ok(()) };
            self.requests.fetch_add(1, Ordering::SeqCst);
            let (path, query) = target.split_once('?').unwrap_or((&target, ""));
            match path {
                "/hang" => {
                    // Until the peer gives up.
                    let mut rest = [0_u8; 1024];
                    while stream.read(&mut rest).await? > 0 {}
                    return Ok(());
                }
                "/garbage" => return stream.write_all(b"\x00\x01 this is no HTTP \xff\r\n\r\n").await,
                "/not-json" => respond(&mut stream, "200 OK", "", "application/json", UPSTREAM_BODY).await?,
                "/cut" => {
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 999\r\n\r\n{").await?;
                    return Ok(());
                }
                "/redirect" => respond(&mut stream, "307 Temporary Redirect", &format!("location: {query}\r\n"), "text/plain", "").await?,
                "/huge" => return endless(&mut stream).await,
                other => {
                    let status = other.strip_prefix("/status/").unwrap_or("404");
                    respond(&mut stream, &format!("{status} Status"), "", "text/plain", UPSTREAM_BODY).await?;
                }
            }
        }
    }
}

/// Reads one request to the end of its body; answers its target.
async fn read_request(stream: &mut TcpStream) -> std::io::Result<Option<String>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return Ok(None),
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:").map(|n| n.trim().parse::<usize>()));
    let mut body = vec![0_u8; length.and_then(Result::ok).unwrap_or(0)];
    stream.read_exact(&mut body).await?;
    let target = head.split(' ').nth(1).unwrap_or("/");
    // A request through a proxy names the whole address.
    let path = target.find("://").map_or(target, |at| target[at + 3..].find('/').map_or("/", |slash| &target[at + 3 + slash..]));
    Ok(Some(path.to_owned()))
}

async fn respond(stream: &mut TcpStream, status: &str, headers: &str, kind: &str, body: &str) -> std::io::Result<()> {
    let text = format!("HTTP/1.1 {status}\r\n{headers}content-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(text.as_bytes()).await
}

async fn endless(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n").await?;
    let chunk = format!("{:x}\r\n{}\r\n", 64 * 1024, "x".repeat(64 * 1024));
    loop {
        stream.write_all(chunk.as_bytes()).await?;
    }
}
