//! What a caller is told when a server fails, in every way and at both moments (while it is got to
//! know, and under a call): the documented fault, in time, and never the server's own words.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{BOTH, one_at_a_time};
use crate::{
    faulty::{TOOL, UPSTREAM_BODY},
    world::{Answer, PATIENCE, System, Tenant},
};

/// The patience of a call that must not need it.
const TIMEOUT_MS: u32 = 12_000;

async fn call(tenant: &Tenant, configuration: &str, timeout_ms: u32) -> (Answer, Duration) {
    let body = json!({ "configuration": configuration, "tool": TOOL, "arguments": {}, "timeout_ms": timeout_ms });
    let started = Instant::now();
    let answer = tenant.user.post("/api/v1/tool-calls", &body).await;
    assert!(!answer.text.contains(UPSTREAM_BODY), "{configuration} echoes the server: {}", answer.text);
    (answer, started.elapsed())
}

pub(crate) async fn every_failure_of_a_server_has_its_documented_fault_in_time(system: Arc<System>) {
    let tenant = system.organization().await;
    let foreign = format!("/redirect?http://{}/mcp", system.servers.bait.address);
    let failures: [(&str, u16, &str); 13] = [
        ("/garbage", 502, "upstream_failed"),
        ("/not-json", 502, "upstream_failed"),
        ("/cut", 502, "upstream_failed"),
        ("/huge", 502, "upstream_failed"),
        ("/status/500", 502, "upstream_failed"),
        ("/status/502", 502, "upstream_failed"),
        ("/status/503", 502, "upstream_failed"),
        ("/status/404", 502, "upstream_failed"),
        ("/status/429", 502, "upstream_failed"),
        ("/status/401", 424, "reconnect"),
        ("/redirect/302?/record/modern/elsewhere", 0, ""),
        ("/redirect?http://169.254.169.254/latest/meta-data/", 0, ""),
        (&foreign, 0, ""),
    ];
    for (index, (path, status, code)) in failures.into_iter().enumerate() {
        for via in BOTH {
            for stage in ["", "/late"] {
                let name = format!("f{index}.{via}{}", stage.replace('/', "."));
                tenant.register(&name, &system.faulty.url(&format!("{stage}{path}")), json!({ "via": via })).await;
                let (answer, took) = call(&tenant, &name, TIMEOUT_MS).await;
                // A redirect is the endpoint's mistake to the guard, and the server's to the service.
                let native = via == "native" && !system.through_fastmcp;
                let (status, code) = match (status, native) {
                    (0, true) => (400, "invalid"),
                    (0, false) => (502, "upstream_failed"),
                    _ => (status, code),
                };
                assert_eq!(answer.status, status, "{stage}{path} via {via}: {}", answer.text);
                answer.problem(status, code);
                assert!(took < Duration::from_millis(TIMEOUT_MS.into()), "{stage}{path} via {via} took {took:?}");
            }
        }
    }
    assert_eq!(system.servers.bait.caught(), 0, "a redirect was followed to another origin");
    assert!(
        system.faulty.recorded("/record/modern/elsewhere").is_empty(),
        "a redirect that drops the message was followed"
    );
}

pub(crate) async fn a_server_that_is_down_is_a_failed_upstream_at_once(system: Arc<System>) {
    let tenant = system.organization().await;
    for via in BOTH {
        tenant.register(via, &system.servers.closed_url, json!({ "via": via })).await;
        let (answer, took) = call(&tenant, via, TIMEOUT_MS).await;
        let problem = answer.problem(502, "upstream_failed");
        assert_eq!(problem["detail"], "The MCP server cannot be reached.", "{via}");
        assert!(took < Duration::from_secs(5), "{via} took {took:?}");
    }
}

pub(crate) async fn a_server_that_hangs_is_left_at_the_deadline_and_the_slot_is_free(system: Arc<System>) {
    for via in BOTH {
        for stage in ["", "/late"] {
            let tenant = one_at_a_time(&system).await;
            let target = format!("{stage}/hang?{}", tenant.id);
            tenant.register("hangs", &system.faulty.url(&target), json!({ "via": via })).await;
            tenant.register("demo", &system.demo_url, json!({})).await;
            let (answer, took) = call(&tenant, "hangs", 1_500).await;
            answer.problem(504, "timeout");
            assert!((1_400..3_000).contains(&took.as_millis()), "{via} {stage}: {took:?}");
            // The only slot of this organization: the next call has it or waits for ever.
            let next = tenant.call("demo", "echo", json!({ "text": "next" })).await;
            assert_eq!(next.status, 200, "{via} {stage}: {}", next.text);
            let closed = async {
                while system.faulty.hanging(&target) > 0 {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::time::timeout(PATIENCE, closed)
                .await
                .unwrap_or_else(|_| panic!("{via} {stage}: the connection to the hanging server stays open"));
        }
    }
}

pub(crate) async fn a_call_ends_with_the_patience_of_its_configuration(system: Arc<System>) {
    let tenant = system.organization().await;
    for via in BOTH {
        for stage in ["", "/late"] {
            let name = format!("hangs.{via}{}", stage.replace('/', "."));
            let target = format!("{stage}/hang?patience-{via}-{}", tenant.id);
            tenant.register(&name, &system.faulty.url(&target), json!({ "via": via, "timeout_ms": 1_000 })).await;
            let (answer, took) = call(&tenant, &name, 20_000).await;
            answer.problem(504, "timeout");
            assert!((900..3_000).contains(&took.as_millis()), "{name}: {took:?}");
        }
    }
}
