//! What the server counts, whom it refuses, and that cancelling reaches it.

use futures::StreamExt as _;

use super::*;

/// Far longer than any test waits: a call that ends did so because it was cancelled.
const LONG: u64 = 600_000;

#[tokio::test]
async fn a_caller_that_hangs_up_before_any_answer_cancels_the_call() {
    let demo = Demo::start(Options::default()).await;
    let request = demo.modern("tools/call", json!({ "name": "sleep", "arguments": { "ms": LONG } }));
    let call = tokio::spawn(request.send());
    demo.until("the call runs", |stats| stats["running"] == 1).await;
    call.abort();
    let stats = demo.until("it was cancelled", |stats| stats["cancelled"] == 1).await;
    assert_eq!(stats["running"], 0);
    assert_eq!(stats["calls"]["sleep"], 1);
    demo.stop().await;
}

#[tokio::test]
async fn a_caller_that_closes_the_stream_cancels_the_call() {
    let demo = Demo::start(Options::default()).await;
    let params = json!({ "name": "sleep", "arguments": { "ms": LONG }, "_meta": { "progressToken": 1 } });
    let answer = demo.modern("tools/call", params).send().await.unwrap();
    let mut stream = answer.bytes_stream();
    let first = timeout(PATIENCE, stream.next()).await.unwrap();
    assert!(first.unwrap().is_ok());
    drop(stream);
    let stats = demo.until("it was cancelled", |stats| stats["cancelled"] == 1).await;
    assert_eq!(stats["running"], 0);
    demo.stop().await;
}

#[tokio::test]
async fn an_older_client_cancels_by_notification() {
    let demo = Demo::start(Options::default()).await;
    let session = demo.handshake().await;
    let params = json!({ "name": "sleep", "arguments": { "ms": LONG } });
    let _open = demo.legacy_call(&session, params).await;
    demo.until("the call runs", |stats| stats["running"] == 1).await;
    let cancel = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 9 } });
    demo.in_session(&session, &cancel).send().await.unwrap();
    demo.until("it was cancelled", |stats| stats["cancelled"] == 1 && stats["running"] == 0).await;
    demo.stop().await;
}

#[tokio::test]
async fn calls_that_run_together_are_seen_and_a_reset_forgets_them() {
    let demo = Demo::start(Options::default()).await;
    let params = json!({ "name": "sleep", "arguments": { "ms": LONG } });
    let calls: Vec<_> = (0..5).map(|_| tokio::spawn(demo.modern("tools/call", params.clone()).send())).collect();
    let stats = demo.until("all run", |stats| stats["running"] == 5).await;
    assert_eq!(stats["max_running"], 5);
    for call in &calls {
        call.abort();
    }
    demo.until("all are cancelled", |stats| stats["cancelled"] == 5).await;
    demo.call("counter_increment", json!({})).await;
    let reset = demo.http.post(format!("{}/control/reset", demo.origin));
    assert_eq!(reset.send().await.unwrap().status(), StatusCode::NO_CONTENT);
    let stats = demo.stats().await;
    for count in ["running", "cancelled", "connections", "counter", "max_running"] {
        assert_eq!(stats[count], 0, "{count}");
    }
    assert!(stats["calls"].as_object().unwrap().values().all(|n| n == 0));
    demo.stop().await;
}

#[tokio::test]
async fn connections_are_counted_once_each_and_only_when_they_carry_the_protocol() {
    let demo = Demo::start(Options::default()).await;
    demo.stats().await;
    assert_eq!(demo.stats().await["connections"], 0);
    for _ in 0..3 {
        demo.call("echo", json!({ "text": "again" })).await;
    }
    assert_eq!(demo.stats().await["connections"], 1);
    demo.stop().await;
}

#[tokio::test]
async fn without_the_token_nothing_is_answered() {
    let demo = Demo::start(Options { bearer: Some("right".to_owned()), ..Options::default() }).await;
    let ask = || demo.modern("tools/list", json!({}));
    for refused in [ask(), ask().bearer_auth("wrong"), ask().header("authorization", "right")] {
        let answer = refused.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(answer.headers()["www-authenticate"], "Bearer");
    }
    let answer = ask().bearer_auth("right").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    demo.stop().await;
}

#[tokio::test]
async fn a_foreign_host_or_origin_is_refused_everywhere() {
    let demo = Demo::start(Options::default()).await;
    let stats = || demo.http.get(format!("{}/control/stats", demo.origin));
    let list = || demo.modern("tools/list", json!({}));
    for request in [stats(), list()] {
        let answer = request.header("host", "evil.example").send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    }
    for request in [stats(), list()] {
        let answer = request.header("origin", "http://evil.example").send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    }
    demo.stop().await;
}

#[tokio::test]
async fn headers_that_contradict_the_body_are_refused() {
    let demo = Demo::start(Options::default()).await;
    let request = demo.post(&json!({ "jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {
        "name": "counter_increment", "arguments": {},
        "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        },
    }}));
    let answer = request
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", "tools/call")
        .header("mcp-name", "read_counter")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    assert_eq!(parse(&answer.text().await.unwrap())["error"]["code"], -32020);
    assert_eq!(demo.stats().await["counter"], 0);
    demo.stop().await;
}

#[tokio::test]
async fn stopping_ends_running_calls_and_open_sessions() {
    let demo = Demo::start(Options::default()).await;
    let session = demo.handshake().await;
    let params = json!({ "name": "sleep", "arguments": { "ms": LONG } });
    let old = demo.legacy_call(&session, params.clone()).await;
    let new = tokio::spawn(demo.modern("tools/call", params).send());
    demo.until("both run", |stats| stats["running"] == 2).await;
    demo.stop().await;
    timeout(PATIENCE, old.text()).await.unwrap().ok();
    timeout(PATIENCE, new).await.unwrap().unwrap().ok();
}
