//! MCP configurations: the MCP servers an organization or a user registered.

use std::ops::RangeInclusive;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Expected;
use crate::{id::ConfigurationId, secret::Secret};

mod testing;

pub use testing::{Report, Stage, StageReport, Test, TestedServer, ToolProblem, ToolProblemCode, ToolReport};

/// The longest name, in bytes.
pub const MAX_NAME_BYTES: usize = 64;
/// The most configurations that belong to an organization.
pub const MAX_CONFIGURATIONS: i64 = 500;
/// The most configurations of one member.
pub const MAX_OWN_CONFIGURATIONS: i64 = 100;
/// The longest description, in characters.
pub const MAX_DESCRIPTION_CHARS: usize = 1_000;
/// The longest endpoint, in bytes.
pub const MAX_ENDPOINT_BYTES: usize = 2_048;
/// The longest bearer token or header value, in bytes.
pub const MAX_SECRET_BYTES: usize = 8_192;
/// The longest header name, in bytes.
pub const MAX_HEADER_BYTES: usize = 64;
/// The shortest and the longest time that a call may take at the server, in milliseconds.
pub const TIMEOUT_RANGE_MS: RangeInclusive<u32> = 1_000..=300_000;
/// The most times that a call is sent again.
pub const MAX_RETRIES: u8 = 5;
/// The most patterns of one kind.
pub const MAX_PATTERNS: usize = 100;
/// The longest pattern, in bytes.
pub const MAX_PATTERN_BYTES: usize = 128;
/// The longest prefix of tools' names, in bytes.
pub const MAX_PREFIX_BYTES: usize = 32;
/// What names and prefixes are made of, as a schema says it.
pub const PLAIN_PATTERN: &str = "^[A-Za-z0-9._-]*$";
/// What a header's name is made of (RFC 9110 section 5.6.2), as a schema says it.
pub const HEADER_PATTERN: &str = "^[A-Za-z0-9!#$%&'*+.^_`|~-]*$";
/// What a bearer token is made of, as a schema says it.
pub const SECRET_PATTERN: &str = "^[!-~]*$";

/// Whose a configuration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Every member sees it; admins write it.
    Organization,
    /// Only its owner sees and writes it.
    User,
}

/// How the MCP server is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// Streamable HTTP.
    Http,
    /// HTTP with server-sent events, the transport of protocol 2024-11-05 (through the `FastMCP` service).
    Sse,
    /// Standard input and output of a program of the operator's catalogue (through the `FastMCP` service's stdio mode).
    Stdio,
}

/// Which client speaks to the MCP server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    /// The worker itself.
    Native,
    /// The `FastMCP` service.
    Fastmcp,
}

/// What the server said to a secret when it was last used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SecretState {
    /// It was not used yet, or not since it, its header or the server's address changed.
    Unused,
    /// The server took it.
    Valid,
    /// The server refused it.
    Refused,
    /// The server refused it, and it says of itself that its time is over.
    Expired,
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
named!(Transport { Http = "http", Sse = "sse", Stdio = "stdio" });
named!(Via { Native = "native", Fastmcp = "fastmcp" });
named!(SecretState { Unused = "unused", Valid = "valid", Refused = "refused", Expired = "expired" });

/// How we authenticate to the MCP server, as it is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Credential {
    /// Not at all.
    None,
    /// `Authorization: Bearer <token>` (RFC 6750 section 2.1).
    Bearer(Secret<String>),
    /// A header of the server's own.
    Header {
        /// Its name.
        name: String,
        /// Its value.
        value: Secret<String>,
    },
}

/// What becomes of the credential when a configuration is replaced: a secret that is not given
/// again is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NewCredential {
    /// As it was.
    Keep,
    /// The bearer token that is there.
    KeepBearer,
    /// The header's value that is there, under this name.
    KeepHeader {
        /// The header.
        name: String,
    },
    /// This one instead.
    Set(Credential),
}

/// How we authenticate to the MCP server, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
        /// What the server said to it.
        state: SecretState,
        /// When the server began to say so.
        state_at: Option<DateTime<Utc>>,
    },
    /// By a header of the server's own.
    Header {
        /// The header.
        name: String,
        /// The last four characters of its value, for recognition.
        hint: Option<String>,
        /// When it was given.
        set_at: Option<DateTime<Utc>>,
        /// What the server said to it.
        state: SecretState,
        /// When the server began to say so.
        state_at: Option<DateTime<Utc>>,
    },
}

/// Which tools are offered: those that a pattern allows (all, where there is none) and none denies.
/// In a pattern `*` stands for any characters; upper and lower case differ.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ToolFilter {
    /// At most 100 patterns of 1 to 128 bytes.
    #[serde(default)]
    pub allow: Vec<String>,
    /// Likewise; these win.
    #[serde(default)]
    pub deny: Vec<String>,
}

/// A configuration as people see it: without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Configuration {
    /// Its id.
    pub id: ConfigurationId,
    /// Unique within its scope.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// Whose it is.
    pub scope: Scope,
    /// The MCP endpoint; absent for a program.
    pub endpoint: Option<String>,
    /// The program's name in the operator's catalogue, for transport `stdio`.
    pub catalogue: Option<String>,
    /// How it is reached.
    pub transport: Transport,
    /// Which client speaks to it.
    pub via: Via,
    /// How we authenticate.
    pub auth: Authentication,
    /// The longest a call may take, in milliseconds.
    pub timeout_ms: u32,
    /// How often a call that failed is sent again, where that is safe.
    pub retries: u8,
    /// Whether anything is sent to the server.
    pub enabled: bool,
    /// Which tools are offered.
    pub tools: ToolFilter,
    /// Before the tools' names in aggregated lists; the configuration's name where absent.
    pub name_prefix: Option<String>,
    /// Grows with every change.
    pub generation: i64,
    /// The subject that registered it.
    pub created_by: String,
    /// When.
    pub created_at: DateTime<Utc>,
    /// The subject that changed it last.
    pub updated_by: String,
    /// When.
    pub updated_at: DateTime<Utc>,
}

/// What a configuration says, apart from whose it is and its secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// 1 to 64 of `A-Z a-z 0-9 . _ -`; unique within the scope.
    pub name: String,
    /// At most 1,000 characters.
    pub description: Option<String>,
    /// An absolute `http` or `https` URL without credentials; for every transport but `stdio`.
    pub endpoint: Option<String>,
    /// A program's name in the operator's catalogue; for transport `stdio`.
    pub catalogue: Option<String>,
    /// How it is reached.
    pub transport: Transport,
    /// Which client speaks to it; `sse` and `stdio` always go through the `FastMCP` service.
    pub via: Via,
    /// 1,000 to 300,000.
    pub timeout_ms: u32,
    /// 0 to 5: how often a call that failed is sent again, where that is safe.
    pub retries: u8,
    /// Whether anything is sent to the server.
    pub enabled: bool,
    /// Which tools are offered.
    pub tools: ToolFilter,
    /// At most 32 of `A-Z a-z 0-9 . _ -`.
    pub name_prefix: Option<String>,
}

/// Registers an MCP server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Register {
    /// Whose it shall be.
    pub scope: Scope,
    /// What it says.
    pub settings: Settings,
    /// How we authenticate.
    pub credential: Credential,
}

/// Replaces one, unless it changed since it was read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Replace {
    /// Which.
    pub id: ConfigurationId,
    /// Which generation was read.
    pub expected: Expected,
    /// Whose it is: it cannot be changed, and need not be said.
    pub scope: Option<Scope>,
    /// What it says from now on.
    pub settings: Settings,
    /// How we authenticate from now on.
    pub credential: NewCredential,
}

/// Lists the configurations the caller sees, by name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct List {
    /// Where the last page ended.
    pub cursor: Option<String>,
    /// At most this many.
    pub limit: u32,
    /// Of this scope only.
    pub scope: Option<Scope>,
    /// Of this transport only.
    pub transport: Option<Transport>,
    /// Enabled or disabled ones only.
    pub enabled: Option<bool>,
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
    /// Which generation was read.
    pub expected: Expected,
}
