//! The HTTP API: routes, and what every request passes through. A handler reads its input, sends
//! one command and shapes the answer.

use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusHandle;
use poem::{Endpoint, EndpointExt, Route};
use shared::bus::{Bus, caller::Caller, instances::Instance, kv::Watch, state::Limits};
use tokio_util::sync::CancellationToken;

use self::methods::{get, post, put};
use crate::{access::AccessControl, assets, auth::Authenticator, rates::Rates};

pub mod answer;
pub mod body;
pub mod catalogue;
pub mod configurations;
pub mod cors;
pub mod edge;
pub mod etag;
pub mod faults;
pub mod health;
pub mod id;
pub mod identity;
pub mod me;
pub mod methods;
pub mod organizations;
pub mod paging;
pub mod problem;
pub mod tool_calls;
pub mod tools;
pub mod users;

/// What handlers share.
#[derive(Debug)]
pub struct Gateway {
    /// NATS, in the gateway's role.
    pub bus: Bus,
    /// Sends commands.
    pub caller: Caller,
    /// Verifies tokens.
    pub authenticator: Authenticator,
    /// Decides who may act.
    pub access: AccessControl,
    /// What each organization may use.
    pub limits: Watch<Limits>,
    /// How often each may call.
    pub rates: Rates,
    /// From which pages.
    pub origins: cors::Origins,
    /// Who is alive.
    pub instances: Watch<Instance>,
    /// Where people reach this gateway, without a trailing slash.
    pub public_url: String,
    /// Told to stop: answers, but is not ready.
    pub stop: CancellationToken,
    /// Renders metrics.
    pub metrics: PrometheusHandle,
    /// Which pools were there since the start.
    pub seen: health::Seen,
}

/// Every route, within the edge.
pub fn routes(gateway: Arc<Gateway>) -> impl Endpoint<Output = poem::Response> {
    let api = Route::new()
        .at("/me", get(me::read))
        .at("/organization", get(organizations::read_own).put(organizations::change_own))
        .at("/organizations", post(organizations::create).get(organizations::list))
        .at("/organizations/:id", get(organizations::read).put(organizations::change).delete(organizations::remove))
        .at("/users", post(users::add).get(users::list))
        .at("/users/:id", get(users::read).put(users::change).delete(users::remove))
        .at("/mcp/catalogue", get(catalogue::list))
        .at("/mcp/test", post(configurations::test))
        .at("/mcp/configurations", post(configurations::register).get(configurations::list))
        .at(
            "/mcp/configurations/:id",
            get(configurations::read).put(configurations::replace).delete(configurations::remove),
        )
        .at("/mcp/configurations/:id/tools", get(tools::list))
        .at("/mcp/configurations/:id/tools/:tool", put(tools::overrule))
        .at("/mcp/configurations/:id/tools/:tool/accept", post(tools::accept))
        .at("/tool-calls", post(tool_calls::call));
    let (public_url, origins) = (gateway.public_url.clone(), gateway.origins.clone());
    Route::new()
        .nest("/api/v1", api)
        .at("/live", get(health::live))
        .at("/ready", get(health::ready))
        .at("/health", get(health::health))
        .at("/metrics", get(health::metrics))
        .at("/docs/faults", get(faults::page))
        .nest_no_strip("/", assets::routes())
        .data(gateway)
        .with(cors::Preflights(origins.clone()))
        .with(edge::Edge::new(public_url))
        .with(cors::Readable(origins))
}
