//! `/api/v1/organizations`, for platform operators, and `/api/v1/organization`, the caller's own.

use std::sync::Arc;

use poem::{handler, http::StatusCode, web::Data};
use serde::Deserialize;
use shared::{
    command::{
        organizations::{Bound, Change, ChangeOwn, Changes, Choices, Create, Get, List, Organization, ReadOwn, Remove},
        tools::ToolPolicy,
    },
    id::OrganizationId,
};

use super::{
    Gateway,
    answer::{Answer, empty, json, page},
    body::Body,
    etag::{IfMatch, MayMatch, tagged},
    id::Id,
    identity::Identity,
    paging::Paging,
};

/// A new organization: its names, and what operators may change later.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateBody {
    slug: String,
    name: String,
    concurrency_limit: Option<u16>,
    paused: Option<bool>,
    calls_per_minute: Option<u32>,
    queue_limit: Option<u32>,
    session_limit: Option<u32>,
    user_session_limit: Option<u32>,
    result_retention_seconds: Option<u32>,
    allowed_origins: Option<Vec<String>>,
    tool_policy: Option<ToolPolicy>,
}

impl CreateBody {
    fn command(self) -> Create {
        let settings = Changes {
            name: None,
            concurrency_limit: self.concurrency_limit,
            paused: self.paused,
            calls_per_minute: self.calls_per_minute,
            queue_limit: self.queue_limit.map(|limit| Bound(Some(limit))),
            session_limit: self.session_limit,
            user_session_limit: self.user_session_limit,
            result_retention_seconds: self.result_retention_seconds,
            allowed_origins: self.allowed_origins,
            tool_policy: self.tool_policy,
        };
        Create { slug: self.slug, name: self.name, settings }
    }
}

fn shown(status: StatusCode, organization: &Organization) -> Answer {
    tagged(organization.generation, json(status, organization))
}

/// Creates an organization.
#[handler]
pub(crate) async fn create(gateway: Data<&Arc<Gateway>>, identity: Identity, Body(body): Body<CreateBody>) -> Answer {
    shown(StatusCode::CREATED, &gateway.caller.call(&identity, &body.command()).await?)
}

/// Lists all organizations by slug.
#[handler]
pub(crate) async fn list(gateway: Data<&Arc<Gateway>>, identity: Identity, paging: Paging) -> Answer {
    page(&gateway.caller.call(&identity, &List { cursor: paging.cursor, limit: paging.limit }).await?)
}

/// Reads one.
#[handler]
pub(crate) async fn read(gateway: Data<&Arc<Gateway>>, identity: Identity, Id(id): Id<OrganizationId>) -> Answer {
    shown(StatusCode::OK, &gateway.caller.call(&identity, &Get { id }).await?)
}

/// Changes one; what the body leaves out stays.
#[handler]
pub(crate) async fn change(
    gateway: Data<&Arc<Gateway>>,
    identity: Identity,
    Id(id): Id<OrganizationId>,
    IfMatch(expected): IfMatch,
    Body(changes): Body<Changes>,
) -> Answer {
    shown(StatusCode::OK, &gateway.caller.call(&identity, &Change { id, expected, changes }).await?)
}

/// Ends one.
#[handler]
pub(crate) async fn remove(
    gateway: Data<&Arc<Gateway>>,
    identity: Identity,
    Id(id): Id<OrganizationId>,
    MayMatch(expected): MayMatch,
) -> Answer {
    gateway.caller.call(&identity, &Remove { id, expected }).await?;
    empty()
}

/// Reads the caller's own.
#[handler]
pub(crate) async fn read_own(gateway: Data<&Arc<Gateway>>, identity: Identity) -> Answer {
    shown(StatusCode::OK, &gateway.caller.call(&identity, &ReadOwn {}).await?)
}

/// Changes what its admins choose of the caller's own; what the body leaves out stays.
#[handler]
pub(crate) async fn change_own(
    gateway: Data<&Arc<Gateway>>,
    identity: Identity,
    IfMatch(expected): IfMatch,
    Body(choices): Body<Choices>,
) -> Answer {
    shown(StatusCode::OK, &gateway.caller.call(&identity, &ChangeOwn { expected, choices }).await?)
}
