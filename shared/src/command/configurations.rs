//! MCP configurations: the MCP servers an organization or a user registered.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{id::ConfigurationId, secret::Secret};

/// Whose a configuration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Every member sees it; admins write it.
    Organization,
    /// Only its owner sees and writes it.
    User,
}

/// How the MCP server is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// Streamable HTTP.
    Http,
    /// HTTP with server-sent events, the transport of protocol 2024-11-05 (through the `FastMCP` service).
    Sse,
}

/// Which client speaks to the MCP server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    /// The worker itself.
    Native,
    /// The `FastMCP` service.
    Fastmcp,
}

macro_rules! named {
    ($type:ident { $($variant:ident = $name:literal),+ }) => {
        impl $type {
            /// The name in rows and requests.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// Reads a row's name.
            pub fn parse(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

named!(Scope { Organization = "organization", User = "user" });
named!(Transport { Http = "http", Sse = "sse" });
named!(Via { Native = "native", Fastmcp = "fastmcp" });

/// How we authenticate to the MCP server, as it is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Credential {
    /// Not at all.
    None,
    /// `Authorization: Bearer <token>` (RFC 6750 section 2.1).
    Bearer(Secret<String>),
}

/// How we authenticate to the MCP server, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Authentication {
    /// Not at all.
    None,
    /// By a bearer token.
    Bearer {
        /// The last four characters, for recognition.
        hint: Option<String>,
        /// When it was given.
        set_at: Option<DateTime<Utc>>,
    },
}

/// A configuration as people see it: without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// Its id.
    pub id: ConfigurationId,
    /// Unique within its scope.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// Whose it is.
    pub scope: Scope,
    /// The MCP endpoint.
    pub endpoint: String,
    /// How it is reached.
    pub transport: Transport,
    /// Which client speaks to it.
    pub via: Via,
    /// How we authenticate.
    pub auth: Authentication,
    /// The longest a call may take, in milliseconds.
    pub timeout_ms: u32,
    /// Whether calls are let through.
    pub enabled: bool,
    /// Grows with every change.
    pub generation: i64,
    /// The subject that registered it.
    pub created_by: String,
    /// When.
    pub created_at: DateTime<Utc>,
    /// The last change.
    pub updated_at: DateTime<Utc>,
}

/// Registers an MCP server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Register {
    /// 1 to 64 of `A-Z a-z 0-9 . _ -`; unique within the scope.
    pub name: String,
    /// At most 1,000 characters.
    pub description: Option<String>,
    /// Whose it shall be.
    pub scope: Scope,
    /// An absolute `http` or `https` URL without credentials.
    pub endpoint: String,
    /// How it is reached.
    pub transport: Transport,
    /// Which client speaks to it; `sse` always goes through the `FastMCP` service.
    pub via: Via,
    /// How we authenticate.
    pub credential: Credential,
    /// 1,000 to 300,000.
    pub timeout_ms: u32,
}

/// Lists the configurations the caller sees, by name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct List {
    /// Where the last page ended.
    pub cursor: Option<String>,
    /// At most this many.
    pub limit: u32,
}

/// Reads one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Get {
    /// Which.
    pub id: ConfigurationId,
}

/// Removes one, with its pinned tools and its secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Remove {
    /// Which.
    pub id: ConfigurationId,
}
