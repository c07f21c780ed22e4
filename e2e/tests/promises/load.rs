//! Callers under load: each checks that the answer is its own, and everything that came is kept to be
//! counted.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use futures::StreamExt;
use reqwest::{Method, StatusCode};
use serde_json::json;
use stack::issuer::Role;
use tokio::{sync::watch, task::JoinSet};

use super::recorder::Kind;
use crate::world::{Answer, Client, System, Tenant};

/// The configuration's name in every [`Site`].
const CONFIGURATION: &str = "recorder";
/// How much longer than its deadline a call may take before the test gives up on the gateway.
const SLACK: Duration = Duration::from_secs(20);

/// Organizations made at once: opening them is not what is tested.
const OPENED_AT_ONCE: usize = 8;

/// An organization whose calls the recorder sees under a key of its own.
pub(crate) struct Site {
    pub(crate) tenant: Tenant,
    pub(crate) key: String,
    operator: Client,
}

/// How a call ended.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    /// Its name, for the recorder.
    pub(crate) id: String,
    /// The status; none when no HTTP answer came.
    pub(crate) status: Option<StatusCode>,
    /// `done`, the problem's code, or `transport` when no HTTP answer came.
    pub(crate) code: String,
    /// When it was sent.
    pub(crate) sent: Instant,
    /// How long the answer took.
    pub(crate) took: Duration,
    /// The whole problem document, or the transport's words.
    #[expect(dead_code, reason = "for whoever reads a failure: Debug shows it")]
    pub(crate) problem: String,
    /// The `Retry-After` header.
    pub(crate) retry_after: Option<Duration>,
}

/// What a call asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    pub(crate) kind: Kind,
    /// How long the upstream takes, in milliseconds.
    pub(crate) ms: u64,
    /// How long the caller waits, in milliseconds.
    pub(crate) timeout_ms: u32,
}

impl Ask {
    /// A call that must not run twice, with all the patience that it may need.
    pub(crate) const fn of_ms(ms: u64) -> Self {
        Self { kind: Kind::Once, ms, timeout_ms: 60_000 }
    }

    /// The same with less patience, in milliseconds.
    pub(crate) const fn within_ms(self, timeout_ms: u32) -> Self {
        Self { timeout_ms, ..self }
    }
}

impl Site {
    /// A new organization with this limit, its server registered and called once.
    pub(crate) async fn open(system: &System, concurrency_limit: u16) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let slug = format!("s{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let operator = system.client(&system.seeded.operator_token);
        let body = json!({
            "slug": slug, "name": slug, "concurrency_limit": concurrency_limit, "calls_per_minute": 1_000_000,
        });
        let made = operator.post("/api/v1/organizations", &body).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
        let id = made.json()["id"].as_str().and_then(|id| id.parse().ok()).expect("an id");
        let admin = system.client(&system.token(id, &format!("{slug}-admin"), Role::Admin));
        let user = system.client(&system.token(id, &format!("{slug}-user"), Role::User));
        let tenant = Tenant { id, admin, user };
        // Its own patience is no part of what is tried.
        tenant.register(CONFIGURATION, &system.recorder.url(&slug), json!({ "timeout_ms": 300_000 })).await;
        let site = Arc::new(Self { tenant, key: slug, operator });
        let first = site.call(Ask::of_ms(0)).await;
        assert_eq!(first.code, "done", "{first:?}");
        site
    }

    /// One for each limit.
    pub(crate) async fn open_all(system: &System, limits: impl IntoIterator<Item = u16>) -> Vec<Arc<Self>> {
        futures::stream::iter(limits).map(|limit| Self::open(system, limit)).buffered(OPENED_AT_ONCE).collect().await
    }

    /// The same organization, calling another gateway.
    pub(crate) fn at(&self, gateway: &str) -> Arc<Self> {
        let Tenant { id, admin, user } = &self.tenant;
        let tenant = Tenant { id: *id, admin: admin.at(gateway), user: user.at(gateway) };
        Arc::new(Self { tenant, key: self.key.clone(), operator: self.operator.at(gateway) })
    }

    /// Calls once and waits for the end.
    pub(crate) async fn call(&self, ask: Ask) -> Ended {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = format!("c{}", NEXT.fetch_add(1, Relaxed));
        let body = json!({
            "configuration": CONFIGURATION, "tool": ask.kind.tool(), "timeout_ms": ask.timeout_ms,
            "arguments": { "id": id, "ms": ask.ms },
        });
        let patience = Duration::from_millis(ask.timeout_ms.into()) + SLACK;
        let request = self.tenant.user.request(Method::POST, "/api/v1/tool-calls").timeout(patience).json(&body);
        let sent = Instant::now();
        let mut ended = match request.send().await {
            Ok(response) => read(response, id).await,
            Err(cause) => Ended::transport(id, &cause),
        };
        (ended.sent, ended.took) = (sent, sent.elapsed());
        ended
    }

    /// Changes the limits as an operator: `concurrency_limit`, `paused`.
    pub(crate) async fn limit(&self, change: serde_json::Value) {
        let path = format!("/api/v1/organizations/{}", self.tenant.id);
        let request = self.operator.request(Method::PUT, &path).header("if-match", "*").json(&change);
        let answer: Answer = self.operator.send(request).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    }
}

impl Ended {
    fn now(id: String, status: Option<StatusCode>, code: &str, problem: String) -> Self {
        let (code, sent, took) = (code.to_owned(), Instant::now(), Duration::ZERO);
        Self { id, status, code, sent, took, problem, retry_after: None }
    }

    fn transport(id: String, cause: &dyn std::error::Error) -> Self {
        let causes = std::iter::successors(Some(cause), |cause| cause.source()).map(ToString::to_string);
        Self::now(id, None, "transport", causes.collect::<Vec<_>>().join(": "))
    }
}

async fn read(response: reqwest::Response, id: String) -> Ended {
    let status = response.status();
    let wait = response.headers().get("retry-after").and_then(|wait| wait.to_str().ok()?.parse().ok());
    let text = match response.text().await {
        Ok(text) => text,
        Err(cause) => return Ended::transport(id, &cause),
    };
    let body: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|cause| panic!("{cause}: {text}"));
    if status != StatusCode::OK {
        let code = body["code"].as_str().unwrap_or_else(|| panic!("no problem document: {text}")).to_owned();
        return Ended { retry_after: wait.map(Duration::from_secs), ..Ended::now(id, Some(status), &code, text) };
    }
    assert_eq!(body["result"]["content"][0]["text"], id, "another call's answer: {text}");
    Ended::now(id, Some(status), "done", String::new())
}

/// `count` calls at once, spread over the sites in turn.
pub(crate) fn at_once(sites: &[Arc<Site>], count: usize, ask: Ask) -> JoinSet<Ended> {
    let mut calls = JoinSet::new();
    for site in sites.iter().cycle().take(count) {
        let site = Arc::clone(site);
        calls.spawn(async move { site.call(ask).await });
    }
    calls
}

/// `callers` in a closed loop, spread over the sites in turn: each sends its next call once the last
/// one ended, until `end`. What a caller asks is made anew from a running number.
pub(crate) async fn closed_loop(
    sites: &[Arc<Site>],
    callers: usize,
    end: Instant,
    ask: impl Fn(u64) -> Ask + Send + Sync + Clone + 'static,
) -> Vec<Ended> {
    let number = Arc::new(AtomicU64::new(0));
    let mut loops = JoinSet::new();
    for site in sites.iter().cycle().take(callers) {
        let (site, ask, number) = (Arc::clone(site), ask.clone(), Arc::clone(&number));
        loops.spawn(async move {
            let mut all = Vec::new();
            while Instant::now() < end {
                all.push(site.call(ask(number.fetch_add(1, Relaxed))).await);
            }
            all
        });
    }
    loops.join_all().await.concat()
}

/// Callers in a closed loop as in [`closed_loop`], until they are told to end.
pub(crate) struct Callers {
    loops: JoinSet<Vec<Ended>>,
    seen: Arc<Mutex<Seen>>,
    stop: watch::Sender<()>,
}

/// What callers see.
struct Seen {
    /// When each one's call under way was sent.
    sent: Vec<Instant>,
    /// When the last call ended that was not done.
    failed_at: Option<Instant>,
}

/// Callers that are content for so long are taken for content.
const CONTENT: Duration = Duration::from_secs(2);
/// Calls of a system that is well are shorter, even on a busy machine.
const PROMPT: Duration = Duration::from_secs(1);
/// Whoever is refused waits this long before the next call, or refusals would drown the rest.
const PAUSE: Duration = Duration::from_millis(20);

impl Callers {
    pub(crate) fn start(
        sites: &[Arc<Site>],
        callers: usize,
        ask: impl Fn(u64) -> Ask + Send + Sync + Clone + 'static,
    ) -> Self {
        let (stop, stopped) = watch::channel(());
        let seen = Arc::new(Mutex::new(Seen { sent: vec![Instant::now(); callers], failed_at: None }));
        let mut loops = JoinSet::new();
        for (caller, site) in sites.iter().cycle().take(callers).cloned().enumerate() {
            let (stopped, seen, ask) = (stopped.clone(), Arc::clone(&seen), ask.clone());
            loops.spawn(async move {
                let mut all: Vec<Ended> = Vec::new();
                while stopped.has_changed().is_ok() {
                    lock(&seen).sent[caller] = Instant::now();
                    let number = u64::try_from(caller * 1_000_003 + all.len()).unwrap_or_default();
                    all.push(site.call(ask(number)).await);
                    if all.last().is_some_and(|last| last.code != "done") {
                        lock(&seen).failed_at = Some(Instant::now());
                        tokio::time::sleep(PAUSE).await;
                    }
                }
                all
            });
        }
        Self { loops, seen, stop }
    }

    /// Waits until every call is done again, and promptly.
    pub(crate) async fn settled(&self, within: Duration) {
        let deadline = Instant::now() + within;
        loop {
            let (failed_at, oldest) = {
                let seen = lock(&self.seen);
                (seen.failed_at, seen.sent.iter().min().copied())
            };
            let content = failed_at.is_none_or(|at| at.elapsed() > CONTENT);
            if content && oldest.is_none_or(|sent| sent.elapsed() < PROMPT) {
                return;
            }
            assert!(Instant::now() < deadline + CONTENT, "still not healed after {within:?}");
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Everything that was called.
    pub(crate) async fn end(self) -> Vec<Ended> {
        drop(self.stop);
        self.loops.join_all().await.concat()
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often each code came.
pub(crate) fn by_code<'a>(ended: impl IntoIterator<Item = &'a Ended>) -> BTreeMap<String, usize> {
    ended.into_iter().fold(BTreeMap::new(), |mut codes, ended| {
        *codes.entry(ended.code.clone()).or_default() += 1;
        codes
    })
}

/// Checks that every call was done.
#[track_caller]
pub(crate) fn all_done(ended: &[Ended]) {
    let others: Vec<&Ended> = ended.iter().filter(|ended| ended.code != "done").collect();
    assert!(others.is_empty(), "{:?}, such as {:#?}", by_code(ended), &others[..others.len().min(3)]);
}

/// The middle one.
pub(crate) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
