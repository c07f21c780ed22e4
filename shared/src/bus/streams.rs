//! The streams as the controller keeps them. Names are listed, not matched: in NATS permissions
//! `*` stands for a whole token only.

use std::time::Duration;

use async_nats::jetstream::{
    context::GetStreamErrorKind,
    stream::{Config, DiscardPolicy, Republish, RetentionPolicy, StorageType},
};

use super::{
    administration::Administration,
    kv::Bucket,
    subject::{FILE_PARTS, events_of, told},
};
use crate::{fault::Fault, id::PARTITIONS};

/// The stream of audit events.
pub const AUDIT: &str = "AUDIT";
/// The durable consumer the audit pool reads by.
pub const AUDIT_WRITER: &str = "writer";

/// The stream of tenant events.
pub const EVENTS: &str = "EVENTS";
/// Tenant events of one organization that are kept.
pub const EVENTS_PER_ORGANIZATION: i64 = 2_000;

/// The stream of files' parts.
pub const FILES: &str = "FILES";

const MEBIBYTE: i64 = 1024 * 1024;

/// What a deployment may choose about its streams.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Most calls of one organization, waiting and running together.
    pub calls_per_organization: u16,
    /// What the files of all sessions may take together, in mebibytes.
    pub files_mebibytes: u32,
    /// Copies of what must survive the loss of a server: 1, or 3 where there are three servers.
    pub replicas: u8,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { calls_per_organization: 1_000, files_mebibytes: 4_096, replicas: 1 }
    }
}

/// `CALLS_<partition>`.
pub fn calls(partition: u16) -> String {
    format!("CALLS_{partition}")
}

/// Every stream, in a fixed order.
pub fn all(sizes: Sizes) -> Vec<Config> {
    calls_streams(sizes).chain(others(sizes)).collect()
}

/// Those of the queue's account.
fn calls_streams(sizes: Sizes) -> impl Iterator<Item = Config> {
    (0..PARTITIONS).map(move |partition| calls_stream(partition, sizes))
}

/// Those of JetStream's account.
fn others(sizes: Sizes) -> Vec<Config> {
    let mut streams = vec![audit_stream(sizes), events_stream(sizes), files_stream(sizes)];
    streams.extend(Bucket::ALL.map(|bucket| bucket_stream(bucket, sizes)));
    streams
}

fn calls_stream(partition: u16, sizes: Sizes) -> Config {
    Config {
        name: calls(partition),
        subjects: vec![format!("calls.{partition}.*.*")],
        retention: RetentionPolicy::WorkQueue,
        // A call lives as long as somebody waits for it; what must outlive NATS is a row first.
        storage: StorageType::Memory,
        num_replicas: 1,
        max_messages_per_subject: i64::from(sizes.calls_per_organization),
        discard: DiscardPolicy::New,
        discard_new_per_subject: true,
        allow_message_ttl: true,
        max_consumers: 1_000,
        max_bytes: 64 * MEBIBYTE,
        max_age: Duration::from_mins(10),
        duplicate_window: Duration::from_mins(2),
        ..Default::default()
    }
}

fn audit_stream(sizes: Sizes) -> Config {
    Config {
        name: AUDIT.to_owned(),
        subjects: vec!["audit.*".to_owned()],
        // Until its writer has it in the table (ADR 21): what is there already must not fill it.
        retention: RetentionPolicy::WorkQueue,
        storage: StorageType::File,
        num_replicas: usize::from(sizes.replicas),
        // Full means refused and told, never forgotten.
        discard: DiscardPolicy::New,
        max_bytes: 1_024 * MEBIBYTE,
        // The outbox's relay says again and again what cannot be kept: one copy for each time that it is tried.
        duplicate_window: Duration::from_hours(1),
        deny_delete: true,
        deny_purge: true,
        max_consumers: 16,
        ..Default::default()
    }
}

fn events_stream(sizes: Sizes) -> Config {
    Config {
        name: EVENTS.to_owned(),
        subjects: vec![events_of("*")],
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        num_replicas: usize::from(sizes.replicas),
        // News, not records: the oldest go first, those of the organization that says most before others'.
        discard: DiscardPolicy::Old,
        max_messages_per_subject: EVENTS_PER_ORGANIZATION,
        max_bytes: 256 * MEBIBYTE,
        max_age: Duration::from_hours(1),
        duplicate_window: Duration::from_mins(2),
        allow_rollup: false,
        deny_delete: true,
        deny_purge: true,
        allow_direct: false,
        // Gateways listen here: no consumer, as with buckets.
        republish: Some(Republish {
            source: events_of("*"),
            destination: told("{{wildcard(1)}}"),
            headers_only: false,
        }),
        max_consumers: 16,
        ..Default::default()
    }
}

fn files_stream(sizes: Sizes) -> Config {
    Config {
        name: FILES.to_owned(),
        subjects: vec![FILE_PARTS.to_owned()],
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        num_replicas: usize::from(sizes.replicas),
        // A part's tombstone takes its place.
        max_messages_per_subject: 1,
        // Full means refused and told: a file that is there stays.
        discard: DiscardPolicy::New,
        max_bytes: i64::from(sizes.files_mebibytes) * MEBIBYTE,
        allow_message_ttl: true,
        // As with buckets: parts go one by one, each by whoever may write it.
        allow_rollup: false,
        deny_delete: true,
        deny_purge: true,
        allow_direct: false,
        max_consumers: 16,
        ..Default::default()
    }
}

fn bucket_stream(bucket: Bucket, sizes: Sizes) -> Config {
    Config {
        name: bucket.stream(),
        subjects: vec![format!("{}>", bucket.subject_prefix())],
        retention: RetentionPolicy::Limits,
        storage: if bucket.outlives_nats() { StorageType::File } else { StorageType::Memory },
        num_replicas: if bucket.outlives_nats() { usize::from(sizes.replicas) } else { 1 },
        max_messages_per_subject: 1,
        discard: DiscardPolicy::New,
        // A roll-up empties the whole bucket, whoever's keys: one heartbeat could wipe all others.
        allow_rollup: false,
        deny_delete: true,
        // A direct read answers stored bytes wherever the asker says (see `kv`).
        allow_direct: false,
        allow_message_ttl: true,
        max_bytes: 64 * MEBIBYTE,
        // Watchers listen here: no consumer, so that no role needs the right to create one.
        republish: Some(Republish {
            source: format!("{}>", bucket.subject_prefix()),
            destination: format!("{}>", bucket.watch_prefix()),
            headers_only: false,
        }),
        max_consumers: 16,
        ..Default::default()
    }
}

impl Administration {
    /// Creates what is missing and updates what differs. Idempotent.
    pub async fn ensure_streams(&self, sizes: Sizes) -> Result<(), Fault> {
        let calls = calls_streams(sizes).map(|config| (&self.queue, config));
        let others = others(sizes).into_iter().map(|config| (&self.jetstream, config));
        for (account, mut config) in calls.chain(others) {
            let name = config.name.clone();
            if name == AUDIT {
                config.retention = self.retention_of_audit(config.retention).await?;
            }
            account
                .create_or_update_stream(config)
                .await
                .map_err(|cause| Fault::unavailable("The queue", format!("stream {name}: {cause}")))?;
        }
        self.ensure_audit_writer().await
    }

    /// nats-server turns no stream into a work queue: one that was made before ADR 21 stays as it is, and goes on, until
    /// an operator replaces it.
    async fn retention_of_audit(&self, wanted: RetentionPolicy) -> Result<RetentionPolicy, Fault> {
        match self.jetstream.get_stream(AUDIT).await {
            Ok(stream) if stream.cached_info().config.retention != wanted => {
                tracing::warn!(
                    "the audit stream keeps what is written, until it is full: ADR 21 says how to replace it"
                );
                Ok(stream.cached_info().config.retention)
            }
            Ok(_) => Ok(wanted),
            Err(cause) if matches!(cause.kind(), GetStreamErrorKind::JetStream(ref error) if error.code() == 404) => {
                Ok(wanted)
            }
            Err(cause) => Err(Fault::unavailable("The queue", cause)),
        }
    }

    async fn ensure_audit_writer(&self) -> Result<(), Fault> {
        use async_nats::jetstream::consumer::{AckPolicy, pull};
        let config = pull::Config {
            durable_name: Some(AUDIT_WRITER.to_owned()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: Duration::from_secs(30),
            max_deliver: -1,
            // Those that cannot be kept are pending for as long as that is so, and stop no others.
            max_ack_pending: -1,
            ..Default::default()
        };
        self.jetstream
            .create_consumer_on_stream(config, AUDIT)
            .await
            .map(drop)
            .map_err(|cause| Fault::unavailable("The queue", cause))
    }
}
