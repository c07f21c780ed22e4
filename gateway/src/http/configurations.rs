//! `/api/v1/mcp/configurations`: MCP servers that an organization or a user registered.

use std::sync::Arc;

use poem::{handler, http::StatusCode, web::Data};
use serde::{Deserialize, Serialize};
use shared::{
    Fault,
    command::{
        configurations::{Credential, Get, List, Register, Remove, Scope, Transport, Via},
        tools::List as ListTools,
    },
    id::ConfigurationId,
    json::Raw,
    secret::Secret,
};

use super::{
    Gateway,
    answer::{Answer, empty, json, page},
    body::Body,
    id::Id,
    identity::Identity,
    paging::Paging,
};

const DEFAULT_TIMEOUT_MS: u32 = 30_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RegisterBody {
    name: String,
    description: Option<String>,
    scope: Option<Scope>,
    endpoint: String,
    transport: Option<Transport>,
    via: Option<Via>,
    auth: Option<Auth>,
    timeout_ms: Option<u32>,
}

/// How to authenticate. Not an enum with fields: the parser could not say which of them is wrong.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Auth {
    r#type: AuthType,
    token: Option<Secret<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum AuthType {
    None,
    Bearer,
}

impl Auth {
    fn credential(self) -> Result<Credential, Fault> {
        match (self.r#type, self.token) {
            (AuthType::None, None) => Ok(Credential::None),
            (AuthType::Bearer, Some(token)) => Ok(Credential::Bearer(token)),
            (AuthType::None, Some(_)) => Err(Fault::invalid("auth.token", "Only type `bearer` has a token.")),
            (AuthType::Bearer, None) => Err(Fault::invalid("auth.token", "Type `bearer` needs a token.")),
        }
    }
}

impl RegisterBody {
    fn command(self) -> Result<Register, Fault> {
        Ok(Register {
            name: self.name,
            description: self.description,
            scope: self.scope.unwrap_or(Scope::Organization),
            endpoint: self.endpoint,
            transport: self.transport.unwrap_or(Transport::Http),
            via: self.via.unwrap_or(Via::Native),
            credential: self.auth.map_or(Ok(Credential::None), Auth::credential)?,
            timeout_ms: self.timeout_ms.unwrap_or(DEFAULT_TIMEOUT_MS),
        })
    }
}

/// Registers an MCP server.
#[handler]
pub(crate) async fn register(
    gateway: Data<&Arc<Gateway>>,
    identity: Identity,
    Body(body): Body<RegisterBody>,
) -> Answer {
    json(StatusCode::CREATED, &gateway.caller.call(&identity, &body.command()?).await?)
}

/// Lists those the caller sees, by name.
#[handler]
pub(crate) async fn list(gateway: Data<&Arc<Gateway>>, identity: Identity, paging: Paging) -> Answer {
    page(&gateway.caller.call(&identity, &List { cursor: paging.cursor, limit: paging.limit }).await?)
}

/// Reads one.
#[handler]
pub(crate) async fn read(gateway: Data<&Arc<Gateway>>, identity: Identity, Id(id): Id<ConfigurationId>) -> Answer {
    json(StatusCode::OK, &gateway.caller.call(&identity, &Get { id }).await?)
}

/// Removes one.
#[handler]
pub(crate) async fn remove(gateway: Data<&Arc<Gateway>>, identity: Identity, Id(id): Id<ConfigurationId>) -> Answer {
    gateway.caller.call(&identity, &Remove { id }).await?;
    empty()
}

/// The tools of a server: a list with the names of those that an admin should look at.
#[derive(Debug, Serialize)]
struct Tools {
    items: Vec<Raw>,
    next: Option<String>,
    /// Their definition is not the pinned one any more: calls are refused.
    changed: Vec<String>,
}

/// Lists its tools as the server offers them now.
#[handler]
pub(crate) async fn list_tools(
    gateway: Data<&Arc<Gateway>>,
    identity: Identity,
    Id(id): Id<ConfigurationId>,
) -> Answer {
    let definitions = gateway.caller.call(&identity, &ListTools { configuration: id }).await?;
    json(StatusCode::OK, &Tools { items: definitions.items, next: None, changed: definitions.changed })
}
