//! More calls than workers can run: a full worker begins no more, loses none, and leaves what it has not
//! begun to whoever has room.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    accidents::resident_bytes,
    full,
    limits::{Lanes, peak},
    load::{Ask, Site, all_done, at_once, closed_loop},
    scale::CALLERS_OF_MANY,
};
use crate::world::System;

/// Queued calls that one worker runs at once here: few, so that workers and not this machine are the
/// bottleneck.
pub(super) const CAPACITY: usize = 8;

/// One worker of each pool with little room in it, and room in the queue for a flood.
pub(super) fn narrow(options: &mut stack::Options) {
    let variables = [("WORKER_CAPACITY", CAPACITY.to_string()), ("QUEUE_CALLS_PER_ORGANIZATION", "6000".to_owned())];
    options.worker_env.extend(variables.map(|(name, value)| (name.to_owned(), value)));
}

/// More callers than places, whose calls must not run twice: one that was lost on its way would come
/// back as a second attempt, which is told as unknown.
pub(crate) async fn a_full_worker_loses_no_delivery(system: Arc<System>) {
    let sites = Site::open_all(&system, [32; 4]).await;
    let end = Instant::now() + Duration::from_secs(if full() { 60 } else { 5 });
    let ended = closed_loop(&sites, CALLERS_OF_MANY, end, |_| Ask::of_ms(20)).await;
    all_done(&ended);
    eprintln!("full worker: {} calls by {CALLERS_OF_MANY} callers on {CAPACITY} places, none lost", ended.len());
}

/// Runs on a system of one tool worker that runs [`CAPACITY`] calls at once, until another comes.
pub(crate) async fn a_full_worker_runs_no_more_and_leaves_the_rest_to_others(system: Arc<System>) {
    let (waiting, long_ms) = if full() { (5_000, 50_000) } else { (1_200, 25_000) };
    let sites = Site::open_all(&system, std::iter::once(8).chain([16; 8])).await;
    let (filling, flooding) = (&sites[0], &sites[1..]);
    for site in &sites {
        system.recorder.forget(&site.key);
    }
    let before = resident_bytes(&system, "tool-1").await;
    let patient = |ms| Ask::of_ms(ms).within_ms(120_000);
    let long = at_once(std::slice::from_ref(filling), CAPACITY, patient(long_ms));
    system.recorder.until_running(&filling.key, CAPACITY).await;
    let flood = at_once(flooding, waiting, patient(1));
    let lanes = Lanes::open(&system).await;
    let each = waiting / flooding.len();
    for site in flooding {
        // In the worker's hand is what the limit allows; the rest is the queue's.
        let waits = |lane: &Value| lane["num_ack_pending"] == 16 && lane["num_pending"] == each - 16;
        lanes.until(site, "calls that wait", waits).await;
    }
    let after = resident_bytes(&system, "tool-1").await;
    let begun: usize = flooding.iter().map(|site| system.recorder.runs(&site.key).len()).sum();
    assert_eq!(begun, 0, "a full worker began another call");
    let stack = system.stack().await;
    let added = stack.add_worker(stack::Pool::Tool).await.expect("another worker");
    let added_at = Instant::now();
    all_done(&flood.join_all().await);
    let taken = added_at.elapsed();
    // The first worker was full all the time: the other one did it all, what lay in the first's hand too.
    assert_eq!(system.recorder.running(&filling.key), CAPACITY, "the long calls ended too early to show anything");
    all_done(&long.join_all().await);
    let others: Vec<_> = flooding.iter().flat_map(|site| system.recorder.runs(&site.key)).collect();
    assert_eq!(others.len(), waiting, "every call ran once");
    assert!(peak(&others) <= CAPACITY, "{} at once on the second worker", peak(&others));
    let grown = after.saturating_sub(before);
    eprintln!(
        "full worker: {} MiB before, {} KiB more with {waiting} calls waiting, which another did in {taken:.1?}",
        before >> 20,
        grown >> 10
    );
    assert!(grown < 16 << 20, "{grown} bytes for {waiting} waiting calls");
    stack.stop_one(&added).await.expect("it runs");
}
