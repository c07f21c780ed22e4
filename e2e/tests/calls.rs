//! The main job: a tool call from HTTP through the queue to a real server and back.

use std::{sync::Arc, time::Duration};

use serde_json::json;

use crate::world::{PATIENCE, System};

pub(crate) async fn a_tool_is_called_through_the_whole_road(system: Arc<System>) {
    let tenant = system.organization().await;
    let answer = tenant.call("demo", "echo", json!({ "text": "hello" })).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let call = answer.json();
    assert_eq!(call["state"], "done");
    assert_eq!(call["result"]["content"][0]["text"], "hello");
    assert!(call["id"].is_string());
    for part in ["queued", "upstream", "worker", "total"] {
        assert!(call["timings_ms"][part].is_number(), "{part}: {}", answer.text);
    }
}

pub(crate) async fn a_result_arrives_byte_for_byte(system: Arc<System>) {
    let tenant = system.organization().await;
    let answer = tenant.call("demo", "odd", json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    // Unknown content types, vendor fields and digits beyond a double survive on both paths.
    for fragment in [r#""type":"video""#, r#""vendorHint":"kept""#, "98765432109876543210"] {
        assert!(answer.text.contains(fragment), "{fragment}: {}", answer.text);
    }
    if !system.through_fastmcp {
        // The native path does not touch a byte: number formats and key order stay.
        for fragment in [r#""vendorResult":{"z":1,"a":[1e3,-0.0,12345678901234567890]}"#, r#""fine":0.123456789012"#] {
            assert!(answer.text.contains(fragment), "{fragment}: {}", answer.text);
        }
    }
}

pub(crate) async fn a_tool_that_says_no_is_a_result_and_not_a_fault(system: Arc<System>) {
    let tenant = system.organization().await;
    let answer = tenant.call("demo", "fail", json!({ "message": "not today" })).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json()["result"]["isError"], true);
}

pub(crate) async fn every_call_leaves_an_audit_row(system: Arc<System>) {
    let tenant = system.organization().await;
    let request = tenant.user.request(reqwest::Method::POST, "/api/v1/tool-calls");
    let id = format!("audit-{}", tenant.id);
    let body = json!({ "configuration": "demo", "tool": "echo", "arguments": { "text": "seen" } });
    let answer = tenant.user.send(request.header("x-request-id", &id).json(&body)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let row = system
        .eventually(
            "the audit row",
            "SELECT to_jsonb(l) FROM audit_logs l WHERE request_id = $1 AND action = 'tools.call'",
            &id,
        )
        .await;
    assert_eq!(row["organization_id"], tenant.id.to_string());
    assert_eq!(row["outcome"], "succeeded");
    assert_eq!(row["resource_id"], "demo/echo");
    assert!(!row.to_string().contains("seen"), "arguments do not belong into the trail: {row}");
}

pub(crate) async fn the_request_id_travels_from_http_to_the_worker(system: Arc<System>) {
    let tenant = system.organization().await;
    let id = format!("trace-{}", tenant.id);
    tenant.register("service", &system.demo_fastmcp_url, json!({ "via": "fastmcp" })).await;
    let body = json!({ "configuration": "service", "tool": "echo", "arguments": { "text": "x" } });
    let request = tenant.user.request(reqwest::Method::POST, "/api/v1/tool-calls").header("x-request-id", &id);
    let answer = tenant.user.send(request.json(&body)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.headers["x-request-id"], id.as_str());
    for process in ["gateway-1", "tool-1", "fastmcp"] {
        assert_eq!(logged(&system, process, &id).await["request_id"], id.as_str(), "{process}");
    }
}

/// The first line of a process that contains these words. Lines leave a process some moments after they are said.
async fn logged(system: &System, process: &str, words: &str) -> serde_json::Value {
    let path = system.log_dir.join(format!("{process}.log"));
    let line = async {
        loop {
            let log = std::fs::read_to_string(&path).expect("a log");
            // Of a line that is still being written only a part may be there.
            let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
            if let Some(line) = whole.lines().find(|line| line.contains(words)) {
                return serde_json::from_str(line).expect("a JSON line");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, line).await.unwrap_or_else(|_| panic!("{process} does not say {words}"))
}
