//! One organization's load and another's pace.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    full,
    load::{Ask, Site, all_done, at_once, median},
};
use crate::world::System;

/// Calls one after another until there are enough and `busy` is over; the median time of one.
async fn pace(site: &Site, at_least: usize, busy: impl Fn() -> bool) -> (Duration, usize) {
    let mut ended = Vec::new();
    while ended.len() < at_least || busy() {
        ended.push(site.call(Ask::of_ms(1)).await);
    }
    all_done(&ended);
    (median(ended.iter().map(|ended| ended.took).collect()), ended.len())
}

pub(crate) async fn a_flood_of_one_organization_hardly_changes_anothers_pace(system: Arc<System>) {
    let (count, ms) = if full() { (10_000, 50) } else { (300, 100) };
    let sites = Site::open_all(&system, [8, 8]).await;
    let [flooding, calm] = [&sites[0], &sites[1]];
    let (alone, _) = pace(calm, 100, || false).await;
    system.recorder.forget(&flooding.key);
    let began = Instant::now();
    let mut flood = at_once(std::slice::from_ref(flooding), count, Ask::of_ms(ms).within_ms(300_000));
    // Accepting the flood costs this machine's two cores whatever the queue does: the pace is taken while it waits.
    let accepted = count / 10;
    system.recorder.until("the flood", &flooding.key, |runs| runs.len() > accepted.min(40)).await;
    let (flooded, probes) = pace(calm, 1, || system.recorder.runs(&flooding.key).len() < count - 16).await;
    let waited = system.recorder.runs(&flooding.key).len();
    let mut ended = Vec::new();
    while let Some(call) = flood.join_next().await {
        ended.push(call.expect("a caller"));
    }
    all_done(&ended);
    let ratio = flooded.as_secs_f64() / alone.as_secs_f64();
    eprintln!(
        "flood: p50 {alone:.1?} alone, {flooded:.1?} under {count} calls (x{ratio:.2}, {probes} probes until {waited} had begun); flood done in {:.1?}",
        began.elapsed(),
    );
    assert!(probes >= 20, "the flood was over before anything was measured");
    assert!(ratio < 2.0, "p50 x{ratio:.2}");
}

pub(crate) async fn a_slow_upstream_of_one_organization_delays_nobody_else(system: Arc<System>) {
    let sites = Site::open_all(&system, [16, 8]).await;
    let [slow, calm] = [&sites[0], &sites[1]];
    let (alone, _) = pace(calm, 100, || false).await;
    system.recorder.forget(&slow.key);
    let mut waiting = at_once(std::slice::from_ref(slow), 32, Ask::of_ms(2_000));
    system.recorder.until_running(&slow.key, 16).await;
    let (beside, probes) = pace(calm, 100, || false).await;
    assert!(system.recorder.running(&slow.key) > 0, "the slow calls were over before anything was measured");
    let mut ended = Vec::new();
    while let Some(call) = waiting.join_next().await {
        ended.push(call.expect("a caller"));
    }
    all_done(&ended);
    let ratio = beside.as_secs_f64() / alone.as_secs_f64();
    eprintln!(
        "slow neighbour: p50 {alone:.1?} alone, {beside:.1?} beside 32 calls of 2 s (x{ratio:.2}, {probes} probes)"
    );
    assert!(ratio < 2.0, "p50 x{ratio:.2}");
}
