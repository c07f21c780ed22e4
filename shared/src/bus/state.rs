//! What the buckets hold: keys and values, in one place for writers and watchers.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::id::{ConfigurationId, OrganizationId};

/// `LIMITS`: what an organization may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Queued calls that may run at once, on all workers together.
    pub concurrency_limit: u16,
}

/// `CONFIGS`: which state of a configuration is the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigurationState {
    /// The row's generation.
    pub generation: i64,
    /// True once it is gone.
    pub removed: bool,
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
