//! `/api/v1/users`: the members of an organization, for its admins.

use std::sync::Arc;

use poem::{handler, http::StatusCode, web::Data};
use serde::Deserialize;
use shared::{
    command::users::{Add, Change, Get, List, Member, Remove, State},
    context::Role,
    id::UserId,
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

/// A member who is added before their first use, or put back.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AddBody {
    subject: String,
    email: Option<String>,
    role: Option<Role>,
}

/// What is changed of a member.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangeBody {
    role: Option<Role>,
    state: Option<State>,
    email: Option<String>,
}

fn shown(status: StatusCode, member: &Member) -> Answer {
    tagged(member.generation, json(status, member))
}

/// Adds a member, or puts a removed one back.
#[handler]
pub(crate) async fn add(gateway: Data<&Arc<Gateway>>, identity: Identity, Body(body): Body<AddBody>) -> Answer {
    let command = Add { subject: body.subject, email: body.email, role: body.role.unwrap_or(Role::User) };
    shown(StatusCode::CREATED, &gateway.caller.call(&identity, &command).await?)
}

/// Lists members by subject.
#[handler]
pub(crate) async fn list(gateway: Data<&Arc<Gateway>>, identity: Identity, paging: Paging) -> Answer {
    page(&gateway.caller.call(&identity, &List { cursor: paging.cursor, limit: paging.limit }).await?)
}

/// Reads one.
#[handler]
pub(crate) async fn read(gateway: Data<&Arc<Gateway>>, identity: Identity, Id(id): Id<UserId>) -> Answer {
    shown(StatusCode::OK, &gateway.caller.call(&identity, &Get { id }).await?)
}

/// Changes one; what the body leaves out stays.
#[handler]
pub(crate) async fn change(
    gateway: Data<&Arc<Gateway>>,
    identity: Identity,
    Id(id): Id<UserId>,
    IfMatch(expected): IfMatch,
    Body(body): Body<ChangeBody>,
) -> Answer {
    let command = Change { id, expected, role: body.role, state: body.state, email: body.email };
    shown(StatusCode::OK, &gateway.caller.call(&identity, &command).await?)
}

/// Removes one.
#[handler]
pub(crate) async fn remove(
    gateway: Data<&Arc<Gateway>>,
    identity: Identity,
    Id(id): Id<UserId>,
    MayMatch(expected): MayMatch,
) -> Answer {
    gateway.caller.call(&identity, &Remove { id, expected }).await?;
    empty()
}
