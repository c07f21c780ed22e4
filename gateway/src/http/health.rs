//! Liveness, readiness, health and metrics. Ready means that requests may be sent here: NATS is
//! there, changes of members arrive, and every pool was at work at some time since the start. A pool
//! that is lost later makes the system unhealthy and this gateway no less ready: calls go on without
//! some pools, another gateway would miss the same ones, and taking all of them out of the load
//! balancer would turn a part's failure into everybody's.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use poem::{
    Response, handler,
    http::{StatusCode, header},
    web::Data,
};
use schemars::JsonSchema;
use serde::Serialize;
use shared::{
    bus::{Role, instances},
    command::Pool,
};

use super::{
    Gateway,
    answer::{Answer, json},
    operation::{self, Operation, get},
};

pub(super) fn operations() -> Vec<Operation> {
    let both = |operation: Operation| {
        operation.answers::<Readiness>(StatusCode::OK).answers::<Readiness>(StatusCode::SERVICE_UNAVAILABLE)
    };
    operation::of(
        "Health",
        [
            get("/live", live, "Answers while the process runs.").answers_other("text/plain"),
            both(get("/ready", ready, "Whether requests may be sent here, for load balancers.")),
            both(get("/health", health, "Whether everything works, every pool of workers included.")),
            get("/metrics", metrics, "Metrics, for Prometheus.").answers_other("text/plain"),
        ],
    )
}

/// Live and healthy workers by pool.
type Workers = BTreeMap<&'static str, usize>;

/// How this gateway is.
#[derive(Debug, Serialize, JsonSchema)]
struct Readiness {
    /// `ready` with 200, `not_ready` with 503.
    #[schemars(extend("enum" = ["ready", "not_ready"]))]
    status: &'static str,
    /// Connected to the message queue.
    nats: bool,
    /// Members' standing is fresh.
    access: bool,
    /// Told to stop.
    draining: bool,
    /// Live and healthy workers of each pool.
    workers: Workers,
}

/// Which pools were seen at work; a pool once seen stays so.
#[derive(Debug, Default)]
pub struct Seen(AtomicU8);

impl Seen {
    const ALL: u8 = (1 << Pool::ALL.len()) - 1;

    /// Takes note of live and healthy workers by pool, in the order of [`Pool::ALL`].
    fn note(&self, counts: impl IntoIterator<Item = usize>) {
        let seen = counts.into_iter().enumerate().fold(0, |seen, (place, count)| seen | (u8::from(count > 0) << place));
        self.0.fetch_or(seen, Ordering::Relaxed);
    }

    fn is_complete(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::ALL
    }
}

/// Live and healthy workers of each pool, taken note of.
pub fn workers(gateway: &Gateway) -> Workers {
    let counts = Pool::ALL.map(|pool| instances::healthy(&gateway.instances, Role::Pool(pool)));
    gateway.seen.note(counts);
    Pool::ALL.iter().map(|pool| pool.name()).zip(counts).collect()
}

/// The process runs.
#[handler]
pub(crate) fn live() -> &'static str {
    "alive\n"
}

/// Requests may be sent here.
#[handler]
#[expect(clippy::needless_pass_by_value, reason = "an extractor")]
pub(crate) fn ready(gateway: Data<&Arc<Gateway>>) -> Answer {
    report(&gateway, |gateway, _| gateway.seen.is_complete())
}

/// Everything works: the same, and every pool has a live and healthy worker now.
#[handler]
#[expect(clippy::needless_pass_by_value, reason = "an extractor")]
pub(crate) fn health(gateway: Data<&Arc<Gateway>>) -> Answer {
    report(&gateway, |_, workers| workers.values().all(|count| *count > 0))
}

fn report(gateway: &Gateway, pools_suffice: impl FnOnce(&Gateway, &Workers) -> bool) -> Answer {
    let workers = workers(gateway);
    let nats = gateway.bus.is_connected();
    let access = gateway.access.is_fresh();
    let draining = gateway.stop.is_cancelled();
    let well = nats && access && !draining && pools_suffice(gateway, &workers);
    let (code, status) = if well { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "not_ready") };
    json(code, &Readiness { status, nats, access, draining, workers })
}

/// Prometheus text.
#[handler]
#[expect(clippy::needless_pass_by_value, reason = "an extractor")]
pub(crate) fn metrics(gateway: Data<&Arc<Gateway>>) -> Response {
    Response::builder()
        .header(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")
        .body(gateway.metrics.render())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_count_once_each_was_seen_and_a_later_loss_changes_nothing() {
        let seen = Seen::default();
        assert!(!seen.is_complete());
        seen.note([1, 2, 1, 0, 1]);
        assert!(!seen.is_complete(), "one was never there");
        seen.note([0, 0, 0, 1, 0]);
        assert!(seen.is_complete(), "each was there, if not all at once");
        seen.note([0; 5]);
        assert!(seen.is_complete());
    }
}
