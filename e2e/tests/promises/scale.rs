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
use stack::{Options, Pool};
use tokio::task::JoinSet;

use super::{
    accidents::resident_bytes,
    full,
    load::{Ask, Site, all_done, closed_loop, median},
    recorder::Kind,
};
use crate::world::System;

/// Queued calls that one worker runs at once here: few, so that workers and not this machine are the
/// bottleneck.
const CAPACITY: usize = 8;
/// More than four such workers take.
const CALLERS_OF_MANY: usize = 128;
/// How long each call waits at the upstream, in milliseconds.
const CALL_MS: u64 = 100;

/// One worker of each pool, and little room in it.
pub(super) fn narrow(options: &mut Options) {
    options.worker_env.push(("WORKER_CAPACITY".to_owned(), CAPACITY.to_string()));
}

pub(crate) async fn more_workers_do_more(system: Arc<System>) {
    let (doublings, least, seconds) = if full() { (2, 1.9, 10) } else { (1, 1.5, 4) };
    // Limits and callers leave room for more than all workers take.
    let sites = Site::open_all(&system, [32; 4]).await;
    let mut workers = 1;
    let mut rates = vec![(workers, rate(&sites, seconds).await)];
    for _ in 0..doublings {
        for _ in 0..workers {
            system.stack().await.add_worker(Pool::Tool).await.expect("one more worker");
        }
        workers *= 2;
        rates.push((workers, rate(&sites, seconds).await));
    }
    let ratios: Vec<f64> = rates.windows(2).map(|pair| pair[1].1 / pair[0].1).collect();
    eprintln!("scale: calls/s by workers {rates:.1?}, ratios {ratios:.2?}");
    assert!(ratios.iter().all(|ratio| *ratio >= least), "{ratios:.2?} is less than x{least} per doubling");
}

/// Calls done per second.
#[expect(clippy::cast_precision_loss, reason = "a test does not count to 2^52")]
async fn rate(sites: &[Arc<Site>], seconds: u64) -> f64 {
    // What runs out afterwards does not count, and neither does a first second of filling up.
    let begin = Instant::now() + Duration::from_secs(1);
    let end = begin + Duration::from_secs(seconds);
    // Tools that may run twice: what is measured here is how much, not how surely.
    let ended = closed_loop(sites, CALLERS_OF_MANY, end, |_| Ask { kind: Kind::Read, ..Ask::of_ms(CALL_MS) }).await;
    all_done(&ended);
    let counted = ended.iter().filter(|ended| (begin..end).contains(&(ended.sent + ended.took)));
    counted.count() as f64 / end.duration_since(begin).as_secs_f64()
}

/// Does not hold yet (about one delivery in a thousand): the server gives a message to a subscription
/// that has just ended, and only `ack_wait` brings it back, as one that somebody may have begun.
pub(crate) async fn a_full_worker_loses_no_delivery(system: Arc<System>) {
    let sites = Site::open_all(&system, [32; 4]).await;
    let end = Instant::now() + Duration::from_secs(if full() { 30 } else { 8 });
    let ended = closed_loop(&sites, CALLERS_OF_MANY, end, |_| Ask::of_ms(CALL_MS)).await;
    all_done(&ended);
    eprintln!("full worker: {} calls by {CALLERS_OF_MANY} callers on {CAPACITY} places, none lost", ended.len());
}

/// Processes whose size is of interest when there are many organizations.
const PROCESSES: [&str; 4] = ["nats", "gateway-1", "tool-1", "controller-1"];
const REGISTERED: usize = 10_000;
const ACTIVE: usize = 1_000;
const CALLERS: usize = 4;

/// One process of each kind.
pub(super) fn crowded(_options: &mut Options) {}

/// In full only: making ten thousand organizations takes minutes.
pub(crate) async fn a_thousand_active_organizations_among_ten_thousand_cost_little(system: Arc<System>) {
    let one = Site::open_all(&system, [16]).await;
    let before = sizes(&system).await;
    let alone = typical(&one, Duration::from_secs(10)).await;
    let operator = system.client(&system.seeded.operator_token);
    futures::stream::iter(ACTIVE..REGISTERED)
        .for_each_concurrent(16, |number| {
            let (operator, slug) = (&operator, format!("registered-{number}"));
            async move {
                let made = operator.post("/api/v1/organizations", &json!({ "slug": slug, "name": slug })).await;
                assert_eq!(made.status, 201, "{}", made.text);
            }
        })
        .await;
    let active: Vec<Arc<Site>> =
        futures::stream::iter(0..ACTIVE).map(|_| Site::open(&system, 8)).buffer_unordered(16).collect().await;
    let again = typical(&one, Duration::from_secs(10)).await;
    // Once round, so that everything is at hand as it was for the one.
    typical(&active, Duration::from_secs(10)).await;
    let crowded = typical(&active, Duration::from_secs(20)).await;
    let after = sizes(&system).await;
    let idle = idle_cpu(&system, Duration::from_secs(20)).await;
    let ratio = crowded.as_secs_f64() / alone.as_secs_f64();
    eprintln!(
        "crowd: p50 {alone:.1?} of one organization alone, {again:.1?} of it among {ACTIVE} lanes, {crowded:.1?} of all of them (x{ratio:.2})"
    );
    for (((name, before), (_, after)), (_, idle)) in before.iter().zip(&after).zip(&idle) {
        eprintln!("crowd: {name} {} MiB, was {} MiB; {idle:.1} % of a core when idle", after >> 20, before >> 20);
    }
    assert!(ratio < 2.0, "p50 x{ratio:.2}");
}

/// The median time of a call when a few callers go round all sites.
async fn typical(sites: &[Arc<Site>], time: Duration) -> Duration {
    let (end, next) = (Instant::now() + time, Arc::new(AtomicUsize::new(0)));
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (sites, next) = (sites.to_vec(), Arc::clone(&next));
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
    assert!(ended.len() >= sites.len(), "not every organization called: {} calls", ended.len());
    median(ended.iter().map(|ended| ended.took).collect())
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
async fn idle_cpu(system: &System, time: Duration) -> Vec<(&'static str, f64)> {
    let running = system.stack().await.supervisor().running();
    let ticks = |wanted: &str| {
        let pid = running.iter().find(|(name, _)| name == wanted).map(|(_, pid)| *pid).expect("it runs");
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // proc(5): utime and stime are the 14th and 15th field; the name before the third may hold anything.
        let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').skip(11).take(2);
        fields.filter_map(|field| field.parse::<u64>().ok()).sum::<u64>()
    };
    let before = PROCESSES.map(ticks);
    tokio::time::sleep(time).await;
    // A tick is a hundredth of a second wherever Linux runs.
    let share = |(name, before): (&'static str, u64)| (name, (ticks(name) - before) as f64 / time.as_secs_f64());
    PROCESSES.into_iter().zip(before).map(share).collect()
}
