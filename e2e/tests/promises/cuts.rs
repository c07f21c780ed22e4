//! The network between one role and NATS is cut and healed while everybody is well: callers are told
//! the truth, whoever does not need that role notices nothing, and nobody is restarted.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;
use stack::Pool;

use super::{
    accidents::until,
    full,
    load::{Ask, Callers, Site, all_done, by_code},
    outages::{HEALED_WITHIN, audited, healed_after, short, told_the_truth},
    relay::Relay,
};
use crate::world::System;

/// How long the network is down.
fn cut_for() -> Duration {
    Duration::from_secs(if full() { 10 } else { 2 })
}

/// Stops every process of a pool but one behind the relay, which it answers.
async fn only_behind(relay: &Relay, system: &System, pool: Pool) -> String {
    let stack = system.stack().await;
    let relayed = stack.add_worker_with(pool, &[("NATS_URL", &relay.url())]).await.expect("it starts");
    for (name, _) in stack.supervisor().running() {
        if name != relayed && name.strip_prefix(pool.as_str()).is_some_and(|rest| rest.starts_with('-')) {
            stack.stop_one(&name).await.expect("it runs");
        }
    }
    relayed
}

async fn cut_and_heal(relay: &Relay) -> Instant {
    assert!(relay.connections() > 0, "nobody uses the relay");
    relay.cut();
    tokio::time::sleep(cut_for()).await;
    relay.heal();
    Instant::now()
}

/// Ends the load once calls are done again: each was told the truth.
async fn told_and_healed(system: &System, sites: &[Arc<Site>], load: Callers, back_at: Instant, from: &str) {
    load.settled(HEALED_WITHIN).await;
    let ended = load.end().await;
    told_the_truth(system, sites, &ended);
    let healed = healed_after(&ended, back_at);
    eprintln!("cut from {from}: {:?}, all done {healed:.1?} after it was healed", by_code(&ended));
}

pub(crate) async fn a_cut_between_a_worker_and_nats_heals(system: Arc<System>) {
    let relay = Relay::to(&system.nats_url).await;
    let sites = Site::open_all(&system, [8; 2]).await;
    let relayed = only_behind(&relay, &system, Pool::Tool).await;
    let load = Callers::start(&sites, 8, short);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let back_at = cut_and_heal(&relay).await;
    told_and_healed(&system, &sites, load, back_at, "tool workers").await;
    // A worker that was cut off once leaves as orderly as any other.
    let stack = system.stack().await;
    stack.restart("tool-1").await.expect("it starts");
    let load = Callers::start(&sites, 16, |number| short(number).within_ms(20_000));
    tokio::time::sleep(Duration::from_millis(500)).await;
    stack.stop_one(&relayed).await.expect("it runs");
    all_done(&load.end().await);
}

pub(crate) async fn a_cut_between_a_gateway_and_nats_heals(system: Arc<System>) {
    let relay = Relay::to(&system.nats_url).await;
    let sites = Site::open_all(&system, [8; 2]).await;
    let stack = system.stack().await;
    let (relayed, url) = stack.add_gateway_with(&[("NATS_URL", &relay.url())]).await.expect("it starts");
    let there: Vec<_> = sites.iter().map(|site| site.at(&url)).collect();
    let (load, elsewhere) = (Callers::start(&there, 8, short), Callers::start(&sites, 4, short));
    assert!(relay.connections() > 0, "the gateway does not use the relay");
    relay.cut();
    // Calls under way wait for their answers; a new one is refused.
    until("the cut shows", async || there[0].call(short(0)).await.code == "unavailable").await;
    relay.heal();
    let back_at = Instant::now();
    told_and_healed(&system, &sites, load, back_at, "a gateway").await;
    all_done(&elsewhere.end().await);
    stack.stop_one(&relayed).await.expect("it runs");
}

/// A gateway has two connections: by one calls leave, by the other everything else does and all answers come.
pub(crate) async fn a_cut_of_one_of_a_gateways_connections_heals(system: Arc<System>) {
    for user in ["caller", "gateway"] {
        let relay = Relay::of(user, &system.nats_url).await;
        let site = Site::open(&system, 8).await;
        let stack = system.stack().await;
        let (relayed, url) = stack.add_gateway_with(&[("NATS_URL", &relay.url())]).await.expect("it starts");
        let there = site.at(&url);
        let load = Callers::start(std::slice::from_ref(&there), 8, short);
        assert_eq!(relay.connections(), 1, "{user}");
        relay.cut();
        until("the cut shows", async || there.call(short(0)).await.code == "unavailable").await;
        let me = there.tenant.admin.get("/api/v1/me").await.status;
        assert_eq!(me, if user == "caller" { 200 } else { 503 }, "{user}: what is no call needs one of them");
        let ready = system.http.get(format!("{url}/ready")).send().await.expect("an answer");
        assert_eq!(ready.status(), 503, "{user}: others are better off");
        relay.heal();
        let back_at = Instant::now();
        told_and_healed(&system, std::slice::from_ref(&site), load, back_at, user).await;
        stack.stop_one(&relayed).await.expect("it runs");
    }
}

/// A tool worker has two: by one deliveries come, by the other answers leave.
pub(crate) async fn a_cut_of_one_of_a_workers_connections_heals(system: Arc<System>) {
    for user in ["lanes", "tool"] {
        let relay = Relay::of(user, &system.nats_url).await;
        let sites = Site::open_all(&system, [8; 2]).await;
        let relayed = only_behind(&relay, &system, Pool::Tool).await;
        let load = Callers::start(&sites, 8, short);
        assert_eq!(relay.connections(), 1, "{user}");
        tokio::time::sleep(Duration::from_millis(500)).await;
        let back_at = cut_and_heal(&relay).await;
        told_and_healed(&system, &sites, load, back_at, user).await;
        let stack = system.stack().await;
        stack.restart("tool-1").await.expect("it starts");
        stack.stop_one(&relayed).await.expect("it runs");
    }
}

/// What needs each of these pools, and whether it is answered.
async fn is_served(system: &System, site: &Site, pool: Pool) -> bool {
    let admin = &site.tenant.admin;
    match pool {
        Pool::Session => admin.get("/api/v1/me").await.status == 200,
        Pool::Token => admin.get("/api/v1/mcp/configurations").await.status == 200,
        // More than the call it was opened with.
        Pool::Audit => site.call(Ask::of_ms(0)).await.code == "done" && audited(system, site).await > 1,
        Pool::Tool | Pool::Controller => unreachable!("they are asked otherwise"),
    }
}

pub(crate) async fn a_cut_between_nats_and_a_pool_that_runs_no_calls_stops_none(system: Arc<System>) {
    let sites = Site::open_all(&system, [8; 2]).await;
    for pool in [Pool::Session, Pool::Token, Pool::Audit, Pool::Controller] {
        let relay = Relay::to(&system.nats_url).await;
        let relayed = only_behind(&relay, &system, pool).await;
        let (asked, stranger) = (Site::open(&system, 8).await, system.organization().await);
        let load = Callers::start(&sites, 4, short);
        let back_at = cut_and_heal(&relay).await;
        // The controller opens the lane of whoever calls first.
        let echoes = async || stranger.call("demo", "echo", json!({ "text": "x" })).await.status == 200;
        let served = async || match pool {
            Pool::Controller => echoes().await,
            _ => is_served(&system, &asked, pool).await,
        };
        until("the pool is there again", served).await;
        let healed = back_at.elapsed();
        assert!(healed < HEALED_WITHIN, "{}: {healed:?}", pool.as_str());
        let ended = load.end().await;
        // Open lanes and known servers need none of these pools, and audit events wait in their stream.
        all_done(&ended);
        // What the controller does besides opening lanes: a changed limit reaches them.
        let limits = super::limits::Lanes::open(&system).await;
        asked.limit(json!({ "concurrency_limit": 3 })).await;
        limits.until(&asked, "the new limit", |lane| lane["config"]["max_ack_pending"] == 3).await;
        eprintln!("cut from {}: {} calls done, healed after {healed:.1?}", pool.as_str(), ended.len());
        let stack = system.stack().await;
        for number in 1..=2 {
            let name = format!("{}-{number}", pool.as_str());
            if pool != Pool::Controller || number == 1 {
                stack.restart(&name).await.expect("it starts");
            }
        }
        stack.stop_one(&relayed).await.expect("it runs");
    }
}
