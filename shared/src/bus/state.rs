//! What the buckets hold: keys and values, in one place for writers and watchers.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{
    command::users::Admitted,
    hex,
    id::{ConfigurationId, OrganizationId, SessionId},
};

/// `LIMITS`: what an organization may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Queued calls that may run at once, on all workers together.
    pub concurrency_limit: u16,
    /// True while its lane stands still: calls wait, none starts.
    #[serde(default)]
    pub paused: bool,
    /// Tool calls a minute, through all gateways together.
    #[serde(default)]
    pub calls_per_minute: Option<u32>,
    /// Calls waiting and running together, where it has a bound of its own.
    #[serde(default)]
    pub queue_limit: Option<u32>,
    /// Browser origins that may call with its tokens.
    #[serde(default)]
    pub allowed_origins: Vec<String>,
    /// True once it is gone: everything of it is refused, for good.
    #[serde(default)]
    pub deleted: bool,
    /// The row's generation.
    #[serde(default)]
    pub generation: i64,
}

impl Limits {
    /// Running calls up to this limit.
    pub const fn concurrent(concurrency_limit: u16) -> Self {
        Self {
            concurrency_limit,
            paused: false,
            calls_per_minute: None,
            queue_limit: None,
            allowed_origins: Vec::new(),
            deleted: false,
            generation: 0,
        }
    }
}

/// `CONFIGS`: which state of a configuration is the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigurationState {
    /// The row's generation.
    pub generation: i64,
    /// True once it is gone.
    pub removed: bool,
}

/// `SESSIONS`: that a session is over. Nothing is told of one that is open: its row says whether it can
/// be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionState {
    /// The row's generation.
    pub generation: i64,
    /// True once it is over.
    pub ended: bool,
    /// Whose it is.
    pub subject: String,
}

/// `PROMPTS`: how often an organization's prompts, and its members', were written. The platform's own
/// organization stands for the global ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptsState {
    /// Grows with every write.
    pub generation: i64,
}

/// What grows with every change of the row it tells of: older news must not replace newer.
pub trait Generation {
    /// The row's generation.
    fn generation(&self) -> i64;

    /// How long the entry is kept; for ever unless said otherwise.
    fn kept_for(&self) -> Option<Duration> {
        None
    }
}

impl Generation for Limits {
    fn generation(&self) -> i64 {
        self.generation
    }
}

impl Generation for ConfigurationState {
    fn generation(&self) -> i64 {
        self.generation
    }

    /// An id is not used again, and what workers remember is younger: the news of a removal need not
    /// fill the bucket for ever.
    fn kept_for(&self) -> Option<Duration> {
        self.removed.then_some(Duration::from_hours(1))
    }
}

impl Generation for SessionState {
    fn generation(&self) -> i64 {
        self.generation
    }

    /// As with a configuration: whatever a worker keeps of a session is younger than that.
    fn kept_for(&self) -> Option<Duration> {
        self.ended.then_some(Duration::from_hours(1))
    }
}

impl Generation for PromptsState {
    fn generation(&self) -> i64 {
        self.generation
    }
}

impl Generation for Admitted {
    fn generation(&self) -> i64 {
        self.generation
    }
}

/// The key of an organization's limits.
pub fn limits_key(organization: OrganizationId) -> String {
    organization.text(&mut Uuid::encode_buffer()).to_owned()
}

/// The key of an organization's prompts.
pub fn prompts_key(organization: OrganizationId) -> String {
    organization.text(&mut Uuid::encode_buffer()).to_owned()
}

/// The key of a member: subjects are hashed, so that any of them is a valid key.
pub fn access_key(organization: OrganizationId, subject: &str) -> String {
    of(organization, &hex(&Sha256::digest(subject.as_bytes())))
}

/// The key of a configuration.
pub fn configuration_key(organization: OrganizationId, configuration: ConfigurationId) -> String {
    of(organization, configuration.text(&mut Uuid::encode_buffer()))
}

/// The key of a session.
pub fn session_key(organization: OrganizationId, session: SessionId) -> String {
    of(organization, session.text(&mut Uuid::encode_buffer()))
}

/// The key of something of an organization. Most are looked up for every call.
fn of(organization: OrganizationId, what: &str) -> String {
    [organization.text(&mut Uuid::encode_buffer()), ".", what].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_members_key_is_the_organization_and_the_hash_of_the_subject() {
        // SHA-256 of "abc": FIPS 180-2, appendix B.1.
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(
            access_key(OrganizationId::PLATFORM, "abc"),
            format!("00000000-0000-0000-0000-000000000000.{digest}")
        );
    }
}
