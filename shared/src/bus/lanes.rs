//! Lanes: one durable push consumer per active organization. All lanes of a pool share a deliver
//! subject and group, so a worker needs one subscription and the server alone enforces each
//! organization's concurrency on every worker of every machine.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_nats::jetstream::{consumer::{AckPolicy, DeliverPolicy, push}, stream};
use futures::TryStreamExt;

use super::{Bus, caller::Caller, streams, subject};
use crate::{
    command::{Pool, lanes},
    context::{Context, now_unix_ms},
    fault::{Code, Fault},
    id::OrganizationId,
};

/// How long a gateway believes that a lane is open. The controller removes idle lanes only after
/// twice this.
pub const LANE_CACHE: Duration = Duration::from_secs(300);
/// How long a worker may be silent about a call before another gets it.
pub const ACK_WAIT: Duration = Duration::from_secs(10);

/// The lanes a caller knows to be open.
#[derive(Clone, Debug, Default)]
pub(super) struct OpenLanes {
    opened: Arc<Mutex<HashMap<OrganizationId, Instant>>>,
}

impl OpenLanes {
    /// Asks the controller to open the lane unless it was open lately. Without a controller a lane
    /// is believed open for twice as long: nobody else removes one.
    pub(super) async fn ensure(&self, caller: &Caller, context: &Context) -> Result<(), Fault> {
        let age = self.age(context.organization);
        if age.is_some_and(|age| age < LANE_CACHE) {
            return Ok(());
        }
        match caller.call(context, &lanes::Open {}).await {
            Ok(_) => {
                self.lock().insert(context.organization, Instant::now());
                Ok(())
            }
            Err(fault) if fault.code == Code::Unavailable && age.is_some_and(|age| age < 2 * LANE_CACHE) => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    /// The next call asks again.
    pub(super) fn forget(&self, organization: OrganizationId) {
        self.lock().remove(&organization);
    }

    /// Every next call asks again: NATS may have been restarted and have lost its memory.
    pub(super) fn forget_all(&self) {
        self.lock().clear();
    }

    fn age(&self, organization: OrganizationId) -> Option<Duration> {
        self.lock().get(&organization).map(Instant::elapsed)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<OrganizationId, Instant>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The name of an organization's lane.
pub fn lane_name(organization: OrganizationId) -> String {
    format!("t_{}", organization.0.simple())
}

/// When a lane was last asked for, in milliseconds since the Unix epoch. Gateways ask again every
/// [`LANE_CACHE`], so a lane whose mark is twice as old is in nobody's cache.
const OPENED_AT: &str = "opened_at_ms";

fn lane_config(organization: OrganizationId, concurrency_limit: u16, opened_at_ms: u64) -> push::Config {
    push::Config {
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
        max_ack_pending: i64::from(concurrency_limit.max(1)),
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
    /// Its concurrency.
    pub concurrency_limit: u16,
    /// Calls waiting.
    pub waiting: u64,
    /// Calls given to workers.
    pub running: u64,
    /// When it was last asked for, in milliseconds since the Unix epoch.
    pub opened_at_ms: u64,
}

impl LaneState {
    /// True when nothing is in it and no gateway can believe that it is open.
    pub fn is_abandoned(&self) -> bool {
        let forgotten_after_ms = 2 * u64::try_from(LANE_CACHE.as_millis()).unwrap_or(u64::MAX);
        self.waiting == 0 && self.running == 0 && now_unix_ms().saturating_sub(self.opened_at_ms) > forgotten_after_ms
    }
}

impl Bus {
    /// Opens a lane or changes its limit; running calls are not cut. Controller only.
    pub async fn open_lane(&self, organization: OrganizationId, concurrency_limit: u16) -> Result<(), Fault> {
        self.keep_lane(organization, concurrency_limit, now_unix_ms()).await
    }

    /// Changes an open lane's limit without making it look used. Controller only.
    pub async fn limit_lane(&self, lane: &LaneState, concurrency_limit: u16) -> Result<(), Fault> {
        self.keep_lane(lane.organization, concurrency_limit, lane.opened_at_ms).await
    }

    async fn keep_lane(&self, organization: OrganizationId, concurrency_limit: u16, opened_at_ms: u64) -> Result<(), Fault> {
        let config = lane_config(organization, concurrency_limit, opened_at_ms);
        self.jetstream
            .create_consumer_on_stream(config, streams::calls(organization.partition()))
            .await
            .map(drop)
            .map_err(|cause| Fault::unavailable("The queue", cause))
    }

    /// Removes a lane. Controller only.
    pub async fn close_lane(&self, organization: OrganizationId) -> Result<(), Fault> {
        self.jetstream
            .delete_consumer_from_stream(lane_name(organization), streams::calls(organization.partition()))
            .await
            .map(drop)
            .map_err(|cause| Fault::unavailable("The queue", cause))
    }

    /// Every lane of one partition. Controller only.
    pub async fn lanes(&self, partition: u16) -> Result<Vec<LaneState>, Fault> {
        let unavailable = |cause: &dyn std::fmt::Display| Fault::unavailable("The queue", cause);
        let stream: stream::Stream =
            self.jetstream.get_stream(streams::calls(partition)).await.map_err(|cause| unavailable(&cause))?;
        let mut consumers = stream.consumers();
        let mut lanes = Vec::new();
        while let Some(info) = consumers.try_next().await.map_err(|cause| unavailable(&cause))? {
            let organization = info.name.strip_prefix("t_").and_then(|id| uuid::Uuid::try_parse(id).ok());
            let Some(organization) = organization else { continue };
            lanes.push(LaneState {
                organization: OrganizationId(organization),
                concurrency_limit: u16::try_from(info.config.max_ack_pending).unwrap_or(u16::MAX),
                waiting: info.num_pending,
                running: u64::try_from(info.num_ack_pending).unwrap_or_default(),
                opened_at_ms: info.config.metadata.get(OPENED_AT).and_then(|at| at.parse().ok()).unwrap_or_default(),
            });
        }
        Ok(lanes)
    }

    /// Organizations with calls in one partition, laned or not. Controller only.
    pub async fn organizations_with_calls(&self, partition: u16) -> Result<Vec<OrganizationId>, Fault> {
        let unavailable = |cause: &dyn std::fmt::Display| Fault::unavailable("The queue", cause);
        let stream = self.jetstream.get_stream(streams::calls(partition)).await.map_err(|cause| unavailable(&cause))?;
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
