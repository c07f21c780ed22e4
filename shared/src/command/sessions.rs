//! Sessions: one agent's run on behalf of one member, with a prompt that does not change any more.

use std::ops::RangeInclusive;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::prompts::Composed;
use crate::{
    fault::Fault,
    id::{SessionId, UserId},
    json::exceeds_depth,
};

/// Where a session is in its life. Nothing leads back to `active`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "SessionState")]
pub enum State {
    /// Can be used.
    Active,
    /// Its time was over.
    Expired,
    /// Somebody ended it, or its member or organization is gone.
    Ended,
}

impl State {
    /// The name in rows.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Expired => "expired",
            Self::Ended => "ended",
        }
    }

    /// Reads a row's name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Active, Self::Expired, Self::Ended].into_iter().find(|state| state.name() == name)
    }
}

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// It was not used for too long.
    Idle,
    /// It was as old as it may get.
    Age,
    /// Its member ended it.
    Asked,
    /// An admin ended it.
    Admin,
    /// Its member may not act any more.
    MemberGone,
    /// Its organization is gone.
    OrganizationGone,
}

impl EndReason {
    /// The name in rows.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Age => "age",
            Self::Asked => "asked",
            Self::Admin => "admin",
            Self::MemberGone => "member_gone",
            Self::OrganizationGone => "organization_gone",
        }
    }

    /// Reads a row's name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Idle, Self::Age, Self::Asked, Self::Admin, Self::MemberGone, Self::OrganizationGone]
            .into_iter()
            .find(|reason| reason.name() == name)
    }

    /// The state that it leads to.
    pub const fn state(self) -> State {
        match self {
            Self::Idle | Self::Age => State::Expired,
            Self::Asked | Self::Admin | Self::MemberGone | Self::OrganizationGone => State::Ended,
        }
    }
}

/// What a session's files take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Files {
    /// Bytes in use.
    pub bytes: i64,
    /// Bytes that may be.
    pub quota_bytes: i64,
}

/// A session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// The membership it belongs to.
    pub user: UserId,
    /// That member's subject.
    pub subject: String,
    /// What kind of agent runs in it, as the opener named it.
    pub agent_type: String,
    /// Where it is in its life. One whose time is over is `expired` at once.
    pub state: State,
    /// Why it is over.
    pub end_reason: Option<EndReason>,
    /// The opener's own.
    pub metadata: Map<String, Value>,
    /// The frozen prompt; absent in lists.
    pub prompt: Option<Composed>,
    /// When it was opened.
    pub created_at: DateTime<Utc>,
    /// The last use, to some seconds.
    pub touched_at: DateTime<Utc>,
    /// How long it may stand unused.
    pub idle_seconds: u32,
    /// When it is over in any case.
    pub expires_at: DateTime<Utc>,
    /// When it is over unless it is used before.
    pub usable_until: DateTime<Utc>,
    /// When it was over.
    pub ended_at: Option<DateTime<Utc>>,
    /// What its files take.
    pub files: Files,
    /// Grows when the state changes.
    pub generation: i64,
}

/// The longest name of an agent's kind, in characters.
pub const MAX_AGENT_TYPE_CHARS: usize = 64;
/// What it is made of.
pub const AGENT_TYPE_PATTERN: &str = "^[A-Za-z0-9][A-Za-z0-9._/-]*$";
/// The oldest a session may get, in seconds.
pub const TTL_SECONDS: RangeInclusive<u32> = 1..=604_800;
/// And unless the opener says otherwise.
pub const DEFAULT_TTL_SECONDS: u32 = 86_400;
/// How long it may stand unused, in seconds.
pub const IDLE_SECONDS: RangeInclusive<u32> = 1..=604_800;
/// And unless the opener says otherwise.
pub const DEFAULT_IDLE_SECONDS: u32 = 3_600;
/// The most metadata, in bytes of JSON.
pub const MAX_METADATA_BYTES: usize = 4_096;
/// How deep metadata may nest.
pub const MAX_METADATA_DEPTH: usize = 8;

/// Opens a session for the caller.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Open {
    /// What kind of agent runs in it.
    pub agent_type: String,
    /// The oldest it may get.
    pub ttl_seconds: Option<u32>,
    /// How long it may stand unused.
    pub idle_seconds: Option<u32>,
    /// The opener's own.
    pub metadata: Option<Map<String, Value>>,
    /// Text of the session's own, the last part of its prompt.
    pub prompt: Option<String>,
}

impl Open {
    /// Refuses what no session can be opened with.
    pub fn check(&self) -> Result<(), Fault> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._/-".contains(&byte);
        if !(1..=MAX_AGENT_TYPE_CHARS).contains(&self.agent_type.len())
            || !self.agent_type.bytes().all(fits)
            || !self.agent_type.as_bytes()[0].is_ascii_alphanumeric()
        {
            let rule = "letters, digits, `.`, `_`, `/` and `-`, the first a letter or digit";
            return Err(Fault::invalid("agent_type", format!("Use 1 to {MAX_AGENT_TYPE_CHARS} {rule}.")));
        }
        for (field, given, bounds) in
            [("ttl_seconds", self.ttl_seconds, TTL_SECONDS), ("idle_seconds", self.idle_seconds, IDLE_SECONDS)]
        {
            if given.is_some_and(|given| !bounds.contains(&given)) {
                return Err(Fault::invalid(field, format!("Use {} to {}.", bounds.start(), bounds.end())));
            }
        }
        self.metadata.as_ref().map_or(Ok(()), check_metadata)
    }
}

fn check_metadata(metadata: &Map<String, Value>) -> Result<(), Fault> {
    let bytes = serde_json::to_vec(metadata).map_err(Fault::internal)?;
    if bytes.len() > MAX_METADATA_BYTES {
        return Err(Fault::invalid("metadata", format!("Use at most {MAX_METADATA_BYTES} bytes of JSON.")));
    }
    if exceeds_depth(&bytes, MAX_METADATA_DEPTH) {
        return Err(Fault::invalid("metadata", format!("Nest at most {MAX_METADATA_DEPTH} levels.")));
    }
    // PostgreSQL has no NUL in text. A backslash that is itself escaped stands before no escape.
    if String::from_utf8_lossy(&bytes).replace("\\\\", "").contains("\\u0000") {
        return Err(Fault::invalid("metadata", "Use no NUL character."));
    }
    Ok(())
}

/// Lists sessions by id, which is the order they were opened in: the caller's own unless an admin asks
/// for more.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct List {
    /// Where the last page ended.
    pub cursor: Option<String>,
    /// At most this many.
    pub limit: u32,
    /// Only those in this state.
    pub state: Option<State>,
    /// Everybody's; for admins.
    pub all: bool,
    /// This member's; for admins.
    pub user: Option<UserId>,
}

/// Reads one: the caller's own, or for admins anybody's.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Get {
    /// Which.
    pub id: SessionId,
}

/// Ends one: the caller's own, or for admins anybody's. One that is over stays as it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct End {
    /// Which.
    pub id: SessionId,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(metadata: &Value) -> Open {
        Open {
            agent_type: "coder".into(),
            ttl_seconds: None,
            idle_seconds: None,
            metadata: metadata.as_object().cloned(),
            prompt: None,
        }
    }

    #[test]
    fn what_is_out_of_bounds_is_named() {
        let field = |open: Open| open.check().err().and_then(|fault| fault.field);
        let sound = || open(&Value::Null);
        assert_eq!(field(sound()), None);
        assert_eq!(field(Open { agent_type: "a/b-c_d.1".into(), ..sound() }), None);
        for agent_type in ["", "-a", "a b", "ä", "a\0", &"a".repeat(65)] {
            assert_eq!(field(Open { agent_type: agent_type.into(), ..sound() }).as_deref(), Some("agent_type"));
        }
        assert_eq!(field(Open { ttl_seconds: Some(0), ..sound() }).as_deref(), Some("ttl_seconds"));
        assert_eq!(field(Open { idle_seconds: Some(604_801), ..sound() }).as_deref(), Some("idle_seconds"));
    }

    #[test]
    fn metadata_that_cannot_be_kept_is_refused() {
        let refused = |metadata: Value| open(&metadata).check().is_err();
        assert!(!refused(serde_json::json!({ "a": { "b": [1, 2.5, "x"] } })));
        assert!(!refused(serde_json::json!({ "text": "a backslash before \\u0000 as written" })));
        assert!(refused(serde_json::json!({ "a": "\0" })));
        assert!(refused(serde_json::json!({ "a\0": 1 })));
        assert!(refused(serde_json::json!({ "a": "x".repeat(MAX_METADATA_BYTES) })));
        assert!(refused(serde_json::json!({ "a": [[[[[[[[1]]]]]]]] })));
    }

    #[test]
    fn names_read_back() {
        for state in [State::Active, State::Expired, State::Ended] {
            assert_eq!(State::parse(state.name()), Some(state));
        }
        for name in ["idle", "age", "asked", "admin", "member_gone", "organization_gone"] {
            assert_eq!(EndReason::parse(name).map(EndReason::name), Some(name));
        }
    }
}
