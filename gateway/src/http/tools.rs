//! `/api/v1/mcp/configurations/{id}/tools`: what a server offers, what was pinned of it, and what
//! people decide about that.

use std::sync::Arc;

use poem::{FromRequest, Request, RequestBody, Result, handler, http::StatusCode, web::Data};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::{
    Code, Fault,
    command::tools::{Accept, Change, List, Overrule, Overruled, Pin},
    id::ConfigurationId,
    json::Raw,
};

use super::{
    Gateway,
    answer::{Answer, json},
    body::Body,
    id::Id,
    identity::Identity,
    operation::{self, Operation, get, post, put},
    problem::Problem,
};

pub(super) fn operations() -> Vec<Operation> {
    operation::of(
        "Tools",
        [
            get("/api/v1/mcp/configurations/:id/tools", list, "Asks the server for its tools and pins what is new.")
                .sends::<List>()
                .at_id::<ConfigurationId>()
                .answers::<Tools>(StatusCode::OK)
                .or_fails([Code::Conflict, Code::Reconnect, Code::UpstreamFailed]),
            put("/api/v1/mcp/configurations/:id/tools/:tool", overrule, "Says whether a tool's calls may be repeated.")
                .sends::<Overrule>()
                .at_id::<ConfigurationId>()
                .at::<ToolName>("tool", "The tool's name.")
                .takes::<OverruleBody>()
                .answers::<Pin>(StatusCode::OK),
            post("/api/v1/mcp/configurations/:id/tools/:tool/accept", accept, "Accepts a tool's changed definition.")
                .sends::<Accept>()
                .at_id::<ConfigurationId>()
                .at::<ToolName>("tool", "The tool's name.")
                .takes::<AcceptBody>()
                .answers::<Pin>(StatusCode::OK)
                .or_fails([Code::Stale]),
        ],
    )
}

/// The longest name of a tool, in bytes.
const MAX_NAME_BYTES: usize = 256;

/// The tools of a server: a list, and what of it somebody should look at.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Tools {
    /// MCP `Tool` objects as the server wrote them.
    #[schemars(with = "Vec<serde_json::Map<String, serde_json::Value>>")]
    items: Vec<Raw>,
    /// There is always one page.
    next: Option<String>,
    /// Those whose definition is not the pinned one any more.
    changed: Vec<Change>,
    /// Those of which somebody said whether a call may be repeated.
    overruled: Vec<Overruled>,
}

/// Lists its tools as the server offers them now.
#[handler]
pub(crate) async fn list(gateway: Data<&Arc<Gateway>>, identity: Identity, Id(id): Id<ConfigurationId>) -> Answer {
    let definitions = gateway.caller.call(&identity, &List { configuration: id }).await?;
    let (changed, overruled) = (definitions.changed, definitions.overruled);
    json(StatusCode::OK, &Tools { items: definitions.items, next: None, changed, overruled })
}

/// A tool's name, as a path has it.
#[derive(JsonSchema)]
#[schemars(inline)]
#[expect(dead_code, reason = "only its schema is asked for")]
struct ToolName(
    #[schemars(length(min = 1, max = MAX_NAME_BYTES), regex(pattern = r"^[^\x00-\x1f\x7f-\x9f]*$"))] String,
);

/// A tool in a path: its configuration's id, and its name.
#[derive(Clone, Debug)]
pub struct Named {
    configuration: ConfigurationId,
    tool: String,
}

impl<'a> FromRequest<'a> for Named {
    async fn from_request(request: &'a Request, _body: &mut RequestBody) -> Result<Self> {
        let refused = |field, message: &str| Problem::from(Fault::invalid(field, message));
        let (id, tool) =
            request.path_params::<(String, String)>().map_err(|_| refused("path", "The path is not UTF-8."))?;
        let configuration = id.parse().map_err(|_| refused("id", "An id is a UUID."))?;
        if !(1..=MAX_NAME_BYTES).contains(&tool.len()) || tool.contains(char::is_control) {
            return Err(refused("tool", "Use 1 to 256 bytes without control characters.").into());
        }
        Ok(Self { configuration, tool })
    }
}

/// Which offered definition was seen.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "AcceptedDefinition")]
pub struct AcceptBody {
    /// `offered_sha256` of the change that is accepted.
    #[schemars(regex(pattern = "^[0-9a-f]{64}$"))]
    offered_sha256: String,
}

/// Accepts a changed definition.
#[handler]
pub(crate) async fn accept(
    gateway: Data<&Arc<Gateway>>,
    identity: Identity,
    Named { configuration, tool }: Named,
    Body(AcceptBody { offered_sha256 }): Body<AcceptBody>,
) -> Answer {
    let is_hash = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if offered_sha256.len() != 64 || !offered_sha256.bytes().all(is_hash) {
        return Err(Fault::invalid("offered_sha256", "Give back `offered_sha256` of the change as it was.").into());
    }
    json(StatusCode::OK, &gateway.caller.call(&identity, &Accept { configuration, tool, offered_sha256 }).await?)
}

/// What somebody says of a tool.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ToolRepeatability")]
pub struct OverruleBody {
    /// Whether a call may be repeated; null, or left out, believes the server's hints.
    repeatable: Option<bool>,
}

/// Overrules a server's hints.
#[handler]
pub(crate) async fn overrule(
    gateway: Data<&Arc<Gateway>>,
    identity: Identity,
    Named { configuration, tool }: Named,
    Body(OverruleBody { repeatable }): Body<OverruleBody>,
) -> Answer {
    json(StatusCode::OK, &gateway.caller.call(&identity, &Overrule { configuration, tool, repeatable }).await?)
}
