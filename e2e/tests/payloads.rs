//! What crosses us, held against the official schemas: what we hand on from servers to callers, and
//! what we send to servers, headers included.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{
    faulty::{FOREIGN_TOOL, Recorded, TOOL},
    schemas::{LEGACY, MODERN, Schema},
    upstreams::{BOTH, known, listed},
    world::System,
};

pub(crate) async fn tools_and_results_that_are_handed_on_are_valid_mcp(system: Arc<System>) {
    let tenant = system.organization().await;
    for server in known(&system) {
        let (name, id) = server.register(&tenant).await;
        // Which era our side speaks with each of them.
        let revision = if server.name.starts_with("demo") { MODERN } else { LEGACY };
        let tool = Schema::of(revision, "Tool");
        let items = listed(&tenant.user, &id).await.json()["items"].as_array().expect("a list").clone();
        assert!(!items.is_empty());
        for item in &items {
            tool.check(item);
        }
        let answer = tenant.call(&name, server.tool, server.arguments).await;
        Schema::of(revision, "CallToolResult").check(&answer.json()["result"]);
    }
    let result = Schema::of(MODERN, "CallToolResult");
    for (tool, arguments) in [("add", json!({ "a": 1, "b": 2 })), ("fail", json!({ "message": "no" }))] {
        result.check(&tenant.call("demo", tool, arguments).await.json()["result"]);
    }
    assert!(
        !result.admits(&json!({ "content": [{ "type": "text" }], "resultType": "complete" })),
        "it would pass anything"
    );
}

pub(crate) async fn what_is_sent_to_a_modern_server_is_valid_mcp_with_its_headers(system: Arc<System>) {
    let tenant = system.organization().await;
    for via in BOTH {
        let path = format!("/record/modern/sent-{via}-{}", tenant.id);
        let id = tenant.register(via, &system.faulty.url(&path), json!({ "via": via })).await;
        assert_eq!(listed(&tenant.user, &id).await.status, 200);
        for (tool, region) in [(TOOL, "eu-west"), (FOREIGN_TOOL, "größer"), (TOOL, " padded ")] {
            let answer = tenant.call(via, tool, json!({ "text": "x", "region": region })).await;
            assert_eq!(answer.status, 200, "{via} {tool}: {}", answer.text);
        }
        assert_eq!(tenant.call(via, TOOL, json!({ "text": "no region" })).await.status, 200);
        let sent = system.faulty.recorded(&path);
        let asked = |method: &str| sent.iter().filter(|asked| asked.method() == method).count();
        assert_eq!(asked("tools/call"), 4, "{via}: {sent:#?}");
        assert!(asked("server/discover") == 1 && asked("tools/list") >= 1, "{via}: {sent:#?}");
        for request in &sent {
            check_modern(request);
        }
    }
}

/// MCP 2026-07-28, basic/transports, "Request Metadata" (facts: section 1, items 1 to 3).
fn check_modern(sent: &Recorded) {
    let definition = match sent.method() {
        "server/discover" => "DiscoverRequest",
        "tools/list" => "ListToolsRequest",
        "tools/call" => "CallToolRequest",
        other => panic!("{} {other} was sent to a modern server: {sent:#?}", sent.http),
    };
    Schema::of(MODERN, definition).check(&sent.body);
    let meta = &sent.body["params"]["_meta"];
    assert_eq!(meta["io.modelcontextprotocol/protocolVersion"], MODERN, "{sent:#?}");
    assert_eq!(meta["io.modelcontextprotocol/clientInfo"]["name"], "switchboard", "{sent:#?}");
    assert_eq!(sent.http, "POST");
    assert_eq!(sent.header("mcp-protocol-version"), MODERN, "{sent:#?}");
    assert_eq!(sent.header("mcp-method"), sent.method(), "{sent:#?}");
    assert_eq!(sent.header("mcp-session-id"), "", "{sent:#?}");
    check_media_types(sent);
    let name = sent.body["params"]["name"].as_str().unwrap_or_default();
    assert_eq!(decoded(sent.header("mcp-name")), name, "{sent:#?}");
    let region = sent.body["params"]["arguments"]["region"].as_str().unwrap_or_default();
    assert_eq!(decoded(sent.header("mcp-param-region")), region, "{sent:#?}");
    check_nothing_of_ours(sent);
}

/// A header's value, which is base64 within `=?base64?..?=` where plain text cannot carry it.
fn decoded(value: &str) -> String {
    match value.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) {
        Some(encoded) => String::from_utf8(STANDARD.decode(encoded).expect("base64")).expect("UTF-8"),
        None => value.to_owned(),
    }
}

fn check_media_types(sent: &Recorded) {
    assert!(sent.header("content-type").starts_with("application/json"), "{sent:#?}");
    for kind in ["application/json", "text/event-stream"] {
        assert!(sent.header("accept").contains(kind), "{sent:#?}");
    }
}

/// A caller's token, our request id and our addresses are nobody else's business.
fn check_nothing_of_ours(sent: &Recorded) {
    for (name, value) in &sent.headers {
        let is_ours = name.starts_with("x-switchboard") || name.starts_with("proxy-") || name == "x-request-id";
        assert!(!is_ours && name != "authorization" && name != "cookie" && name != "forwarded", "{name}: {value}");
        assert!(!name.starts_with("x-forwarded") && name != "via" && name != "referer", "{name}: {value}");
    }
}

pub(crate) async fn what_is_sent_to_a_handshake_server_is_valid_mcp_in_its_session(system: Arc<System>) {
    let tenant = system.organization().await;
    for via in BOTH {
        let path = format!("/record/legacy/sent-{via}-{}", tenant.id);
        let id = tenant.register(via, &system.faulty.url(&path), json!({ "via": via })).await;
        assert_eq!(listed(&tenant.user, &id).await.status, 200);
        for tool in [TOOL, FOREIGN_TOOL] {
            let answer = tenant.call(via, tool, json!({ "text": "x", "region": "eu" })).await;
            assert_eq!(answer.status, 200, "{via} {tool}: {}", answer.text);
        }
        let sent = system.faulty.recorded(&path);
        let asked = |method: &str| sent.iter().filter(|asked| asked.method() == method).count();
        assert_eq!(
            (asked("initialize"), asked("notifications/initialized"), asked("tools/call")),
            (1, 1, 2),
            "{via}: {sent:#?}"
        );
        let handshake = sent.iter().position(|asked| asked.method() == "initialize").expect("a handshake");
        for (index, request) in sent.iter().enumerate() {
            check_legacy(request, index > handshake);
        }
    }
}

/// MCP 2025-11-25, basic/transports, "Protocol Version Header" and "Session Management".
fn check_legacy(sent: &Recorded, in_session: bool) {
    check_nothing_of_ours(sent);
    if in_session {
        assert!(sent.header("mcp-session-id").starts_with("session-"), "{sent:#?}");
        assert_eq!(sent.header("mcp-protocol-version"), LEGACY, "{sent:#?}");
    } else {
        assert_eq!(sent.header("mcp-session-id"), "", "{sent:#?}");
    }
    let definition = match (sent.http.as_str(), sent.method()) {
        ("GET" | "DELETE", "") => {
            assert_eq!(sent.body, Value::Null);
            return;
        }
        // The question by which the era is found out is the newer one's.
        (_, "server/discover") => return Schema::of(MODERN, "DiscoverRequest").check(&sent.body),
        (_, "initialize") => "InitializeRequest",
        (_, "notifications/initialized") => "InitializedNotification",
        (_, "tools/list") => "ListToolsRequest",
        (_, "tools/call") => "CallToolRequest",
        (http, other) => panic!("{http} {other} was sent to a handshake server: {sent:#?}"),
    };
    Schema::of(LEGACY, definition).check(&sent.body);
    check_media_types(sent);
}
