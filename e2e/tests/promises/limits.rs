//! The concurrency limit of an organization, as the upstream sees it: constant, changing, paused.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    full,
    load::{Ask, Ended, Site, all_done, at_once, closed_loop, median},
    recorder::Run,
};
use crate::world::{PATIENCE, System};

/// How soon a lane shall obey. The promise is a second; this is far from the noise of a busy machine.
const SOON: Duration = Duration::from_secs(3);
/// Deliveries on their way when a limit was lowered have arrived after this.
fn in_flight() -> Duration {
    Duration::from_millis(if full() { 50 } else { 1_500 })
}

/// Calls of 1 to 50 ms, as different as they can be without chance.
fn short(number: u64) -> Ask {
    Ask::of_ms(1 + scattered(number) % 50)
}

/// Numbers that look like chance.
const fn scattered(number: u64) -> u64 {
    number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 16
}

/// The most runs at once, by the upstream's own record.
pub(super) fn peak(runs: &[Run]) -> usize {
    let mut edges: Vec<(Instant, i32)> = runs.iter().map(|run| (run.began, 1)).collect();
    edges.extend(runs.iter().filter_map(|run| Some((run.ended?, -1))));
    // An end before a beginning of the same instant.
    edges.sort_unstable();
    let (mut now, mut most) = (0, 0);
    for (_, step) in edges {
        now += step;
        most = most.max(now);
    }
    usize::try_from(most).unwrap_or_default()
}

/// Lets every worker read every configuration, then forgets these calls: a cold start is another test.
async fn warm(system: &System, sites: &[Arc<Site>]) {
    for some in sites.chunks(4) {
        all_done(&at_once(some, 16 * some.len(), Ask::of_ms(0)).join_all().await);
    }
    for site in sites {
        system.recorder.forget(&site.key);
    }
}

pub(crate) async fn no_organization_ever_runs_more_calls_at_once_than_its_limit(system: Arc<System>) {
    let (tenants, callers, seconds, ms) = if full() { (50, 800, 20, 1_500) } else { (8, 96, 3, 400) };
    let limits: Vec<u16> = (0..tenants).map(|number| 1 + number * 15 / (tenants - 1)).collect();
    let sites = Site::open_all(&system, limits.iter().copied()).await;
    warm(&system, &sites).await;
    // Callers by limit, a few more than may run: every lane is wanted for more than it lets through.
    let wanted = |(site, limit): (&Arc<Site>, &u16)| std::iter::repeat_n(Arc::clone(site), usize::from(*limit) + 3);
    let wanting: Vec<Arc<Site>> = sites.iter().zip(&limits).flat_map(wanted).collect();
    assert!(wanting.len() <= callers, "{} callers are too few", wanting.len());
    let end = Instant::now() + Duration::from_secs(seconds);
    let ended = closed_loop(&wanting, callers, end, move |number| Ask::of_ms(50 + scattered(number) % ms)).await;
    all_done(&ended);
    let (mut runs_in_all, mut full_lanes) = (0, 0);
    for (site, limit) in sites.iter().zip(&limits) {
        let runs = system.recorder.runs(&site.key);
        assert!(peak(&runs) <= usize::from(*limit), "{} at once, limit {limit}", peak(&runs));
        full_lanes += usize::from(peak(&runs) == usize::from(*limit));
        runs_in_all += runs.len();
    }
    assert_eq!(runs_in_all, ended.len(), "every call ran once");
    // Where limits are never reached, keeping them shows nothing.
    assert!(4 * full_lanes > 3 * sites.len(), "{full_lanes} of {tenants} lanes were ever full");
    eprintln!(
        "limit: {runs_in_all} calls of {tenants} organizations by {callers} callers in {seconds} s, none above its limit, {full_lanes} lanes were full"
    );
}

/// What the lane's consumer obeyed and since when, as far as can be known from outside.
#[derive(Clone, Copy, Debug)]
struct Obeyed {
    limit: u16,
    /// Before this it was not asked for.
    asked_at: Instant,
    /// The operator was told that it is kept.
    kept_at: Instant,
    /// By then it was in force.
    seen_at: Instant,
}

/// Starts above the highest limit that may have been in force in the `allowance` before them.
fn excess(runs: &[Run], obeyed: &[Obeyed], allowance: Duration) -> usize {
    let in_force = |at: Instant| {
        let until = |next: Option<&Obeyed>| next.is_none_or(|next| at <= next.seen_at + allowance);
        let may_hold = |(index, one): &(usize, &Obeyed)| one.asked_at <= at && until(obeyed.get(index + 1));
        obeyed.iter().enumerate().filter(may_hold).map(|(_, one)| usize::from(one.limit)).max().unwrap_or(usize::MAX)
    };
    let at_once =
        |at: Instant| runs.iter().filter(|run| run.began <= at && run.ended.is_none_or(|end| end > at)).count();
    runs.iter().filter(|run| at_once(run.began) > in_force(run.began)).count()
}

/// The limit that everybody has before the changes begin.
const FIRST: u16 = 8;

pub(crate) async fn a_changed_limit_is_obeyed_within_moments_and_cuts_nobody(system: Arc<System>) {
    let (tenants, callers, changes) = if full() { (50, 800, 20) } else { (8, 64, 5) };
    let sites = Site::open_all(&system, std::iter::repeat_n(FIRST, tenants)).await;
    warm(&system, &sites).await;
    let (began, lanes) = (Instant::now(), Lanes::open(&system).await);
    let load = closed_loop(&sites, callers, began + Duration::from_secs(changes + 1), short);
    let changing =
        sites.iter().enumerate().map(|(index, site)| change_each_second(&lanes, site, index, began, changes));
    let (ended, obeyed) = tokio::join!(load, futures::future::join_all(changing));
    all_done(&ended);
    let (mut kept, mut reached) = (Vec::new(), Vec::new());
    let mut above = [(Duration::from_millis(20), 0), (Duration::from_millis(100), 0), (in_flight(), 0)];
    for (site, obeyed) in sites.iter().zip(&obeyed) {
        let runs = system.recorder.runs(&site.key);
        assert!(runs.iter().all(|run| run.finished), "a running call was cut");
        kept.extend(obeyed.iter().skip(1).map(|one| one.kept_at - one.asked_at));
        // Keeping a change is a command like any other; how soon the lanes hear of it is the promise.
        reached.extend(obeyed.iter().skip(1).map(|one| one.seen_at - one.kept_at));
        for (allowance, count) in &mut above {
            *count += excess(&runs, obeyed, *allowance);
        }
    }
    let (slowest_kept, slowest) =
        (kept.iter().max().copied().unwrap_or_default(), reached.iter().max().copied().unwrap_or_default());
    eprintln!(
        "changing limits: {} calls, {} changes kept after {:.1?} (at most {slowest_kept:.1?}), in force {:.1?} later (at most {slowest:.1?}); starts above a limit so long after: {above:?}",
        ended.len(),
        reached.len(),
        median(kept),
        median(reached.clone()),
    );
    reached.sort_unstable();
    // On a starved machine a few may be late.
    let late = reached[(reached.len() - 1) * if full() { 99 } else { 95 } / 100];
    assert!(late < SOON, "a change took {late:?}");
    assert_eq!(above[2].1, 0, "starts above a limit {:?} after it was in force", in_flight());
}

/// Changes a site's limit every second; answers what was in force when.
async fn change_each_second(lanes: &Lanes, site: &Site, index: usize, began: Instant, changes: u64) -> Vec<Obeyed> {
    let mut obeyed = vec![Obeyed { limit: FIRST, asked_at: began, kept_at: began, seen_at: began }];
    for change in 1..=changes {
        tokio::time::sleep_until((began + Duration::from_secs(change)).into()).await;
        let number = u64::try_from(index).unwrap_or_default() * 7 + change * 5;
        let limit = 1 + u16::try_from(number % 16).unwrap_or_default();
        let asked_at = Instant::now();
        site.limit(json!({ "concurrency_limit": limit })).await;
        let kept_at = Instant::now();
        let seen_at = lanes.until(site, "the new limit", |lane| lane["config"]["max_ack_pending"] == limit).await;
        obeyed.push(Obeyed { limit, asked_at, kept_at, seen_at });
    }
    obeyed
}

pub(crate) async fn a_paused_organization_starts_nothing_and_goes_on_by_itself(system: Arc<System>) {
    let site = Site::open(&system, 4).await;
    system.recorder.forget(&site.key);
    let lanes = Lanes::open(&system).await;
    let mut calls = at_once(std::slice::from_ref(&site), 12, Ask::of_ms(1_500));
    system.recorder.until_running(&site.key, 4).await;
    site.limit(json!({ "paused": true })).await;
    let paused_at = lanes.until(&site, "the pause", |lane| lane["paused"] == true).await;
    let late = tokio::spawn({
        let site = Arc::clone(&site);
        async move { site.call(Ask::of_ms(0)).await }
    });
    system.recorder.until_running(&site.key, 0).await;
    let before = system.recorder.runs(&site.key);
    assert!(before.iter().all(|run| run.finished), "a running call was cut");
    assert!(before.iter().all(|run| run.began < paused_at + in_flight()), "a call started after the pause");
    assert!(before.len() < 12, "the pause came too late to show anything");
    // Nothing is to happen: that can only be waited for.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(system.recorder.runs(&site.key).len(), before.len(), "a call started during the pause");
    let resumed_at = Instant::now();
    site.limit(json!({ "paused": false })).await;
    // Nobody publishes anything: what waits must come by itself.
    let ended: Vec<Ended> = tokio::time::timeout(PATIENCE, async {
        let mut ended = Vec::new();
        while let Some(call) = calls.join_next().await {
            ended.push(call.expect("a caller"));
        }
        ended.push(late.await.expect("the late caller"));
        ended
    })
    .await
    .expect("the waiting calls go on after the resume");
    all_done(&ended);
    let runs = system.recorder.runs(&site.key);
    assert_eq!(runs.len(), 13, "every call ran once");
    let wait = runs[before.len()].began.saturating_duration_since(resumed_at);
    eprintln!(
        "pause: {} calls ran out, {} went on {wait:.1?} after the resume was asked for",
        before.len(),
        13 - before.len()
    );
    assert!(wait < SOON, "the first waiting call started {wait:?} after the resume");
}

/// Looks at lanes with the controller's eyes.
pub(super) struct Lanes {
    nats: async_nats::Client,
}

impl Lanes {
    pub(super) async fn open(system: &System) -> Self {
        Self { nats: system.nats("jetstream").await }
    }

    /// A site's consumer as the server describes it.
    pub(super) async fn look(&self, site: &Site) -> Value {
        let organization = shared::id::OrganizationId(site.tenant.id);
        let lane = shared::bus::lanes::lane_name(organization);
        let subject = format!("queue.CONSUMER.INFO.CALLS_{}.{lane}", organization.partition());
        let answer = self.nats.request(subject, "".into()).await.expect("NATS answers");
        serde_json::from_slice(&answer.payload).expect("JSON")
    }

    /// Waits until a site's consumer looks so; answers when it did.
    pub(super) async fn until(&self, site: &Site, what: &str, holds: impl Fn(&Value) -> bool) -> Instant {
        let waiting = async {
            while !holds(&self.look(site).await) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Instant::now()
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{what} never came"))
    }
}
