//! `/api/v1/organizations`, for platform operators.

use std::sync::Arc;

use poem::{handler, http::StatusCode, web::Data};
use serde::Deserialize;
use shared::{
    command::organizations::{Create, Limit, List},
    id::OrganizationId,
};

use super::{
    Gateway,
    answer::{Answer, json, page},
    body::Body,
    id::Id,
    identity::Identity,
    paging::Paging,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateBody {
    slug: String,
    name: String,
    concurrency_limit: Option<u16>,
}

/// Creates an organization.
#[handler]
pub(crate) async fn create(gateway: Data<&Arc<Gateway>>, identity: Identity, Body(body): Body<CreateBody>) -> Answer {
    let command = Create { slug: body.slug, name: body.name, concurrency_limit: body.concurrency_limit };
    json(StatusCode::CREATED, &gateway.caller.call(&identity, &command).await?)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitBody {
    concurrency_limit: Option<u16>,
    paused: Option<bool>,
}

/// Changes an organization's limits.
#[handler]
pub(crate) async fn limit(
    gateway: Data<&Arc<Gateway>>,
    identity: Identity,
    Id(id): Id<OrganizationId>,
    Body(body): Body<LimitBody>,
) -> Answer {
    let command = Limit { id, concurrency_limit: body.concurrency_limit, paused: body.paused };
    json(StatusCode::OK, &gateway.caller.call(&identity, &command).await?)
}

/// Lists all organizations by slug.
#[handler]
pub(crate) async fn list(gateway: Data<&Arc<Gateway>>, identity: Identity, paging: Paging) -> Answer {
    page(&gateway.caller.call(&identity, &List { cursor: paging.cursor, limit: paging.limit }).await?)
}
