//! Shared state in key-value buckets (NATS ADR-8 layout). Readers keep a copy in memory: one
//! snapshot read one by one, then every change as the server republishes it. No consumer is
//! created, so that watching needs no right to create one.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::{Duration, Instant},
};

use async_nats::{
    Client, HeaderMap, Message,
    jetstream::context::{PublishError, PublishErrorKind},
};
use base64::{Engine as _, prelude::BASE64_STANDARD as STANDARD};
use bytes::Bytes;
use futures::StreamExt;
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::watch;

use super::{Bus, administration::Administration, state::Generation, subject};
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
    /// Organization and session -> that it is over.
    Sessions,
    /// Organization -> generation of its prompts.
    Prompts,
    /// Role and process -> heartbeat.
    Instances,
}

impl Bucket {
    /// Every bucket.
    pub const ALL: [Self; 6] =
        [Self::Limits, Self::Access, Self::Configs, Self::Sessions, Self::Prompts, Self::Instances];

    /// The bucket's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Limits => "LIMITS",
            Self::Access => "ACCESS",
            Self::Configs => "CONFIGS",
            Self::Sessions => "SESSIONS",
            Self::Prompts => "PROMPTS",
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

    /// How long a copy remembers an entry. The server lets go of one without a word when its time is over:
    /// where keys are not used again, copies must not keep them for ever.
    const fn remembered_for(self) -> Option<Duration> {
        match self {
            // Twice as long as the server keeps one.
            Self::Sessions => Some(Duration::from_hours(2)),
            Self::Limits | Self::Access | Self::Configs | Self::Prompts | Self::Instances => None,
        }
    }

    /// Heartbeats do not; what was decided does.
    pub const fn outlives_nats(self) -> bool {
        !matches!(self, Self::Instances)
    }
}

impl Bus {
    /// Writes an entry. `ttl` (whole seconds) lets it expire.
    pub async fn put<T: Serialize + Sync>(
        &self,
        bucket: Bucket,
        key: &str,
        value: &T,
        ttl: Option<Duration>,
    ) -> Result<(), Fault> {
        let mut headers = HeaderMap::new();
        if let Some(ttl) = ttl {
            headers.insert("Nats-TTL", ttl.as_secs().max(1).to_string().as_str());
        }
        self.write(bucket, key, value, headers).await.map_err(|cause| Fault::unavailable("The shared state", cause))
    }

    /// Writes an entry unless the bucket holds news as new or newer: two writers cannot put the
    /// older word last. Compare-and-set against what `known` has seen.
    pub async fn put_newer<T>(&self, known: &Watch<T>, bucket: Bucket, key: &str, value: &T) -> Result<(), Fault>
    where
        T: Serialize + Generation + Clone + Sync,
    {
        let mut changes = known.changes();
        for _ in 0..PUT_ATTEMPTS {
            let entry = known.entry(key);
            if entry
                .as_ref()
                .is_some_and(|(_, held)| held.as_ref().is_some_and(|held| held.generation() >= value.generation()))
            {
                return Ok(());
            }
            let revision = entry.map_or(0, |(revision, _)| revision);
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Expected-Last-Subject-Sequence", revision.to_string().as_str());
            if let Some(kept_for) = value.kept_for() {
                headers.insert("Nats-TTL", kept_for.as_secs().max(1).to_string().as_str());
            }
            match self.write(bucket, key, value, headers).await {
                Ok(()) => return Ok(()),
                Err(cause) if cause.kind() == PublishErrorKind::WrongLastSequence => {
                    // Somebody else wrote: their word is on its way here, among others' news.
                    let is_theirs = |_: &u64| known.entry(key).map_or(0, |(seen, _)| seen) != revision;
                    let _ = tokio::time::timeout(COMPARE_EVERY, changes.wait_for(is_theirs)).await;
                }
                Err(cause) => return Err(Fault::unavailable("The shared state", cause)),
            }
        }
        Err(Fault::unavailable("The shared state", "others write the same entry"))
    }

    async fn write<T: Serialize + Sync>(
        &self,
        bucket: Bucket,
        key: &str,
        value: &T,
        headers: HeaderMap,
    ) -> Result<(), PublishError> {
        if !self.is_connected() {
            return Err(PublishErrorKind::BrokenPipe.into());
        }
        let payload =
            serde_json::to_vec(value).map_err(|cause| PublishError::with_source(PublishErrorKind::Other, cause))?;
        let subject = format!("{}{key}", bucket.subject_prefix());
        self.0.jetstream.publish_with_headers(subject, headers, payload.into()).await?.await.map(drop)
    }

    /// Starts a copy of a bucket and keeps it. Returns at once; [`Watch::ready`] awaits the
    /// first complete copy.
    pub fn watch<T: DeserializeOwned + Clone + Send + Sync + 'static>(&self, bucket: Bucket) -> Watch<T> {
        let copy = Watch { losses: Some(self.losses()), ..Watch::empty() };
        tokio::spawn(keep(self.clone(), bucket, Arc::clone(&copy.state)));
        copy
    }
}

impl Administration {
    /// What a bucket holds now.
    pub async fn entries<T: DeserializeOwned + Clone>(&self, bucket: Bucket) -> Result<Vec<(String, T)>, Fault> {
        let copy = Watch::empty();
        read_from(&self.client, "$JS.API", bucket, 1, &copy.state)
            .await
            .map_err(|cause| Fault::unavailable("The shared state", cause))?;
        Ok(copy.entries())
    }
}

/// A copy of a bucket that follows it.
#[derive(Debug)]
pub struct Watch<T> {
    state: Arc<State<T>>,
    /// Counts connections lost: what was complete before may have missed news since.
    losses: Option<watch::Receiver<u64>>,
}

impl<T> Clone for Watch<T> {
    fn clone(&self) -> Self {
        Self { state: Arc::clone(&self.state), losses: self.losses.clone() }
    }
}

#[derive(Debug)]
struct State<T> {
    entries: RwLock<HashMap<String, Entry<T>>>,
    complete: RwLock<Option<Complete>>,
    seen: Mutex<Seen>,
    changes: watch::Sender<u64>,
}

/// When the copy was known to hold everything.
#[derive(Clone, Copy, Debug)]
struct Complete {
    at: Instant,
    /// Connections lost until then.
    losses: u64,
}

/// How far the copy goes.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// When the bucket was made: a bucket that was lost and made anew counts from one again.
    created: String,
    /// Every revision up to here was applied.
    revision: u64,
}

#[derive(Clone, Debug)]
struct Entry<T> {
    revision: u64,
    heard_at: Instant,
    /// Absent once deleted; the revision still guards against older news.
    value: Option<T>,
}

impl<T> Watch<T> {
    /// A copy of nothing, for a role that may not look.
    pub fn empty() -> Self {
        let (changes, _) = watch::channel(0);
        let state = State { entries: RwLock::default(), complete: RwLock::new(None), seen: Mutex::default(), changes };
        Self { state: Arc::new(state), losses: None }
    }
}

impl<T: Clone> Watch<T> {
    /// The entry's value.
    pub fn get(&self, key: &str) -> Option<T> {
        self.state.read().get(key).and_then(|entry| entry.value.clone())
    }

    /// Looks at the entry's value where it lies.
    pub fn look<R>(&self, key: &str, look: impl FnOnce(&T) -> R) -> Option<R> {
        self.state.read().get(key).and_then(|entry| entry.value.as_ref()).map(look)
    }

    /// The entry's revision and, unless it was deleted, its value.
    fn entry(&self, key: &str) -> Option<(u64, Option<T>)> {
        self.state.read().get(key).map(|entry| (entry.revision, entry.value.clone()))
    }

    /// Entries that changed after a revision.
    pub fn since(&self, revision: u64) -> Vec<(String, T)> {
        let entries = self.state.read();
        let newer = entries.iter().filter(|(_, entry)| entry.revision > revision);
        newer.filter_map(|(key, entry)| Some((key.clone(), entry.value.clone()?))).collect()
    }

    /// All entries.
    pub fn entries(&self) -> Vec<(String, T)> {
        let entries = self.state.read();
        entries.iter().filter_map(|(key, entry)| Some((key.clone(), entry.value.clone()?))).collect()
    }

    /// How long ago the copy was known to be complete; `None` before the first time.
    pub fn age(&self) -> Option<Duration> {
        self.state.complete().map(|complete| complete.at.elapsed())
    }

    /// True when the copy was complete lately and the connection has held since.
    pub fn is_fresh(&self, within: Duration) -> bool {
        let has_held =
            |complete: &Complete| self.losses.as_ref().is_none_or(|losses| *losses.borrow() == complete.losses);
        self.state.complete().is_some_and(|complete| complete.at.elapsed() <= within && has_held(&complete))
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

    fn lock_seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more in an unbroken row; a gap is filled by the next comparison.
    fn advance(&self, revision: u64) {
        let mut seen = self.lock_seen();
        if revision == seen.revision + 1 {
            seen.revision = revision;
        }
    }

    /// The revision up to which the copy of this bucket is complete; zero for another bucket than
    /// the one known, of which nothing holds any more.
    fn start_from(&self, created: &str) -> u64 {
        let mut seen = self.lock_seen();
        if seen.created != created {
            let is_first = seen.created.is_empty();
            *seen = Seen { created: created.to_owned(), revision: 0 };
            if !is_first {
                self.write().clear();
                self.changes.send_modify(|latest| *latest = 0);
            }
        }
        seen.revision
    }

    fn complete(&self) -> Option<Complete> {
        *self.complete.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, bucket: Bucket) {
        if let Some(age) = bucket.remembered_for() {
            self.write().retain(|_, entry| entry.heard_at.elapsed() < age);
        }
    }

    fn mark_complete(&self, losses: u64) {
        *self.complete.write().unwrap_or_else(PoisonError::into_inner) = Some(Complete { at: Instant::now(), losses });
        self.changes.send_modify(|_| {});
    }
}

impl<T: DeserializeOwned> State<T> {
    /// Takes in a republished change; answers its revision.
    fn hear(&self, bucket: Bucket, message: &Message) -> Option<u64> {
        let headers = message.headers.as_ref()?;
        // The last of a name is the server's: what was stored may bring headers of these names along,
        // and an answer may be led here from another stream.
        let header = |name: &str| headers.get_last(name).map(async_nats::HeaderValue::as_str);
        if header("Nats-Stream")? != bucket.stream() {
            return None;
        }
        let revision = header("Nats-Sequence")?.parse().ok()?;
        let deleted = header("KV-Operation").is_some() || header("Nats-Marker-Reason").is_some();
        self.apply(bucket, header("Nats-Subject")?, revision, (!deleted).then_some(&message.payload))?;
        Some(revision)
    }

    /// Applies an entry unless newer news is known. What cannot be read leaves the value as it was.
    fn apply(&self, bucket: Bucket, subject: &str, revision: u64, payload: Option<&[u8]>) -> Option<()> {
        let key = subject.strip_prefix(&bucket.subject_prefix())?.to_owned();
        let read = payload.map(|payload| read_value(bucket, &key, payload));
        {
            let mut entries = self.write();
            let known =
                entries.entry(key).or_insert_with(|| Entry { revision: 0, heard_at: Instant::now(), value: None });
            if known.revision >= revision {
                return Some(());
            }
            known.revision = revision;
            known.heard_at = Instant::now();
            match read {
                Some(Some(value)) => known.value = Some(value),
                Some(None) => {}
                None => known.value = None,
            }
        }
        self.changes.send_modify(|latest| *latest = revision.max(*latest));
        Some(())
    }
}

fn read_value<T: DeserializeOwned>(bucket: Bucket, key: &str, bytes: &[u8]) -> Option<T> {
    serde_json::from_slice(bytes)
        .inspect_err(|cause| tracing::error!(bucket = bucket.name(), key, %cause, "unreadable entry"))
        .ok()
}

/// How often a write is tried against others.
const PUT_ATTEMPTS: usize = 5;
/// How often a copy lets go of what it need not remember.
const FORGET_EVERY: Duration = Duration::from_mins(1);
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
    let mut news = bus.0.client.subscribe(format!("{}>", bucket.watch_prefix())).await?;
    let mut compare = tokio::time::interval(COMPARE_EVERY);
    let mut forget = tokio::time::interval(FORGET_EVERY);
    let mut connections = bus.connections();
    loop {
        tokio::select! {
            message = news.next() => {
                let Some(message) = message else { anyhow::bail!("the subscription ended") };
                if let Some(revision) = state.hear(bucket, &message) {
                    state.advance(revision);
                }
            }
            _ = compare.tick() => catch_up(bus, bucket, state).await?,
            _ = forget.tick() => state.forget(bucket),
            // What was said while the connection was gone was not heard.
            Ok(()) = connections.changed() => catch_up(bus, bucket, state).await?,
        }
    }
}

/// Compares the copy with the bucket and reads what is missing.
async fn catch_up<T: DeserializeOwned>(bus: &Bus, bucket: Bucket, state: &State<T>) -> anyhow::Result<()> {
    // As of before the question: a connection lost meanwhile leaves the answer in doubt.
    let losses = *bus.losses().borrow();
    let last = last_revision(bus, bucket).await?;
    let seen = state.start_from(&last.created);
    if last.revision > seen {
        read_from(&bus.0.client, subject::API_PREFIX, bucket, seen + 1, state).await?;
        state.lock_seen().revision = last.revision;
    }
    state.mark_complete(losses);
    Ok(())
}

async fn last_revision(bus: &Bus, bucket: Bucket) -> anyhow::Result<Seen> {
    #[derive(serde::Deserialize)]
    struct Info {
        created: Option<String>,
        state: Option<Sequences>,
    }
    #[derive(serde::Deserialize)]
    struct Sequences {
        last_seq: u64,
    }
    let answer = bus.0.client.request(subject::api(&format!("STREAM.INFO.{}", bucket.stream())), Bytes::new()).await?;
    match serde_json::from_slice(&answer.payload)? {
        Info { created: Some(created), state: Some(state) } => Ok(Seen { created, revision: state.last_seq }),
        _ => anyhow::bail!("the bucket does not exist yet"),
    }
}

/// Reads every entry from a revision on, one by one. Not by direct reads, which would be quicker: the
/// server sends a direct read's answer, stored bytes as they are, wherever the asker says, and NATS
/// does not hold that subject against the asker's permissions. This answer is JSON of the server's own.
async fn read_from<T: DeserializeOwned>(
    client: &Client,
    api: &str,
    bucket: Bucket,
    from: u64,
    state: &State<T>,
) -> anyhow::Result<()> {
    #[derive(serde::Deserialize)]
    struct Answer {
        message: Option<Stored>,
        error: Option<Refused>,
    }
    #[derive(serde::Deserialize)]
    struct Stored {
        subject: String,
        seq: u64,
        #[serde(default)]
        hdrs: String,
        #[serde(default)]
        data: String,
    }
    #[derive(serde::Deserialize)]
    struct Refused {
        code: u16,
    }
    const NOTHING_MORE: u16 = 404;

    let mut next = from;
    loop {
        let question = serde_json::json!({ "seq": next, "next_by_subj": format!("{}>", bucket.subject_prefix()) });
        let subject = format!("{api}.STREAM.MSG.GET.{}", bucket.stream());
        let answer = client.request(subject, serde_json::to_vec(&question)?.into()).await?;
        let stored = match serde_json::from_slice(&answer.payload)? {
            Answer { message: Some(stored), .. } => stored,
            Answer { error: Some(Refused { code: NOTHING_MORE }), .. } => return Ok(()),
            Answer { .. } => anyhow::bail!("the bucket does not answer"),
        };
        let (headers, data) = (STANDARD.decode(stored.hdrs)?, STANDARD.decode(stored.data)?);
        let headers = String::from_utf8_lossy(&headers).into_owned();
        let deleted = headers.contains("\r\nKV-Operation:") || headers.contains("\r\nNats-Marker-Reason:");
        state
            .apply(bucket, &stored.subject, stored.seq, (!deleted).then_some(&data))
            .ok_or_else(|| anyhow::anyhow!("a malformed entry"))?;
        next = stored.seq + 1;
    }
}
