//! The era of 2026-07-28: no session, everything in each request.

use std::sync::Mutex;

use serde_json::json;
use shared::{Code, Deadline};

use super::{
    super::HeaderParameter,
    PATIENCE, call, open, raw, request,
    server::{Asked, Reply, Server, in_turn},
    text,
};

const ODD: &str = r#"{"content":[{"type":"video","x":1e3}],"n":98765432109876543210, "z":0.10,"a":null}"#;

#[tokio::test]
async fn a_call_is_one_request_with_the_eras_headers_and_its_payload_untouched() {
    let server = Server::modern(|asked| asked.result(ODD)).await;
    let client = open(&server.url).await;
    let schema = json!({"properties": {"region": {"type": "string", "x-mcp-header": "Region"}}});
    let parameters = HeaderParameter::in_schema(&schema).unwrap();
    let arguments = raw(r#"{"region":"z\u00fcrich","n":12345678901234567890}"#);
    let mut request = request("t\u{e9}st", &arguments);
    request.header_parameters = &parameters;
    let result = client.call(request).await.unwrap();
    assert_eq!(text(&result), ODD);

    let asked = server.asked_for("tools/call");
    let [asked] = asked.as_slice() else { panic!("{} calls", asked.len()) };
    assert_eq!(asked.header("mcp-protocol-version"), "2026-07-28");
    assert_eq!(asked.header("mcp-method"), "tools/call");
    assert_eq!(asked.header("mcp-name"), "=?base64?dMOpc3Q=?=");
    assert_eq!(asked.header("mcp-param-region"), "=?base64?esO8cmljaA==?=");
    assert_eq!(asked.header("accept"), "application/json, text/event-stream");
    assert_eq!(asked.header("content-type"), "application/json");
    assert_eq!((asked.header("mcp-session-id"), asked.header("authorization")), ("", ""));
    assert_eq!(asked.body["params"]["name"], "t\u{e9}st");
    assert_eq!(asked.body["params"]["arguments"]["n"].to_string(), "12345678901234567890");
    let meta = &asked.body["params"]["_meta"];
    assert_eq!(meta["io.modelcontextprotocol/protocolVersion"], "2026-07-28");
    assert_eq!(meta["io.modelcontextprotocol/clientCapabilities"], json!({}));
    assert_eq!(meta["io.modelcontextprotocol/clientInfo"]["name"], "switchboard");
    assert!(meta.get("progressToken").is_none(), "progress that nobody wants is not asked for");
}

#[tokio::test]
async fn the_era_is_probed_once_and_calls_share_a_connection() {
    let server = Server::modern(|asked| asked.result("{}")).await;
    let client = open(&server.url).await;
    for _ in 0..20 {
        call(&client, "t", "{}").await.unwrap();
    }
    assert_eq!((server.asked_for("server/discover").len(), server.asked().len()), (1, 21));
    // One that rmcp found it by, and one for all calls.
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn an_event_stream_brings_progress_and_then_the_answer_and_its_connection_is_used_again() {
    let server = Server::modern(|asked| {
        let id = &asked.body["id"];
        Reply::events(&[
            ": hello\n\nid: 1\ndata:\n\n",
            "event: message\r\ndata: {\"method\":\"notifications/progress\",\"params\":{\"progressToken\":",
            &format!("{id},\"progress\":1e0,\"message\":\"half\"}}}}\r\n\r\n"),
            "data: {\"method\":\"notifications/progress\",\"params\":{\"progressToken\":1,\"progress\":9}}\n\n",
            "event: endpoint\ndata: not for us\n\n",
            "data: {\"id\":4,\"method\":\"roots/list\"}\n\n",
            &format!("data: {{\"jsonrpc\":\"2.0\",\ndata: \"id\":{id},\"result\":{ODD}}}\n\n"),
        ])
    })
    .await;
    let client = open(&server.url).await;
    let arguments = raw("{}");
    for _ in 0..20 {
        let steps = Mutex::new(Vec::new());
        let note = |step| steps.lock().unwrap().push(step);
        let mut request = request("t", &arguments);
        request.progress = Some(&note);
        assert_eq!(text(&client.call(request).await.unwrap()), ODD);
        let steps: Vec<String> = steps.lock().unwrap().iter().map(|step| text(step).to_owned()).collect();
        assert_eq!(steps, [r#"{"progress":1e0,"message":"half"}"#]);
    }
    let asked = server.asked_for("tools/call");
    assert_eq!(asked[0].body["params"]["_meta"]["progressToken"], asked[0].body["id"]);
    // The end of a stream may come a moment after its answer, when the next call has begun.
    assert!(server.connections() < 10, "{}", server.connections());
    assert_eq!(server.asked().len(), 21, "a modern server's request on a stream is not answered");
}

#[tokio::test]
async fn a_server_that_speaks_another_version_now_is_probed_again_once() {
    let refuse: fn(&Asked) -> Reply = |asked| asked.error(400, -32022, "unsupported");
    let accept: fn(&Asked) -> Reply = |asked| asked.result("{}");
    let server = Server::modern(in_turn(vec![refuse, accept])).await;
    call(&open(&server.url).await, "t", "{}").await.unwrap();
    assert_eq!(server.asked_for("server/discover").len(), 2);
    assert_eq!(server.asked_for("tools/call").len(), 2);

    let stubborn = Server::modern(refuse).await;
    let fault = call(&open(&stubborn.url).await, "t", "{}").await.unwrap_err();
    assert_eq!(fault.code, Code::UpstreamFailed);
    assert_eq!(stubborn.asked_for("tools/call").len(), 2);
}

#[tokio::test]
async fn tools_are_listed_page_by_page_as_the_server_wrote_them() {
    const TOOL: &str = r#"{"name":"odd","inputSchema":{"type":"object","x-vendor":1e3},"execution":{}}"#;
    let server = Server::modern(|asked| match asked.body["params"]["cursor"].as_str() {
        None => asked.result(&format!(r#"{{"tools":[{TOOL}],"nextCursor":""}}"#)),
        Some("") => asked.result(&format!(r#"{{"tools":[{TOOL},{TOOL}],"nextCursor":"two"}}"#)),
        Some(_) => asked.result(r#"{"tools":[]}"#),
    })
    .await;
    let tools = open(&server.url).await.list_tools(Deadline::after(PATIENCE), "test").await.unwrap();
    assert_eq!(tools.iter().map(text).collect::<Vec<_>>(), [TOOL; 3]);
    assert!(server.asked_for("tools/list").iter().all(|asked| asked.header("mcp-method") == "tools/list"));
}

#[tokio::test]
async fn a_server_without_tools_has_an_empty_list_and_one_that_never_ends_is_left() {
    let without = Server::modern(|asked| asked.error(404, -32601, "no")).await;
    let tools = open(&without.url).await.list_tools(Deadline::after(PATIENCE), "test").await.unwrap();
    assert!(tools.is_empty());

    let endless = Server::modern(|asked| {
        let page = asked.body["params"]["cursor"].as_str().and_then(|page| page.parse().ok()).unwrap_or(0_u32);
        asked.result(&format!(r#"{{"tools":[],"nextCursor":"{}"}}"#, page + 1))
    })
    .await;
    let fault = open(&endless.url).await.list_tools(Deadline::after(PATIENCE), "test").await.unwrap_err();
    assert_eq!(fault.code, Code::UpstreamFailed);
    assert_eq!(endless.asked_for("tools/list").len(), 64);
}
