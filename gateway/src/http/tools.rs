//! `/api/v1/mcp/configurations/{id}/tools`: what a server offers, what was pinned of it, and what
//! people decide about that.

use std::sync::Arc;

use poem::{FromRequest, Request, RequestBody, Result, handler, http::StatusCode, web::Data};
use serde::{Deserialize, Serialize};
use shared::{
    Fault,
    command::tools::{Accept, Change, List, Overrule, Overruled},
    id::ConfigurationId,
    json::Raw,
};

use super::{
    Gateway,
    answer::{Answer, json},
    body::Body,
    id::Id,
    identity::Identity,
    problem::Problem,
};

/// The longest name of a tool, in bytes.
const MAX_NAME_BYTES: usize = 256;

/// The tools of a server: a list, and what of it somebody should look at.
#[derive(Debug, Serialize)]
pub struct Tools {
    /// MCP `Tool` objects as the server wrote them.
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
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcceptBody {
    /// `offered_sha256` of the change that is accepted.
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
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
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
