//! Processes that are told to stop while callers are at it: nobody notices.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    accidents::{Balancer, SERVING},
    full,
    load::Site,
};
use crate::world::System;

/// A process that does not end when it is told to is killed after 20 s.
const ENDED_BY_ITSELF: Duration = Duration::from_secs(15);

/// Fails with the first few calls that were not done.
#[track_caller]
fn none_failed(failed: &[String]) {
    assert!(failed.is_empty(), "{} failed: {:#?}", failed.len(), &failed[..failed.len().min(5)]);
}

pub(crate) async fn a_worker_that_is_told_to_stop_loses_no_call(system: Arc<System>) {
    let (callers, rounds) = if full() { (128, 6) } else { (32, 2) };
    let sites = Site::open_all(&system, [8; 4]).await;
    for site in &sites {
        system.recorder.forget(&site.key);
    }
    let stack = system.stack().await;
    let load = Balancer::start(&system).await.load(&sites, callers, 30);
    let mut exits = Vec::new();
    for _ in 0..rounds {
        for name in ["tool-1", "tool-2"] {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let told = Instant::now();
            stack.stop_one(name).await.expect("it runs");
            exits.push(told.elapsed());
            stack.restart(name).await.expect("it starts");
        }
    }
    let (done, failed) = load.end().await;
    none_failed(&failed);
    assert!(exits.iter().all(|exit| *exit < ENDED_BY_ITSELF), "killed: {exits:?}");
    let runs: usize = sites.iter().map(|site| system.recorder.runs(&site.key).len()).sum();
    assert_eq!(runs, done, "every call ran once");
    eprintln!("worker drain: {done} calls over {} stops, exits after {exits:.1?}", exits.len());
}

pub(crate) async fn a_gateway_that_is_told_to_stop_loses_no_call(system: Arc<System>) {
    let (callers, rounds) = if full() { (128, 3) } else { (16, 1) };
    let sites = Site::open_all(&system, [8; 4]).await;
    let stack = system.stack().await;
    let load = Balancer::start(&system).await.load(&sites, callers, 300);
    let mut exits = Vec::new();
    for _ in 0..rounds {
        for name in ["gateway-2", "gateway-1"] {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let told = Instant::now();
            stack.stop_one(name).await.expect("it runs");
            exits.push(told.elapsed());
            stack.restart(name).await.expect("it starts");
        }
    }
    let (done, failed) = load.end().await;
    none_failed(&failed);
    assert!(exits.iter().all(|exit| *exit < ENDED_BY_ITSELF), "killed: {exits:?}");
    eprintln!("gateway drain: {done} calls over {} stops, exits after {exits:.1?}", exits.len());
}

pub(crate) async fn a_rolling_restart_of_everything_loses_no_call(system: Arc<System>) {
    let sites = Site::open_all(&system, [4; 2]).await;
    let stack = system.stack().await;
    let balancer = Balancer::start(&system).await;
    // The one controller is restarted too, and a gateway asks it once for each organization's lane.
    balancer.open_lanes(&system, &sites).await;
    for site in &sites {
        system.recorder.forget(&site.key);
    }
    let load = balancer.load(&sites, 4, 100);
    let began = Instant::now();
    for name in SERVING {
        stack.restart(name).await.expect("it starts again");
    }
    let (done, failed) = load.end().await;
    none_failed(&failed);
    let runs: usize = sites.iter().map(|site| system.recorder.runs(&site.key).len()).sum();
    assert_eq!(runs, done, "every call ran once");
    eprintln!(
        "rolling restart: {done} calls while {} processes were restarted in {:.1?}",
        SERVING.len(),
        began.elapsed()
    );
}
