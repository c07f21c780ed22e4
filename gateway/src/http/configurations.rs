//! `/api/v1/mcp/configurations`: MCP servers that an organization or a user registered.

use std::sync::Arc;

use poem::{handler, http::StatusCode, web::Data};
use schemars::JsonSchema;
use serde::Deserialize;
use shared::{
    Code, Fault,
    command::{
        Expected, Page,
        configurations::{
            Configuration, Credential, Get, HEADER_PATTERN, List, MAX_DESCRIPTION_CHARS, MAX_ENDPOINT_BYTES,
            MAX_HEADER_BYTES, MAX_NAME_BYTES, MAX_PATTERN_BYTES, MAX_PATTERNS, MAX_PREFIX_BYTES, MAX_RETRIES,
            MAX_SECRET_BYTES, NewCredential, PLAIN_PATTERN, Register, Remove, Replace, Report, SECRET_PATTERN, Scope,
            Settings, TIMEOUT_RANGE_MS, Test, TestedServer, ToolFilter, Transport, Via,
        },
    },
    id::ConfigurationId,
    secret::Secret,
};

use super::{
    Gateway,
    answer::{Answer, empty, json, page},
    body::{Body, object},
    etag::{IfMatch, MayMatch, tagged},
    id::Id,
    identity::Identity,
    operation::{self, Operation, delete, get, post, put},
    paging::{Filter, Paged, Paging},
};

const DEFAULT_TIMEOUT_MS: u32 = 30_000;

pub(super) fn operations() -> Vec<Operation> {
    const PATH: &str = "/api/v1/mcp/configurations";
    const ONE: &str = "/api/v1/mcp/configurations/:id";
    operation::of(
        "MCP configurations",
        [
            post(PATH, register, "Registers an MCP server. Only admins register for the whole organization.")
                .sends::<Register>()
                .takes::<ConfigurationBody>()
                .answers::<Configuration>(StatusCode::CREATED)
                .tagged()
                .or_fails([Code::Conflict]),
            get(PATH, list, "Lists the configurations that the caller sees, by name.")
                .sends::<List>()
                .query::<Paging>()
                .query::<Listed>()
                .answers::<Page<Configuration>>(StatusCode::OK),
            get(ONE, read, "Reads a configuration.")
                .sends::<Get>()
                .at_id::<ConfigurationId>()
                .answers::<Configuration>(StatusCode::OK)
                .tagged(),
            put(ONE, replace, "Replaces a configuration. A secret that is not given again is kept.")
                .sends::<Replace>()
                .at_id::<ConfigurationId>()
                .if_match()
                .takes::<ConfigurationBody>()
                .answers::<Configuration>(StatusCode::OK)
                .tagged()
                .or_fails([Code::Conflict]),
            delete(ONE, remove, "Removes a configuration with its pinned tools and its secret.")
                .sends::<Remove>()
                .at_id::<ConfigurationId>()
                .may_match()
                .answers_nothing(),
            post("/api/v1/mcp/test", test, "Tries a server out, saved or not, and reports how far it came.")
                .sends::<Test>()
                .takes::<TestBody>()
                .answers::<Report>(StatusCode::OK)
                .or_fails([Code::Unknown]),
        ],
    )
}

/// What registers a configuration, and what replaces one.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ConfigurationSettings")]
pub struct ConfigurationBody {
    /// Unique within its scope; not in the form of an id.
    #[schemars(length(min = 1, max = MAX_NAME_BYTES), regex(pattern = PLAIN_PATTERN))]
    name: String,
    /// For people.
    #[schemars(length(max = MAX_DESCRIPTION_CHARS))]
    description: Option<String>,
    /// Whose it is; the organization's by default.
    scope: Option<Scope>,
    /// The MCP endpoint, for every transport but `stdio`: an absolute `https` URL (`http` where the deployment allows
    /// it) to a public host.
    #[schemars(length(max = MAX_ENDPOINT_BYTES), extend("format" = "uri"))]
    endpoint: Option<String>,
    /// A program's name in the operator's catalogue; for transport `stdio`.
    #[schemars(length(min = 1, max = MAX_NAME_BYTES), regex(pattern = PLAIN_PATTERN))]
    catalogue: Option<String>,
    /// How it is reached; `http` by default.
    transport: Option<Transport>,
    /// Which client speaks to it; `native` by default.
    via: Option<Via>,
    /// How to authenticate. Left out: not at all for a new one, as before for one that is replaced.
    #[serde(default, deserialize_with = "object")]
    auth: Option<Auth>,
    /// The longest a call may take at the server; 30,000 by default.
    #[schemars(range(min = *TIMEOUT_RANGE_MS.start(), max = *TIMEOUT_RANGE_MS.end()))]
    timeout_ms: Option<u32>,
    /// How often a call that failed is sent again, where that is safe; 0 by default.
    #[schemars(range(max = MAX_RETRIES))]
    retries: Option<u8>,
    /// Whether anything is sent to the server; by default it is.
    enabled: Option<bool>,
    /// Which tools are offered; all by default.
    #[serde(default, deserialize_with = "object")]
    tools: Option<FilterBody>,
    /// Before the tools' names in aggregated lists; the configuration's name by default.
    #[schemars(length(max = MAX_PREFIX_BYTES), regex(pattern = PLAIN_PATTERN))]
    name_prefix: Option<String>,
}

/// Which tools are offered. In a pattern `*` stands for any characters.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "NewToolFilter")]
pub struct FilterBody {
    /// Patterns of which one must fit; all tools where there is none.
    #[schemars(length(max = MAX_PATTERNS), inner(length(min = 1, max = MAX_PATTERN_BYTES)))]
    allow: Option<Vec<String>>,
    /// Patterns of which none may fit.
    #[schemars(length(max = MAX_PATTERNS), inner(length(min = 1, max = MAX_PATTERN_BYTES)))]
    deny: Option<Vec<String>>,
}

impl From<FilterBody> for ToolFilter {
    fn from(FilterBody { allow, deny }: FilterBody) -> Self {
        Self { allow: allow.unwrap_or_default(), deny: deny.unwrap_or_default() }
    }
}

/// How to authenticate. Not an enum with fields: the parser could not say which of them is wrong.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "NewAuthentication")]
pub struct Auth {
    /// Which kind.
    r#type: AuthType,
    /// The secret of type `bearer`.
    #[schemars(length(min = 1, max = MAX_SECRET_BYTES), regex(pattern = SECRET_PATTERN))]
    token: Option<Secret<String>>,
    /// The header of type `header`; those of HTTP and of MCP are refused.
    #[schemars(length(min = 1, max = MAX_HEADER_BYTES), regex(pattern = HEADER_PATTERN))]
    name: Option<String>,
    /// Its secret value: visible ASCII, with spaces only within.
    #[schemars(length(min = 1, max = MAX_SECRET_BYTES))]
    value: Option<Secret<String>>,
}

/// A kind of authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuthType {
    /// Not at all.
    None,
    /// A bearer token.
    Bearer,
    /// A header of the server's own.
    Header,
    /// Each member's own grant. Not there yet, and said so.
    Oauth,
}

impl Auth {
    /// Refuses fields that the type does not have.
    fn fits(&self) -> Result<(), Fault> {
        use AuthType::{Bearer, Header, Oauth};
        if self.r#type == Oauth {
            return Err(Fault::invalid("auth.type", "OAuth is not there yet; use `none`, `bearer` or `header`."));
        }
        if self.token.is_some() && self.r#type != Bearer {
            return Err(Fault::invalid("auth.token", "Only type `bearer` has a token."));
        }
        for (field, is_there) in [("auth.name", self.name.is_some()), ("auth.value", self.value.is_some())] {
            if is_there && self.r#type != Header {
                return Err(Fault::invalid(field, "Only type `header` has this field."));
            }
        }
        if self.r#type == Header && self.name.is_none() {
            return Err(Fault::invalid("auth.name", "Type `header` needs the header's name."));
        }
        Ok(())
    }

    fn credential(self) -> Result<Credential, Fault> {
        self.fits()?;
        match (self.r#type, self.token, self.value) {
            (AuthType::Bearer, None, _) => Err(Fault::invalid("auth.token", "Type `bearer` needs a token.")),
            (AuthType::Header, _, None) => Err(Fault::invalid("auth.value", "Type `header` needs a value.")),
            (AuthType::Bearer, Some(token), _) => Ok(Credential::Bearer(token)),
            (AuthType::Header, _, Some(value)) => Ok(Credential::Header { name: self.name.unwrap_or_default(), value }),
            (AuthType::None | AuthType::Oauth, ..) => Ok(Credential::None),
        }
    }

    /// What becomes of a credential that is there already: a secret that is left out stays.
    fn new_credential(self) -> Result<NewCredential, Fault> {
        self.fits()?;
        match (self.r#type, &self.token, &self.value) {
            (AuthType::Bearer, None, _) => Ok(NewCredential::KeepBearer),
            (AuthType::Header, _, None) => Ok(NewCredential::KeepHeader { name: self.name.unwrap_or_default() }),
            _ => self.credential().map(NewCredential::Set),
        }
    }
}

impl ConfigurationBody {
    fn parts(self) -> (Settings, Option<Scope>, Option<Auth>) {
        let settings = Settings {
            name: self.name,
            description: self.description,
            endpoint: self.endpoint,
            catalogue: self.catalogue,
            transport: self.transport.unwrap_or(Transport::Http),
            via: self.via.unwrap_or(Via::Native),
            timeout_ms: self.timeout_ms.unwrap_or(DEFAULT_TIMEOUT_MS),
            retries: self.retries.unwrap_or(0),
            enabled: self.enabled.unwrap_or(true),
            tools: self.tools.map(ToolFilter::from).unwrap_or_default(),
            name_prefix: self.name_prefix,
        };
        (settings, self.scope, self.auth)
    }

    fn register(self) -> Result<Register, Fault> {
        let (settings, scope, auth) = self.parts();
        let credential = auth.map_or(Ok(Credential::None), Auth::credential)?;
        Ok(Register { scope: scope.unwrap_or(Scope::Organization), settings, credential })
    }

    fn replace(self, id: ConfigurationId, expected: Expected) -> Result<Replace, Fault> {
        let (settings, scope, auth) = self.parts();
        let credential = auth.map_or(Ok(NewCredential::Keep), Auth::new_credential)?;
        Ok(Replace { id, expected, scope, settings, credential })
    }
}

fn shown(status: StatusCode, configuration: &Configuration) -> Answer {
    tagged(configuration.generation, json(status, configuration))
}

/// Registers an MCP server.
#[handler]
pub(crate) async fn register(
    gateway: Data<&Arc<Gateway>>,
    identity: Identity,
    Body(body): Body<ConfigurationBody>,
) -> Answer {
    shown(StatusCode::CREATED, &gateway.caller.call(&identity, &body.register()?).await?)
}

/// Which configurations are listed.
#[derive(Clone, Copy, Debug, Default, JsonSchema)]
pub struct Listed {
    /// Of this scope only.
    scope: Option<Scope>,
    /// Of this transport only.
    transport: Option<Transport>,
    /// Only those to which something is sent, or those to which nothing is.
    enabled: Option<bool>,
}

impl Filter for Listed {
    fn take(&mut self, name: &str, value: &str) -> Option<Result<(), Fault>> {
        let known = match name {
            "scope" => {
                self.scope = Scope::parse(value);
                self.scope.map(drop).ok_or("Use `organization` or `user`.")
            }
            "transport" => {
                self.transport = Transport::parse(value);
                self.transport.map(drop).ok_or("There is no such transport.")
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

/// Lists those the caller sees, by name.
#[handler]
pub(crate) async fn list(gateway: Data<&Arc<Gateway>>, identity: Identity, paged: Paged<Listed>) -> Answer {
    let Paged { paging: Paging { cursor, limit }, filter: Listed { scope, transport, enabled } } = paged;
    page(&gateway.caller.call(&identity, &List { cursor, limit, scope, transport, enabled }).await?)
}

/// Reads one.
#[handler]
pub(crate) async fn read(gateway: Data<&Arc<Gateway>>, identity: Identity, Id(id): Id<ConfigurationId>) -> Answer {
    shown(StatusCode::OK, &gateway.caller.call(&identity, &Get { id }).await?)
}

/// Replaces one.
#[handler]
pub(crate) async fn replace(
    gateway: Data<&Arc<Gateway>>,
    identity: Identity,
    Id(id): Id<ConfigurationId>,
    IfMatch(expected): IfMatch,
    Body(body): Body<ConfigurationBody>,
) -> Answer {
    shown(StatusCode::OK, &gateway.caller.call(&identity, &body.replace(id, expected)?).await?)
}

/// Removes one.
#[handler]
pub(crate) async fn remove(
    gateway: Data<&Arc<Gateway>>,
    identity: Identity,
    Id(id): Id<ConfigurationId>,
    MayMatch(expected): MayMatch,
) -> Answer {
    gateway.caller.call(&identity, &Remove { id, expected }).await?;
    empty()
}

/// A server that is tried out: one that is there, or one that could be registered.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ServerToTry")]
pub struct TestBody {
    /// The id of a configuration. Nothing else is given with it.
    #[schemars(extend("format" = "uuid"))]
    configuration: Option<String>,
    /// The MCP endpoint of one that is not there yet.
    #[schemars(length(max = MAX_ENDPOINT_BYTES), extend("format" = "uri"))]
    endpoint: Option<String>,
    /// The program of one that is not there yet, for transport `stdio`.
    catalogue: Option<String>,
    /// Whose it would be; the organization's by default.
    scope: Option<Scope>,
    /// How it is reached; `http` by default.
    transport: Option<Transport>,
    /// Which client speaks to it; `native` by default.
    via: Option<Via>,
    /// How to authenticate; not at all by default.
    #[serde(default, deserialize_with = "object")]
    auth: Option<Auth>,
}

impl TestBody {
    fn command(self) -> Result<Test, Fault> {
        let Some(id) = self.configuration else {
            if self.endpoint.is_none() && self.catalogue.is_none() {
                let field = if self.transport == Some(Transport::Stdio) { "catalogue" } else { "endpoint" };
                return Err(Fault::invalid(field, "Give the id of a configuration, or say where a server is."));
            }
            let server = TestedServer::Unsaved {
                scope: self.scope.unwrap_or(Scope::Organization),
                endpoint: self.endpoint,
                catalogue: self.catalogue,
                transport: self.transport.unwrap_or(Transport::Http),
                via: self.via.unwrap_or(Via::Native),
                credential: self.auth.map_or(Ok(Credential::None), Auth::credential)?,
            };
            return Ok(Test { server });
        };
        let others = [
            ("endpoint", self.endpoint.is_some()),
            ("catalogue", self.catalogue.is_some()),
            ("scope", self.scope.is_some()),
            ("transport", self.transport.is_some()),
            ("via", self.via.is_some()),
            ("auth", self.auth.is_some()),
        ];
        if let Some((field, _)) = others.into_iter().find(|(_, is_there)| *is_there) {
            return Err(Fault::invalid(field, "A configuration that is there says this itself."));
        }
        let id = id.parse().map_err(|_| Fault::invalid("configuration", "An id is a UUID."))?;
        Ok(Test { server: TestedServer::Saved(id) })
    }
}

/// Tries a server out.
#[handler]
pub(crate) async fn test(gateway: Data<&Arc<Gateway>>, identity: Identity, Body(body): Body<TestBody>) -> Answer {
    json(StatusCode::OK, &gateway.caller.call(&identity, &body.command()?).await?)
}
