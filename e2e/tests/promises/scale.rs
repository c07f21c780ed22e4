//! More workers, more work; and many organizations at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use futures::StreamExt;
use serde_json::json;
use stack::{Options, Pool, Scratch};
use tokio::task::JoinSet;

use super::{
    accidents::resident_bytes,
    full,
    limits::peak,
    load::{Ask, Site, all_done, closed_loop, median},
    overload::CAPACITY,
};
use crate::world::System;

/// More than four such workers take.
pub(super) const CALLERS_OF_MANY: usize = 128;
/// How long each call waits at the upstream, in milliseconds.
const CALL_MS: u64 = 100;

pub(crate) async fn more_workers_do_more(system: Arc<System>) {
    let (doublings, seconds) = if full() { (2, 10) } else { (1, 2) };
    // Limits and callers leave room for more than all workers take.
    let sites = Site::open_all(&system, [32; 4]).await;
    let mut workers = 1;
    let mut rates = vec![(workers, rate(&system, &sites, workers, seconds).await)];
    for _ in 0..doublings {
        for _ in 0..workers {
            system.stack().await.add_worker(Pool::Tool).await.expect("one more worker");
        }
        workers *= 2;
        rates.push((workers, rate(&system, &sites, workers, seconds).await));
    }
    let ratios: Vec<f64> = rates.windows(2).map(|pair| pair[1].1 / pair[0].1).collect();
    eprintln!("scale: calls/s by workers {rates:.1?}, ratios {ratios:.2?}");
    assert!(!full() || ratios.iter().all(|ratio| *ratio >= 1.9), "{ratios:.2?} is less than x1.9 per doubling");
}

/// Calls done per second. Checks that so many workers run as much at once as they may, and no more.
#[expect(clippy::cast_precision_loss, reason = "a test does not count to 2^52")]
async fn rate(system: &System, sites: &[Arc<Site>], workers: usize, seconds: u64) -> f64 {
    for site in sites {
        system.recorder.forget(&site.key);
    }
    // What runs out afterwards does not count, and neither does a first second of filling up.
    let begin = Instant::now() + Duration::from_secs(1);
    let end = begin + Duration::from_secs(seconds);
    let ended = closed_loop(sites, CALLERS_OF_MANY, end, |_| Ask::of_ms(CALL_MS)).await;
    all_done(&ended);
    let runs: Vec<_> = sites.iter().flat_map(|site| system.recorder.runs(&site.key)).collect();
    assert_eq!(runs.len(), ended.len(), "every call ran once");
    let most = peak(&runs);
    assert!(most <= workers * CAPACITY, "{most} at once on {workers} workers");
    assert!(most > (workers - 1) * CAPACITY, "{most} at once: not all of {workers} workers took part");
    let counted = ended.iter().filter(|ended| (begin..end).contains(&(ended.sent + ended.took)));
    counted.count() as f64 / end.duration_since(begin).as_secs_f64()
}

/// Processes whose size is of interest when there are many organizations.
const PROCESSES: [&str; 4] = ["nats", "gateway-1", "tool-1", "controller-1"];
const CALLERS: usize = 4;

/// How many organizations are registered, and how many of them call.
fn counts() -> (usize, usize) {
    if full() { (10_000, 1_000) } else { (100, 30) }
}

/// One process of each kind.
pub(super) fn crowded(_options: &mut Options) {}

/// One organization on a system of its own, and many on another beside it, measured by turns: what else this
/// machine does is the same for both.
pub(crate) async fn a_thousand_active_organizations_among_ten_thousand_cost_little(system: Arc<System>) {
    let (registered, active) = counts();
    let (turns, turn) = if full() { (10, Duration::from_secs(4)) } else { (2, Duration::from_millis(500)) };
    let scratch = Scratch::new().expect("a scratch folder");
    let quiet = System::start(&scratch, crowded).await.expect("a second system");
    let one = Site::open_all(&quiet, [16]).await;
    let before = sizes(&system).await;
    let operator = system.client(&system.seeded.operator_token);
    futures::stream::iter(active..registered)
        .for_each_concurrent(16, |number| {
            let (operator, slug) = (&operator, format!("registered-{number}"));
            async move {
                let made = operator.post("/api/v1/organizations", &json!({ "slug": slug, "name": slug })).await;
                assert_eq!(made.status, 201, "{}", made.text);
            }
        })
        .await;
    let many: Vec<Arc<Site>> =
        futures::stream::iter(0..active).map(|_| Site::open(&system, 8)).buffer_unordered(16).collect().await;
    let (mut alone, mut crowd) = (Vec::new(), Vec::new());
    let next = Arc::new(AtomicUsize::new(0));
    for _ in 0..turns {
        alone.extend(times(&one, &Arc::default(), turn).await);
        // It goes on where the last turn stopped: everybody's turn comes round.
        crowd.extend(times(&many, &next, turn).await);
    }
    while next.load(Relaxed) < active {
        times(&many, &next, turn).await;
    }
    let (calls, alone, crowd) = (crowd.len(), median(alone), median(crowd));
    let after = sizes(&system).await;
    let idle = idle_cpu(&system, if full() { 20 } else { 2 }).await;
    quiet.stop().await;
    let ratio = crowd.as_secs_f64() / alone.as_secs_f64();
    eprintln!(
        "crowd: p50 {alone:.1?} of one organization, {crowd:.1?} of {active} in {calls} calls among {registered} (x{ratio:.2})"
    );
    for (((name, before), (_, after)), (_, idle)) in before.iter().zip(&after).zip(&idle) {
        eprintln!("crowd: {name} {} MiB, was {} MiB; {idle:.1} % of a core when idle", after >> 20, before >> 20);
    }
    assert!(!full() || ratio <= 1.3, "p50 x{ratio:.2}");
}

/// How long each call takes while a few callers go round all sites.
async fn times(sites: &[Arc<Site>], next: &Arc<AtomicUsize>, time: Duration) -> Vec<Duration> {
    let end = Instant::now() + time;
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (sites, next) = (sites.to_vec(), Arc::clone(next));
        callers.spawn(async move {
            let mut ended = Vec::new();
            while Instant::now() < end {
                ended.push(sites[next.fetch_add(1, Relaxed) % sites.len()].call(Ask::of_ms(0)).await);
            }
            ended
        });
    }
    let ended = callers.join_all().await.concat();
    all_done(&ended);
    ended.iter().map(|ended| ended.took).collect()
}

async fn sizes(system: &System) -> Vec<(&'static str, u64)> {
    let mut sizes = Vec::new();
    for name in PROCESSES {
        sizes.push((name, resident_bytes(system, name).await));
    }
    sizes
}

/// Per cent of a core that each process uses while nobody calls.
#[expect(clippy::cast_precision_loss, reason = "a test does not count to 2^52")]
async fn idle_cpu(system: &System, seconds: u64) -> Vec<(&'static str, f64)> {
    let running = system.stack().await.supervisor().running();
    let ticks = |wanted: &str| {
        let pid = running.iter().find(|(name, _)| name == wanted).map(|(_, pid)| *pid).expect("it runs");
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // proc(5): utime and stime are the 14th and 15th field; the name before the third may hold anything.
        let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').skip(11).take(2);
        fields.filter_map(|field| field.parse::<u64>().ok()).sum::<u64>()
    };
    let before = PROCESSES.map(ticks);
    let time = Duration::from_secs(seconds);
    tokio::time::sleep(time).await;
    // A tick is a hundredth of a second wherever Linux runs.
    let share = |(name, before): (&'static str, u64)| (name, (ticks(name) - before) as f64 / time.as_secs_f64());
    PROCESSES.into_iter().zip(before).map(share).collect()
}
