//! Tools of MCP servers.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    id::{CallId, ConfigurationId, SessionId},
    json::Raw,
};

/// The shortest and the longest patience a caller may ask for, in milliseconds.
pub const TIMEOUT_RANGE_MS: std::ops::RangeInclusive<u32> = 100..=300_000;

/// Calls a tool. Queued: it waits its turn in the organization's lane.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Call {
    /// Names the call in answers, events and the audit trail.
    pub id: CallId,
    /// A configuration's name or id. A user's own name wins over the organization's.
    pub configuration: String,
    /// The tool's name, as the server offers it.
    pub tool: String,
    /// An object that fits the tool's pinned schema.
    pub arguments: Raw,
    /// The session in which it is called, with clients and a workspace of its own.
    #[serde(default)]
    pub session: Option<SessionId>,
}

/// A call that ran. A tool that ran and said no is a result too (`isError`).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Called {
    /// The call.
    pub id: CallId,
    /// The MCP `CallToolResult`, byte for byte as the server sent it.
    pub result: Raw,
    /// Where the time went.
    pub timings: Timings,
    /// What it did to the session's files, if it is a program's and was called in one.
    #[serde(default)]
    pub files: Option<FileChanges>,
}

/// What a call did to the files of its session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileChanges {
    /// How many were written.
    pub written: u32,
    /// How many were removed.
    pub removed: u32,
    /// What was not kept because it is no file, or has a name that no file of a session may have: the
    /// first hundred.
    pub skipped: Vec<String>,
}

/// Where the time of a call went, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Timings {
    /// Waiting in the lane.
    pub queued: f64,
    /// At the MCP server.
    pub upstream: f64,
    /// In the worker altogether.
    pub worker: f64,
}

/// Lists a configuration's tools: asks the server, pins what is new.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct List {
    /// Which.
    pub configuration: ConfigurationId,
}

/// Tool definitions.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Definitions {
    /// MCP `Tool` objects, byte for byte as the server sent them.
    pub items: Vec<Raw>,
    /// Those whose definition differs from the pinned one and waits for somebody to accept it.
    pub changed: Vec<Change>,
    /// Those of which somebody said whether a call may be repeated.
    pub overruled: Vec<Overruled>,
}

/// How a tool's definition differs from the pinned one.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ChangedTool")]
pub struct Change {
    /// The tool.
    pub name: String,
    /// The fields of its definition that differ.
    pub differs: Vec<String>,
    /// Those fields as they are pinned.
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub pinned: Raw,
    /// Those fields as the server offers them now.
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub offered: Raw,
    /// Names the offered definition: who accepts it says which one they saw.
    pub offered_sha256: String,
}

/// A tool of which somebody said whether a call may be repeated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "OverruledTool")]
pub struct Overruled {
    /// The tool.
    pub name: String,
    /// Whether a call may be made again after a worker was lost, whatever the server's hints say.
    pub repeatable: bool,
}

/// Pins the definition that a server offers now in the place of the one that was pinned.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Accept {
    /// Whose tool.
    pub configuration: ConfigurationId,
    /// Which.
    pub tool: String,
    /// The offered definition that was seen, in lower-case hexadecimal.
    pub offered_sha256: String,
}

/// Says whether a call of a tool may be repeated; `None` leaves it to the server's hints.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Overrule {
    /// Whose tool.
    pub configuration: ConfigurationId,
    /// Which.
    pub tool: String,
    /// Whether it may.
    pub repeatable: Option<bool>,
}

/// A pinned tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "PinnedTool")]
pub struct Pin {
    /// The tool.
    pub name: String,
    /// The pinned definition, in lower-case hexadecimal.
    pub definition_sha256: String,
    /// Whether the server offers something else by now.
    pub changed: bool,
    /// What was said about repeating it.
    pub repeatable: Option<bool>,
    /// The subject for whom it was pinned.
    pub pinned_by: String,
    /// When.
    pub pinned_at: DateTime<Utc>,
}

/// What happens to a call of a tool whose definition changed after it was pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ToolPolicy {
    /// It is refused until somebody accepts the definition.
    Block,
    /// It is made, by the definition that the server offers, and the trail says so.
    Warn,
}

impl ToolPolicy {
    /// The name in rows.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Warn => "warn",
        }
    }

    /// Reads a row's name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Block, Self::Warn].into_iter().find(|policy| policy.name() == name)
    }
}
