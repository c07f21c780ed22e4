//! `/api/v1/organizations`, for platform operators, and `/api/v1/organization`, the caller's own.

use std::sync::Arc;

use poem::{handler, http::StatusCode, web::Data};
use schemars::JsonSchema;
use serde::Deserialize;
use shared::{
    Code,
    command::{
        Page,
        organizations::{
            Bound, CALLS_PER_MINUTE, CONCURRENCY, Change, ChangeOwn, Changes, Choices, Create, Get, List,
            MAX_NAME_CHARS, MAX_ORIGIN_BYTES, MAX_ORIGINS, MAX_SLUG_BYTES, Organization, QUEUE, RETENTION_SECONDS,
            ReadOwn, Remove, SESSIONS, SLUG_PATTERN, TEXT_PATTERN,
        },
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
    operation::{self, Operation, delete, get, post, put},
    paging::Paging,
};

pub(super) fn operations() -> Vec<Operation> {
    const OWN: &str = "/api/v1/organization";
    const PATH: &str = "/api/v1/organizations";
    const ONE: &str = "/api/v1/organizations/:id";
    operation::of(
        "Organizations",
        [
            get(OWN, read_own, "Reads the caller's own organization.")
                .sends::<ReadOwn>()
                .answers::<Organization>(StatusCode::OK)
                .tagged()
                .or_fails([Code::Unknown]),
            put(OWN, change_own, "Changes what its admins choose of it. What is left out stays.")
                .sends::<ChangeOwn>()
                .if_match()
                .takes::<Choices>()
                .answers::<Organization>(StatusCode::OK)
                .tagged()
                .or_fails([Code::Unknown]),
            post(PATH, create, "Creates an organization.")
                .sends::<Create>()
                .takes::<CreateBody>()
                .answers::<Organization>(StatusCode::CREATED)
                .tagged()
                .or_fails([Code::Conflict]),
            get(PATH, list, "Lists organizations by slug.")
                .sends::<List>()
                .query::<Paging>()
                .answers::<Page<Organization>>(StatusCode::OK),
            get(ONE, read, "Reads an organization.")
                .sends::<Get>()
                .at_id::<OrganizationId>()
                .answers::<Organization>(StatusCode::OK)
                .tagged(),
            put(ONE, change, "Changes an organization; its lane obeys within a second. What is left out stays.")
                .sends::<Change>()
                .at_id::<OrganizationId>()
                .if_match()
                .takes::<Changes>()
                .answers::<Organization>(StatusCode::OK)
                .tagged(),
            delete(ONE, remove, "Ends an organization: from now on its members are refused everywhere.")
                .sends::<Remove>()
                .at_id::<OrganizationId>()
                .may_match()
                .answers_nothing()
                .or_fails([Code::Conflict]),
        ],
    )
}

/// A new organization: its names, and what operators may change later.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "NewOrganization")]
struct CreateBody {
    /// Unique on the platform, for ever.
    #[schemars(length(min = 1, max = MAX_SLUG_BYTES), regex(pattern = SLUG_PATTERN))]
    slug: String,
    /// For people.
    #[schemars(length(min = 1, max = MAX_NAME_CHARS), regex(pattern = TEXT_PATTERN))]
    name: String,
    /// How many of its queued calls may run at once.
    #[schemars(range(min = *CONCURRENCY.start(), max = *CONCURRENCY.end()))]
    concurrency_limit: Option<u16>,
    /// Lets its calls wait.
    paused: Option<bool>,
    /// How many tool calls may be sent in a minute.
    #[schemars(range(min = *CALLS_PER_MINUTE.start(), max = *CALLS_PER_MINUTE.end()))]
    calls_per_minute: Option<u32>,
    /// How many calls may wait and run together; the deployment's bound alone if absent.
    #[schemars(range(min = *QUEUE.start(), max = *QUEUE.end()))]
    queue_limit: Option<u32>,
    /// How many sessions may be open.
    #[schemars(range(min = *SESSIONS.start(), max = *SESSIONS.end()))]
    session_limit: Option<u32>,
    /// How many of them may be one member's.
    #[schemars(range(min = *SESSIONS.start(), max = *SESSIONS.end()))]
    user_session_limit: Option<u32>,
    /// How long a result can be collected, in seconds.
    #[schemars(range(min = *RETENTION_SECONDS.start(), max = *RETENTION_SECONDS.end()))]
    result_retention_seconds: Option<u32>,
    /// Browser origins that may call with its tokens.
    #[schemars(length(max = MAX_ORIGINS), inner(length(max = MAX_ORIGIN_BYTES)))]
    allowed_origins: Option<Vec<String>>,
    /// What happens to a call of a tool that changed.
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
