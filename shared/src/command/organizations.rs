//! Organizations, by platform operators.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::id::OrganizationId;

/// An organization (tenant).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Organization {
    /// Its id: the value of the tenant claim.
    pub id: OrganizationId,
    /// Unique on the platform: lower case letters, digits and hyphens.
    pub slug: String,
    /// For people.
    pub name: String,
    /// How many of its queued calls may run at once, on all workers together.
    pub concurrency_limit: u16,
    /// True while its calls wait and none starts.
    pub paused: bool,
    /// Grows with every change.
    pub generation: i64,
    /// When it was created.
    pub created_at: DateTime<Utc>,
}

/// Creates an organization.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Create {
    /// 1 to 63 of `a-z 0-9 -`, starting with a letter; unique.
    pub slug: String,
    /// 1 to 200 characters.
    pub name: String,
    /// 1 to 256; the deployment's default when absent.
    pub concurrency_limit: Option<u16>,
}

/// Changes an organization's limits. Takes effect on its lane within a second; running calls are
/// never cut.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Limit {
    /// Which.
    pub id: OrganizationId,
    /// 1 to 256; unchanged when absent.
    pub concurrency_limit: Option<u16>,
    /// Lets its calls wait, or go on; unchanged when absent.
    pub paused: Option<bool>,
}

/// Lists organizations by slug.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct List {
    /// Where the last page ended.
    pub cursor: Option<String>,
    /// At most this many.
    pub limit: u32,
}

/// How many queued calls run at once where nobody chose.
pub const DEFAULT_CONCURRENCY: u16 = 8;
