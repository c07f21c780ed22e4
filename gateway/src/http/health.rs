//! Liveness, readiness and metrics. Ready means that a call can be made: NATS is there, changes of
//! members arrive, and every pool has a live and healthy worker.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use poem::{
    Response, handler,
    http::{StatusCode, header},
    web::Data,
};
use serde::Serialize;
use shared::{
    bus::{Role, instances},
    command::Pool,
};

use super::{
    Gateway,
    answer::{Answer, json},
};

#[derive(Debug, Serialize)]
struct Readiness {
    status: &'static str,
    nats: bool,
    /// Members' standing is fresh.
    access: bool,
    /// Told to stop.
    draining: bool,
    /// Live and healthy workers of each pool.
    workers: BTreeMap<&'static str, usize>,
}

/// The process runs.
#[handler]
pub(crate) fn live() -> &'static str {
    "alive\n"
}

/// Calls can be made.
#[handler]
#[expect(clippy::needless_pass_by_value, reason = "an extractor")]
pub(crate) fn ready(gateway: Data<&Arc<Gateway>>) -> Answer {
    let workers: BTreeMap<&'static str, usize> =
        Pool::ALL.iter().map(|pool| (pool.name(), instances::healthy(&gateway.instances, Role::Pool(*pool)))).collect();
    let nats = gateway.bus.is_connected();
    let access = gateway.access.is_fresh();
    let draining = gateway.stop.is_cancelled();
    let ready = nats && access && !draining && workers.values().all(|count| *count > 0);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(status, &Readiness { status: if ready { "ready" } else { "not_ready" }, nats, access, draining, workers })
}

/// Prometheus text.
#[handler]
#[expect(clippy::needless_pass_by_value, reason = "an extractor")]
pub(crate) fn metrics(gateway: Data<&Arc<Gateway>>) -> Response {
    Response::builder()
        .header(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")
        .body(gateway.metrics.render())
}

/// How often the histograms' memory is tidied.
pub const UPKEEP_EVERY: Duration = Duration::from_secs(5);
