//! The proxy with real clients: reqwest for what a library does, sockets for what an attacker does.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt as _;
use http_body_util::StreamBody;
use hyper::body::Frame;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::mpsc,
    task::JoinHandle,
};

use super::*;
use crate::egress::tests::{
    HOSTILE,
    local::{Answers, Local, open_for, redirect, text},
};

struct Running {
    addr: SocketAddr,
    url: Secret<String>,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl Running {
    async fn start(allow: &[String]) -> Self {
        Self::start_with(allow, Answers::new(&[]), MAX_TUNNELS).await
    }

    async fn start_with(allow: &[String], names: Arc<Answers>, max_tunnels: usize) -> Self {
        let mut proxy = Proxy::bind(open_for(allow, names), "127.0.0.1:0".parse().unwrap()).await.unwrap();
        proxy.max_tunnels = max_tunnels;
        let (addr, url, stop) = (proxy.addr(), proxy.url(), CancellationToken::new());
        let serving = tokio::spawn(proxy.serve(stop.clone()));
        Self { addr, url, stop, serving }
    }

    /// A client that sends everything here.
    fn client(&self) -> reqwest::Client {
        let proxy = reqwest::Proxy::all(self.url.reveal().as_str()).unwrap();
        reqwest::Client::builder().no_proxy().proxy(proxy).redirect(reqwest::redirect::Policy::none()).build().unwrap()
    }

    fn authorization(&self) -> String {
        let url = url::Url::parse(self.url.reveal()).unwrap();
        let credentials = format!("{}:{}", url.username(), url.password().unwrap());
        format!("Proxy-Authorization: Basic {}\r\n", STANDARD.encode(credentials))
    }

    async fn raw(&self, request: &str) -> (TcpStream, String) {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        // The proxy may hang up within an oversized head.
        let _ = stream.write_all(request.as_bytes()).await;
        let head = head(&mut stream).await;
        (stream, head)
    }

    async fn connect(&self, authority: &str) -> (TcpStream, String) {
        self.raw(&format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{}\r\n", self.authorization())).await
    }
}

/// The head of an answer, in lower case; what follows it stays in the socket.
async fn head(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => bytes.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&bytes).to_lowercase()
}

fn status(head: &str) -> u16 {
    head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default()
}

#[tokio::test]
async fn a_request_passes_and_leaves_the_proxys_own_fields_behind() {
    let server = Local::serve(|request| async move {
        let names: Vec<String> = request.headers().keys().map(ToString::to_string).collect();
        let host = request.headers()["host"].to_str().unwrap().to_owned();
        let method = request.method().clone();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        text(StatusCode::OK, &format!("{method} {host} {} {}", names.join(","), String::from_utf8_lossy(&body)))
    })
    .await;
    let proxy = Running::start(&[server.addr.to_string()]).await;
    let answer = proxy
        .client()
        .post(server.url("/mcp"))
        .header("connection", "x-hop")
        .header("x-hop", "1")
        .header("keep-alive", "timeout=5")
        .header("x-end", "2")
        .body("body")
        .send()
        .await
        .unwrap();
    let seen = answer.text().await.unwrap();
    assert!(seen.starts_with(&format!("POST {} ", server.addr)) && seen.ends_with(" body"), "{seen}");
    assert!(seen.contains("x-end") && seen.contains("content-length"), "{seen}");
    for gone in ["x-hop", "keep-alive", "proxy-authorization", "connection", "referer"] {
        assert!(!seen.contains(gone), "{gone} in {seen}");
    }
}

#[tokio::test]
async fn connections_to_the_server_are_used_again() {
    let server = Local::hello().await;
    let proxy = Running::start(&[server.addr.to_string()]).await;
    let client = proxy.client();
    for _ in 0..20 {
        assert_eq!(client.get(server.url("/")).send().await.unwrap().text().await.unwrap(), "hello");
    }
    assert!(server.connections() <= 2, "{}", server.connections());
}

#[tokio::test]
async fn an_event_arrives_before_the_stream_ends() {
    let (events, receiver) = mpsc::unbounded_channel::<&'static str>();
    let receiver = Arc::new(std::sync::Mutex::new(Some(receiver)));
    let server = Local::serve(move |_| {
        let receiver = receiver.lock().unwrap().take().unwrap();
        async move {
            let frames = futures::stream::unfold(receiver, |mut receiver| async {
                receiver.recv().await.map(|event| (Ok(Frame::data(Bytes::from_static(event.as_bytes()))), receiver))
            });
            Response::builder()
                .header("content-type", "text/event-stream")
                .body(http_body_util::BodyExt::boxed(StreamBody::new(frames)))
                .unwrap()
        }
    })
    .await;
    let proxy = Running::start(&[server.addr.to_string()]).await;
    let answer = proxy.client().get(server.url("/events")).send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut stream = answer.bytes_stream();
    for event in ["data: 1\n\n", "data: 2\n\n"] {
        // The next is sent only once this one has arrived: buffering would hang here.
        events.send(event).unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap(), event);
    }
    drop(events);
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn every_hostile_address_is_refused_in_absolute_form() {
    let names = Answers::new(&[]);
    let proxy = Running::start_with(&[], names.clone(), MAX_TUNNELS).await;
    let client = proxy.client();
    let mut asked = 0;
    for (address, reason) in HOSTILE {
        let Ok(mut url) = url::Url::parse(address) else { continue };
        let port = url.port_or_known_default();
        if *reason == Refused::UserInfo || port == Some(80) {
            continue;
        }
        url.set_scheme("http").unwrap();
        url.set_port(port).unwrap();
        let answer = client.get(url).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{address}");
        assert_eq!(answer.headers()[REFUSED_HEADER], reason.reason(), "{address}");
        let mark = format!("switchboard; error=destination_ip_prohibited; details=\"{}\"", reason.reason());
        assert_eq!(answer.headers()[STATUS_HEADER], mark.as_str(), "{address}");
        assert!(!answer.text().await.unwrap().contains('\n'));
        asked += 1;
    }
    assert!(asked >= 60, "{asked}");
    assert_eq!(names.look_ups(), 0);
}

#[tokio::test]
async fn every_hostile_address_is_refused_to_connect() {
    let names = Answers::new(&[]);
    let proxy = Running::start_with(&[], names.clone(), MAX_TUNNELS).await;
    for (address, _) in HOSTILE {
        let authority = address.trim_start_matches("https://").split('/').next().unwrap();
        // As an attacker writes it, not as a URL library would have cleaned it.
        let with_port = match authority.rsplit_once(':') {
            Some((_, port)) if port.parse::<u16>().is_ok() => authority.to_owned(),
            _ => format!("{authority}:443"),
        };
        if with_port.ends_with(":80") {
            continue;
        }
        let (_, head) = proxy.connect(&with_port).await;
        assert!(matches!(status(&head), 400 | 403), "{with_port}: {head}");
    }
    let (_, head) = proxy.connect("0x7f.1:8443").await;
    assert!(head.contains("x-switchboard-refused: address"), "{head}");
    assert!(head.contains("proxy-status: switchboard; error=destination_ip_prohibited"), "{head}");
    assert_eq!(names.look_ups(), 0);
}

#[tokio::test]
async fn a_name_that_turns_private_is_refused_both_ways() {
    let server = Local::hello().await;
    let port = server.addr.port();
    let names =
        Answers::new(&[("turn.example.com", &["127.0.0.1"]), ("mixed.example.com", &["10.0.0.1", "127.0.0.1"])]);
    let proxy = Running::start_with(&[server.addr.to_string()], names, MAX_TUNNELS).await;
    for name in ["turn.example.com", "mixed.example.com", "missing.example.com"] {
        let answer = proxy.client().get(format!("http://{name}:{port}/")).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);
        let (_, head) = proxy.connect(&format!("{name}:{port}")).await;
        assert_eq!(status(&head), 403, "{head}");
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_redirect_is_passed_on_and_following_it_asks_again() {
    let server = Local::serve(|request| async move { redirect(302, request.uri().query().unwrap_or("/")) }).await;
    let proxy = Running::start(&[server.addr.to_string()]).await;
    let client = proxy.client();
    for location in ["http://169.254.169.254/latest/", "http://127.0.0.1:1/", "http://[::1]/", "http://localhost/"] {
        let passed_on = client.get(server.url(&format!("/go?{location}"))).send().await.unwrap();
        assert_eq!(
            (passed_on.status(), passed_on.headers()["location"].to_str().unwrap()),
            (StatusCode::FOUND, location)
        );
        let answer = client.get(location).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{location}");
        assert!(answer.headers().contains_key(REFUSED_HEADER));
    }
}

#[tokio::test]
async fn a_tunnel_carries_bytes_both_ways_until_the_proxy_stops() {
    let server = Local::hello().await;
    let proxy = Running::start(&[server.addr.to_string()]).await;
    let (mut stream, head) = proxy.connect(&server.addr.to_string()).await;
    assert_eq!(status(&head), 200, "{head}");
    for _ in 0..2 {
        stream.write_all(format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", server.addr).as_bytes()).await.unwrap();
        assert_eq!(status(&self::head(&mut stream).await), 200);
        let mut body = [0; 5];
        stream.read_exact(&mut body).await.unwrap();
        assert_eq!(&body, b"hello");
    }
    proxy.stop.cancel();
    proxy.serving.await.unwrap();
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap_or(0), 0);
    assert!(TcpStream::connect(proxy.addr).await.is_err());
}

#[tokio::test]
async fn tunnels_are_bounded_and_a_closed_one_gives_its_place_back() {
    let server = Local::hello().await;
    let proxy = Running::start_with(&[server.addr.to_string()], Answers::new(&[]), 1).await;
    let (first, head) = proxy.connect(&server.addr.to_string()).await;
    assert_eq!(status(&head), 200);
    let (_, head) = proxy.connect(&server.addr.to_string()).await;
    assert_eq!(status(&head), 503, "{head}");
    drop(first);
    let again = async {
        while status(&proxy.connect(&server.addr.to_string()).await.1) != 200 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), again).await.expect("the place did not come back");
}

#[tokio::test]
async fn nobody_passes_without_the_password() {
    let server = Local::hello().await;
    let proxy = Running::start(&[server.addr.to_string()]).await;
    let wrong = STANDARD.encode("switchboard:wrong");
    let right = proxy.authorization();
    for authorization in [
        String::new(),
        format!("Proxy-Authorization: Basic {wrong}\r\n"),
        "Proxy-Authorization: Basic \r\n".to_owned(),
        right.replace("Basic", "Bearer"),
        right.replace("Proxy-", ""),
        right.replacen("\r\n", "x\r\n", 1),
    ] {
        for line in [format!("CONNECT {} HTTP/1.1", server.addr), format!("GET {} HTTP/1.1", server.url("/"))] {
            let (_, head) = proxy.raw(&format!("{line}\r\nHost: {}\r\n{authorization}\r\n", server.addr)).await;
            assert_eq!(status(&head), 407, "{line} {authorization}");
            assert!(head.contains("proxy-authenticate: basic"), "{head}");
        }
    }
    assert_eq!(server.connections(), 0);
    let other = Running::start(&[]).await;
    assert_ne!(other.url.reveal(), proxy.url.reveal());
    assert_ne!(other.authorization(), right);
}

#[tokio::test]
async fn a_host_that_is_down_is_a_bad_gateway() {
    let gone = Local::hello().await.addr;
    let proxy = Running::start(&[gone.to_string()]).await;
    // The server above is gone; its port refuses once its listener is dropped.
    let closed = async {
        while TcpStream::connect(gone).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), closed).await.unwrap();
    let answer = proxy.client().get(format!("http://{gone}/")).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
    assert!(!answer.headers().contains_key(REFUSED_HEADER));
    assert_eq!(answer.headers()[STATUS_HEADER], "switchboard; error=destination_unavailable");
    let (_, head) = proxy.connect(&gone.to_string()).await;
    assert_eq!(status(&head), 502, "{head}");
    assert!(head.contains("proxy-status: "), "{head}");
}

#[tokio::test]
async fn a_server_that_hangs_up_after_it_was_asked_is_not_called_unreached() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            head(&mut stream).await;
        }
    });
    let proxy = Running::start(&[addr.to_string()]).await;
    let answer = proxy.client().post(format!("http://{addr}/")).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
    assert!(!answer.headers().contains_key(STATUS_HEADER), "the call may have been delivered");
}

#[tokio::test]
async fn what_is_no_proxy_request_is_bad() {
    let server = Local::hello().await;
    let proxy = Running::start(&[server.addr.to_string()]).await;
    let authorization = proxy.authorization();
    for line in [
        "GET / HTTP/1.1".to_owned(),
        "CONNECT localhost HTTP/1.1".to_owned(),
        format!("CONNECT user@{} HTTP/1.1", server.addr),
        format!("GET https://{}/ HTTP/1.1", server.addr),
        format!("GET ftp://{}/ HTTP/1.1", server.addr),
    ] {
        let (_, head) = proxy.raw(&format!("{line}\r\nHost: {}\r\n{authorization}\r\n", server.addr)).await;
        assert_eq!(status(&head), 400, "{line}: {head}");
    }
    let huge = format!(
        "GET {} HTTP/1.1\r\n{authorization}X-Huge: {}\r\n\r\n",
        server.url("/"),
        "x".repeat(4 * MAX_HEADER_BYTES)
    );
    let (_, head) = proxy.raw(&huge).await;
    assert!(matches!(status(&head), 0 | 431), "{head}");
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_server_cannot_speak_in_the_proxys_name() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let server = Local::serve(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        async {
            let mut response = text(StatusCode::FORBIDDEN, "no");
            for name in [REFUSED_HEADER, STATUS_HEADER] {
                response.headers_mut().insert(name, HeaderValue::from_static("address"));
            }
            response
        }
    })
    .await;
    let proxy = Running::start(&[server.addr.to_string()]).await;
    let answer = proxy.client().get(server.url("/")).send().await.unwrap();
    assert_eq!((answer.status(), asked.load(Ordering::SeqCst)), (StatusCode::FORBIDDEN, 1));
    assert!([REFUSED_HEADER, STATUS_HEADER].iter().all(|name| !answer.headers().contains_key(*name)));
}

#[tokio::test]
async fn the_password_is_not_printed() {
    let proxy = Proxy::bind(open_for(&[], Answers::new(&[])), "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let printed = format!("{proxy:?} {:?}", proxy.url());
    assert!(!printed.contains(proxy.password.reveal()));
    assert!(proxy.reached_as("tool-1").url().reveal().contains("@tool-1:"));
}
