//! The controller's sweeps: streams that must exist, limits that lanes must obey, lanes nobody
//! uses, calls without a lane. Each looks at the world and puts it right; doing it twice does
//! nothing more, so several controllers may run.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use shared::{
    Fault,
    bus::streams::Sizes,
    id::{OrganizationId, PARTITIONS},
};
use tokio_util::sync::CancellationToken;

use crate::pools::Controller;

/// How often everything is looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// How soon a sweep that failed is tried again: after a reconnect NATS may still be starting.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Lanes that are changed at once: one after another, a second would not be enough for all.
const CHANGES_AT_ONCE: usize = 16;

/// Works until told to stop. A sweep of many lanes takes a while: a changed limit does not wait for it.
pub async fn serve(parts: Arc<Controller>, sizes: Sizes, stop: CancellationToken) {
    tokio::join!(sweep_now_and_then(&parts, sizes, &stop), follow_changes(&parts, &stop));
}

/// Sweeps; at once after a reconnect.
async fn sweep_now_and_then(parts: &Controller, sizes: Sizes, stop: &CancellationToken) {
    let mut connections = parts.administration.connections();
    loop {
        connections.borrow_and_update();
        let swept = sweep(parts, sizes, stop).await;
        let pause = if swept.is_ok() { SWEEP_EVERY } else { TRY_AGAIN_AFTER };
        if let Err(fault) = swept {
            tracing::warn!(%fault, "a sweep failed; the next one tries again");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
            // A restarted server has forgotten its memory streams.
            Ok(()) = connections.changed() => {}
        }
    }
}

/// Makes a lane obey as soon as its limits change.
async fn follow_changes(parts: &Controller, stop: &CancellationToken) {
    let mut changes = parts.limits.changes();
    let mut applied = *changes.borrow_and_update();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Ok(()) = changes.changed() => {
                let latest = *changes.borrow_and_update();
                apply_changes(parts, applied).await;
                applied = latest;
            }
        }
    }
}

/// Makes the lanes of organizations obey that changed since a number of the watch.
async fn apply_changes(parts: &Controller, applied: u64) {
    let changed = parts.limits.since(applied).into_iter().filter_map(|(key, _)| key.parse::<OrganizationId>().ok());
    stream::iter(changed)
        .for_each_concurrent(CHANGES_AT_ONCE, async |organization| {
            if let Err(fault) = parts.obey(organization).await {
                tracing::warn!(%fault, %organization, "a changed limit waits for the next sweep");
            }
        })
        .await;
}

async fn sweep(parts: &Controller, sizes: Sizes, stop: &CancellationToken) -> Result<(), Fault> {
    parts.administration.ensure_streams(sizes).await?;
    // A lane must not be given the default because its limits were not read yet.
    tokio::select! {
        () = parts.limits.ready() => {}
        () = stop.cancelled() => return Ok(()),
    }
    let mut open = 0_u32;
    for partition in 0..PARTITIONS {
        open += sweep_partition(parts, partition).await?;
    }
    metrics::gauge!("switchboard_lanes_open").set(f64::from(open));
    Ok(())
}

/// Answers how many lanes are open.
async fn sweep_partition(parts: &Controller, partition: u16) -> Result<u32, Fault> {
    let mut laned = HashSet::new();
    for lane in parts.administration.lanes(partition).await? {
        let organization = lane.organization;
        if parts.may_go(&lane) && parts.close_if_abandoned(organization).await? {
            continue;
        }
        if !lane.obeys(&parts.limits_of(organization)) {
            parts.obey(organization).await?;
        }
        laned.insert(organization);
    }
    // A call that was published while its lane was being closed.
    for organization in parts.administration.organizations_with_calls(partition).await? {
        if laned.insert(organization) {
            parts.open(organization).await?;
        }
    }
    Ok(u32::try_from(laned.len()).unwrap_or(u32::MAX))
}
