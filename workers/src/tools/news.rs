//! Configurations that changed or went: the clients that this worker keeps open for an older
//! generation are let go at once, not when somebody next asks. Running calls end on them.

use std::sync::Arc;

use shared::{
    bus::state::ConfigurationState,
    id::{ConfigurationId, OrganizationId},
};
use tokio_util::sync::CancellationToken;

use crate::pools::Tool;

/// Follows the shared state until the sign.
pub async fn follow(parts: Arc<Tool>, stop: CancellationToken) {
    let mut changes = parts.configurations.changes();
    let mut seen = 0;
    loop {
        let latest = *changes.borrow_and_update();
        for (key, ConfigurationState { generation, removed }) in parts.configurations.since(seen) {
            let Some((organization, configuration)) = read(&key) else { continue };
            let generation = if removed { i64::MAX } else { generation };
            parts.upstreams.forget(organization, configuration, generation).await;
        }
        seen = latest;
        tokio::select! {
            () = stop.cancelled() => return,
            more = changes.changed() => if more.is_err() { return },
        }
    }
}

fn read(key: &str) -> Option<(OrganizationId, ConfigurationId)> {
    let (organization, configuration) = key.split_once('.')?;
    Some((organization.parse().ok()?, configuration.parse().ok()?))
}
