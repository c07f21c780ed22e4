//! Lanes: one durable push consumer per active organization. All lanes of a pool share a deliver
//! subject and group, so a worker needs one subscription and the server alone enforces each
//! organization's concurrency on every worker of every machine.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_nats::jetstream::{
    consumer::{self, AckPolicy, DeliverPolicy, push},
    context::ConsumerInfoErrorKind,
    stream::{self, RawMessageErrorKind},
};
use futures::TryStreamExt;
use moka::future::Cache;

use super::{administration::Administration, caller::Caller, state::Limits, streams, subject};
use crate::{
    command::{Pool, lanes},
    context::{Context, now_unix_ms},
    fault::{Code, Fault},
    id::OrganizationId,
};

/// How long a gateway believes that a lane is open. The controller removes idle lanes only after
/// twice this.
pub const LANE_CACHE: Duration = Duration::from_mins(5);
/// How long a worker may be silent about a call before another gets it.
pub const ACK_WAIT: Duration = Duration::from_secs(10);

/// The lanes a caller knows to be open.
#[derive(Clone, Debug)]
pub(super) struct OpenLanes {
    /// Asked for lately; many callers at once ask once.
    fresh: Cache<OrganizationId, ()>,
    /// When each was last known to be open.
    believed: Arc<Mutex<HashMap<OrganizationId, Instant>>>,
}

impl Default for OpenLanes {
    fn default() -> Self {
        Self {
            fresh: Cache::builder().max_capacity(100_000).time_to_live(LANE_CACHE).build(),
            believed: Arc::default(),
        }
    }
}

impl OpenLanes {
    /// True when the lane was asked for lately.
    pub(super) fn is_open(&self, organization: OrganizationId) -> bool {
        self.fresh.contains_key(&organization)
    }

    /// Asks the controller to open the lane. Without a controller a lane is believed open for twice
    /// as long: nobody else removes one.
    pub(super) async fn open(&self, caller: &Caller, context: &Context) -> Result<(), Fault> {
        let organization = context.organization;
        let asked = self.fresh.try_get_with(organization, async {
            match caller.call(context, &lanes::Open {}).await {
                Ok(_) => {
                    self.lock().insert(organization, Instant::now());
                    Ok(())
                }
                Err(fault) if fault.code == Code::Unavailable && self.is_believed(organization) => Ok(()),
                Err(fault) => Err(fault),
            }
        });
        asked.await.map_err(|fault| Fault::clone(&fault))
    }

    /// The next call asks again.
    pub(super) async fn forget(&self, organization: OrganizationId) {
        self.lock().remove(&organization);
        self.fresh.invalidate(&organization).await;
    }

    /// Every next call asks again: NATS may have been restarted and have lost its memory.
    pub(super) fn forget_all(&self) {
        self.lock().clear();
        self.fresh.invalidate_all();
    }

    fn is_believed(&self, organization: OrganizationId) -> bool {
        let mut believed = self.lock();
        // Organizations that stopped calling do not stay for ever.
        believed.retain(|_, since| since.elapsed() < 2 * LANE_CACHE);
        believed.contains_key(&organization)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<OrganizationId, Instant>> {
        self.believed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The name of an organization's lane.
pub fn lane_name(organization: OrganizationId) -> String {
    format!("t_{}", organization.0.simple())
}

/// When a lane was last asked for, in milliseconds since the Unix epoch. Gateways ask again every
/// [`LANE_CACHE`], so a lane whose mark is twice as old is in nobody's cache.
const OPENED_AT: &str = "opened_at_ms";

/// Far enough for "until somebody resumes it".
const PAUSE: Duration = Duration::from_hours(10 * 365 * 24);
/// A pause must run out by itself, or the server does not look at the messages that wait
/// (measured on 2.15.1: after a plain resume they wait for the next publish). Longer than the two
/// hosts' clocks may differ.
const RESUME: Duration = Duration::from_millis(300);

fn lane_config(organization: OrganizationId, limits: &Limits, opened_at_ms: u64) -> push::Config {
    push::Config {
        // Counts when the lane is made; `pause_lane` says why not later.
        pause_until: limits.paused.then(|| async_nats::datetime::now() + PAUSE),
        metadata: HashMap::from([(OPENED_AT.to_owned(), opened_at_ms.to_string())]),
        durable_name: Some(lane_name(organization)),
        deliver_subject: subject::work(Pool::Tool),
        deliver_group: Some(subject::WORK_GROUP.to_owned()),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        // A worker answers the third delivery itself; the server must not swallow it.
        max_deliver: -1,
        filter_subject: subject::queued(Pool::Tool, organization),
        // Zero would mean the server's default of 1,000.
        max_ack_pending: i64::from(limits.concurrency_limit.max(1)),
        memory_storage: true,
        num_replicas: 1,
        ..Default::default()
    }
}

/// A lane as the server keeps it.
#[derive(Clone, Debug)]
pub struct LaneState {
    /// Whose.
    pub organization: OrganizationId,
    /// What it obeys.
    pub limits: Limits,
    /// Calls waiting.
    pub waiting: u64,
    /// Calls given to workers.
    pub running: u64,
    /// When it was last asked for, in milliseconds since the Unix epoch.
    pub opened_at_ms: u64,
}

impl LaneState {
    /// `None` for a consumer that is no lane.
    fn read(info: &consumer::Info) -> Option<Self> {
        let organization = uuid::Uuid::try_parse(info.name.strip_prefix("t_")?).ok()?;
        Some(Self {
            organization: OrganizationId(organization),
            limits: Limits {
                paused: info.paused,
                ..Limits::concurrent(u16::try_from(info.config.max_ack_pending).unwrap_or(u16::MAX))
            },
            waiting: info.num_pending,
            running: u64::try_from(info.num_ack_pending).unwrap_or_default(),
            opened_at_ms: info.config.metadata.get(OPENED_AT).and_then(|at| at.parse().ok()).unwrap_or_default(),
        })
    }

    /// True when the lane obeys these limits.
    pub fn obeys(&self, limits: &Limits) -> bool {
        self.limits.concurrency_limit == limits.concurrency_limit && self.limits.paused == limits.paused
    }

    /// True when nothing is in it.
    pub const fn is_empty(&self) -> bool {
        self.waiting == 0 && self.running == 0
    }

    /// True when nothing is in it and no gateway can believe that it is open.
    pub fn is_abandoned(&self) -> bool {
        let forgotten_after_ms = 2 * u64::try_from(LANE_CACHE.as_millis()).unwrap_or(u64::MAX);
        self.is_empty() && now_unix_ms().saturating_sub(self.opened_at_ms) > forgotten_after_ms
    }
}

impl Administration {
    /// Opens a lane, or says that it is still wanted; running calls are not cut.
    pub async fn open_lane(&self, organization: OrganizationId, limits: &Limits) -> Result<(), Fault> {
        self.keep_lane(organization, limits, now_unix_ms()).await
    }

    /// Makes an open lane obey other limits without making it look used.
    pub async fn limit_lane(&self, lane: &LaneState, limits: &Limits) -> Result<(), Fault> {
        if lane.limits.concurrency_limit != limits.concurrency_limit {
            self.keep_lane(lane.organization, limits, lane.opened_at_ms).await?;
        }
        match (lane.limits.paused, limits.paused) {
            (false, true) => self.pause_lane(lane.organization, PAUSE).await,
            (true, false) => self.pause_lane(lane.organization, RESUME).await,
            _ => Ok(()),
        }
    }

    async fn keep_lane(&self, organization: OrganizationId, limits: &Limits, opened_at_ms: u64) -> Result<(), Fault> {
        let config = lane_config(organization, limits, opened_at_ms);
        self.queue
            .create_consumer_on_stream(config, streams::calls(organization.partition()))
            .await
            .map(drop)
            .map_err(|cause| Fault::unavailable("The queue", cause))
    }

    /// An update of the configuration keeps the pause as it is; only this changes it.
    async fn pause_lane(&self, organization: OrganizationId, pause: Duration) -> Result<(), Fault> {
        let unavailable = |cause: &dyn std::fmt::Display| Fault::unavailable("The queue", cause);
        let stream = streams::calls(organization.partition());
        let stream = self.queue.get_stream_no_info(stream).await.map_err(|cause| unavailable(&cause))?;
        let until = async_nats::datetime::now() + pause;
        stream.pause_consumer(&lane_name(organization), until).await.map(drop).map_err(|cause| unavailable(&cause))
    }

    /// Removes a lane if it `may` go; answers whether it did. It stands still while it is looked at
    /// once more: a call that is published meanwhile waits in the stream, where the sweep finds it, and
    /// is never given out twice. One that stays goes on, unless its `limits` have it stand still.
    pub async fn close_lane_if(
        &self,
        organization: OrganizationId,
        limits: &Limits,
        may: impl Fn(&LaneState) -> bool + Send,
    ) -> Result<bool, Fault> {
        self.pause_lane(organization, PAUSE).await?;
        let closed = match self.lane(organization).await? {
            Some(lane) if may(&lane) => self.remove_lane(organization).await.map(|()| true),
            _ => Ok(false),
        };
        if !matches!(closed, Ok(true)) && !limits.paused {
            self.pause_lane(organization, RESUME).await?;
        }
        closed
    }

    /// One lane as it is now.
    pub async fn lane(&self, organization: OrganizationId) -> Result<Option<LaneState>, Fault> {
        let unavailable = |cause: &dyn std::fmt::Display| Fault::unavailable("The queue", cause);
        let stream = streams::calls(organization.partition());
        let stream = self.queue.get_stream_no_info(stream).await.map_err(|cause| unavailable(&cause))?;
        match stream.consumer_info(lane_name(organization)).await {
            Ok(info) => Ok(LaneState::read(&info)),
            Err(cause) if cause.kind() == ConsumerInfoErrorKind::NotFound => Ok(None),
            Err(cause) => Err(unavailable(&cause)),
        }
    }

    async fn remove_lane(&self, organization: OrganizationId) -> Result<(), Fault> {
        self.queue
            .delete_consumer_from_stream(lane_name(organization), streams::calls(organization.partition()))
            .await
            .map(drop)
            .map_err(|cause| Fault::unavailable("The queue", cause))
    }

    /// Every lane of one partition.
    pub async fn lanes(&self, partition: u16) -> Result<Vec<LaneState>, Fault> {
        let unavailable = |cause: &dyn std::fmt::Display| Fault::unavailable("The queue", cause);
        let stream: stream::Stream =
            self.queue.get_stream(streams::calls(partition)).await.map_err(|cause| unavailable(&cause))?;
        let mut consumers = stream.consumers();
        let mut lanes = Vec::new();
        while let Some(info) = consumers.try_next().await.map_err(|cause| unavailable(&cause))? {
            lanes.extend(LaneState::read(&info));
        }
        Ok(lanes)
    }

    /// When the oldest call of an organization that is waiting or running came in, in milliseconds
    /// since the Unix epoch.
    pub async fn oldest_call(&self, organization: OrganizationId) -> Result<Option<u64>, Fault> {
        let unavailable = |cause: &dyn std::fmt::Display| Fault::unavailable("The queue", cause);
        let stream = streams::calls(organization.partition());
        let stream = self.queue.get_stream_no_info(stream).await.map_err(|cause| unavailable(&cause))?;
        // A work queue forgets what was acknowledged: the first one left is the oldest.
        match stream.get_first_raw_message_by_subject(subject::queued(Pool::Tool, organization), 1).await {
            Ok(message) => Ok(u64::try_from(message.time.unix_timestamp_nanos() / 1_000_000).ok()),
            Err(cause) if cause.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(cause) => Err(unavailable(&cause)),
        }
    }

    /// Organizations with calls in one partition, laned or not.
    pub async fn organizations_with_calls(&self, partition: u16) -> Result<Vec<OrganizationId>, Fault> {
        let unavailable = |cause: &dyn std::fmt::Display| Fault::unavailable("The queue", cause);
        let stream = self.queue.get_stream(streams::calls(partition)).await.map_err(|cause| unavailable(&cause))?;
        let mut subjects = stream.info_with_subjects(">").await.map_err(|cause| unavailable(&cause))?;
        let mut organizations = Vec::new();
        while let Some((subject, _count)) = subjects.try_next().await.map_err(|cause| unavailable(&cause))? {
            if let Ok(address) = subject.parse::<subject::Address>() {
                organizations.push(address.organization);
            }
        }
        Ok(organizations)
    }
}
