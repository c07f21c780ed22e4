//! The tools, as both eras of the protocol see them.

use super::*;

#[tokio::test]
async fn every_tool_does_what_it_says_in_the_modern_era() {
    let demo = Demo::start(Options::default()).await;
    let echo = demo.call("echo", json!({ "text": "grüße \u{1f980}" })).await;
    assert_eq!(echo["content"][0]["text"], "grüße \u{1f980}");
    assert_eq!(echo["isError"], false);
    let sum = demo.call("add", json!({ "a": 9_007_199_254_740_993_i64, "b": 1 })).await;
    assert_eq!(sum["structuredContent"]["sum"], 9_007_199_254_740_994_i64);
    let sum = demo.call("add", json!({ "a": 0.5, "b": 1 })).await;
    assert_eq!(sum["content"][0]["text"], "1.5");
    let fail = demo.call("fail", json!({ "message": "no" })).await;
    assert_eq!(fail["isError"], true);
    assert_eq!(fail["content"][0]["text"], "no");
    for bytes in [0, 1, 100_000] {
        let big = demo.call("big", json!({ "bytes": bytes })).await;
        assert_eq!(big["content"][0]["text"].as_str().unwrap().len(), bytes);
    }
    assert_eq!(demo.call("sleep", json!({ "ms": 1 })).await["isError"], false);
    for count in [1, 2] {
        let result = demo.call("counter_increment", json!({})).await;
        assert_eq!(result["structuredContent"]["count"], count);
    }
    assert_eq!(demo.call("read_counter", json!({})).await["content"][0]["text"], "2");
    demo.stop().await;
}

#[tokio::test]
async fn arguments_that_do_not_fit_are_a_result_and_an_unknown_tool_an_error() {
    let demo = Demo::start(Options::default()).await;
    for (tool, arguments) in [
        ("echo", json!({ "text": 1 })),
        ("add", json!({ "a": 1 })),
        ("sleep", json!({ "ms": -1 })),
        ("big", json!({ "bytes": 1_u64 << 40 })),
    ] {
        let result = demo.call(tool, arguments).await;
        assert_eq!(result["isError"], true, "{tool}");
    }
    let answer = demo.modern("tools/call", json!({ "name": "nothing", "arguments": {} })).send().await.unwrap();
    let body = parse(&answer.text().await.unwrap());
    assert_eq!(body["error"]["code"], -32602);
    demo.stop().await;
}

#[tokio::test]
async fn the_hints_of_the_tools_are_honest() {
    let demo = Demo::start(Options::default()).await;
    let answer = demo.modern("tools/list", json!({})).send().await.unwrap();
    let body = parse(&answer.text().await.unwrap());
    let tools = body["result"]["tools"].as_array().unwrap();
    let names: Vec<&str> = tools.iter().filter_map(|t| t["name"].as_str()).collect();
    assert_eq!(names, super::super::tools::NAMES);
    for tool in tools {
        let counts = tool["name"] == "counter_increment";
        let hints = &tool["annotations"];
        assert_eq!(hints["readOnlyHint"], !counts, "{tool}");
        assert_eq!(hints["destructiveHint"], counts, "{tool}");
        assert_eq!(hints["idempotentHint"], !counts, "{tool}");
        assert_eq!(tool["inputSchema"]["type"], "object", "{tool}");
    }
    demo.stop().await;
}

#[tokio::test]
async fn progress_comes_every_100_ms_to_a_caller_that_sent_a_token_and_to_no_other() {
    let demo = Demo::start(Options::default()).await;
    let session = demo.handshake().await;
    let params = json!({ "name": "sleep", "arguments": { "ms": 350 }, "_meta": { "progressToken": "t" } });
    let modern = demo.modern("tools/call", params.clone()).send().await.unwrap();
    let legacy = demo.legacy_call(&session, params).await;
    for answer in [modern, legacy] {
        let messages = messages(answer).await;
        let (result, progress) = messages.split_last().unwrap();
        assert_eq!(result["result"]["content"][0]["text"], "slept 350 ms");
        assert!((1..=3).contains(&progress.len()), "{progress:?}");
        let mut last = 0.0;
        for notification in progress {
            assert_eq!(notification["method"], "notifications/progress");
            assert_eq!(notification["params"]["progressToken"], "t");
            assert_eq!(notification["params"]["total"], 350.0);
            let now = notification["params"]["progress"].as_f64().unwrap();
            assert!(now > last && now <= 350.0, "{now} after {last}");
            last = now;
        }
    }
    let quiet = json!({ "name": "sleep", "arguments": { "ms": 250 } });
    assert_eq!(messages(demo.legacy_call(&session, quiet).await).await.len(), 1);
    demo.stop().await;
}

#[tokio::test]
async fn an_older_client_shakes_hands_calls_and_ends_its_session() {
    let demo = Demo::start(Options::default()).await;
    let session = demo.handshake().await;
    let params = json!({ "name": "echo", "arguments": { "text": "old" } });
    let answer = messages(demo.legacy_call(&session, params.clone()).await).await;
    assert_eq!(answer[0]["result"]["content"][0]["text"], "old");
    assert!(answer[0]["result"].get("resultType").is_none());
    let ended =
        demo.http.delete(format!("{}/mcp", demo.origin)).header("mcp-session-id", &session).send().await.unwrap();
    assert!(ended.status().is_success());
    let gone = demo.legacy_call(&session, params).await;
    assert_eq!(gone.status(), StatusCode::NOT_FOUND);
    demo.stop().await;
}

#[tokio::test]
async fn a_legacy_only_server_refuses_the_modern_era_as_old_servers_do_and_serves_the_handshake() {
    let demo = Demo::start(Options { legacy_only: true, ..Options::default() }).await;
    let refused = demo.modern("server/discover", json!({})).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    let body = parse(&refused.text().await.unwrap());
    assert_eq!(body["error"]["code"], -32000);
    let session = demo.handshake().await;
    let params = json!({ "name": "add", "arguments": { "a": 1, "b": 2 } });
    let answer = messages(demo.legacy_call(&session, params).await).await;
    assert_eq!(answer[0]["result"]["content"][0]["text"], "3");
    demo.stop().await;
}

#[tokio::test]
async fn a_server_of_both_eras_says_so_when_asked() {
    let demo = Demo::start(Options::default()).await;
    let answer = demo.modern("server/discover", json!({})).send().await.unwrap();
    let body = parse(&answer.text().await.unwrap());
    let versions = body["result"]["supportedVersions"].as_array().unwrap();
    assert!(versions.contains(&json!("2026-07-28")) && versions.contains(&json!("2025-11-25")));
    demo.stop().await;
}

#[tokio::test]
async fn the_odd_answer_and_its_definition_arrive_byte_for_byte_in_both_eras() {
    let demo = Demo::start(Options::default()).await;
    let session = demo.handshake().await;
    let call = json!({ "name": "odd", "arguments": {} });
    let list = json!({ "jsonrpc": "2.0", "id": 9, "method": "tools/list" });
    let answers = [
        (demo.modern("tools/call", call.clone()), odd::RESULT),
        (demo.modern("tools/list", json!({})), odd::DEFINITION),
        (demo.in_session(&session, &list), odd::DEFINITION),
        (
            demo.in_session(&session, &json!({ "jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": call })),
            odd::RESULT,
        ),
    ];
    for (request, expected) in answers {
        let text = request.send().await.unwrap().text().await.unwrap();
        assert!(text.contains(expected), "{text}");
        assert!(!text.contains("odd-"), "a marker was left in {text}");
        let message = data(&text).last().unwrap_or(&text);
        assert!(parse(message)["result"].is_object());
    }
    demo.stop().await;
}
