//! `/api/v1/users`: the members of an organization, for its admins.

use std::sync::Arc;

use poem::{handler, http::StatusCode, web::Data};
use schemars::JsonSchema;
use serde::Deserialize;
use shared::{
    Code,
    command::{
        Page,
        users::{Add, Change, Get, List, MAX_EMAIL_CHARS, Member, Remove, State},
    },
    context::{MAX_SUBJECT_BYTES, Role},
    id::UserId,
};

use super::{
    Gateway,
    answer::{Answer, empty, json, page},
    body::Body,
    etag::{IfMatch, MayMatch, tagged},
    id::Id,
    identity::Identity,
    operation::{self, Operation, delete, get, post, put},
    paging::Paging,
};

pub(super) fn operations() -> Vec<Operation> {
    const PATH: &str = "/api/v1/users";
    const ONE: &str = "/api/v1/users/:id";
    operation::of(
        "Members",
        [
            post(PATH, add, "Adds a member before their first use, or puts a removed one back.")
                .sends::<Add>()
                .takes::<AddBody>()
                .answers::<Member>(StatusCode::CREATED)
                .tagged()
                .or_fails([Code::Conflict]),
            get(PATH, list, "Lists members by subject, the removed ones left out.")
                .sends::<List>()
                .query::<Paging>()
                .answers::<Page<Member>>(StatusCode::OK),
            get(ONE, read, "Reads a member.")
                .sends::<Get>()
                .at_id::<UserId>()
                .answers::<Member>(StatusCode::OK)
                .tagged(),
            put(ONE, change, "Changes a member. What is left out stays. The last active admin stays one.")
                .sends::<Change>()
                .at_id::<UserId>()
                .if_match()
                .takes::<ChangeBody>()
                .answers::<Member>(StatusCode::OK)
                .tagged()
                .or_fails([Code::Conflict]),
            delete(ONE, remove, "Removes a member, until an admin adds the subject again.")
                .sends::<Remove>()
                .at_id::<UserId>()
                .may_match()
                .answers_nothing()
                .or_fails([Code::Conflict]),
        ],
    )
}

/// A member who is added before their first use, or put back.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "NewMember")]
struct AddBody {
    /// The subject of their tokens.
    #[schemars(length(min = 1, max = MAX_SUBJECT_BYTES), regex(pattern = "^[!-~]*$"))]
    subject: String,
    /// For people.
    #[schemars(length(max = MAX_EMAIL_CHARS))]
    email: Option<String>,
    /// What they may do at most; `user` if absent.
    role: Option<Role>,
}

/// What is changed of a member.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "MemberChanges")]
struct ChangeBody {
    /// What they may do at most.
    role: Option<Role>,
    /// Active or disabled.
    state: Option<State>,
    /// For people.
    #[schemars(length(max = MAX_EMAIL_CHARS))]
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
