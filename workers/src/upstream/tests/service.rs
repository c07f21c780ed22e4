//! The `FastMCP` path: the real service behind the real filtering proxy, against `FastMCP`'s own
//! servers over both transports; and impostors that answer in its place.

use std::{process::Stdio, sync::Mutex, time::Duration};

use serde_json::Value;
use shared::{
    Code, Deadline,
    command::configurations::{Transport, Via},
    secret::Secret,
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use url::Url;

use super::{
    super::{FastMcpConfig, Specification, Upstreams},
    PATIENCE, bearer, call, egress_to, raw, request,
    server::{Reply, Server},
    specification, text,
};
use crate::egress::proxy::Proxy;

const KEY: &str = "a key that only these tests and the service know";
const TOKEN: &str = "t0k3n-of-the-tenant";

/// A Python process of the locked environment; dies with its handle.
pub(super) struct Python {
    pub(super) url: Url,
    _child: Child,
}

impl Python {
    /// Starts it and waits for the line that says where it listens.
    async fn start(arguments: &[&str], variables: &[(&str, &str)], address: impl Fn(&str) -> Option<String>) -> Self {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
        let python = format!("{root}/.dev/venv/bin/python");
        let mut child = Command::new(&python)
            .args(arguments)
            .current_dir(format!("{root}/fastmcp"))
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("the locked environment is missing, `cargo dev` makes it: {error}"));
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let listening = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if let Some(address) = address(&line) {
                    return address;
                }
            }
            panic!("it ended before it listened");
        };
        let address = tokio::time::timeout(3 * PATIENCE, listening).await.expect("it does not listen");
        // What it says from now on must be read, or it would stop at a full pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { url: Url::parse(&address).unwrap(), _child: child }
    }

    async fn service() -> Self {
        Self::service_in(&[("FASTMCP_REQUIRE_PROXY", "1")]).await
    }

    /// The service in a mode of its own.
    pub(super) async fn service_in(mode: &[(&str, &str)]) -> Self {
        let own: &[_] = &[("FASTMCP_LISTEN", "127.0.0.1:0"), ("FASTMCP_KEY", KEY)];
        let variables = [own, mode].concat();
        Self::start(&["-m", "switchboard_fastmcp"], &variables, |line| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["message"] == "listening").then(|| format!("http://127.0.0.1:{}", line["port"]))
        })
        .await
    }

    async fn demo(transport: &str, more: &[&str]) -> Self {
        let arguments = [&["demo/server.py", "--transport", transport, "--port", "0"], more].concat();
        Self::start(&arguments, &[], |line| line.strip_prefix("listening on ").map(str::to_owned)).await
    }

    /// What the demo server has seen.
    async fn state(&self) -> Value {
        let http = reqwest::Client::new();
        let answer = http.get(self.url.join("/state").unwrap()).send().await.unwrap();
        serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
    }
}

pub(super) fn config(url: &Url, force: bool) -> FastMcpConfig {
    FastMcpConfig { url: url.clone(), key: Secret::new(KEY.to_owned()), force }
}

/// Upstreams whose `FastMCP` path leads through the real proxy.
async fn through(service: &Python, servers: &[&Url]) -> (Upstreams, DropGuard) {
    let egress = egress_to(servers);
    let proxy = Proxy::bind(egress.clone(), "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let (url, stop) = (proxy.url(), CancellationToken::new());
    tokio::spawn(proxy.serve(stop.clone()));
    (Upstreams::new(egress, Some(config(&service.url, false)), Some(url), None), stop.drop_guard())
}

fn by_service(endpoint: &Url, transport: Transport) -> Specification {
    Specification { transport, via: Via::Fastmcp, ..specification(endpoint) }
}

#[tokio::test]
async fn the_real_service_calls_real_servers_over_both_transports() {
    let (service, http, sse) =
        tokio::join!(Python::service(), Python::demo("http", &[]), Python::demo("sse", &["--bearer", TOKEN]));
    let (upstreams, _proxy) = through(&service, &[&http.url, &sse.url]).await;
    let mut over_sse = by_service(&sse.url, Transport::Sse);
    over_sse.credential = bearer(TOKEN);
    for (specification, server) in [(by_service(&http.url, Transport::Http), &http), (over_sse, &sse)] {
        let client = upstreams.client(&specification).await.unwrap();
        let said = call(&client, "echo", r#"{"text":"gr\u00fc\u00df"}"#).await.unwrap();
        assert!(text(&said).contains("gr\u{fc}\u{df}"), "{}", text(&said));
        let failed = call(&client, "fail", r#"{"message":"as asked"}"#).await.unwrap();
        assert!(text(&failed).contains(r#""isError":true"#), "{}", text(&failed));

        let steps = Mutex::new(Vec::new());
        let note = |step| steps.lock().unwrap().push(step);
        let arguments = raw(r#"{"ms":250}"#);
        let mut watched = request("sleep", &arguments);
        watched.progress = Some(&note);
        assert!(text(&client.call(watched).await.unwrap()).contains("slept 250 ms"));
        assert!(steps.lock().unwrap().len() >= 2);
        assert!(text(&steps.lock().unwrap()[0]).contains(r#""total":250"#));

        let tools = client.list_tools(Deadline::after(PATIENCE), "test").await.unwrap();
        assert!(tools.iter().any(|tool| text(tool).contains(r#""name":"read_counter""#)));
        assert_eq!(server.state().await["connections"], 1, "a connection per call would be 30 times dearer");
    }
    let mut wrong = by_service(&sse.url, Transport::Sse);
    wrong.credential = bearer("another-token");
    assert_eq!(upstreams.client(&wrong).await.unwrap_err().code, Code::Reconnect);
    wrong.credential = bearer("no token at all");
    assert_eq!(upstreams.client(&wrong).await.unwrap_err().code, Code::Invalid);
}

#[tokio::test]
async fn a_caller_that_leaves_cancels_the_call_behind_the_service() {
    let (service, demo) = tokio::join!(Python::service(), Python::demo("http", &[]));
    let (upstreams, _proxy) = through(&service, &[&demo.url]).await;
    let client = upstreams.client(&by_service(&demo.url, Transport::Http)).await.unwrap();
    let arguments = raw(r#"{"ms":60000}"#);
    let mut slow = request("sleep", &arguments);
    slow.deadline = Deadline::after(Duration::from_millis(500));
    assert_eq!(client.call(slow).await.unwrap_err().code, Code::Timeout);
    let cancelled = async {
        while demo.state().await["cancelled"] != 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, cancelled).await.expect("the server goes on");
}

#[tokio::test]
async fn failures_behind_the_service_have_the_faults_of_the_native_path() {
    let hostile = Server::modern(|asked| match asked.body["params"]["name"].as_str() {
        Some("refuse") => asked.error(200, -32602, "no such tool"),
        Some("break") => asked.error(200, -32603, "broken"),
        Some("odd") => asked.result(r#"{"content":[{"type":"video","x":1}],"n":98765432109876543210}"#),
        _ => Reply::typed(500, "text/html", "s3cr3t"),
    })
    .await;
    let service = Python::service().await;
    let nobody = Url::parse("http://127.0.0.1:9/mcp").unwrap();
    let (upstreams, _proxy) = through(&service, &[&hostile.url, &nobody]).await;
    let client = upstreams.client(&by_service(&hostile.url, Transport::Http)).await.unwrap();
    let refused = call(&client, "refuse", "{}").await.unwrap_err();
    assert_eq!((refused.code, refused.message.contains("no such tool")), (Code::Invalid, true));
    assert_eq!(call(&client, "break", "{}").await.unwrap_err().code, Code::UpstreamFailed);
    let failed = call(&client, "fail", "{}").await.unwrap_err();
    assert_eq!((failed.code, failed.message.contains("s3cr3t")), (Code::UpstreamFailed, false));
    let odd = call(&client, "odd", "{}").await.unwrap();
    assert!(text(&odd).contains("98765432109876543210") && text(&odd).contains(r#""type":"video""#));

    let fault = upstreams.client(&by_service(&nobody, Transport::Http)).await.unwrap_err();
    assert_eq!(fault.code, Code::UpstreamFailed);
    let forbidden = by_service(&Url::parse("http://127.0.0.1:11/mcp").unwrap(), Transport::Http);
    let fault = upstreams.client(&forbidden).await.unwrap_err();
    assert_eq!((fault.code, fault.field.as_deref()), (Code::Invalid, Some("endpoint")));
}

#[tokio::test]
async fn an_impostor_is_told_no_secret() {
    // It answers as the service would, only it cannot prove that it holds the key.
    let impostor =
        Server::start(|_| Reply::json(200, r#"{"status":"ok"}"#).with("x-switchboard-proof", &"0".repeat(64))).await;
    let mut url = impostor.url.clone();
    url.set_path("/");
    let upstreams = Upstreams::new(egress_to(&[&impostor.url]), Some(config(&url, true)), None, None);
    // Forced: also what would be spoken to natively goes to the service.
    let mut tenant = specification(&impostor.url);
    tenant.credential = bearer(TOKEN);
    let fault = upstreams.client(&tenant).await.unwrap_err();
    assert_eq!(fault.code, Code::Internal);
    let asked = impostor.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!((asked[0].http.as_str(), asked[0].header("authorization")), ("GET", ""));
    assert!(!format!("{asked:?}").contains(TOKEN) && !format!("{asked:?}").contains(KEY));
    assert_eq!(asked[0].header("x-switchboard-nonce").len(), 32);
}

#[tokio::test]
async fn a_service_that_is_down_is_unavailable_and_nothing_was_accepted() {
    let nobody = Url::parse("http://127.0.0.1:9/").unwrap();
    let upstreams = Upstreams::new(egress_to(&[&nobody]), Some(config(&nobody, false)), None, None);
    let fault = upstreams.client(&by_service(&nobody, Transport::Sse)).await.unwrap_err();
    assert_eq!(fault.code, Code::Unavailable);
}
