//! One organization's load and another's pace.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    full,
    limits::Lanes,
    load::{Ask, Callers, Site, all_done, at_once, median},
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

/// The same for a while.
async fn pace_for(site: &Site, time: Duration) -> Duration {
    let until = Instant::now() + time;
    pace(site, 20, || Instant::now() < until).await.0
}

/// What the flooding organization runs at once, and how long each of its calls takes.
const FLOODING: (u16, u64) = (4, 200);

/// The pace of the calm one is taken alone, beside a neighbour that is as busy but has nothing waiting, and
/// with the flood waiting, twice each: whoever is busy costs this machine's cores something, flood or not.
pub(crate) async fn a_flood_of_one_organization_hardly_changes_anothers_pace(system: Arc<System>) {
    let (count, seconds) = if full() { (10_000, 10) } else { (600, 1) };
    let (limit, ms) = FLOODING;
    let time = Duration::from_secs(seconds);
    let sites = Site::open_all(&system, [limit, 8]).await;
    let [flooding, calm] = [&sites[0], &sites[1]];
    let only = std::slice::from_ref(flooding);
    let alone = pace_for(calm, time).await;
    let busy = Callers::start(only, limit.into(), move |_| Ask::of_ms(ms));
    let beside = pace_for(calm, time).await;
    all_done(&busy.end().await);
    system.recorder.forget(&flooding.key);
    let mut flood = at_once(only, count, Ask::of_ms(ms).within_ms(300_000));
    let lanes = Lanes::open(&system).await;
    // Accepting the flood costs this machine's two cores whatever the queue does: the pace is taken while it waits.
    let begun = || system.recorder.runs(&flooding.key).len();
    let waiting = |lane: &Value| lane["num_pending"].as_u64().and_then(|waiting| usize::try_from(waiting).ok());
    let all_in = |lane: &Value| waiting(lane).unwrap_or_default() + begun() + 8 >= count;
    lanes.until(flooding, "the flood", all_in).await;
    let flooded = pace_for(calm, time).await;
    let waited = count - begun();
    assert!(waited > count / 2, "the flood was nearly over before anything was measured");
    // It has waited enough.
    flooding.limit(json!({ "concurrency_limit": 256 })).await;
    let mut ended = Vec::new();
    while let Some(call) = flood.join_next().await {
        ended.push(call.expect("a caller"));
    }
    all_done(&ended);
    let again = pace_for(calm, time).await;
    let to = |base: Duration| flooded.as_secs_f64() / base.as_secs_f64();
    let (of_alone, of_beside) = (to((alone + again) / 2), to(beside));
    eprintln!(
        "flood: p50 {alone:.1?} and {again:.1?} alone, {beside:.1?} beside a busy neighbour, {flooded:.1?} with {count} calls waiting (x{of_alone:.2} of alone, x{of_beside:.2} of beside), {waited} still waited then",
    );
    // Either base is another moment of the same machine. In small counts a bound far from a busy machine's noise.
    assert!(of_alone.min(of_beside) <= if full() { 1.15 } else { 3.0 }, "p50 x{of_alone:.2}, x{of_beside:.2}");
}

pub(crate) async fn a_slow_upstream_of_one_organization_delays_nobody_else(system: Arc<System>) {
    let sites = Site::open_all(&system, [16, 8]).await;
    let [slow, calm] = [&sites[0], &sites[1]];
    let probes = if full() { 100 } else { 30 };
    let (alone, _) = pace(calm, probes, || false).await;
    system.recorder.forget(&slow.key);
    let mut waiting = at_once(std::slice::from_ref(slow), 32, Ask::of_ms(2_000));
    system.recorder.until_running(&slow.key, 16).await;
    let (beside, probes) = pace(calm, probes, || false).await;
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
    assert!(ratio < if full() { 1.5 } else { 3.0 }, "p50 x{ratio:.2}");
}
