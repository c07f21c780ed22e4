//! Members of an organization: their first use, and what admins do about them.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Expected, organizations::Organization};
use crate::{
    context::Role,
    id::{OrganizationId, UserId},
};

/// Whether a member may act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "MemberState")]
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
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
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
    /// Where the subject is an active member, by slug. A token speaks for one of them.
    pub memberships: Vec<Membership>,
}

/// One of the organizations that a person is a member of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Membership {
    /// The organization.
    pub id: OrganizationId,
    /// Its slug.
    pub slug: String,
}

/// A member as admins see them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Member {
    /// The membership's id: another one in each organization.
    pub id: UserId,
    /// The subject of their tokens.
    pub subject: String,
    /// For people.
    pub email: Option<String>,
    /// The stored role; the lower of it and the claim applies.
    pub role: Role,
    /// Whether they may act.
    pub state: State,
    /// Grows with every change; the `ETag`.
    pub generation: i64,
    /// When the row was made: by an admin, or on first use.
    pub created_at: DateTime<Utc>,
    /// The last change.
    pub updated_at: DateTime<Utc>,
}

impl Member {
    /// What everybody shall believe about them.
    pub const fn standing(&self) -> Admitted {
        Admitted { role: self.role, state: self.state, generation: self.generation }
    }
}

/// The longest e-mail address, in characters.
pub const MAX_EMAIL_CHARS: usize = 320;
/// The most members an organization has, removed ones included: what everybody watches has room for all
/// organizations'.
pub const MAX_MEMBERS: i64 = 10_000;

/// Adds a member before their first use, or puts a removed one back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Add {
    /// The subject of their tokens: 1 to 255 visible ASCII characters.
    pub subject: String,
    /// For people.
    pub email: Option<String>,
    /// What they may do at most.
    pub role: Role,
}

/// Lists members by subject, the removed ones left out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct List {
    /// Where the last page ended.
    pub cursor: Option<String>,
    /// At most this many.
    pub limit: u32,
}

/// Reads one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Get {
    /// Which.
    pub id: UserId,
}

/// Changes one. What is absent stays as it is. The last active admin can be neither demoted nor disabled.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Change {
    /// Which.
    pub id: UserId,
    /// Of which generation.
    pub expected: Expected,
    /// What they may do at most.
    pub role: Option<Role>,
    /// Active or disabled.
    pub state: Option<State>,
    /// For people.
    pub email: Option<String>,
}

/// Removes one, for good until an admin adds the subject again. The last active admin stays.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Remove {
    /// Which.
    pub id: UserId,
    /// Of which generation.
    pub expected: Expected,
}
