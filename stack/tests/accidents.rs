//! What end-to-end tests do to a running stack: kill, freeze, restart, and drop it.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::time::{Duration, Instant};

use serde_json::json;
use stack::{Options, Progress, Scratch, Stack, environment, places::Places, tagged};

const LIMIT: Duration = Duration::from_secs(30);

async fn start(scratch: &Scratch) -> Stack {
    let places = Places::find().unwrap();
    environment::ensure(&places, Progress::Quiet).unwrap();
    Stack::start(Options { product: false, ..Options::test(scratch.path()) }).await.unwrap()
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds().await {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn is_healthy(stack: &Stack) -> bool {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_millis(500)).build().unwrap();
    client.get(format!("{}/healthz", stack.nats_monitor_url())).send().await.is_ok()
}

#[tokio::test]
async fn a_process_can_be_killed_frozen_and_restarted_on_its_ports_without_counting_as_a_death() {
    let scratch = Scratch::new().unwrap();
    let stack = start(&scratch).await;
    let before = stack.nats_url();
    stack.kill("nats").await.unwrap();
    assert!(stack.kill("nats").await.is_err(), "it does not run any more");
    assert!(!is_healthy(&stack).await);
    stack.restart("nats").await.unwrap();
    assert!(is_healthy(&stack).await);
    assert_eq!(stack.nats_url(), before);
    stack.freeze("nats").unwrap();
    assert!(!is_healthy(&stack).await, "a frozen server answered");
    stack.thaw("nats").unwrap();
    until("the thawed server answers", async || is_healthy(&stack).await).await;
    stack.stop_one("demo").await.unwrap();
    stack.restart("postgres").await.unwrap();
    let death = tokio::time::timeout(Duration::ZERO, stack.death()).await;
    assert!(death.is_err(), "{death:?}");
    let names: Vec<String> = stack.supervisor().running().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    let id = stack.supervisor().stack_id().to_owned();
    stack.stop().await;
    assert_eq!(tagged(&id), Vec::<i32>::new());
}

#[tokio::test]
async fn a_process_that_dies_by_itself_is_reported_with_its_name() {
    let scratch = Scratch::new().unwrap();
    let stack = start(&scratch).await;
    let running = stack.supervisor().running();
    let (_, pid) = running.iter().find(|(name, _)| name == "demo").unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(*pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    let death = tokio::time::timeout(LIMIT, stack.death()).await.unwrap();
    assert_eq!(death.name, "demo");
    assert!(death.report.contains("signal: 9") && death.report.contains("listening on"), "{death}");
    stack.stop().await;
}

#[tokio::test]
async fn a_dropped_stack_leaves_no_process() {
    let scratch = Scratch::new().unwrap();
    let stack = start(&scratch).await;
    let id = stack.supervisor().stack_id().to_owned();
    let pids: Vec<i32> = stack.supervisor().running().into_iter().map(|(_, pid)| pid).collect();
    assert_eq!(pids.len(), 3);
    drop(stack);
    let gone = |pid: &i32| nix::sys::signal::kill(nix::unistd::Pid::from_raw(*pid), None).is_err();
    until("all are gone", async || tagged(&id).is_empty() && pids.iter().all(gone)).await;
}

#[tokio::test]
async fn the_reference_server_of_npm_and_a_legacy_sse_server_are_started_when_asked_for() {
    let scratch = Scratch::new().unwrap();
    let places = Places::find().unwrap();
    environment::ensure(&places, Progress::Quiet).unwrap();
    let options = Options { product: false, everything: true, sse_demo: true, ..Options::test(scratch.path()) };
    let stack = Stack::start(options).await.unwrap();
    let client = reqwest::Client::builder().no_proxy().timeout(LIMIT).build().unwrap();
    let hello = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "test", "version": "1" }
    }});
    let request = client.post(stack.everything_url().unwrap()).json(&hello);
    let answer = request.header("accept", "application/json, text/event-stream").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.text().await.unwrap().contains("serverInfo"));
    let stream = client.get(stack.demo_sse_url().unwrap()).send().await.unwrap();
    assert_eq!(stream.headers()["content-type"].to_str().unwrap().split(';').next(), Some("text/event-stream"));
    drop(stream);
    stack.stop().await;
}
