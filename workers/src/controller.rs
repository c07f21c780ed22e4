//! The controller's sweeps: streams that must exist, limits that lanes must obey, lanes nobody
//! uses, calls without a lane. Each looks at the world and puts it right; doing it twice does
//! nothing more, so several controllers may run.

use std::{collections::HashSet, sync::Arc, time::Duration};

use shared::{Fault, bus::streams::Sizes, id::PARTITIONS};
use tokio_util::sync::CancellationToken;

use crate::pools::Controller;

/// How often everything is looked at, changes of limits apart.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// Sweeps until told to stop; at once when a limit changes.
pub async fn serve(parts: Arc<Controller>, sizes: Sizes, stop: CancellationToken) {
    let mut changes = parts.limits.changes();
    let mut connections = parts.bus.connections();
    loop {
        changes.borrow_and_update();
        connections.borrow_and_update();
        if let Err(fault) = sweep(&parts, sizes).await {
            tracing::warn!(%fault, "a sweep failed; the next one tries again");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(SWEEP_EVERY) => {}
            () = limits_changed(&mut changes) => {}
            // A restarted server has forgotten its memory streams.
            Ok(()) = connections.changed() => {}
        }
    }
}

/// Freshness marks wake watchers too; only a newer revision is a change.
async fn limits_changed(changes: &mut tokio::sync::watch::Receiver<u64>) {
    let known = *changes.borrow();
    if changes.wait_for(|revision| *revision > known).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn sweep(parts: &Controller, sizes: Sizes) -> Result<(), Fault> {
    parts.bus.ensure_streams(sizes).await?;
    let mut open = 0_u32;
    for partition in 0..PARTITIONS {
        open += sweep_partition(parts, partition).await?;
    }
    metrics::gauge!("switchboard_lanes_open").set(f64::from(open));
    Ok(())
}

/// Answers how many lanes are open.
async fn sweep_partition(parts: &Controller, partition: u16) -> Result<u32, Fault> {
    let bus = &parts.bus;
    let mut laned = HashSet::new();
    for lane in bus.lanes(partition).await? {
        let limit = parts.concurrency_limit(lane.organization);
        if lane.is_abandoned() {
            bus.close_lane(lane.organization).await?;
            continue;
        }
        if lane.concurrency_limit != limit {
            bus.limit_lane(&lane, limit).await?;
        }
        laned.insert(lane.organization);
    }
    // A call that was published while its lane was being closed.
    for organization in bus.organizations_with_calls(partition).await? {
        if laned.insert(organization) {
            bus.open_lane(organization, parts.concurrency_limit(organization)).await?;
        }
    }
    Ok(u32::try_from(laned.len()).unwrap_or(u32::MAX))
}
