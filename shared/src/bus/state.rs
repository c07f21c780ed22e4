//! What the buckets hold: keys and values, in one place for writers and watchers.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    command::users::Admitted,
    id::{ConfigurationId, OrganizationId},
};

/// `LIMITS`: what an organization may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Queued calls that may run at once, on all workers together.
    pub concurrency_limit: u16,
    /// True while its lane stands still: calls wait, none starts.
    #[serde(default)]
    pub paused: bool,
    /// The row's generation.
    #[serde(default)]
    pub generation: i64,
}

impl Limits {
    /// Running calls up to this limit.
    pub const fn concurrent(concurrency_limit: u16) -> Self {
        Self { concurrency_limit, paused: false, generation: 0 }
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

/// What grows with every change of the row it tells of: older news must not replace newer.
pub trait Generation {
    /// The row's generation.
    fn generation(&self) -> i64;
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
}

impl Generation for Admitted {
    fn generation(&self) -> i64 {
        self.generation
    }
}

/// The key of an organization's limits.
pub fn limits_key(organization: OrganizationId) -> String {
    organization.to_string()
}

/// The key of a member: subjects are hashed, so that any of them is a valid key.
pub fn access_key(organization: OrganizationId, subject: &str) -> String {
    use std::fmt::Write as _;
    let mut key = format!("{organization}.");
    for byte in Sha256::digest(subject.as_bytes()) {
        let _ = write!(key, "{byte:02x}");
    }
    key
}

/// The key of a configuration.
pub fn configuration_key(organization: OrganizationId, configuration: ConfigurationId) -> String {
    format!("{organization}.{configuration}")
}
