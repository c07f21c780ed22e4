//! NATS, PostgreSQL or the controller gone for a while: callers are told the truth within their
//! deadlines, what can go on goes on, and everything heals by itself.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    accidents::{is_healthy, is_ready, ran_at_most_once_before_its_answer, until},
    full,
    load::{Ask, Callers, Ended, Site, all_done, at_once, by_code, closed_loop},
};
use crate::world::System;

/// How soon calls work again once what was missing is back.
pub(super) const HEALED_WITHIN: Duration = Duration::from_secs(15);
/// The deadline of calls under way.
const TIMEOUT_MS: u32 = 5_000;
/// How long after its deadline a caller may be told, on a busy machine.
const LATE: Duration = Duration::from_secs(2);
/// What a command waits for a connection of the database (3 s), and more than a busy machine adds.
const REFUSED_WITHIN: Duration = Duration::from_secs(6);

/// Calls of 1 to 50 ms, as different as they can be without chance.
pub(super) fn short(number: u64) -> Ask {
    Ask::of_ms(1 + number.wrapping_mul(0x9E37_79B9_7F4A_7C15) % 50).within_ms(TIMEOUT_MS)
}

/// Checks what callers were told while something was gone.
pub(super) fn told_the_truth(system: &System, sites: &[Arc<Site>], ended: &[Ended]) {
    for call in ended {
        let codes = ["done", "unavailable", "outcome_unknown", "timeout"];
        assert!(codes.contains(&call.code.as_str()), "{call:?}");
        assert!(call.took < Duration::from_millis(TIMEOUT_MS.into()) + LATE, "told too late: {call:?}");
    }
    for site in sites {
        let mut times = HashMap::<String, usize>::new();
        for run in system.recorder.runs(&site.key) {
            *times.entry(run.id).or_default() += 1;
        }
        for call in ended.iter().filter(|call| times.contains_key(&call.id)) {
            ran_at_most_once_before_its_answer(system, site, call);
            assert_ne!(call.code, "unavailable", "nothing was accepted, and it ran: {call:?}");
        }
    }
}

/// From when on every call was done, as seen from `back_at`.
pub(super) fn healed_after(ended: &[Ended], back_at: Instant) -> Duration {
    let failed = ended.iter().filter(|call| call.code != "done");
    failed.map(|call| call.sent.saturating_duration_since(back_at)).max().unwrap_or_default()
}

pub(crate) async fn a_restart_of_nats_is_told_honestly_and_heals(system: Arc<System>) {
    let callers = if full() { 128 } else { 16 };
    let sites = Site::open_all(&system, [8; 4]).await;
    let stack = system.stack().await;
    let load = Callers::start(&sites, callers, short);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let running = stack.supervisor().running();
    stack.kill("nats").await.expect("it runs");
    // Calls under way wait for their answers; a new one is refused, and at once.
    let mut refused_after = Duration::MAX;
    until("a new call is refused", async || {
        let call = sites[0].call(short(0)).await;
        refused_after = call.took;
        call.code == "unavailable"
    })
    .await;
    assert!(refused_after < LATE, "refused only after {refused_after:?}");
    stack.restart("nats").await.expect("it starts");
    let back_at = Instant::now();
    load.settled(HEALED_WITHIN).await;
    let ended = load.end().await;
    told_the_truth(&system, &sites, &ended);
    let others = |all: Vec<(String, i32)>| all.into_iter().filter(|(name, _)| name != "nats").collect::<Vec<_>>();
    assert_eq!(others(stack.supervisor().running()), others(running), "a process was restarted");
    eprintln!("NATS restart: {:?}, all done {:.1?} after it was back", by_code(&ended), healed_after(&ended, back_at));
    drop(stack);
}

/// How many calls of an organization the audit trail holds.
pub(super) async fn audited(system: &System, site: &Site) -> i64 {
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
    assert!(refused_after < REFUSED_WITHIN, "refused only after {refused_after:?}");
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
    assert!(refused_after < REFUSED_WITHIN, "refused only after {refused_after:?}");
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
