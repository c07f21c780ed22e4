//! The era before 2026-07-28: a handshake, a session, and servers that ask back.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use http::Method;
use serde_json::json;
use shared::Code;

use super::{
    call, native_to, open,
    server::{Asked, Reply, Server, discovered, in_turn},
    specification, text,
};

#[tokio::test]
async fn a_call_carries_the_session_and_none_of_the_modern_headers() {
    let server = Server::handshake(|asked| asked.result(r#"{"e":1e3}"#)).await;
    let client = open(&server.url).await;
    assert_eq!(text(&call(&client, "t", r#"{"n":1e3}"#).await.unwrap()), r#"{"e":1e3}"#);
    let asked = &server.asked_for("tools/call")[0];
    assert_eq!(asked.header("mcp-session-id"), "session-1");
    assert_eq!(asked.header("mcp-protocol-version"), "2025-11-25");
    assert_eq!((asked.header("mcp-method"), asked.header("mcp-name")), ("", ""));
    assert_eq!(asked.body["params"], json!({"name": "t", "arguments": {"n": 1e3}}));
    for _ in 0..5 {
        call(&client, "t", "{}").await.unwrap();
    }
    assert_eq!(server.asked_for("initialize").len(), 1);
}

#[tokio::test]
async fn requests_of_the_server_are_answered_politely_during_a_call() {
    let server = Server::handshake(|asked| {
        if asked.method().is_empty() {
            return Reply::bare(202);
        }
        let id = &asked.body["id"];
        Reply::events(&[
            "data: {\"jsonrpc\":\"2.0\",\"id\":\"are-you-there\",\"method\":\"ping\"}\n\n",
            "data: {\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"sampling/createMessage\",\"params\":{}}\n\n",
            &format!("data: {{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{}}}}\n\n"),
        ])
    })
    .await;
    call(&open(&server.url).await, "t", "{}").await.unwrap();
    let pong = server.until(|asked| asked.body["id"] == "are-you-there").await;
    assert_eq!((&pong.body["result"], pong.header("mcp-session-id")), (&json!({}), "session-1"));
    let refusal = server.until(|asked| asked.body["id"] == 7).await;
    assert_eq!(refusal.body["error"]["code"], -32601);
}

#[tokio::test]
async fn a_lost_session_is_opened_again_once_and_the_call_repeated() {
    // As the specification says it, and as servers of the TypeScript SDK say it.
    let lost: [fn(&Asked) -> Reply; 2] =
        [|_| Reply::bare(404), |asked| asked.error(400, -32000, "Bad Request: No valid session ID provided")];
    for lost in lost {
        let server = Server::handshake(in_turn(vec![lost, |asked| asked.result("{}")])).await;
        call(&open(&server.url).await, "t", "{}").await.unwrap();
        let sessions: Vec<String> =
            server.asked_for("tools/call").iter().map(|asked| asked.header("mcp-session-id").to_owned()).collect();
        assert_eq!(sessions, ["session-1", "session-2"]);

        let forgetful = Server::handshake(lost).await;
        let fault = call(&open(&forgetful.url).await, "t", "{}").await.unwrap_err();
        assert_eq!(fault.code, Code::UpstreamFailed);
        assert_eq!(forgetful.asked_for("tools/call").len(), 2, "once more, and no more");
    }
}

#[tokio::test]
async fn a_server_that_was_renewed_is_recognised() {
    let renewed = Server::start({
        let old = AtomicBool::new(true);
        move |asked| match asked.method() {
            "server/discover" if old.load(SeqCst) => Reply::bare(404),
            "initialize" => asked.result(
                r#"{"protocolVersion":"2025-06-18","capabilities":{},"serverInfo":{"name":"n","version":"1"}}"#,
            ),
            "notifications/initialized" => Reply::bare(202),
            "tools/call" if asked.header("mcp-method").is_empty() => {
                old.store(false, SeqCst);
                asked.error(400, -32020, "Mcp-Method is missing")
            }
            _ => discovered(asked).unwrap_or_else(|| asked.result("{}")),
        }
    })
    .await;
    call(&open(&renewed.url).await, "t", "{}").await.unwrap();
    assert_eq!(renewed.asked_for("tools/call")[0].header("mcp-protocol-version"), "2025-06-18");
    assert_eq!(renewed.asked_for("tools/call")[1].header("mcp-protocol-version"), "2026-07-28");
}

#[tokio::test]
async fn a_server_that_was_rolled_back_is_recognised() {
    let modern = AtomicBool::new(true);
    let server = Server::start(move |asked| match asked.method() {
        "server/discover" if modern.swap(false, SeqCst) => discovered(asked).unwrap(),
        "initialize" => asked
            .result(r#"{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"n","version":"1"}}"#)
            .with("mcp-session-id", "older"),
        "notifications/initialized" => Reply::bare(202),
        "tools/call" if asked.header("mcp-session-id") == "older" => asked.result("{}"),
        _ => asked.error(400, -32000, "Bad Request: Server not initialized"),
    })
    .await;
    call(&open(&server.url).await, "t", "{}").await.unwrap();
    let versions: Vec<String> =
        server.asked_for("tools/call").iter().map(|asked| asked.header("mcp-protocol-version").to_owned()).collect();
    assert_eq!(versions, ["2026-07-28", "2025-11-25"]);
}

#[tokio::test]
async fn whatever_an_old_server_answers_to_the_probe_the_handshake_is_tried() {
    let answers: [fn(&Asked) -> Reply; 6] = [
        |_| Reply::bare(405),
        |_| Reply::typed(404, "text/html", "<h1>what?</h1>"),
        |_| Reply::typed(500, "text/plain", "boom"),
        |_| Reply::typed(200, "text/html", "<h1>welcome</h1>"),
        |asked| asked.error(200, -32601, "Method not found"),
        |_| Reply::json(200, r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"Parse error"}}"#),
    ];
    for answer in answers {
        let server = Server::start(move |asked| match asked.method() {
            "server/discover" => answer(asked),
            "initialize" => asked.result(
                r#"{"protocolVersion":"2025-03-26","capabilities":{},"serverInfo":{"name":"n","version":"1"}}"#,
            ),
            "notifications/initialized" => Reply::bare(202),
            _ => asked.result("{}"),
        })
        .await;
        call(&open(&server.url).await, "t", "{}").await.unwrap();
        let asked = &server.asked_for("tools/call")[0];
        assert_eq!((asked.header("mcp-protocol-version"), asked.header("mcp-session-id")), ("2025-03-26", ""));
    }
}

#[tokio::test]
async fn a_stream_that_the_server_breaks_off_is_taken_up_where_it_ended() {
    let server = Server::handshake(|asked| match asked.header("last-event-id") {
        "" => Reply::events(&["id: e1\nretry: 10\ndata:\n\n"]),
        // The id of the request travelled to the test's second answer in the event's id.
        "e1" => Reply::events(&["id: e2\ndata: {\"method\":\"notifications/message\"}\n\n"]),
        _ => Reply::events(&["data: {\"id\":1000,\"result\":{\"resumed\":true}}\n\n"]),
    })
    .await;
    let result = call(&open(&server.url).await, "t", "{}").await.unwrap();
    assert_eq!(text(&result), r#"{"resumed":true}"#);
    assert_eq!(server.asked_for("tools/call").len(), 1, "a call is not sent twice");
    let resumed: Vec<String> = server
        .asked()
        .iter()
        .filter(|asked| asked.http == Method::GET)
        .map(|asked| asked.header("last-event-id").to_owned())
        .filter(|id| !id.is_empty())
        .collect();
    assert_eq!(resumed, ["e1", "e2"]);
}

#[tokio::test]
async fn a_stream_without_an_answer_is_a_failure() {
    let server = Server::handshake(|_| Reply::events(&["data: {\"method\":\"notifications/message\"}\n\n"])).await;
    let fault = call(&open(&server.url).await, "t", "{}").await.unwrap_err();
    assert_eq!(fault.code, Code::UpstreamFailed);
    assert_eq!(server.asked_for("tools/call").len(), 1);
}

#[tokio::test]
async fn forgetting_and_letting_go_end_the_session_on_the_server() {
    let server = Server::handshake(|asked| asked.result("{}")).await;
    let upstreams = native_to(&[&server.url]);
    let specification = specification(&server.url);
    drop(upstreams.client(&specification).await.unwrap());
    let newer = specification.generation + 1;
    upstreams.forget(specification.organization, shared::id::ConfigurationId::new(), newer).await;
    upstreams.forget(specification.organization, specification.configuration, specification.generation).await;
    assert_eq!(upstreams.0.open.iter().count(), 1, "another configuration's, and the generation that counts");
    upstreams.forget(specification.organization, specification.configuration, newer).await;
    let ends = |session: &'static str| {
        move |asked: &Asked| asked.http == Method::DELETE && asked.header("mcp-session-id") == session
    };
    server.until(ends("session-1")).await;
    drop(upstreams.client(&specification).await.unwrap());
    upstreams.close_all().await;
    assert!(server.asked().iter().any(ends("session-2")));
    drop(upstreams.client(&specification).await.unwrap());
    drop(upstreams);
    server.until(ends("session-3")).await;
}
