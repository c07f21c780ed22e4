//! Tools of MCP servers.

use serde::{Deserialize, Serialize};

use crate::{
    id::{CallId, ConfigurationId},
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
    /// Names whose definition differs from the pinned one and waits for an admin.
    pub changed: Vec<String>,
}
