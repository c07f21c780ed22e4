//! What the tests of accidents share: a system with two of everything that serves callers, put in
//! order before each of them, and callers that choose a gateway as a load balancer would.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::FutureExt as _;
use libtest_mimic::Trial;
use reqwest::Method;
use serde_json::json;
use stack::Options;
use tokio::task::JoinSet;

use super::load::{Ended, Site};
use crate::world::{PATIENCE, System, World};

/// Children that a system of [`pairs`] runs, by name; whoever serves callers has a twin.
pub(super) const SERVING: [&str; 11] = [
    "controller-1",
    "session-1",
    "session-2",
    "token-1",
    "token-2",
    "tool-1",
    "tool-2",
    "audit-1",
    "audit-2",
    "gateway-1",
    "gateway-2",
];

/// How long a gateway that was told to stop still lets callers in.
const DRAIN_SECONDS: &str = "2";

/// Two of everything that serves callers.
pub(crate) fn pairs(options: &mut Options) {
    options.workers_per_pool = 2;
    options.gateways = 2;
    options.gateway_env.push(("GATEWAY_DRAIN_SECONDS".to_owned(), DRAIN_SECONDS.to_owned()));
}

/// A system that one test at a time may break.
#[derive(Clone)]
pub(super) struct Breakable(Arc<World>, Arc<Mutex<()>>);

impl Breakable {
    pub(super) fn new() -> Self {
        Self(Arc::new(World::with(pairs)), Arc::default())
    }

    pub(super) fn world(&self) -> &World {
        &self.0
    }
}

macro_rules! staged {
    ($world:ident; $($module:ident { $($test:ident),* $(,)? })*) => {
        vec![$($({
            let Breakable(world, turn) = $world.clone();
            super::trial(concat!("promises::", stringify!($module), "::", stringify!($test)), move || {
                let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
                world.run(async |system| {
                    put_in_order(&system).await;
                    super::$module::$test(system).await;
                });
            })
        },)*)*]
    };
}

/// The tests that break systems of [`pairs`], each on what the one before has left. The systems stand side by
/// side, since most of what happens here is waiting; these take about as long as each other.
pub(super) fn by_system() -> [(Breakable, Vec<Trial>); 4] {
    let [calls, crashes, writes, files] = std::array::from_fn(|_| Breakable::new());
    let of_calls = staged!(calls;
        drains {
            a_worker_that_is_told_to_stop_loses_no_call,
            a_gateway_that_is_told_to_stop_loses_no_call,
            a_rolling_restart_of_everything_loses_no_call,
        }
        lanes {
            a_lane_removed_between_a_publish_and_its_delivery_loses_nothing,
            a_lane_that_stays_after_all_obeys_its_limits_as_before,
            a_call_published_while_its_lane_is_being_closed_runs_once,
        }
        members {
            a_removed_member_stays_refused_through_restarts_of_nats_and_gateways,
        }
        cuts {
            a_cut_between_a_worker_and_nats_heals,
            a_cut_between_a_gateway_and_nats_heals,
            a_cut_of_one_of_a_gateways_connections_heals,
            a_cut_of_one_of_a_workers_connections_heals,
            a_cut_between_nats_and_a_pool_that_runs_no_calls_stops_none,
        }
    );
    let of_crashes = staged!(crashes;
        crashes {
            a_killed_workers_calls_are_repeated_or_told_as_unknown,
            a_frozen_worker_does_nothing_for_slots_given_away,
        }
        sessions {
            a_session_worker_killed_at_any_step_leaves_nothing_half_done,
            sessions_under_load_survive_many_killed_workers,
            sessions_expire_for_their_members_without_a_controller_and_once_with_two,
            without_postgresql_or_nats_sessions_are_refused_and_then_go_on,
            a_gateway_that_is_told_to_stop_ends_its_streams_at_once,
        }
        outages {
            a_restart_of_nats_is_told_honestly_and_heals,
            without_postgresql_known_servers_are_called_and_the_trail_is_kept,
            without_a_controller_open_lanes_go_on_and_new_ones_wait_for_it,
        }
    );
    let of_writes = staged!(writes;
        files {
            a_session_worker_killed_at_any_step_of_a_write_leaves_nothing_half_written,
            without_postgresql_or_nats_files_are_refused_and_then_there_again,
        }
    );
    let of_files = staged!(files;
        files {
            files_survive_many_killed_session_workers,
            a_frozen_session_worker_leaves_no_part_behind_its_session,
        }
    );
    [(calls, of_calls), (crashes, of_crashes), (writes, of_writes), (files, of_files)]
}

async fn put_in_order(system: &System) {
    let stack = system.stack().await;
    let death = stack.death().now_or_never();
    assert!(death.is_none(), "a process ended that nobody stopped: {death:?}");
    for name in ["postgres", "nats"].into_iter().chain(SERVING) {
        if stack.thaw(name).is_err() {
            stack.restart(name).await.expect("the process starts");
        }
    }
    for url in stack.gateways() {
        until("everything is back", async || is_healthy(&system.http, url).await).await;
    }
}

/// Waits for what nothing announces.
#[track_caller]
pub(crate) fn until(what: &str, holds: impl AsyncFnMut() -> bool) -> impl Future<Output = ()> {
    until_within(PATIENCE, what, holds)
}

/// The same for what takes longer than other things.
#[track_caller]
pub(super) fn until_within(
    patience: Duration,
    what: &str,
    mut holds: impl AsyncFnMut() -> bool,
) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let deadline = Instant::now() + patience;
        while !holds().await {
            assert!(Instant::now() < deadline, "never: {what} ({caller})");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Whether requests may be sent to this gateway.
pub(super) async fn is_ready(http: &reqwest::Client, gateway: &str) -> bool {
    says_yes(http, &format!("{gateway}/ready")).await
}

/// Whether every pool is at work.
pub(super) async fn is_healthy(http: &reqwest::Client, gateway: &str) -> bool {
    says_yes(http, &format!("{gateway}/health")).await
}

async fn says_yes(http: &reqwest::Client, url: &str) -> bool {
    let answer = http.get(url).timeout(Duration::from_secs(1)).send().await;
    answer.is_ok_and(|answer| answer.status() == 200)
}

/// Which gateways say that they are ready, looked at again and again as a load balancer does.
#[derive(Clone)]
pub(super) struct Balancer {
    ready: Arc<Mutex<Vec<String>>>,
    http: reqwest::Client,
}

impl Balancer {
    pub(super) async fn start(system: &System) -> Self {
        let gateways = system.stack().await.gateways().to_vec();
        let balancer = Self { ready: Arc::new(Mutex::new(gateways.clone())), http: system.http.clone() };
        let looking = balancer.clone();
        // Never stopped: it ends with the tests' runtime.
        tokio::spawn(async move {
            loop {
                let looks = gateways.iter().map(async |url| is_ready(&looking.http, url).await.then(|| url.clone()));
                let ready = futures::future::join_all(looks).await.into_iter().flatten().collect();
                *looking.ready.lock().unwrap_or_else(PoisonError::into_inner) = ready;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        balancer
    }

    /// A call of every site through every gateway.
    pub(super) async fn open_lanes(&self, system: &System, sites: &[Arc<Site>]) {
        for url in system.stack().await.gateways() {
            for site in sites {
                let answer = self.send(url, site, "first", 0).await.expect("the gateway answers");
                assert_eq!(answer.status(), 200, "{:?}", answer.text().await);
            }
        }
    }

    /// A ready gateway by turns.
    fn pick(&self, turn: usize) -> Option<String> {
        let ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        ready.get(turn % ready.len().max(1)).cloned()
    }

    /// Calls through a ready gateway. Only a refused connection is tried again: nothing was sent.
    async fn call(&self, site: &Site, id: &str, ms: u64) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut turn = id.len() + usize::try_from(ms).unwrap_or_default();
        loop {
            assert!(Instant::now() < deadline, "no gateway was ready for {PATIENCE:?}");
            turn += 1;
            let Some(url) = self.pick(turn) else {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            match self.send(&url, site, id, ms).await {
                Ok(answer) if answer.status() == 200 => return "done".to_owned(),
                Ok(answer) => return answer.text().await.unwrap_or_else(|cause| format!("transport: {cause:?}")),
                Err(cause) if cause.is_connect() => {}
                Err(cause) => return format!("transport: {cause:?}"),
            }
        }
    }

    async fn send(&self, url: &str, site: &Site, id: &str, ms: u64) -> reqwest::Result<reqwest::Response> {
        let body = json!({
            "configuration": "recorder", "tool": "once", "timeout_ms": 20_000, "arguments": { "id": id, "ms": ms },
        });
        let request = self.http.request(Method::POST, format!("{url}/api/v1/tool-calls"));
        request.bearer_auth(&site.tenant.user.token).json(&body).send().await
    }

    /// Callers in a closed loop until the sender is dropped; everything that was not done, and how
    /// many were. Every call takes its own while, up to `longest_ms`.
    pub(super) fn load(&self, sites: &[Arc<Site>], callers: usize, longest_ms: u64) -> Load {
        let (stop, stopped) = tokio::sync::watch::channel(());
        let mut loops = JoinSet::new();
        for (caller, site) in sites.iter().cycle().take(callers).cloned().enumerate() {
            let (balancer, stopped) = (self.clone(), stopped.clone());
            loops.spawn(async move {
                let (mut done, mut failed) = (0, Vec::new());
                while stopped.has_changed().is_ok() {
                    let id = format!("b{caller}-{}", done + failed.len());
                    let ms = u64::try_from(caller * 7 + done * 13).unwrap_or_default() % longest_ms;
                    match balancer.call(&site, &id, ms).await.as_str() {
                        "done" => done += 1,
                        other => failed.push(format!("{id}: {other}")),
                    }
                }
                (done, failed)
            });
        }
        Load { stop, loops }
    }
}

/// Callers that go on until they are told to end.
pub(super) struct Load {
    stop: tokio::sync::watch::Sender<()>,
    loops: JoinSet<(usize, Vec<String>)>,
}

impl Load {
    /// How many calls were done, and what became of the others.
    pub(super) async fn end(self) -> (usize, Vec<String>) {
        drop(self.stop);
        let each = self.loops.join_all().await;
        each.into_iter().fold((0, Vec::new()), |(done, mut failed), (more, others)| {
            failed.extend(others);
            (done + more, failed)
        })
    }
}

/// Checks that a call came to a run at most once, and never after it was answered.
pub(super) fn ran_at_most_once_before_its_answer(system: &System, site: &Site, ended: &Ended) {
    let runs = system.recorder.runs(&site.key);
    let runs: Vec<_> = runs.iter().filter(|run| run.id == ended.id).collect();
    assert!(runs.len() <= 1, "ran twice: {ended:?} {runs:?}");
    for run in runs {
        assert!(run.began <= ended.sent + ended.took, "ran after its answer: {ended:?} {run:?}");
    }
}

/// The resident memory of a child in bytes, from Linux' `/proc`.
pub(super) async fn resident_bytes(system: &System, name: &str) -> u64 {
    let running = system.stack().await.supervisor().running();
    let (_, pid) = running.into_iter().find(|(known, _)| known == name).expect("it runs");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kibibytes * 1024
}
