//! Addresses that a tenant may register to reach what only we can reach: every spelling of loopback,
//! private networks, metadata services, our own services, redirects. Both clients refuse them, and
//! listeners at some of the targets say that nobody came.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::json;

use crate::{
    servers::Trap,
    upstreams::BOTH,
    world::{PATIENCE, System},
};

mod service;

pub(crate) use service::*;

/// Listeners on loopback that the egress guard does not open.
struct Traps {
    all: Vec<Trap>,
    port: u16,
}

impl Traps {
    /// On IPv4, and on the same port of IPv6 where the machine has it.
    async fn set() -> Self {
        let first = Trap::at("127.0.0.1:0").await.expect("a listener");
        let port = first.address.port();
        let second = Trap::at(&format!("[::1]:{port}")).await.ok();
        Self { all: [Some(first), second].into_iter().flatten().collect(), port }
    }

    /// Nobody came; and had somebody come, the trap would have noticed.
    async fn assert_empty(&self) {
        for trap in &self.all {
            assert_eq!(trap.caught(), 0, "somebody connected to {}", trap.address);
            let _probe = tokio::net::TcpStream::connect(trap.address).await.expect("the trap listens");
            let noticed = async {
                while trap.caught() == 0 {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(PATIENCE, noticed).await.expect("the trap counts");
        }
    }
}

/// Spellings of loopback at the traps' port.
fn loopback(port: u16) -> Vec<String> {
    [
        "127.0.0.1",
        "127.1",
        "127.0.1",
        "2130706433",
        "017700000001",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "127.0.0.1.",
        "%31%32%37.0.0.1",
        "127。0。0。1",
        "①②⑦.0.0.1",
        "0",
        "0.0.0.0",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[64:ff9b:1::7f00:1]",
        "[2002:7f00:1::1]",
        "localhost",
        "LOCALHOST.",
        "ⓛocalhost",
        "a.localhost",
        "localhost.localdomain",
        "ip6-localhost",
        "user@127.0.0.1",
        "user:password@localhost",
        "mcp.example.com@127.0.0.1",
        "mcp.example.com%40@127.0.0.1",
    ]
    .map(|host| format!("http://{host}:{port}/mcp"))
    .into()
}

/// Everything else that is not the public internet.
fn elsewhere() -> Vec<String> {
    [
        "https://10.0.0.1/mcp",
        "https://167772161/mcp",
        "https://172.16.0.1/mcp",
        "https://172.31.255.255/mcp",
        "https://192.168.1.1/mcp",
        "https://0xc0a80101/mcp",
        "https://100.64.0.1/mcp",
        "https://169.254.1.1/mcp",
        "https://192.0.2.1/mcp",
        "https://198.18.0.1/mcp",
        "https://224.0.0.1/mcp",
        "https://255.255.255.255/mcp",
        "https://[::ffff:10.0.0.1]/mcp",
        "https://[64:ff9b::a00:1]/mcp",
        "https://[2002:a00:1::]/mcp",
        "https://[2001:0:53aa:64c:0:0:80ff:fffe]/mcp",
        "https://[fe80::1]/mcp",
        "https://[fc00::1]/mcp",
        "https://[fd12:3456::1]/mcp",
        "https://[ff02::1]/mcp",
        "http://169.254.169.254/latest/meta-data/",
        "http://2852039166/latest/meta-data/",
        "http://[::ffff:169.254.169.254]/latest/",
        "http://169.254.170.2/v2/credentials",
        "http://100.100.100.200/latest/",
        "http://[fd00:ec2::254]/latest/",
        "http://metadata.google.internal/computeMetadata/v1/",
        "http://metadata/computeMetadata/v1/",
        "https://postgres/mcp",
        "https://nats.default.svc.cluster.local/mcp",
        "https://printer.local/mcp",
        "https://db.internal/mcp",
        "https://mcp.example.com:22/mcp",
        "https://mcp.example.com:4222/mcp",
        "https://mcp.example.com:5432/mcp",
        "https://8.8.8.8:2375/mcp",
        "https://address.refused.invalid/mcp",
        "https://mcp.example.com@10.0.0.1/mcp",
        "https://mcp.example.com%00.evil.example/mcp",
    ]
    .map(str::to_owned)
    .into()
}

/// The stack's own services on this machine, by the name of what listens.
fn own_services(system: &System) -> Vec<String> {
    let file = system.log_dir.with_file_name("ports");
    let ports: BTreeMap<String, u16> = std::fs::read_to_string(file)
        .expect("the stack's ports")
        .lines()
        .filter_map(|line| line.split_once('=').map(|(name, port)| (name.to_owned(), port.parse().expect("a port"))))
        .collect();
    // Everything but the servers that tenants are meant to reach.
    let closed = ports.iter().filter(|(name, _)| !name.starts_with("demo") && *name != "everything");
    let urls: Vec<String> = closed.map(|(_, port)| format!("http://127.0.0.1:{port}/mcp")).collect();
    assert!(urls.len() >= 8 && ports.keys().any(|name| name.starts_with("nats")), "{ports:?}");
    urls
}

fn all(system: &System, port: u16) -> Vec<String> {
    let all = [loopback(port), elsewhere(), own_services(system)].concat();
    assert!(all.len() >= 30, "{}", all.len());
    all
}

pub(crate) async fn no_hostile_address_can_be_registered(system: Arc<System>) {
    let (tenant, traps) = (system.organization().await, Traps::set().await);
    for (index, address) in all(&system, traps.port).iter().enumerate() {
        for via in BOTH {
            let body = json!({ "name": format!("h{index}.{via}"), "endpoint": address, "via": via });
            let answer = tenant.admin.post("/api/v1/mcp/configurations", &body).await;
            assert_eq!(answer.status, 400, "{address} via {via}: {}", answer.text);
            assert_eq!(answer.problem(400, "invalid")["field"], "endpoint", "{address}: {}", answer.text);
        }
    }
    traps.assert_empty().await;
}

pub(crate) async fn a_hostile_address_that_got_into_the_database_is_refused_at_the_call(system: Arc<System>) {
    const REFUSED: &str = "switchboard_egress_refused_total{";
    let (tenant, traps) = (system.organization().await, Traps::set().await);
    let database = system.database("superuser").await;
    let (before, mut refused) = (system.measured("tool", REFUSED).await, 0);
    for (index, address) in all(&system, traps.port).iter().enumerate() {
        for via in BOTH {
            let name = format!("h{index}.{via}");
            let id: uuid::Uuid =
                tenant.register(&name, &system.demo_url, json!({ "via": via })).await.parse().expect("a uuid");
            let moved = sqlx::query("UPDATE mcp_configurations SET endpoint = $1 WHERE id = $2").bind(address).bind(id);
            assert_eq!(moved.execute(&database).await.expect("the row moves").rows_affected(), 1);
            let answer = tenant.call(&name, "echo", json!({ "text": "x" })).await;
            assert_eq!(answer.status, 400, "{address} via {via}: {}", answer.text);
            assert_eq!(answer.problem(400, "invalid")["field"], "endpoint", "{address}: {}", answer.text);
            refused += 1;
        }
    }
    let counted = system.measured("tool", REFUSED).await - before;
    // Some are no addresses to the worker and never get to the guard; more than half means those of both clients.
    assert!(counted > refused / 2, "operators see {counted} of {refused} refusals");
    traps.assert_empty().await;
}

pub(crate) async fn no_hostile_address_can_be_tried_out(system: Arc<System>) {
    let (tenant, traps) = (system.organization().await, Traps::set().await);
    for address in all(&system, traps.port) {
        for via in BOTH {
            let auth = json!({ "type": "bearer", "token": "s3cret-of-a-trial" });
            let body = json!({ "endpoint": address, "via": via, "auth": auth });
            let answer = tenant.admin.post("/api/v1/mcp/test", &body).await;
            if answer.status != 200 {
                // No address at all.
                assert_eq!(answer.problem(400, "invalid")["field"], "endpoint", "{address}: {}", answer.text);
                continue;
            }
            let report = answer.json();
            let stages = report["stages"].as_array().expect("stages");
            let last = stages.last().expect("a stage");
            assert_eq!((&report["ok"], &last["ok"]), (&json!(false), &json!(false)), "{address} via {via}: {report}");
            assert!(last["stage"] == "address" || last["stage"] == "dns", "{address} via {via}: {report}");
        }
    }
    // Nor can one be led there.
    for via in BOTH {
        let target = format!("/redirect/307?http://127.0.0.1:{}/trial-{via}", traps.port);
        let body = json!({ "endpoint": system.faulty.url(&target), "via": via });
        let answer = tenant.admin.post("/api/v1/mcp/test", &body).await;
        assert_eq!(answer.json()["ok"], false, "{}", answer.text);
        assert!(system.faulty.redirects(&target) > 0, "{via} was not asked: {}", answer.text);
    }
    traps.assert_empty().await;
}

pub(crate) async fn no_redirect_leads_to_a_hostile_address_or_another_origin(system: Arc<System>) {
    let (tenant, traps) = (system.organization().await, Traps::set().await);
    let (port, bait) = (traps.port, system.servers.bait.address);
    let locations = [
        format!("http://127.0.0.1:{port}/"),
        format!("http://localhost:{port}/"),
        format!("http://[::1]:{port}/"),
        format!("http://[::ffff:127.0.0.1]:{port}/"),
        format!("//127.0.0.1:{port}/"),
        format!("http://0x7f.1:{port}/"),
        // Open to tenants, but not the server that was asked.
        format!("http://{bait}/mcp"),
        format!("//{bait}/mcp"),
        format!("http://user:password@{bait}/mcp"),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "http://10.0.0.1/".to_owned(),
        "https://localhost/".to_owned(),
        "file:///etc/passwd".to_owned(),
        "ftp://127.0.0.1/".to_owned(),
        "gopher://127.0.0.1:6379/_INFO".to_owned(),
    ];
    let mut targets: Vec<(u16, &str)> = locations.iter().map(|location| (307, location.as_str())).collect();
    targets.extend(
        [301, 302, 303, 308].into_iter().flat_map(|status| [(status, locations[0].as_str()), (status, &locations[6])]),
    );
    for (index, (status, location)) in targets.into_iter().enumerate() {
        for via in BOTH {
            for stage in ["", "/late"] {
                let name = format!("r{index}.{via}{}", stage.replace('/', "."));
                let target = format!("{stage}/redirect/{status}?{location}");
                let before = system.faulty.redirects(&target);
                tenant.register(&name, &system.faulty.url(&target), json!({ "via": via })).await;
                let answer = tenant.call(&name, "note", json!({})).await;
                match answer.status.as_u16() {
                    400 => answer.problem(400, "invalid"),
                    _ => answer.problem(502, "upstream_failed"),
                };
                assert!(system.faulty.redirects(&target) > before, "{target} via {via} was not asked: {}", answer.text);
            }
        }
    }
    traps.assert_empty().await;
    assert_eq!(system.servers.bait.caught(), 0, "a redirect was followed to another origin");
}
