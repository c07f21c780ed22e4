//! The one error that crosses the wire, and the one table that gives it its faces.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What went wrong, as a closed set. The wire name is the snake-case name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The request itself is wrong.
    Invalid,
    /// Nobody is signed in.
    Unauthenticated,
    /// Signed in, but the role does not reach.
    Forbidden,
    /// Missing, or another tenant's: the two are not told apart.
    Unknown,
    /// It exists already.
    Conflict,
    /// It changed since it was read (`If-Match`).
    Stale,
    /// The connection's grant is missing, expired or revoked.
    Reconnect,
    /// The queue is full or a rate or quota is used up.
    Throttled,
    /// The MCP server failed.
    UpstreamFailed,
    /// The MCP server's circuit is open.
    UpstreamOpen,
    /// Nothing was accepted.
    Unavailable,
    /// The deadline passed.
    Timeout,
    /// Accepted, then a worker or NATS was lost.
    OutcomeUnknown,
    /// A bug of ours.
    Internal,
}

/// What a caller may do about a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Retry {
    /// Repeating changes nothing.
    Never,
    /// After connecting the account again.
    AfterReconnecting,
    /// After the time named.
    After,
    /// Safe at once: nothing was accepted.
    Safe,
    /// The effect may have happened already.
    MayRepeatTheEffect,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Face {
    /// The name on the wire and in problem documents.
    pub name: &'static str,
    /// The title of the problem document (RFC 9457 section 3.1.3).
    pub title: &'static str,
    /// HTTP status.
    pub http: u16,
    /// JSON-RPC error code on `/mcp`.
    pub json_rpc: i32,
    /// Advice to the caller.
    pub retry: Retry,
}

impl Code {
    /// Every code, in the table's order.
    pub const ALL: [Self; 14] = [
        Self::Invalid,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::Unknown,
        Self::Conflict,
        Self::Stale,
        Self::Reconnect,
        Self::Throttled,
        Self::UpstreamFailed,
        Self::UpstreamOpen,
        Self::Unavailable,
        Self::Timeout,
        Self::OutcomeUnknown,
        Self::Internal,
    ];

    /// The table.
    #[rustfmt::skip]
    pub const fn face(self) -> Face {
        use Retry::{After, AfterReconnecting, MayRepeatTheEffect, Never, Safe};
        const fn row(name: &'static str, title: &'static str, http: u16, json_rpc: i32, retry: Retry) -> Face {
            Face { name, title, http, json_rpc, retry }
        }
        match self {
            Self::Invalid         => row("invalid",         "The request is invalid",              400, -32602, Never),
            Self::Unauthenticated => row("unauthenticated", "Authentication is required",          401, 401,    Never),
            Self::Forbidden       => row("forbidden",       "The role does not allow this",        403, 403,    Never),
            Self::Unknown         => row("unknown",         "There is no such thing",              404, -32602, Never),
            Self::Conflict        => row("conflict",        "It exists already",                   409, 409,    Never),
            Self::Stale           => row("stale",           "It has changed since it was read",    412, 409,    Never),
            Self::Reconnect       => row("reconnect",       "The account must be connected again", 424, 424,    AfterReconnecting),
            Self::Throttled       => row("throttled",       "Too much at once",                    429, 429,    After),
            Self::UpstreamFailed  => row("upstream_failed", "The MCP server failed",               502, 502,    MayRepeatTheEffect),
            Self::UpstreamOpen    => row("upstream_open",   "The MCP server is resting",           503, 503,    After),
            Self::Unavailable     => row("unavailable",     "Nothing was accepted",                503, 503,    Safe),
            Self::Timeout         => row("timeout",         "The deadline passed",                 504, 504,    MayRepeatTheEffect),
            Self::OutcomeUnknown  => row("outcome_unknown", "Whether it happened is not known",    502, 502,    MayRepeatTheEffect),
            Self::Internal        => row("internal",        "Switchboard failed",                  500, -32603, MayRepeatTheEffect),
        }
    }
}

/// A failure as the person outside sees it. The cause is logged where it happened and never
/// serialised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{}: {message}", code.face().name)]
pub struct Fault {
    /// Which row of the table.
    pub code: Code,
    /// One sentence for the person outside.
    pub message: String,
    /// The field at fault, as a path such as `auth.token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// When to try again, for the codes that say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl Fault {
    /// A fault with a sentence of its own.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), field: None, retry_after_ms: None }
    }

    /// `invalid`, naming the field.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: Some(field.into()), ..Self::new(Code::Invalid, message) }
    }

    /// `unknown`: the same words for what is missing and what belongs to somebody else.
    pub fn unknown(noun: &str) -> Self {
        Self::new(Code::Unknown, format!("There is no such {noun}."))
    }

    /// `internal`: logs the cause here, keeps it from the outside.
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        tracing::error!(%cause, "internal fault");
        Self::new(Code::Internal, "Something went wrong on our side; the request id names it in our logs.")
    }

    /// `unavailable`, with the cause in the log.
    pub fn unavailable(what: &str, cause: impl std::fmt::Display) -> Self {
        tracing::warn!(%cause, what, "unavailable");
        Self::new(Code::Unavailable, format!("{what} cannot be reached; nothing was accepted. Try again."))
    }

    /// `timeout`.
    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(Code::Timeout, message)
    }

    /// Says when to try again.
    #[must_use]
    pub fn after(mut self, wait: Duration) -> Self {
        self.retry_after_ms = Some(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_name_is_the_face_name() {
        for code in Code::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.face().name);
        }
    }

    #[test]
    fn own_json_rpc_codes_stay_outside_the_reserved_range() {
        for code in Code::ALL {
            let number = code.face().json_rpc;
            assert!(number > 0 || [-32602, -32603].contains(&number), "{code:?}");
        }
    }
}
