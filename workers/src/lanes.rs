//! Lanes: opening them on a gateway's first call for an organization, and keeping them to their
//! limits. One act at a time on one lane: looking and then changing must not be interleaved.

use std::{sync::Arc, time::Duration};

use moka::sync::Cache;
use shared::{
    Code, Fault,
    bus::{
        lanes::LaneState,
        standing::no_such_organization,
        state::{Limits, limits_key},
    },
    command::{
        lanes::{Lane, Open},
        organizations::DEFAULT_CONCURRENCY,
    },
    id::OrganizationId,
};
use tokio::sync::Mutex;

use crate::{pools::Controller, run::Run, scope::Scope};

/// How long a lane waits for the limits. A controller that has just started is asked before it has read them all.
const LIMITS_PATIENCE: Duration = Duration::from_secs(5);

impl Run for Open {
    type Parts = Controller;

    async fn run(self, scope: &mut Scope<'_, Controller>) -> Result<Lane, Fault> {
        let organization = scope.context.organization;
        scope.notes.resource("lane", &organization);
        if tokio::time::timeout(LIMITS_PATIENCE, scope.parts.limits.ready()).await.is_err() {
            return Err(Fault::new(Code::Unavailable, "The organization's limits are not known yet. Try again."));
        }
        if scope.parts.limits_of(organization).deleted {
            return Err(no_such_organization());
        }
        let limits = scope.parts.open(organization).await?;
        Ok(Lane { concurrency_limit: limits.concurrency_limit })
    }
}

/// One act at a time on one lane.
#[derive(Debug)]
pub struct LaneLocks(Cache<OrganizationId, Arc<Mutex<()>>>);

impl Default for LaneLocks {
    fn default() -> Self {
        Self(Cache::builder().time_to_idle(Duration::from_mins(10)).build())
    }
}

impl LaneLocks {
    fn of(&self, organization: OrganizationId) -> Arc<Mutex<()>> {
        self.0.get_with(organization, Arc::default)
    }
}

impl Controller {
    /// The organization's limits; the default for one that has none of its own. The calls of one that
    /// is gone are not kept waiting: a worker refuses each, and its caller is told.
    pub fn limits_of(&self, organization: OrganizationId) -> Limits {
        let known = self.limits.get(&limits_key(organization));
        let limits = known.unwrap_or_else(|| Limits::concurrent(DEFAULT_CONCURRENCY));
        Limits {
            concurrency_limit: limits.concurrency_limit.max(1),
            paused: limits.paused && !limits.deleted,
            ..limits
        }
    }

    /// Opens the lane, or says that it is still wanted.
    pub async fn open(&self, organization: OrganizationId) -> Result<Limits, Fault> {
        let lock = self.locks.of(organization);
        let _alone = lock.lock().await;
        let limits = self.limits_of(organization);
        self.administration.open_lane(organization, &limits).await?;
        Ok(limits)
    }

    /// Makes the lane obey its limits, if it is open.
    pub async fn obey(&self, organization: OrganizationId) -> Result<(), Fault> {
        let lock = self.locks.of(organization);
        let _alone = lock.lock().await;
        let limits = self.limits_of(organization);
        match self.administration.lane(organization).await? {
            Some(lane) if limits.deleted && lane.is_empty() => {
                self.administration.close_lane_if(organization, &limits, LaneState::is_empty).await.map(drop)
            }
            Some(lane) if !lane.obeys(&limits) => self.administration.limit_lane(&lane, &limits).await,
            _ => Ok(()),
        }
    }

    /// Removes the lane unless somebody may be about to use it; answers whether it did.
    pub async fn close_if_abandoned(&self, organization: OrganizationId) -> Result<bool, Fault> {
        let lock = self.locks.of(organization);
        let _alone = lock.lock().await;
        let limits = self.limits_of(organization);
        let may = if limits.deleted { LaneState::is_empty } else { LaneState::is_abandoned };
        self.administration.close_lane_if(organization, &limits, may).await
    }

    /// True when the lane can go, as far as it was seen.
    pub fn may_go(&self, lane: &LaneState) -> bool {
        lane.is_abandoned() || (lane.is_empty() && self.limits_of(lane.organization).deleted)
    }
}
