//! Shared state in key-value buckets (NATS ADR-8 layout). Readers keep a copy in memory: one
//! snapshot read one by one, then every change as the server republishes it. No consumer is
//! created, so that watching needs no right to create one.

use std::{sync::Arc, time::Duration};

use async_nats::{
    HeaderMap,
    jetstream::context::{PublishError, PublishErrorKind},
};
use serde::{Serialize, de::DeserializeOwned};

use super::{Bus, administration::Administration, state::Generation};
use crate::fault::Fault;

mod copy;
mod following;

pub use self::copy::Watch;
use self::following::{keep, read};

/// How often a write is tried against others.
const PUT_ATTEMPTS: usize = 5;
/// How often a copy lets go of what it need not remember.
const FORGET_EVERY: Duration = Duration::from_mins(1);
/// How often a copy is compared with the bucket.
const COMPARE_EVERY: Duration = Duration::from_secs(2);
/// The pause before something that failed is tried again.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

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
        if self.ensure_connected().is_err() {
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
        read(&self.client, "$JS.API", bucket, 1..=u64::MAX, &copy.state)
            .await
            .map_err(|cause| Fault::unavailable("The shared state", cause))?;
        Ok(copy.entries())
    }
}
