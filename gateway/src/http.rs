//! The HTTP API: routes, and what every request passes through. A handler reads its input, sends
//! one command and shapes the answer.

use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusHandle;
use poem::{Endpoint, EndpointExt};
use shared::bus::{Bus, caller::Caller, instances::Instance, kv::Watch, state::Limits};
use tokio_util::sync::CancellationToken;

use self::{openapi::Published, operation::Operation};
use crate::{access::AccessControl, assets, auth::Authenticator, rates::Rates};

pub mod answer;
pub mod body;
pub mod catalogue;
pub mod configurations;
pub mod cors;
pub mod docs;
pub mod edge;
pub mod etag;
pub mod events;
pub mod faults;
pub mod files;
pub mod health;
pub mod id;
pub mod identity;
pub mod me;
pub mod methods;
pub mod openapi;
pub mod operation;
pub mod organizations;
mod outliving;
pub mod paging;
pub mod problem;
pub mod prompts;
pub mod sessions;
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
    /// Who hears events.
    pub places: events::Places,
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
    /// What this API is, for tools and for people.
    pub published: Published,
    /// Which pools were there since the start.
    pub seen: health::Seen,
}

/// The one table: every operation, noun by noun. Router and document are made of it.
pub fn operations() -> Vec<Operation> {
    [
        tool_calls::operations(),
        sessions::operations(),
        events::operations(),
        configurations::operations(),
        catalogue::operations(),
        tools::operations(),
        me::operations(),
        users::operations(),
        files::operations(),
        organizations::operations(),
        prompts::operations(),
        health::operations(),
        faults::operations(),
        openapi::operations(),
        docs::operations(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Every route, within the edge.
pub fn routes(gateway: Arc<Gateway>) -> impl Endpoint<Output = poem::Response> {
    let (public_url, origins) = (gateway.public_url.clone(), gateway.origins.clone());
    operation::router(operations())
        .nest_no_strip("/", assets::routes())
        .with(edge::Edge::new(public_url, origins, gateway))
}
