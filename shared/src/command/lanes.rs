//! Lanes: an organization's way through the queue.

use serde::{Deserialize, Serialize};

/// Opens the caller's lane if it is not open. Idempotent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Open {}

/// An open lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lane {
    /// How many calls may run at once.
    pub concurrency_limit: u16,
}
