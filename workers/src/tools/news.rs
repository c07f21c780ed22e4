//! Configurations that changed or went: the clients that this worker keeps open for an older
//! generation are let go at once, not when somebody next asks. Running calls end on them. And sessions
//! that are over.

use std::{sync::Arc, time::Duration};

use shared::{
    bus::state::{ConfigurationState, SessionState},
    id::{OrganizationId, SessionId},
};
use tokio::sync::Semaphore;
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

/// How often the host is asked to remove a workspace, and the pause before the second time; each further
/// one is twice as long, which is some minutes in all.
const DROPS: u32 = 9;
const DROP_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Requests to the host at once: many sessions may end together.
static DROPPING: Semaphore = Semaphore::const_new(4);

/// The same for sessions that are over: what runs in them ends, their clients are let go, and the host of
/// programs removes their workspaces. Those that were over before this worker started, too: another may
/// have been killed before it said so.
pub async fn follow_sessions(parts: Arc<Tool>, stop: CancellationToken) {
    let mut changes = parts.session_news.changes();
    let mut seen = 0;
    loop {
        let latest = *changes.borrow_and_update();
        for (key, SessionState { ended, .. }) in parts.session_news.since(seen) {
            let Some((organization, session)) = read(&key) else { continue };
            if ended {
                tokio::spawn(end_session(Arc::clone(&parts), organization, session));
            }
        }
        seen = latest;
        tokio::select! {
            () = stop.cancelled() => return,
            more = changes.changed() => if more.is_err() { return },
        }
    }
}

async fn end_session(parts: Arc<Tool>, organization: OrganizationId, session: SessionId) {
    parts.sessions.end(organization, session).await;
    parts.upstreams.end_session(organization, session).await;
    let Some(workspaces) = parts.upstreams.workspaces() else { return };
    let mut pause = DROP_AGAIN_AFTER;
    for _ in 0..DROPS {
        let one_of_few = DROPPING.acquire().await;
        match workspaces.drop_session(organization, session).await {
            Ok(()) => return,
            Err(fault) => tracing::info!(%fault, %session, "the workspace of a session that is over was not removed"),
        }
        drop(one_of_few);
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    tracing::warn!(%session, "the workspace of a session that is over is left to the host, which removes what is idle");
}

fn read<Id: std::str::FromStr>(key: &str) -> Option<(OrganizationId, Id)> {
    let (organization, id) = key.split_once('.')?;
    Some((organization.parse().ok()?, id.parse().ok()?))
}
