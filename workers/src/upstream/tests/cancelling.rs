//! A caller that goes away, and a deadline that passes: the server is told.

use std::{sync::Mutex, time::Duration};

use shared::{Code, Deadline};
use tokio::sync::mpsc;

use super::{
    PATIENCE, call, open, raw, request,
    server::{Reply, Server},
};

#[tokio::test]
async fn a_modern_server_sees_its_stream_closed_when_the_caller_leaves() {
    let (sender, stream) = mpsc::channel(1);
    let stream = Mutex::new(Some(stream));
    let server = Server::modern(move |_| Reply::Stream(stream.lock().unwrap().take().unwrap())).await;
    let client = open(&server.url).await;
    let calling = tokio::spawn(async move { call(&client, "t", "{}").await });
    server.until(|asked| asked.method() == "tools/call").await;
    assert!(!sender.is_closed());
    calling.abort();
    tokio::time::timeout(PATIENCE, sender.closed()).await.expect("the stream stays open");
    assert_eq!(server.asked().len(), 2, "nothing else is said");
}

#[tokio::test]
async fn a_server_of_the_handshake_era_is_told_which_call_was_left() {
    let server = Server::handshake(|asked| match asked.method() {
        "tools/call" => Reply::Hang,
        _ => Reply::bare(202),
    })
    .await;
    let client = open(&server.url).await;
    let calling = tokio::spawn(async move { call(&client, "t", "{}").await });
    let left = server.until(|asked| asked.method() == "tools/call").await;
    calling.abort();
    let told = server.until(|asked| asked.method() == "notifications/cancelled").await;
    assert_eq!(told.body["params"]["requestId"], left.body["id"]);
    assert_eq!(told.header("mcp-session-id"), "session-1");
    assert!(told.body.get("id").is_none());
}

#[tokio::test]
async fn a_call_that_ended_is_not_cancelled() {
    let server = Server::handshake(|asked| asked.result("{}")).await;
    let client = open(&server.url).await;
    call(&client, "t", "{}").await.unwrap();
    call(&client, "last", "{}").await.unwrap();
    assert!(server.asked_for("notifications/cancelled").is_empty());
}

#[tokio::test]
async fn silence_ends_at_the_deadline_and_a_passed_deadline_sends_nothing() {
    let server = Server::modern(|_| Reply::Hang).await;
    let client = open(&server.url).await;
    let arguments = raw("{}");
    let mut late = request("t", &arguments);
    late.deadline = Deadline::after(Duration::from_millis(200));
    let fault = client.call(late).await.unwrap_err();
    assert_eq!(fault.code, Code::Timeout);
    let mut passed = request("t", &arguments);
    passed.deadline = Deadline::at_unix_ms(1);
    assert_eq!(client.call(passed).await.unwrap_err().code, Code::Timeout);
    assert_eq!(server.asked_for("tools/call").len(), 1);
}
