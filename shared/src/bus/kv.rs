//! Shared state in key-value buckets (NATS ADR-8 layout). Readers keep a copy in memory: one
//! snapshot by direct reads, then every change as the server republishes it. No consumer is
//! created, so that watching needs no right to create one.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use async_nats::{HeaderMap, Message, StatusCode};
use bytes::Bytes;
use futures::StreamExt;
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::watch;

use super::Bus;
use crate::fault::Fault;

/// A bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bucket {
    /// Organization -> its limits.
    Limits,
    /// Organization and subject -> role and state.
    Access,
    /// Organization and configuration -> generation.
    Configs,
    /// Role and process -> heartbeat.
    Instances,
}

impl Bucket {
    /// Every bucket.
    pub const ALL: [Self; 4] = [Self::Limits, Self::Access, Self::Configs, Self::Instances];

    /// The bucket's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Limits => "LIMITS",
            Self::Access => "ACCESS",
            Self::Configs => "CONFIGS",
            Self::Instances => "INSTANCES",
        }
    }

    /// The stream beneath it.
    pub fn stream(self) -> String {
        format!("KV_{}", self.name())
    }

    /// Where entries are written: this and the key.
    pub fn subject_prefix(self) -> String {
        format!("$KV.{}.", self.name())
    }

    /// Where changes are republished: this and the key.
    pub fn watch_prefix(self) -> String {
        format!("kv.{}.", self.name())
    }

    /// Heartbeats do not; what was decided does.
    pub const fn outlives_nats(self) -> bool {
        !matches!(self, Self::Instances)
    }
}

impl Bus {
    /// Writes an entry; answers its revision. `ttl` (whole seconds) lets it expire.
    pub async fn put<T: Serialize + Sync>(
        &self,
        bucket: Bucket,
        key: &str,
        value: &T,
        ttl: Option<Duration>,
    ) -> Result<u64, Fault> {
        self.ensure_connected()?;
        let mut headers = HeaderMap::new();
        if let Some(ttl) = ttl {
            headers.insert("Nats-TTL", ttl.as_secs().max(1).to_string().as_str());
        }
        let payload = Bytes::from(serde_json::to_vec(value).map_err(Fault::internal)?);
        let unavailable = |cause: &dyn std::fmt::Display| Fault::unavailable("The shared state", cause);
        let subject = format!("{}{key}", bucket.subject_prefix());
        let ack = self.jetstream.publish_with_headers(subject, headers, payload).await.map_err(|cause| unavailable(&cause))?;
        Ok(ack.await.map_err(|cause| unavailable(&cause))?.sequence)
    }

    /// Starts a copy of a bucket and keeps it. Returns at once; [`Watch::ready`] awaits the
    /// first complete copy.
    pub fn watch<T: DeserializeOwned + Clone + Send + Sync + 'static>(&self, bucket: Bucket) -> Watch<T> {
        let (changes, _) = watch::channel(0);
        let state = Arc::new(State { entries: RwLock::default(), fresh_at: RwLock::new(None), changes });
        tokio::spawn(keep(self.clone(), bucket, Arc::clone(&state)));
        Watch { state }
    }
}

/// A copy of a bucket that follows it.
#[derive(Debug)]
pub struct Watch<T> {
    state: Arc<State<T>>,
}

impl<T> Clone for Watch<T> {
    fn clone(&self) -> Self {
        Self { state: Arc::clone(&self.state) }
    }
}

#[derive(Debug)]
struct State<T> {
    entries: RwLock<HashMap<String, Entry<T>>>,
    fresh_at: RwLock<Option<Instant>>,
    changes: watch::Sender<u64>,
}

#[derive(Clone, Debug)]
struct Entry<T> {
    revision: u64,
    /// Absent once deleted; the revision still guards against older news.
    value: Option<T>,
}

impl<T: Clone> Watch<T> {
    /// The entry's value.
    pub fn get(&self, key: &str) -> Option<T> {
        self.state.read().get(key).and_then(|entry| entry.value.clone())
    }

    /// All entries.
    pub fn entries(&self) -> Vec<(String, T)> {
        let entries = self.state.read();
        entries.iter().filter_map(|(key, entry)| Some((key.clone(), entry.value.clone()?))).collect()
    }

    /// How long ago the copy was known to be complete; `None` before the first time.
    pub fn age(&self) -> Option<Duration> {
        self.state.fresh_at.read().unwrap_or_else(PoisonError::into_inner).map(|at| at.elapsed())
    }

    /// Follows changes: the number is the latest revision applied.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.state.changes.subscribe()
    }

    /// Waits for the first complete copy.
    pub async fn ready(&self) {
        let mut changes = self.changes();
        while self.age().is_none() {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}

impl<T> State<T> {
    fn read(&self) -> std::sync::RwLockReadGuard<'_, HashMap<String, Entry<T>>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<String, Entry<T>>> {
        self.entries.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn mark_fresh(&self) {
        *self.fresh_at.write().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.changes.send_modify(|_| {});
    }
}

impl<T: DeserializeOwned> State<T> {
    /// Applies an entry unless newer news is known; answers its revision.
    fn apply(&self, bucket: Bucket, message: &Message) -> Option<u64> {
        let headers = message.headers.as_ref()?;
        let header = |name: &str| headers.get(name).map(async_nats::HeaderValue::as_str);
        let revision: u64 = header("Nats-Sequence")?.parse().ok()?;
        let key = header("Nats-Subject")?.strip_prefix(&bucket.subject_prefix())?.to_owned();
        let deleted = header("KV-Operation").is_some() || header("Nats-Marker-Reason").is_some();
        let value = if deleted { None } else { read_value(bucket, &key, &message.payload) };
        {
            let mut entries = self.write();
            if entries.get(&key).is_some_and(|known| known.revision >= revision) {
                return Some(revision);
            }
            entries.insert(key, Entry { revision, value });
        }
        self.changes.send_modify(|latest| *latest = revision.max(*latest));
        Some(revision)
    }
}

fn read_value<T: DeserializeOwned>(bucket: Bucket, key: &str, bytes: &[u8]) -> Option<T> {
    serde_json::from_slice(bytes)
        .inspect_err(|cause| tracing::error!(bucket = bucket.name(), key, %cause, "unreadable entry"))
        .ok()
}

/// How often a copy is compared with the bucket.
const COMPARE_EVERY: Duration = Duration::from_secs(2);

async fn keep<T: DeserializeOwned>(bus: Bus, bucket: Bucket, state: Arc<State<T>>) {
    loop {
        if let Err(cause) = follow(&bus, bucket, &state).await {
            tracing::debug!(bucket = bucket.name(), %cause, "watching again");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn follow<T: DeserializeOwned>(bus: &Bus, bucket: Bucket, state: &State<T>) -> anyhow::Result<()> {
    let mut news = bus.client.subscribe(format!("{}>", bucket.watch_prefix())).await?;
    let mut seen = 0;
    let mut compare = tokio::time::interval(COMPARE_EVERY);
    loop {
        tokio::select! {
            message = news.next() => {
                let Some(message) = message else { anyhow::bail!("the subscription ended") };
                if let Some(revision) = state.apply(bucket, &message) {
                    // A gap is filled by the next comparison.
                    if revision == seen + 1 { seen = revision; }
                }
            }
            _ = compare.tick() => {
                let last = last_revision(bus, bucket).await?;
                if last < seen {
                    // The bucket is a new one: nothing known holds any more.
                    state.write().clear();
                    seen = 0;
                }
                if last > seen {
                    read_from(bus, bucket, seen + 1, state).await?;
                    seen = last;
                }
                state.mark_fresh();
            }
        }
    }
}

async fn last_revision(bus: &Bus, bucket: Bucket) -> anyhow::Result<u64> {
    #[derive(serde::Deserialize)]
    struct Info {
        state: Option<Sequences>,
    }
    #[derive(serde::Deserialize)]
    struct Sequences {
        last_seq: u64,
    }
    let answer = bus.client.request(format!("$JS.API.STREAM.INFO.{}", bucket.stream()), Bytes::new()).await?;
    let info: Info = serde_json::from_slice(&answer.payload)?;
    info.state.map(|state| state.last_seq).ok_or_else(|| anyhow::anyhow!("the bucket does not exist yet"))
}

/// Reads every entry from a revision on, by batched direct reads (NATS ADR-31).
async fn read_from<T: DeserializeOwned>(bus: &Bus, bucket: Bucket, from: u64, state: &State<T>) -> anyhow::Result<()> {
    const BATCH: u64 = 500;
    let mut next = from;
    loop {
        let inbox = bus.client.new_inbox();
        let mut answers = bus.client.subscribe(inbox.clone()).await?;
        let request = serde_json::json!({ "seq": next, "next_by_subj": format!("{}>", bucket.subject_prefix()), "batch": BATCH });
        let subject = format!("$JS.API.DIRECT.GET.{}", bucket.stream());
        bus.client.publish_with_reply(subject, inbox, serde_json::to_vec(&request)?.into()).await?;
        let mut read = 0;
        loop {
            let message = tokio::time::timeout(super::API_PATIENCE, answers.next())
                .await?
                .ok_or_else(|| anyhow::anyhow!("the subscription ended"))?;
            match message.status {
                None | Some(StatusCode::OK) => {
                    let revision = state.apply(bucket, &message).ok_or_else(|| anyhow::anyhow!("a malformed entry"))?;
                    next = revision + 1;
                    read += 1;
                }
                Some(StatusCode::NO_RESPONDERS) => anyhow::bail!("the bucket does not answer"),
                // 204: end of the batch; 404: nothing from here on.
                Some(_) => break,
            }
        }
        if read < BATCH {
            return Ok(());
        }
    }
}
