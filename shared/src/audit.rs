//! What happened, as plain data. The event is written down once, where the command ran; these
//! bytes are what the stream, the table and an export hold.

use serde::{Deserialize, Serialize};

use crate::{
    context::Context,
    fault::Code,
    id::{CallId, EventId, OrganizationId},
};

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It did what was asked.
    Succeeded,
    /// It was not allowed or not valid.
    Refused,
    /// It was tried and failed.
    Failed,
}

impl Outcome {
    /// A refusal leaves the world untouched by rule; a failure does not promise that.
    pub const fn of(code: Code) -> Self {
        match code {
            Code::Invalid
            | Code::Unauthenticated
            | Code::Forbidden
            | Code::Unknown
            | Code::Conflict
            | Code::Stale
            | Code::Throttled => Self::Refused,
            _ => Self::Failed,
        }
    }

    /// The name in the table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// What a command acted upon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resource {
    /// The noun, e.g. `configuration`.
    pub kind: String,
    /// Its id or name.
    pub id: String,
}

/// One audit event. Holds no secret, argument or result: at most hashes of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Derived from call and attempt.
    pub id: EventId,
    /// The tenant.
    pub organization: OrganizationId,
    /// Milliseconds since the Unix epoch.
    pub occurred_at_ms: u64,
    /// The subject that acted.
    pub actor: String,
    /// The role it acted in.
    pub role: String,
    /// The command, e.g. `configurations.register`.
    pub action: String,
    /// What it acted upon, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<Resource>,
    /// How it ended.
    pub outcome: Outcome,
    /// The fault's code, if it did not succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// The HTTP request it came from.
    pub request_id: String,
    /// The command on its way.
    pub call: CallId,
    /// Which delivery of it, from 1.
    pub attempt: u64,
    /// Facts about the act, chosen by the command.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub details: serde_json::Map<String, serde_json::Value>,
}

/// What a command notes about itself while it runs.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    resource: Option<Resource>,
    details: serde_json::Map<String, serde_json::Value>,
}

impl Notes {
    /// Names what is acted upon.
    pub fn resource(&mut self, kind: &str, id: &(impl ToString + ?Sized)) {
        self.resource = Some(Resource { kind: kind.to_owned(), id: storable(&id.to_string()) });
    }

    /// Adds a fact. Never an argument, a result or a secret.
    pub fn detail(&mut self, name: &str, value: impl Into<serde_json::Value>) {
        let value = match value.into() {
            serde_json::Value::String(text) => storable(&text).into(),
            other => other,
        };
        self.details.insert(name.to_owned(), value);
    }
}

/// PostgreSQL has no NUL in text: one in a name would refuse the whole batch it is written with.
fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

impl Event {
    /// The event of one attempt at a command.
    pub fn of(
        context: &Context,
        action: &str,
        call: CallId,
        attempt: u64,
        notes: Notes,
        end: Result<(), Code>,
    ) -> Self {
        let code = end.err();
        Self {
            id: EventId::of_attempt(call, attempt),
            organization: context.organization,
            occurred_at_ms: crate::context::now_unix_ms(),
            actor: context.actor.subject.clone(),
            role: if context.actor.operator { "operator" } else { context.actor.role.name() }.to_owned(),
            action: action.to_owned(),
            resource: notes.resource,
            outcome: code.map_or(Outcome::Succeeded, Outcome::of),
            code,
            request_id: context.request_id.clone(),
            call,
            attempt,
            details: notes.details,
        }
    }
}
