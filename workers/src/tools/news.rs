//! Configurations that changed or went: the clients that this worker keeps open for an older
//! generation are let go at once, not when somebody next asks. Running calls end on them. And sessions
//! that are over.

use std::sync::Arc;

use shared::{
    bus::state::{ConfigurationState, SessionState},
    id::{OrganizationId, SessionId},
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

/// The same for sessions that are over: what runs in them ends, their clients are let go, and the host of
/// programs removes their workspaces.
pub async fn follow_sessions(parts: Arc<Tool>, stop: CancellationToken) {
    let mut changes = parts.session_news.changes();
    // What was over before this worker started has nothing here; the host lets go of it by itself.
    tokio::select! {
        () = stop.cancelled() => return,
        () = parts.session_news.ready() => {}
    }
    let mut seen = *changes.borrow_and_update();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            more = changes.changed() => if more.is_err() { return },
        }
        let latest = *changes.borrow_and_update();
        if latest < seen {
            // Another bucket than before.
            seen = 0;
        }
        for (key, SessionState { ended, .. }) in parts.session_news.since(seen) {
            let Some((organization, session)) = read(&key) else { continue };
            if ended {
                tokio::spawn(end_session(Arc::clone(&parts), organization, session));
            }
        }
        seen = latest;
    }
}

async fn end_session(parts: Arc<Tool>, organization: OrganizationId, session: SessionId) {
    parts.sessions.end(organization, session).await;
    parts.upstreams.end_session(organization, session).await;
    let Some(workspaces) = parts.upstreams.workspaces() else { return };
    if let Err(fault) = workspaces.drop_session(organization, session).await {
        // Idle, it goes by itself; nobody finds the way to it any more.
        tracing::warn!(%fault, %session, "the workspace of a session that is over was not removed at once");
    }
}

fn read<Id: std::str::FromStr>(key: &str) -> Option<(OrganizationId, Id)> {
    let (organization, id) = key.split_once('.')?;
    Some((organization.parse().ok()?, id.parse().ok()?))
}
