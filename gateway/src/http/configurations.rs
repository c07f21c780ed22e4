//! `/api/v1/mcp/configurations`: MCP servers that an organization or a user registered.

use std::sync::Arc;

use poem::{handler, http::StatusCode, web::{Data, Path}};
use serde::Deserialize;
use shared::{
    Fault,
    command::{
        Page,
        configurations::{Credential, Get, List, Register, Remove, Scope, Transport, Via},
        tools::List as ListTools,
    },
    id::ConfigurationId,
    secret::Secret,
};

use super::{
    Gateway,
    answer::{Answer, empty, json, page},
    body::Body,
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

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum Auth {
    None {},
    Bearer { token: Secret<String> },
}

impl From<RegisterBody> for Register {
    fn from(body: RegisterBody) -> Self {
        Self {
            name: body.name,
            description: body.description,
            scope: body.scope.unwrap_or(Scope::Organization),
            endpoint: body.endpoint,
            transport: body.transport.unwrap_or(Transport::Http),
            via: body.via.unwrap_or(Via::Native),
            credential: match body.auth {
                None | Some(Auth::None {}) => Credential::None,
                Some(Auth::Bearer { token }) => Credential::Bearer(token),
            },
            timeout_ms: body.timeout_ms.unwrap_or(DEFAULT_TIMEOUT_MS),
        }
    }
}

fn id(text: &str) -> Result<ConfigurationId, Fault> {
    text.parse().map_err(|_| Fault::invalid("id", "A configuration's id is a UUID."))
}

/// Registers an MCP server.
#[handler]
pub(crate) async fn register(gateway: Data<&Arc<Gateway>>, identity: Identity, Body(body): Body<RegisterBody>) -> Answer {
    json(StatusCode::CREATED, &gateway.caller.call(&identity, &Register::from(body)).await?)
}

/// Lists those the caller sees, by name.
#[handler]
pub(crate) async fn list(gateway: Data<&Arc<Gateway>>, identity: Identity, paging: Paging) -> Answer {
    page(&gateway.caller.call(&identity, &List { cursor: paging.cursor, limit: paging.limit }).await?)
}

/// Reads one.
#[handler]
pub(crate) async fn read(gateway: Data<&Arc<Gateway>>, identity: Identity, Path(text): Path<String>) -> Answer {
    json(StatusCode::OK, &gateway.caller.call(&identity, &Get { id: id(&text)? }).await?)
}

/// Removes one.
#[handler]
pub(crate) async fn remove(gateway: Data<&Arc<Gateway>>, identity: Identity, Path(text): Path<String>) -> Answer {
    gateway.caller.call(&identity, &Remove { id: id(&text)? }).await?;
    empty()
}

/// Lists its tools as the server offers them now.
#[handler]
pub(crate) async fn list_tools(gateway: Data<&Arc<Gateway>>, identity: Identity, Path(text): Path<String>) -> Answer {
    let definitions = gateway.caller.call(&identity, &ListTools { configuration: id(&text)? }).await?;
    page(&Page { items: definitions.items, next: None })
}
