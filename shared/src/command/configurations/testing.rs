//! Trying a server out: how far a connection comes, and what is wrong with what is found.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Credential, Scope, Transport, Via};
use crate::id::ConfigurationId;

/// Tries a server out: connects, negotiates, lists its tools and looks at them. Nothing is called.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Test {
    /// Which.
    pub server: TestedServer,
}

/// Which server is tried out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum TestedServer {
    /// A configuration that is there. What is new of its tools is pinned.
    Saved(ConfigurationId),
    /// One that is not there yet. Nothing of it is kept.
    Unsaved {
        /// Whose it would be: the same may try it out who may register it.
        scope: Scope,
        /// The MCP endpoint; for every transport but `stdio`.
        endpoint: Option<String>,
        /// A program's name in the operator's catalogue; for transport `stdio`.
        catalogue: Option<String>,
        /// How it is reached.
        transport: Transport,
        /// Which client speaks to it.
        via: Via,
        /// How we authenticate.
        credential: Credential,
    },
}

/// How a trial ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// Whether every stage was passed.
    pub ok: bool,
    /// The stages that were entered, in their order; the last one is where it ended.
    pub stages: Vec<StageReport>,
    /// The tools that were found.
    pub tools: Vec<ToolReport>,
    /// What a person can do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// One stage of a trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StageReport {
    /// Which.
    pub stage: Stage,
    /// Whether it was passed.
    pub ok: bool,
    /// How long it took, in milliseconds; zero for what was learnt along with another stage.
    pub ms: f64,
    /// What was found, or what went wrong. Never a server's own words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// The stages of a trial, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The address may be connected to, as it is written.
    Address,
    /// Its host has an address that may be connected to.
    Dns,
    /// Something listens there.
    Tcp,
    /// It speaks TLS with a certificate that is trusted. Only of `https`.
    Tls,
    /// The program starts. In place of all before and of the next.
    Program,
    /// It answers HTTP.
    Http,
    /// It speaks a version of MCP that is spoken here.
    Protocol,
    /// It takes the credential, or asks for none.
    Auth,
    /// It lists its tools.
    Tools,
}

/// A tool that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ToolReport {
    /// Its name, made printable.
    pub name: String,
    /// What is wrong with it.
    pub problems: Vec<ToolProblem>,
}

/// What is wrong with a tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ToolProblem {
    /// Which kind of problem.
    pub code: ToolProblemCode,
    /// In words.
    pub detail: String,
}

/// The kinds of problems a tool can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ToolProblemCode {
    /// It has no name.
    NameMissing,
    /// Its name is longer than 128 characters, or empty.
    NameLength,
    /// Its name has characters other than `A-Z a-z 0-9 . _ -`.
    NameCharacters,
    /// Another tool has the same name.
    NameDuplicate,
    /// Its input schema is missing, or is not one of an object.
    InputSchema,
    /// A schema of it is no JSON Schema 2020-12.
    SchemaInvalid,
    /// Its input schema is too heavy to check arguments against it.
    SchemaHeavy,
    /// It wants arguments in headers in a way that cannot be obeyed.
    HeaderAnnotation,
    /// Its definition is larger than 256 KiB or nests too deep: it is not offered.
    Size,
    /// Its texts hold characters that people do not see and models read.
    HiddenText,
}
