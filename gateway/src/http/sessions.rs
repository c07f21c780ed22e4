//! `/api/v1/sessions`: one agent's run on behalf of one member.

use std::sync::Arc;

use poem::{handler, http::StatusCode, web::Data};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use shared::{
    Code, Fault,
    command::{
        Page,
        prompts::MAX_UNTRUSTED_CHARS,
        sessions::{
            AGENT_TYPE_PATTERN, End, Get, IDLE_SECONDS, List, MAX_AGENT_TYPE_CHARS, Open, Session, State, TTL_SECONDS,
        },
    },
    id::{SessionId, UserId},
};

use super::{
    Gateway,
    answer::{Answer, empty, json, page},
    body::Body,
    id::Id,
    identity::Identity,
    operation::{self, Operation, delete, get, post},
    paging::{Filter, Paged, Paging},
};

pub(super) fn operations() -> Vec<Operation> {
    const PATH: &str = "/api/v1/sessions";
    const ONE: &str = "/api/v1/sessions/:id";
    operation::of(
        "Sessions",
        [
            post(PATH, open, "Opens a session with a prompt that does not change any more.")
                .sends::<Open>()
                .takes::<OpenBody>()
                .answers::<Session>(StatusCode::CREATED)
                .or_fails([Code::Unknown]),
            get(PATH, list, "Lists sessions as they were opened: the caller's own, or what an admin asks for.")
                .sends::<List>()
                .query::<Paging>()
                .query::<Listed>()
                .answers::<Page<Session>>(StatusCode::OK),
            get(ONE, read, "Reads a session of the caller's own; admins read anybody's.")
                .sends::<Get>()
                .at_id::<SessionId>()
                .answers::<Session>(StatusCode::OK),
            delete(ONE, end, "Ends a session of the caller's own; admins end anybody's. One that is over stays so.")
                .sends::<End>()
                .at_id::<SessionId>()
                .answers_nothing(),
        ],
    )
}

/// A session that is to be opened.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "NewSession")]
struct OpenBody {
    /// What kind of agent runs in it.
    #[schemars(length(min = 1, max = MAX_AGENT_TYPE_CHARS), regex(pattern = AGENT_TYPE_PATTERN))]
    agent_type: String,
    /// The oldest it may get, in seconds; a day by default.
    #[schemars(range(min = *TTL_SECONDS.start(), max = *TTL_SECONDS.end()))]
    ttl_seconds: Option<u32>,
    /// How long it may stand unused, in seconds; an hour by default.
    #[schemars(range(min = *IDLE_SECONDS.start(), max = *IDLE_SECONDS.end()))]
    idle_seconds: Option<u32>,
    /// Your own: at most 4,096 bytes of JSON, nested at most 8 levels.
    metadata: Option<Map<String, Value>>,
    /// Text of the session's own, the last part of its prompt.
    #[schemars(length(max = MAX_UNTRUSTED_CHARS))]
    prompt: Option<String>,
}

/// Opens a session.
#[handler]
pub(crate) async fn open(gateway: Data<&Arc<Gateway>>, identity: Identity, Body(body): Body<OpenBody>) -> Answer {
    let OpenBody { agent_type, ttl_seconds, idle_seconds, metadata, prompt } = body;
    let command = Open { agent_type, ttl_seconds, idle_seconds, metadata, prompt };
    json(StatusCode::CREATED, &gateway.caller.call(&identity, &command).await?)
}

/// Which sessions are wanted.
#[derive(Clone, Copy, Debug, Default, JsonSchema)]
pub struct Listed {
    /// Only those in this state.
    state: Option<State>,
    /// Everybody's; for admins.
    all: Option<bool>,
    /// This member's; for admins.
    user: Option<UserId>,
}

impl Filter for Listed {
    fn take(&mut self, name: &str, value: &str) -> Option<Result<(), Fault>> {
        let known = match name {
            "state" => {
                self.state = State::parse(value);
                self.state.map(drop).ok_or("Use `active`, `expired` or `ended`.")
            }
            "all" => {
                self.all = value.parse().ok();
                self.all.map(drop).ok_or("Use `true` or `false`.")
            }
            "user" => {
                self.user = value.parse().ok();
                self.user.map(drop).ok_or("An id is a UUID.")
            }
            _ => return None,
        };
        Some(known.map_err(|message| Fault::invalid(name, message)))
    }
}

/// Lists sessions.
#[handler]
pub(crate) async fn list(gateway: Data<&Arc<Gateway>>, identity: Identity, paged: Paged<Listed>) -> Answer {
    let Paged { paging: Paging { cursor, limit }, filter: Listed { state, all, user } } = paged;
    let command = List { cursor, limit, state, all: all.unwrap_or(false), user };
    page(&gateway.caller.call(&identity, &command).await?)
}

/// Reads one.
#[handler]
pub(crate) async fn read(gateway: Data<&Arc<Gateway>>, identity: Identity, Id(id): Id<SessionId>) -> Answer {
    json(StatusCode::OK, &gateway.caller.call(&identity, &Get { id }).await?)
}

/// Ends one.
#[handler]
pub(crate) async fn end(gateway: Data<&Arc<Gateway>>, identity: Identity, Id(id): Id<SessionId>) -> Answer {
    gateway.caller.call(&identity, &End { id }).await?;
    empty()
}
