//! `/api/v1/prompts`: system prompts of the platform, of an organization and of its members, and what is
//! composed of them.

use std::sync::Arc;

use poem::{FromRequest, Request, RequestBody, handler, http::StatusCode, web::Data};
use schemars::JsonSchema;
use serde::Deserialize;
use shared::{
    Code, Fault,
    command::{
        Page,
        organizations::TEXT_PATTERN,
        prompts::{
            Composed, Create, DEFAULT_PRIORITY, Get, List, MAX_NAME_CHARS, MAX_SOURCE_BYTES, MAX_UNTRUSTED_CHARS,
            PRIORITY, Preview, Prompt, Remove, Replace, Scope, Settings, Source, Version, Versions,
        },
    },
    id::{PromptId, UserId},
};

use super::{
    Gateway,
    answer::{Answer, empty, json, page},
    body::Body,
    etag::{IfMatch, MayMatch, tagged},
    id::Id,
    identity::Identity,
    operation::{self, Operation, delete, get, post, put},
    paging::{Filter, Paged, Paging},
    problem::Problem,
};

pub(super) fn operations() -> Vec<Operation> {
    const PATH: &str = "/api/v1/prompts";
    const ONE: &str = "/api/v1/prompts/:id";
    operation::of(
        "Prompts",
        [
            post(
                PATH,
                create,
                "Writes a prompt: global by operators, the organization's by admins, one's own by anyone.",
            )
            .sends::<Create>()
            .takes::<NewPrompt>()
            .answers::<Prompt>(StatusCode::CREATED)
            .tagged()
            .or_fails([Code::Conflict]),
            get(PATH, list, "Lists the prompts the caller sees, by name: global ones, the organization's, their own.")
                .sends::<List>()
                .query::<Paging>()
                .query::<Listed>()
                .answers::<Page<Prompt>>(StatusCode::OK),
            get(
                "/api/v1/prompts/preview",
                preview,
                "Composes a prompt as a session would get it, and says where each part comes from.",
            )
            .sends::<Preview>()
            .query::<Previewed>()
            .answers::<Composed>(StatusCode::OK)
            .or_fails([Code::Unknown, Code::Conflict]),
            get(ONE, read, "Reads a prompt.")
                .sends::<Get>()
                .at_id::<PromptId>()
                .answers::<Prompt>(StatusCode::OK)
                .tagged(),
            put(ONE, replace, "Replaces what a prompt says. It stays in its scope.")
                .sends::<Replace>()
                .at_id::<PromptId>()
                .if_match()
                .takes::<PromptBody>()
                .answers::<Prompt>(StatusCode::OK)
                .tagged()
                .or_fails([Code::Conflict]),
            delete(ONE, remove, "Removes a prompt. Its versions stay.")
                .sends::<Remove>()
                .at_id::<PromptId>()
                .may_match()
                .answers_nothing(),
            get(
                "/api/v1/prompts/:id/versions",
                versions,
                "Lists a prompt's versions, the latest first, for those who may write it; it may be gone.",
            )
            .sends::<Versions>()
            .at_id::<PromptId>()
            .query::<Paging>()
            .answers::<Page<Version>>(StatusCode::OK),
        ],
    )
}

/// A new prompt. It has either `content` or `template`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPrompt {
    /// Whose it is.
    scope: Scope,
    /// Unique among the owner's.
    #[schemars(length(min = 1, max = MAX_NAME_CHARS), regex(pattern = TEXT_PATTERN))]
    name: String,
    /// Text, as it is. A member's own: at most 4,000 characters.
    #[schemars(length(min = 1, max = MAX_SOURCE_BYTES))]
    content: Option<String>,
    /// A template, rendered for each session; not for scope `user`.
    #[schemars(length(min = 1, max = MAX_SOURCE_BYTES))]
    template: Option<String>,
    /// Whether it takes part; by default it does.
    enabled: Option<bool>,
    /// Smaller ones come first within the scope; 100 by default.
    #[schemars(range(min = *PRIORITY.start(), max = *PRIORITY.end()))]
    priority: Option<u16>,
}

/// What a prompt says from now on. It has either `content` or `template`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "PromptSettings")]
pub struct PromptBody {
    /// Unique among the owner's.
    #[schemars(length(min = 1, max = MAX_NAME_CHARS), regex(pattern = TEXT_PATTERN))]
    name: String,
    /// Text, as it is. A member's own: at most 4,000 characters.
    #[schemars(length(min = 1, max = MAX_SOURCE_BYTES))]
    content: Option<String>,
    /// A template, rendered for each session; not for scope `user`.
    #[schemars(length(min = 1, max = MAX_SOURCE_BYTES))]
    template: Option<String>,
    /// Whether it takes part; by default it does.
    enabled: Option<bool>,
    /// Smaller ones come first within the scope; 100 by default.
    #[schemars(range(min = *PRIORITY.start(), max = *PRIORITY.end()))]
    priority: Option<u16>,
}

impl PromptBody {
    fn settings(self) -> Result<Settings, Fault> {
        let source = match (self.content, self.template) {
            (Some(text), None) => Source::Content(text),
            (None, Some(text)) => Source::Template(text),
            (Some(_), Some(_)) => {
                return Err(Fault::invalid("template", "A prompt has either `content` or `template`."));
            }
            (None, None) => return Err(Fault::invalid("content", "A prompt has `content` or `template`.")),
        };
        Ok(Settings {
            name: self.name,
            source,
            enabled: self.enabled.unwrap_or(true),
            priority: self.priority.unwrap_or(DEFAULT_PRIORITY),
        })
    }
}

impl NewPrompt {
    fn create(self) -> Result<Create, Fault> {
        let Self { scope, name, content, template, enabled, priority } = self;
        let settings = PromptBody { name, content, template, enabled, priority }.settings()?;
        Ok(Create { scope, settings })
    }
}

/// Which prompts are wanted.
#[derive(Debug, Default, JsonSchema)]
pub struct Listed {
    /// Of this scope only.
    scope: Option<Scope>,
    /// Enabled or disabled ones only.
    enabled: Option<bool>,
}

impl Filter for Listed {
    fn take(&mut self, name: &str, value: &str) -> Option<Result<(), Fault>> {
        let known = match name {
            "scope" => {
                self.scope = Scope::parse(value);
                self.scope.map(drop).ok_or("Use `global`, `organization` or `user`.")
            }
            "enabled" => {
                self.enabled = value.parse().ok();
                self.enabled.map(drop).ok_or("Use `true` or `false`.")
            }
            _ => return None,
        };
        Some(known.map_err(|message| Fault::invalid(name, message)))
    }
}

/// For whom, and with which text of a session.
#[derive(Debug, Default, JsonSchema)]
pub struct Previewed {
    /// For this member; for the caller if absent. Only admins name another.
    user: Option<UserId>,
    /// The text that a session could be given.
    #[schemars(length(min = 1, max = MAX_UNTRUSTED_CHARS))]
    text: Option<String>,
}

impl Previewed {
    fn read(query: &str) -> Result<Self, Fault> {
        let mut previewed = Self::default();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match name.as_ref() {
                "user" => {
                    let id = value.parse().map_err(|_| Fault::invalid("user", "An id is a UUID."))?;
                    previewed.user = Some(id);
                }
                "text" => previewed.text = Some(value.into_owned()),
                other => return Err(Fault::invalid(other, "There is no such parameter.")),
            }
        }
        Ok(previewed)
    }
}

impl<'a> FromRequest<'a> for Previewed {
    async fn from_request(request: &'a Request, _body: &mut RequestBody) -> poem::Result<Self> {
        Ok(Self::read(request.uri().query().unwrap_or_default()).map_err(Problem::from)?)
    }
}

fn shown(status: StatusCode, prompt: &Prompt) -> Answer {
    tagged(prompt.version, json(status, prompt))
}

/// Writes a new one.
#[handler]
pub(crate) async fn create(gateway: Data<&Arc<Gateway>>, identity: Identity, Body(body): Body<NewPrompt>) -> Answer {
    shown(StatusCode::CREATED, &gateway.caller.call(&identity, &body.create()?).await?)
}

/// Lists those the caller sees, by name.
#[handler]
pub(crate) async fn list(gateway: Data<&Arc<Gateway>>, identity: Identity, paged: Paged<Listed>) -> Answer {
    let Paged { paging: Paging { cursor, limit }, filter: Listed { scope, enabled } } = paged;
    page(&gateway.caller.call(&identity, &List { cursor, limit, scope, enabled }).await?)
}

/// Composes one and keeps nothing.
#[handler]
pub(crate) async fn preview(gateway: Data<&Arc<Gateway>>, identity: Identity, previewed: Previewed) -> Answer {
    let Previewed { user, text } = previewed;
    json(StatusCode::OK, &gateway.caller.call(&identity, &Preview { user, text }).await?)
}

/// Reads one.
#[handler]
pub(crate) async fn read(gateway: Data<&Arc<Gateway>>, identity: Identity, Id(id): Id<PromptId>) -> Answer {
    shown(StatusCode::OK, &gateway.caller.call(&identity, &Get { id }).await?)
}

/// Replaces what one says.
#[handler]
pub(crate) async fn replace(
    gateway: Data<&Arc<Gateway>>,
    identity: Identity,
    Id(id): Id<PromptId>,
    IfMatch(expected): IfMatch,
    Body(body): Body<PromptBody>,
) -> Answer {
    let command = Replace { id, expected, settings: body.settings()? };
    shown(StatusCode::OK, &gateway.caller.call(&identity, &command).await?)
}

/// Removes one.
#[handler]
pub(crate) async fn remove(
    gateway: Data<&Arc<Gateway>>,
    identity: Identity,
    Id(id): Id<PromptId>,
    MayMatch(expected): MayMatch,
) -> Answer {
    gateway.caller.call(&identity, &Remove { id, expected }).await?;
    empty()
}

/// Lists what one was.
#[handler]
pub(crate) async fn versions(
    gateway: Data<&Arc<Gateway>>,
    identity: Identity,
    Id(id): Id<PromptId>,
    paging: Paging,
) -> Answer {
    page(&gateway.caller.call(&identity, &Versions { id, cursor: paging.cursor, limit: paging.limit }).await?)
}
