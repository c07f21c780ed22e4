//! Who is alive: every process writes a heartbeat of its own, and everybody may look.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    Bus, Role,
    kv::{Bucket, Watch},
};
use crate::context::now_unix_ms;

/// How often a process says that it lives.
pub const HEARTBEAT: Duration = Duration::from_secs(2);
/// How old a heartbeat may be.
pub const STALE_AFTER: Duration = Duration::from_secs(7);

/// A heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// When, in milliseconds since the Unix epoch.
    pub beat_at_ms: u64,
    /// The program's version.
    pub version: String,
    /// Whether it does its work; a worker without its database is alive, but not well.
    pub healthy: bool,
    /// Calls running right now.
    pub running: u64,
}

/// Says that this process lives until `stop` is dropped or cancelled; then removes the entry.
pub async fn beat<F, L>(bus: Bus, look: F, stop: tokio_util::sync::CancellationToken)
where
    F: Fn() -> L + Send,
    L: Future<Output = (bool, u64)> + Send,
{
    let key = format!("{}.{}", bus.role().name(), bus.instance());
    let mut ticks = tokio::time::interval(HEARTBEAT);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = ticks.tick() => {}
        }
        let (healthy, running) = look().await;
        let instance =
            Instance { beat_at_ms: now_unix_ms(), version: env!("CARGO_PKG_VERSION").to_owned(), healthy, running };
        // Faults are logged where they arise; the next beat tries again.
        let _ = bus.put(Bucket::Instances, &key, &instance, Some(3 * STALE_AFTER)).await;
    }
    let gone = Instance { beat_at_ms: 0, version: env!("CARGO_PKG_VERSION").to_owned(), healthy: false, running: 0 };
    let _ = bus.put(Bucket::Instances, &key, &gone, Some(Duration::from_secs(1))).await;
}

/// The live and healthy processes of a role.
pub fn healthy(instances: &Watch<Instance>, role: Role) -> usize {
    let oldest = now_unix_ms().saturating_sub(u64::try_from(STALE_AFTER.as_millis()).unwrap_or(u64::MAX));
    let prefix = format!("{}.", role.name());
    instances
        .entries()
        .iter()
        .filter(|(key, instance)| key.starts_with(&prefix) && instance.healthy && instance.beat_at_ms >= oldest)
        .count()
}
