//! Bad input below JSON: bodies too large or cut off, headers no client library would send. Raw
//! sockets, because a well-behaved client would refuse to be this rude.

use std::sync::Arc;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use crate::{
    trail::Trail,
    world::{PATIENCE, System},
};

/// One more than a body may have.
const TOO_MANY_BYTES: usize = 1024 * 1024 + 1;
const CHUNK_BYTES: usize = 64 * 1024;

/// An answer as it came over the wire.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Wire {
    pub(crate) fn status(&self) -> u16 {
        self.head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            line.split_once(": ").filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
        })
    }
}

pub(crate) async fn connect(system: &System) -> (OwnedReadHalf, OwnedWriteHalf) {
    let address = system.url.strip_prefix("http://").expect("http");
    TcpStream::connect(address).await.expect("the gateway accepts").into_split()
}

pub(crate) async fn read(mut from: OwnedReadHalf) -> Wire {
    let mut bytes = Vec::new();
    // A reset after the answer is the gateway's right: it will not read the rest.
    let _ = tokio::time::timeout(PATIENCE, from.read_to_end(&mut bytes)).await.expect("the gateway closes");
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    Wire { head: head.to_owned(), body: body.to_owned() }
}

/// Sends bytes on a connection of their own and reads until it closes.
pub(crate) async fn exchange(system: &System, bytes: &[u8]) -> Wire {
    let (from, mut to) = connect(system).await;
    // The gateway may hang up before it has read all of it.
    let _ = to.write_all(bytes).await;
    read(from).await
}

/// A request line and the headers that every request here has.
pub(crate) fn head(request_line: &str, token: &str, more: &str) -> String {
    format!("{request_line} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n{more}")
}

#[track_caller]
fn problem(wire: &Wire, status: u16, code: &str) {
    assert_eq!(wire.status(), status, "{wire:?}");
    assert_eq!(wire.header("content-type"), Some("application/problem+json"), "{wire:?}");
    assert!(wire.body.contains(&format!("\"code\":\"{code}\"")), "{wire:?}");
}

pub(crate) async fn a_body_over_one_mebibyte_is_refused_with_and_without_a_length(system: Arc<System>) {
    let tenant = system.organization().await;
    assert_eq!(tenant.user.get("/api/v1/me").await.status, 200);
    let mut trail = Trail::new(&system, &tenant);
    for path in ["/api/v1/tool-calls", "/api/v1/mcp/configurations", "/api/v1/organizations"] {
        let line = format!("POST {path}");
        let common = |id: &str| format!("Content-Type: application/json\r\nX-Request-Id: {id}\r\n");
        // Announced: answered before a byte of it is read.
        let more = format!("{}Content-Length: {TOO_MANY_BYTES}\r\n\r\n", common(&trail.id()));
        problem(&exchange(&system, head(&line, &tenant.user.token, &more).as_bytes()).await, 413, "too_large");
        // In chunks, without an end in sight.
        let more = format!("{}Transfer-Encoding: chunked\r\n\r\n", common(&trail.id()));
        let mut bytes = head(&line, &tenant.user.token, &more).into_bytes();
        for _ in 0..=TOO_MANY_BYTES / CHUNK_BYTES {
            bytes.extend(format!("{CHUNK_BYTES:x}\r\n{}\r\n", " ".repeat(CHUNK_BYTES)).as_bytes());
        }
        problem(&exchange(&system, &bytes).await, 413, "too_large");
    }
    trail.left_nothing().await;
    // One byte less is read; spaces around a value are no error.
    let call = r#"{"configuration":"demo","tool":"echo","arguments":{"text":"x"}}"#;
    let padded = format!("{call}{}", " ".repeat(TOO_MANY_BYTES - 1 - call.len()));
    let more = format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{padded}", padded.len());
    let whole = exchange(&system, head("POST /api/v1/tool-calls", &tenant.user.token, &more).as_bytes()).await;
    assert_eq!(whole.status(), 200, "{}", whole.head);
}

pub(crate) async fn a_body_that_breaks_off_is_never_acted_upon(system: Arc<System>) {
    let tenant = system.organization().await;
    assert_eq!(tenant.user.get("/api/v1/me").await.status, 200);
    let mut trail = Trail::new(&system, &tenant);
    let call = r#"{"configuration":"demo","tool":"echo","arguments":{"text":"x"}}"#;
    let framings = [
        format!("Content-Length: {}\r\n\r\n{call}", call.len() + 10),
        format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{call}\r\n", call.len()),
        format!("Transfer-Encoding: chunked\r\n\r\nzz\r\n{call}\r\n0\r\n\r\n"),
    ];
    for framing in framings {
        let more = format!("Content-Type: application/json\r\nX-Request-Id: {}\r\n{framing}", trail.id());
        let (from, mut to) = connect(&system).await;
        to.write_all(head("POST /api/v1/tool-calls", &tenant.user.token, &more).as_bytes())
            .await
            .expect("the gateway reads");
        to.shutdown().await.expect("half of the connection closes");
        let wire = read(from).await;
        assert!(wire.head.is_empty() || (400..500).contains(&wire.status()), "{wire:?}");
    }
    trail.left_nothing().await;
}

pub(crate) async fn what_two_framings_smuggle_is_no_second_request(system: Arc<System>) {
    let tenant = system.organization().await;
    let second = "GET /api/v1/smuggled HTTP/1.1\r\nHost: gateway\r\n\r\n";
    let framings = [
        format!("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{second}"),
        format!("Content-Length: 0\r\nContent-Length: {}\r\n\r\n{second}", second.len()),
        format!("Transfer-Encoding: xchunked\r\n\r\n{second}"),
        format!("Content-Length: +{}\r\n\r\n{second}", second.len()),
    ];
    for framing in framings {
        let wire = exchange(&system, head("GET /api/v1/me", &tenant.user.token, &framing).as_bytes()).await;
        assert!(wire.status() < 500, "{wire:?}");
        assert!(!wire.body.contains("HTTP/1.1"), "a second answer: {wire:?}");
    }
}

pub(crate) async fn a_request_id_or_trace_context_cannot_carry_a_header(system: Arc<System>) {
    let tenant = system.organization().await;
    let long = "i".repeat(129);
    let values: [&[u8]; 12] = [
        b"a\r\nSet-Cookie: stolen=1",
        b"a\nSet-Cookie: stolen=1",
        b"a\rSet-Cookie: stolen=1",
        b"a\0b",
        b"a\r\n Set-Cookie: stolen=1",
        b"a\tb",
        b"a b",
        b"\xff\xfe",
        "\u{fc}mlaut".as_bytes(),
        b"",
        long.as_bytes(),
        b"a\x1b[31m",
    ];
    for name in ["X-Request-Id", "traceparent"] {
        for value in values {
            let start = head("GET /api/v1/me", &tenant.user.token, "");
            let wire =
                exchange(&system, &[start.as_bytes(), name.as_bytes(), b": ", value, b"\r\n\r\n"].concat()).await;
            let shown = String::from_utf8_lossy(value).into_owned();
            assert!(
                wire.head.is_empty() || wire.status() == 200 || wire.status() == 400,
                "{name}: {shown:?}: {wire:?}"
            );
            assert!(wire.header("set-cookie").is_none(), "{name}: {shown:?}: {wire:?}");
            if wire.status() == 200 {
                let id = wire.header("x-request-id").unwrap_or_default();
                let is_ours = uuid::Uuid::try_parse(id).is_ok();
                // A line break ends the header's value: what came before it is an id like any other.
                assert!(is_ours || id == "a", "{name}: {shown:?} came back as {id:?}");
            }
        }
    }
}

pub(crate) async fn requests_that_are_no_http_are_closed_without_harm(system: Arc<System>) {
    let tenant = system.organization().await;
    let token = &tenant.user.token;
    let large = format!("X-Large: {}\r\n\r\n", "h".repeat(1024 * 1024));
    let requests = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"GET\r\n\r\n".to_vec(),
        b"\r\n\r\n\r\n\0\0\0\0".to_vec(),
        head("GET /api/v1/me\0", token, "\r\n").into_bytes(),
        head("GET /api/v1/../../etc/passwd", token, "\r\n").into_bytes(),
        head("GET /api/v1/me/../../../live", token, "\r\n").into_bytes(),
        head("GET //api/v1/me", token, "\r\n").into_bytes(),
        head("GET *", token, "\r\n").into_bytes(),
        head(&format!("GET /{}", "u".repeat(70_000)), token, "\r\n").into_bytes(),
        head("GET /api/v1/me", token, &large).into_bytes(),
        head("CONNECT gateway:443", token, "\r\n").into_bytes(),
        format!("GET /api/v1/me HTTP/9.9\r\nAuthorization: Bearer {token}\r\n\r\n").into_bytes(),
    ];
    for request in requests {
        let (from, mut to) = connect(&system).await;
        // It may hang up at once.
        let _ = to.write_all(&request).await;
        let _ = to.shutdown().await;
        let wire = read(from).await;
        let shown = String::from_utf8_lossy(&request[..request.len().min(40)]).into_owned();
        assert!(wire.head.is_empty() || (400..500).contains(&wire.status()), "{shown:?}: {wire:?}");
    }
    assert_eq!(tenant.user.get("/api/v1/me").await.status, 200, "the gateway serves on");
}
