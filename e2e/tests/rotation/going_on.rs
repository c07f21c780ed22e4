//! What goes on while keys are replaced: members call tools with stored secrets, and register servers
//! with new ones.

use std::sync::Arc;

use serde_json::json;
use tokio::{sync::watch, task::JoinSet};
use uuid::Uuid;

use super::{Site, register};
use crate::world::System;

/// Members at work at the same time.
const CALLERS: usize = 4;

/// Loops that go on until they are told to end.
pub(super) struct Load {
    stop: watch::Sender<()>,
    loops: JoinSet<(usize, usize, Vec<String>)>,
}

impl Load {
    /// Nobody registers for the organization that is held still.
    pub(super) fn start(system: &Arc<System>, sites: &Arc<Vec<Site>>, still: Uuid) -> Self {
        let (stop, stopped) = watch::channel(());
        let mut loops = JoinSet::new();
        for first in 0..CALLERS {
            loops.spawn(calls(Arc::clone(sites), first, stopped.clone()));
        }
        loops.spawn(registrations(Arc::clone(system), Arc::clone(sites), still, stopped));
        Self { stop, loops }
    }

    /// Calls, registrations, and what failed.
    pub(super) async fn end(self) -> (usize, usize, Vec<String>) {
        drop(self.stop);
        let each = self.loops.join_all().await;
        each.into_iter().fold((0, 0, Vec::new()), |(calls, registrations, mut failed), (called, registered, more)| {
            failed.extend(more);
            (calls + called, registrations + registered, failed)
        })
    }
}

/// Every secret in turn, so that no worker gets far with those it opened before.
async fn calls(sites: Arc<Vec<Site>>, first: usize, stopped: watch::Receiver<()>) -> (usize, usize, Vec<String>) {
    let all: Vec<_> = sites.iter().flat_map(|site| site.names.iter().map(move |name| (site, name))).collect();
    let (mut done, mut failed) = (0, Vec::new());
    for (site, name) in all.iter().cycle().skip(first * all.len() / CALLERS) {
        if stopped.has_changed().is_err() {
            break;
        }
        let answer = site.tenant.call(name, "read_counter", json!({})).await;
        if answer.status == 200 {
            done += 1;
        } else {
            failed.push(format!("{name}: {} {}", answer.status, answer.text));
        }
    }
    (done, 0, failed)
}

/// A new secret for every organization in turn, used and removed again.
async fn registrations(
    system: Arc<System>,
    sites: Arc<Vec<Site>>,
    still: Uuid,
    stopped: watch::Receiver<()>,
) -> (usize, usize, Vec<String>) {
    let (mut done, mut failed) = (0, Vec::new());
    for site in sites.iter().filter(|site| site.tenant.id != still).cycle() {
        if stopped.has_changed().is_err() {
            break;
        }
        let name = format!("new-{done}");
        let id = register(&system, &site.tenant, &name, "organization").await["id"].as_str().expect("an id").to_owned();
        let called = site.tenant.call(&name, "read_counter", json!({})).await;
        let removed = site.tenant.admin.delete(&format!("/api/v1/mcp/configurations/{id}")).await;
        if called.status != 200 || removed.status != 204 {
            failed.push(format!("{name}: {} {}", called.text, removed.text));
        }
        done += 1;
    }
    (0, done, failed)
}
