//! Members of an organization.

use serde::{Deserialize, Serialize};

use super::organizations::Organization;
use crate::context::Role;

/// Whether a member may act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// May act.
    Active,
    /// Refused until enabled again.
    Disabled,
    /// A tombstone: only an admin's re-add lifts it; signing in does not.
    Removed,
}

impl State {
    /// The name in rows.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Disabled => "disabled",
            Self::Removed => "removed",
        }
    }

    /// Reads a row's name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Active, Self::Disabled, Self::Removed].into_iter().find(|state| state.name() == name)
    }
}

/// First authenticated use: makes the member's row if none exists and says what stands in it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Admit {
    /// From the token, for people.
    pub email: Option<String>,
}

/// What is stored of a member; the value of an `ACCESS` entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admitted {
    /// The stored role; the lower of it and the claim applies.
    pub role: Role,
    /// Whether they may act.
    pub state: State,
    /// Grows with every change.
    pub generation: i64,
}

/// Who am I here?
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Me {}

/// The caller as the database knows them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Myself {
    /// The organization the token names.
    pub organization: Organization,
    /// The token's subject.
    pub subject: String,
    /// From the token, if it told.
    pub email: Option<String>,
    /// The role that applies.
    pub role: Role,
    /// Whether they may act.
    pub state: State,
}
