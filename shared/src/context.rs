//! Who asks, for which organization, until when. Built in two places only: where the gateway
//! verified a token, and where a worker decodes an envelope.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::OrganizationId;

/// A member's role within the organization. Ordered: an admin may do what a user may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Manages what is their own.
    User,
    /// Manages what is the organization's.
    Admin,
}

impl Role {
    /// The name in claims and rows; serde writes the same.
    pub const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Admin => "admin",
        }
    }

    /// Reads a name; anything else is no role.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "user" => Some(Self::User),
            "admin" => Some(Self::Admin),
            _ => None,
        }
    }
}

/// The person or service that acts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// The token's `sub` (RFC 7519 section 4.1.2): 1 to 255 visible ASCII characters.
    pub subject: String,
    /// The role within the organization: the lower of the claim and the stored one.
    pub role: Role,
    /// A platform operator: a claim of its own that no organization's admin can grant.
    pub operator: bool,
}

/// The longest subject that is accepted, in bytes.
pub const MAX_SUBJECT_BYTES: usize = 255;

/// True when a subject can travel in headers, keys and rows: visible ASCII, 1 to 255 bytes.
pub fn is_valid_subject(subject: &str) -> bool {
    (1..=MAX_SUBJECT_BYTES).contains(&subject.len()) && subject.bytes().all(|byte| byte.is_ascii_graphic())
}

/// An instant after which nobody waits any more. Milliseconds since the Unix epoch; hosts keep
/// their clocks by NTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline {
    unix_ms: u64,
}

impl Deadline {
    /// From now on.
    pub fn after(patience: Duration) -> Self {
        Self { unix_ms: now_unix_ms().saturating_add(millis(patience)) }
    }

    /// At a moment that came over the wire.
    pub const fn at_unix_ms(unix_ms: u64) -> Self {
        Self { unix_ms }
    }

    /// The moment, for the wire.
    pub const fn unix_ms(self) -> u64 {
        self.unix_ms
    }

    /// The time left; zero once passed.
    pub fn remaining(self) -> Duration {
        Duration::from_millis(self.unix_ms.saturating_sub(now_unix_ms()))
    }

    /// True once nobody waits any more.
    pub fn has_passed(self) -> bool {
        self.remaining().is_zero()
    }
}

/// Milliseconds since the Unix epoch.
pub fn now_unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// One request's circumstances: first argument of everything done on its behalf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// The tenant. From a verified claim or a subject token, never from a body.
    pub organization: OrganizationId,
    /// Who acts.
    pub actor: Actor,
    /// Names the HTTP request in every log line and answer on its road.
    pub request_id: String,
    /// When the caller stops waiting.
    pub deadline: Deadline,
    /// W3C Trace Context `traceparent`, if the caller sent one.
    pub traceparent: Option<String>,
}

impl Context {
    /// The same circumstances with less patience: the earlier of the two deadlines.
    #[must_use]
    pub fn within(&self, patience: Duration) -> Self {
        Self { deadline: self.deadline.min(Deadline::after(patience)), ..self.clone() }
    }

    /// The same circumstances with patience anew, for a request whose body goes on: each part of it has
    /// its own time.
    #[must_use]
    pub fn again(&self, patience: Duration) -> Self {
        Self { deadline: Deadline::after(patience), ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::Role;

    #[test]
    fn a_role_has_one_name() {
        for role in [Role::User, Role::Admin] {
            assert_eq!(serde_json::to_value(role).unwrap(), role.name());
            assert_eq!(Role::parse(role.name()), Some(role));
        }
    }
}
