//! The `FastMCP` service asked directly, as whoever stole its key could: without the workers' proxy it
//! reaches nothing, and what the real proxy refuses it takes for what it is.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey};
use reqwest::StatusCode;
use serde_json::{Value, json};
use workers::egress::{Egress, EgressConfig, proxy::Proxy};

use super::{Traps, elsewhere, loopback, own_services};
use crate::world::System;

/// A request to the service, and how it is signed (`fastmcp/README.md`, "Authentication").
struct Signed<'a> {
    url: &'a str,
    key: &'a str,
    nonce: String,
    /// Seconds from now.
    offset_s: i64,
}

impl<'a> Signed<'a> {
    fn by(system: &'a System) -> Self {
        let (url, key) = &system.fastmcp_service;
        Self { url, key, nonce: uuid::Uuid::new_v4().simple().to_string(), offset_s: 0 }
    }

    async fn post(&self, http: &reqwest::Client, path: &str, body: &Value) -> (StatusCode, Value) {
        let (body, time) = (body.to_string(), (chrono::Utc::now().timestamp() + self.offset_s).to_string());
        let text = format!(
            "switchboard-fastmcp-request\nPOST\n{path}\n{time}\n{}\n{}",
            self.nonce,
            hex(&sha256(body.as_bytes()))
        );
        let request = http
            .post(format!("{}{path}", self.url))
            .header("content-type", "application/json")
            .header("x-switchboard-time", time)
            .header("x-switchboard-nonce", &self.nonce)
            .header("x-switchboard-signature", hex(&hmac(self.key, &text)))
            .body(body);
        let answer = request.send().await.expect("the service answers");
        (answer.status(), answer.json().await.expect("JSON"))
    }
}

fn hmac(key: &str, text: &str) -> Vec<u8> {
    let key = EncodingKey::from_secret(key.as_bytes());
    let signature = jsonwebtoken::crypto::sign(text.as_bytes(), &key, Algorithm::HS256).expect("a signature");
    URL_SAFE_NO_PAD.decode(signature).expect("base64")
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    let suite = rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13().expect("a TLS 1.3 suite");
    suite.common.hash_provider.hash(bytes).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// Has the service connect; a client of its own each time. Answers status and error code.
async fn connect(system: &System, specification: Value) -> (u16, Value) {
    let body = json!({ "client_id": format!("e2e-{}", uuid::Uuid::new_v4()), "specification": specification, "timeout_ms": 10_000 });
    let (status, answer) = Signed::by(system).post(&system.http, "/mcp/connect", &body).await;
    let _ = Signed::by(system).post(&system.http, "/mcp/disconnect", &json!({ "client_id": body["client_id"] })).await;
    (status.as_u16(), answer)
}

pub(crate) async fn the_service_listens_to_holders_of_the_key_only(system: Arc<System>) {
    let traps = Traps::set().await;
    let specification = json!({ "transport": "http", "url": format!("http://127.0.0.1:{}/mcp", traps.port), "proxy": "http://u:p@127.0.0.1:9" });
    let body = json!({ "client_id": "intruder", "specification": specification });
    let other_key = "k".repeat(64);
    let refused = [
        Signed { key: &other_key, ..Signed::by(&system) },
        Signed { key: "", ..Signed::by(&system) },
        Signed { nonce: "not a nonce".to_owned(), ..Signed::by(&system) },
        Signed { offset_s: -120, ..Signed::by(&system) },
        Signed { offset_s: 120, ..Signed::by(&system) },
    ];
    for (index, signed) in refused.iter().enumerate() {
        let (status, answer) = signed.post(&system.http, "/mcp/connect", &body).await;
        assert_eq!((status.as_u16(), &answer["error"]["code"]), (401, &json!("unauthenticated")), "{index}: {answer}");
    }
    // What was heard once is not heard again.
    let signed = Signed::by(&system);
    let goodbye = json!({ "client_id": "nobody" });
    assert_eq!(signed.post(&system.http, "/mcp/disconnect", &goodbye).await.0, StatusCode::OK);
    assert_eq!(signed.post(&system.http, "/mcp/disconnect", &goodbye).await.0, StatusCode::UNAUTHORIZED);
    let unsigned = system.http.post(format!("{}/mcp/connect", system.fastmcp_service.0)).json(&body).send().await;
    assert_eq!(unsigned.expect("an answer").status(), StatusCode::UNAUTHORIZED);
    traps.assert_empty().await;
}

pub(crate) async fn the_service_reaches_nothing_without_the_workers_proxy(system: Arc<System>) {
    let traps = Traps::set().await;
    let ports = std::fs::read_to_string(system.log_dir.with_file_name("ports")).expect("the stack's ports");
    let workers_proxy = ports.lines().find_map(|line| line.strip_prefix("tool-1-proxy=")).expect("the proxy's port");
    // A trap, and a server that tenants may reach: neither is reached.
    for target in
        [format!("http://127.0.0.1:{}/mcp", traps.port), format!("http://{}/mcp", system.servers.bait.address)]
    {
        for transport in ["http", "sse"] {
            let described = |proxy: Option<&str>| {
                let mut described = json!({ "transport": transport, "url": target });
                if let Some(proxy) = proxy {
                    described["proxy"] = proxy.into();
                }
                described
            };
            let (status, answer) = connect(&system, described(None)).await;
            assert_eq!(
                (status, &answer["error"]["message"]),
                (400, &json!("specification.proxy: is required")),
                "{answer}"
            );
            for proxy in [
                "http://switchboard:guess@127.0.0.1:9".to_owned(),
                format!("http://switchboard:guess@127.0.0.1:{workers_proxy}"),
                format!("http://127.0.0.1:{workers_proxy}"),
            ] {
                let (status, answer) = connect(&system, described(Some(&proxy))).await;
                assert_eq!((status, &answer["error"]["code"]), (502, &json!("unreachable")), "{proxy}: {answer}");
            }
            for not_a_proxy in ["https://u:p@127.0.0.1:9", "socks5://127.0.0.1:9", "", "http://127.0.0.1"] {
                let (status, answer) = connect(&system, described(Some(not_a_proxy))).await;
                assert_eq!((status, &answer["error"]["code"]), (400, &json!("invalid")), "{not_a_proxy}: {answer}");
            }
        }
    }
    let (status, answer) = connect(&system, json!({ "transport": "stdio", "catalogue_id": "sh" })).await;
    assert_eq!((status, &answer["error"]["code"]), (400, &json!("invalid")), "{answer}");
    traps.assert_empty().await;
    assert_eq!(system.servers.bait.caught(), 0);
}

/// The workers' proxy with the rules of the stack and a password that we know.
async fn proxy(system: &System) -> String {
    let authority = |url: &str| url.trim_start_matches("http://").trim_end_matches("/mcp").to_owned();
    let allow =
        vec![authority(&system.demo_url), authority(&system.servers.closed_url), system.faulty.address().to_string()];
    let config = EgressConfig { allow, allow_http: true, ..EgressConfig::default() };
    let egress = Egress::new(&config).expect("rules");
    let proxy = Proxy::bind(egress, "127.0.0.1:0".parse().expect("an address")).await.expect("a proxy");
    let url = proxy.url().reveal().clone();
    // Never cancelled: it ends with the tests' runtime.
    #[expect(clippy::default_trait_access, reason = "the token's crate is no dependency of the tests")]
    tokio::spawn(proxy.serve(Default::default()));
    url
}

pub(crate) async fn what_the_proxy_refuses_the_service_calls_unreachable(system: Arc<System>) {
    let traps = Traps::set().await;
    let proxy = proxy(&system).await;
    let (status, answer) =
        connect(&system, json!({ "transport": "http", "url": system.demo_url, "proxy": proxy })).await;
    assert_eq!(status, 200, "what is open must be reached: {answer}");
    let mut unreachable = 0;
    for address in [loopback(traps.port), elsewhere(), own_services(&system)].concat() {
        for (transport, scheme) in [("http", "http"), ("http", "https"), ("sse", "http")] {
            let url = format!("{scheme}://{}", address.split_once("://").expect("a URL").1);
            let (status, answer) =
                connect(&system, json!({ "transport": transport, "url": url, "proxy": proxy })).await;
            match (status, answer["error"]["code"].as_str()) {
                (502, Some("unreachable")) => unreachable += 1,
                // What the service refuses as written never gets to the proxy.
                (400, Some("invalid")) => {}
                // The proxy's HTTP parser knows no such host (the service's library writes IPv6 addresses
                // to a proxy without brackets), and its 400 comes before any of our words.
                (502, Some("protocol")) if url.contains(['%', '[']) => {}
                other => panic!("{transport} {url}: {other:?} {answer}"),
            }
        }
    }
    assert!(unreachable >= 90, "only {unreachable} were refused by the proxy");
    traps.assert_empty().await;
}

pub(crate) async fn a_servers_own_refusal_is_not_taken_for_the_proxys(system: Arc<System>) {
    let proxy = proxy(&system).await;
    for (path, code) in [("/status/403", "unauthorized"), ("/status/500", "protocol"), ("/status/401", "unauthorized")]
    {
        let specification = json!({ "transport": "http", "url": system.faulty.url(path), "proxy": proxy });
        let (status, answer) = connect(&system, specification).await;
        assert_eq!((status, &answer["error"]["code"]), (502, &json!(code)), "{path}: {answer}");
    }
    let closed = json!({ "transport": "http", "url": system.servers.closed_url, "proxy": proxy });
    assert_eq!(connect(&system, closed).await.1["error"]["code"], "unreachable");
}
