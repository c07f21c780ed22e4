//! The issuer's keys, fetched when first needed: the gateway's one outbound call. Nobody outside
//! may set its pace: a flood of invented key ids costs one fetch per ten seconds, one at a time,
//! and an issuer that is down costs nobody their session.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use arc_swap::ArcSwap;
use jsonwebtoken::Algorithm;
use tokio::{sync::Mutex, time::Instant};
use url::Url;

use super::{
    Denied,
    config::is_loopback,
    keys::{Key, KeySet},
};

/// The largest key set that is read, in bytes.
const MAX_BODY_BYTES: usize = 256 * 1024;

/// The most unknown key ids that are remembered.
const MAX_ABSENT: u64 = 1_000;

/// How often the issuer is asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// After this time a set is fetched again when next needed. Supabase's edge caches as long.
    pub(super) fresh_for: Duration,
    /// At least so far apart are fetches made for an unknown key id.
    pub(super) extra_every: Duration,
    /// After a failure, with older keys in hand.
    pub(super) retry_with_keys: Duration,
    /// After a failure, with none.
    pub(super) retry_without_keys: Duration,
    /// How long a key id stays known as absent. Short: the issuer may be about to publish it.
    pub(super) absent_for: Duration,
    /// From the connection to the last byte.
    pub(super) timeout: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            fresh_for: Duration::from_mins(10),
            extra_every: Duration::from_secs(10),
            retry_with_keys: Duration::from_secs(10),
            retry_without_keys: Duration::from_secs(1),
            absent_for: Duration::from_secs(30),
            timeout: Duration::from_secs(5),
        }
    }
}

/// The key set in use. Readers never wait for a fetch that serves others.
#[derive(Clone, Debug)]
pub(super) struct Jwks(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    client: reqwest::Client,
    url: Url,
    pace: Pace,
    state: ArcSwap<State>,
    /// Held during a fetch; the time of the last one made for an unknown key id.
    gate: Arc<Mutex<Option<Instant>>>,
    absent: moka::sync::Cache<String, ()>,
}

/// Instants are those at which a fetch began: what it brought is at least as new.
#[derive(Debug, Default)]
struct State {
    keys: Arc<KeySet>,
    fetched: Option<Instant>,
    attempted: Option<Instant>,
    failed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    Age,
    UnknownKey,
}

impl Jwks {
    /// Prepares the client; fetches nothing yet. Needs the process's rustls provider.
    pub(super) fn new(url: Url, pace: Pace) -> anyhow::Result<Self> {
        let mut client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(pace.timeout)
            // Fetches are minutes apart: an idle connection would be dead by then.
            .pool_max_idle_per_host(0)
            .user_agent("switchboard-gateway");
        if is_loopback(&url) {
            client = client.no_proxy();
        }
        Ok(Self(Arc::new(Shared {
            client: client.build().context("the client for the issuer's keys")?,
            url,
            pace,
            state: ArcSwap::default(),
            gate: Arc::default(),
            absent: moka::sync::Cache::builder().max_capacity(MAX_ABSENT).time_to_live(pace.absent_for).build(),
        })))
    }

    /// The key a header asks for. Fetches the set if it is due, and once more if the key id is not
    /// in it, as far as the pace allows.
    pub(super) async fn key(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<Arc<Key>, Denied> {
        let shared = &self.0;
        let asked = Instant::now();
        let held = shared.state.load_full();
        let mut found = held.keys.find(kid, algorithm);
        if held.is_due(asked, &shared.pace) {
            // Who can be served with the keys at hand does not queue behind a fetch under way.
            shared.refresh(Cause::Age, asked, found.is_none()).await;
            found = shared.state.load().keys.find(kid, algorithm);
        }
        if let Some(answer) = found {
            return answer;
        }
        if let Some(kid) = kid
            && !shared.absent.contains_key(kid)
        {
            shared.refresh(Cause::UnknownKey, asked, true).await;
        }
        shared.verdict(kid, algorithm, asked)
    }
}

impl Shared {
    /// The answer after everything that could be done was done.
    fn verdict(&self, kid: Option<&str>, algorithm: Algorithm, asked: Instant) -> Result<Arc<Key>, Denied> {
        let state = self.state.load();
        if let Some(answer) = state.keys.find(kid, algorithm) {
            return answer;
        }
        // Without an answer from the issuer, nobody can say that it has no such key.
        if state.fetched.is_none() || state.failed {
            return Err(Denied::KeysUnavailable);
        }
        if let Some(kid) = kid
            && state.fetched >= Some(asked)
        {
            self.absent.insert(kid.to_owned(), ());
        }
        Err(Denied::UnknownKey)
    }

    /// Fetches, unless another did so since `asked` or the pace forbids it. `patient` callers wait
    /// for a fetch under way.
    async fn refresh(self: &Arc<Self>, cause: Cause, asked: Instant, patient: bool) {
        let gate = Arc::clone(&self.gate);
        let mut gate = match gate.clone().try_lock_owned() {
            Ok(free) => free,
            Err(_) if patient => gate.lock_owned().await,
            Err(_) => return,
        };
        let now = Instant::now();
        let state = self.state.load_full();
        let allowed = match cause {
            Cause::Age => state.is_due(now, &self.pace),
            Cause::UnknownKey => gate.is_none_or(|last| now.duration_since(last) >= self.pace.extra_every),
        };
        if state.attempted >= Some(asked) || !allowed {
            return;
        }
        if cause == Cause::UnknownKey {
            *gate = Some(now);
        }
        // A task of its own: a caller that hangs up must not be able to undo the fetch that its
        // invented key id used up.
        let shared = Arc::clone(self);
        let fetch = tokio::spawn(async move {
            shared.fetch_into_state(now).await;
            drop(gate);
        });
        if let Err(cause) = fetch.await {
            tracing::error!(%cause, "the fetch of the issuer's keys broke off");
        }
    }

    async fn fetch_into_state(&self, began: Instant) {
        let before = self.state.load_full();
        let next = match self.fetch().await {
            Ok(keys) => {
                tracing::info!(usable = keys.len(), "fetched the issuer's keys");
                State { keys: Arc::new(keys), fetched: Some(began), attempted: Some(began), failed: false }
            }
            Err(error) => {
                tracing::warn!(cause = %format!("{error:#}"), kept = before.keys.len(), "the issuer's keys cannot be fetched");
                State { keys: Arc::clone(&before.keys), fetched: before.fetched, attempted: Some(began), failed: true }
            }
        };
        self.state.store(Arc::new(next));
    }

    async fn fetch(&self) -> anyhow::Result<KeySet> {
        let mut response = self.client.get(self.url.clone()).send().await.map_err(reqwest::Error::without_url)?;
        ensure!(response.status() == reqwest::StatusCode::OK, "the issuer answered {}", response.status());
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(reqwest::Error::without_url)? {
            ensure!(body.len() + chunk.len() <= MAX_BODY_BYTES, "the key set is larger than {MAX_BODY_BYTES} bytes");
            body.extend_from_slice(&chunk);
        }
        KeySet::parse(&body)
    }
}

impl State {
    fn is_due(&self, now: Instant, pace: &Pace) -> bool {
        let Some(attempted) = self.attempted else { return true };
        let wait = match (self.failed, self.fetched) {
            (false, _) => pace.fresh_for,
            (true, Some(_)) => pace.retry_with_keys,
            (true, None) => pace.retry_without_keys,
        };
        now.duration_since(attempted) >= wait
    }
}
