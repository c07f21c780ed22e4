//! NATS, PostgreSQL or the controller gone for a while: callers are told the truth within their
//! deadlines, what can go on goes on, and everything heals by itself.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use stack::Pool;

use super::{
    accidents::{is_healthy, is_ready, ran_at_most_once_before_its_answer, until},
    full,
    load::{Ask, Ended, Site, all_done, at_once, by_code, closed_loop},
    relay::Relay,
};
use crate::world::System;

/// How soon calls work again once what was missing is back.
const HEALED_WITHIN: Duration = Duration::from_secs(15);
/// The deadline of calls under way.
const TIMEOUT_MS: u32 = 5_000;
/// How long after its deadline a caller may be told, on a busy machine.
const LATE: Duration = Duration::from_secs(2);

fn short(number: u64) -> Ask {
    Ask::of_ms(1 + number.wrapping_mul(0x9E37_79B9_7F4A_7C15) % 50).within_ms(TIMEOUT_MS)
}

/// Checks what callers were told while something was gone, and that calls work again soon after.
fn told_the_truth(system: &System, sites: &[Arc<Site>], ended: &[Ended], back_at: Instant) {
    for call in ended {
        let codes = ["done", "unavailable", "outcome_unknown", "timeout"];
        assert!(codes.contains(&call.code.as_str()), "{call:?}");
        assert!(call.took < Duration::from_millis(TIMEOUT_MS.into()) + LATE, "told too late: {call:?}");
        for site in sites {
            ran_at_most_once_before_its_answer(system, site, call);
            let runs = system.recorder.runs_of(&site.key, &call.id);
            assert!(call.code != "unavailable" || runs == 0, "nothing was accepted, and it ran: {call:?}");
        }
    }
    let healed = |call: &&Ended| call.sent > back_at + HEALED_WITHIN && call.code != "done";
    assert_eq!(ended.iter().find(healed).map(|call| &call.code), None, "still not healed");
    let after = ended.iter().filter(|call| call.sent > back_at + HEALED_WITHIN).count();
    assert!(after > 0, "no call was made after it should have healed");
}

/// From when on every call was done, as seen from `back_at`.
fn healed_after(ended: &[Ended], back_at: Instant) -> Duration {
    let failed = ended.iter().filter(|call| call.code != "done");
    failed.map(|call| call.sent.saturating_duration_since(back_at)).max().unwrap_or_default()
}

pub(crate) async fn a_restart_of_nats_is_told_honestly_and_heals(system: Arc<System>) {
    let callers = if full() { 128 } else { 16 };
    let sites = Site::open_all(&system, [8; 4]).await;
    let stack = system.stack().await;
    let began = Instant::now();
    let end = began + Duration::from_secs(4) + HEALED_WITHIN + Duration::from_secs(1);
    let load = tokio::spawn({
        let sites = sites.clone();
        async move { closed_loop(&sites, callers, end, paced).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let running = stack.supervisor().running();
    stack.kill("nats").await.expect("it runs");
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    stack.restart("nats").await.expect("it starts");
    let back_at = Instant::now();
    let ended = load.await.expect("the callers");
    told_the_truth(&system, &sites, &ended, back_at);
    let others = |all: Vec<(String, i32)>| all.into_iter().filter(|(name, _)| name != "nats").collect::<Vec<_>>();
    assert_eq!(others(stack.supervisor().running()), others(running), "a process was restarted");
    eprintln!("NATS restart: {:?}, all done {:.1?} after it was back", by_code(&ended), healed_after(&ended, back_at));
    drop(stack);
}

/// The load of an outage: not so much that refusals, which come at once, drown the rest.
fn paced(number: u64) -> Ask {
    std::thread::yield_now();
    short(number)
}

pub(crate) async fn a_cut_between_a_worker_and_nats_heals(system: Arc<System>) {
    let relay = Relay::to(&system.nats_url).await;
    let sites = Site::open_all(&system, [8; 2]).await;
    let stack = system.stack().await;
    let relayed = stack.add_worker_with(Pool::Tool, &[("NATS_URL", &relay.url())]).await.expect("it starts");
    for name in ["tool-1", "tool-2"] {
        stack.stop_one(name).await.expect("it runs");
    }
    let end = Instant::now() + Duration::from_secs(5) + HEALED_WITHIN;
    let load = tokio::spawn({
        let sites = sites.clone();
        async move { closed_loop(&sites, 8, end, short).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(relay.connections() > 0, "the worker does not use the relay");
    relay.cut();
    tokio::time::sleep(Duration::from_secs(2)).await;
    relay.heal();
    let back_at = Instant::now();
    let ended = load.await.expect("the callers");
    told_the_truth(&system, &sites, &ended, back_at);
    eprintln!(
        "cut connection: {:?}, all done {:.1?} after it was healed",
        by_code(&ended),
        healed_after(&ended, back_at)
    );
    // A worker that was cut off once leaves as orderly as any other.
    stack.restart("tool-1").await.expect("it starts");
    let end = Instant::now() + Duration::from_secs(3);
    let load =
        tokio::spawn(async move { closed_loop(&sites, 16, end, |number| short(number).within_ms(20_000)).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    stack.stop_one(&relayed).await.expect("it runs");
    all_done(&load.await.expect("the callers"));
}

/// How many calls of an organization the audit trail holds.
async fn audited(system: &System, site: &Site) -> i64 {
    let database = system.database("superuser").await;
    let count =
        sqlx::query_scalar("SELECT count(*) FROM audit_logs WHERE organization_id = $1 AND action = 'tools.call'");
    count.bind(site.tenant.id).fetch_one(&database).await.expect("the query runs")
}

pub(crate) async fn without_postgresql_known_servers_are_called_and_the_trail_is_kept(system: Arc<System>) {
    let gone = Duration::from_secs(if full() { 10 } else { 5 });
    let site = Site::open(&system, 8).await;
    // Every worker knows the configuration.
    all_done(&at_once(std::slice::from_ref(&site), 40, Ask::of_ms(50)).join_all().await);
    let stack = system.stack().await;
    stack.stop_one("postgres").await.expect("it runs");
    let load = tokio::spawn({
        let (site, end) = (Arc::clone(&site), Instant::now() + gone);
        async move { closed_loop(&[site], 4, end, |_| Ask::of_ms(20)).await }
    });
    let asked = Instant::now();
    let refused = site.tenant.admin.get("/api/v1/mcp/configurations").await;
    refused.problem(503, "unavailable");
    let refused_after = asked.elapsed();
    let body = json!({ "name": "new", "endpoint": system.demo_url });
    site.tenant.admin.post("/api/v1/mcp/configurations", &body).await.problem(503, "unavailable");
    let ended = load.await.expect("the callers");
    all_done(&ended);
    let slowest = ended.iter().map(|call| call.took).max().unwrap_or_default();
    stack.restart("postgres").await.expect("it starts");
    let back_at = Instant::now();
    until("the configurations are there again", async || {
        site.tenant.admin.get("/api/v1/mcp/configurations").await.status == 200
    })
    .await;
    let healed_after = back_at.elapsed();
    assert!(healed_after < HEALED_WITHIN, "{healed_after:?}");
    // The first of the site, the 40 and what was called while there was no database.
    let expected = i64::try_from(1 + 40 + ended.len()).expect("a count");
    until("the trail is complete", async || audited(&system, &site).await == expected).await;
    eprintln!(
        "PostgreSQL gone for {gone:?}: {} calls done (slowest {slowest:.0?}), refusal after {refused_after:.1?}, healed {healed_after:.1?} after it was back, {expected} audit rows {:.1?} after",
        ended.len(),
        back_at.elapsed(),
    );
}

pub(crate) async fn without_a_controller_open_lanes_go_on_and_new_ones_wait_for_it(system: Arc<System>) {
    let site = Site::open(&system, 8).await;
    let stranger = system.organization().await;
    let stack = system.stack().await;
    stack.stop_one("controller-1").await.expect("it runs");
    all_done(&at_once(std::slice::from_ref(&site), 40, Ask::of_ms(20)).join_all().await);
    let asked = Instant::now();
    let refused = stranger.call("demo", "echo", json!({ "text": "anybody?" })).await;
    refused.problem(503, "unavailable");
    let refused_after = asked.elapsed();
    let gateway = &stack.gateways()[0];
    until("the loss shows", async || !is_healthy(&system.http, gateway).await).await;
    assert!(is_ready(&system.http, gateway).await, "a lost pool takes no gateway out of the load balancer");
    all_done(&at_once(std::slice::from_ref(&site), 40, Ask::of_ms(20)).join_all().await);
    stack.restart("controller-1").await.expect("it starts");
    let back_at = Instant::now();
    let mut answer: Option<Value> = None;
    until("the new organization's call works", async || {
        let called = stranger.call("demo", "echo", json!({ "text": "at last" })).await;
        answer = (called.status == 200).then(|| called.json());
        answer.is_some()
    })
    .await;
    assert_eq!(answer.expect("an answer")["result"]["content"][0]["text"], "at last");
    eprintln!(
        "controller gone: refusal after {refused_after:.1?}, a new lane {:.1?} after it was back",
        back_at.elapsed()
    );
    assert!(back_at.elapsed() < HEALED_WITHIN);
}
