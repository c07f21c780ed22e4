//! System prompts: what the platform, an organization and its members have to say to every session,
//! and what is composed of it.

use std::ops::RangeInclusive;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Expected;
use crate::id::{PromptId, UserId};

/// The longest name, in characters.
pub const MAX_NAME_CHARS: usize = 100;
/// The longest content or template, in bytes.
pub const MAX_SOURCE_BYTES: usize = 16 * 1024;
/// The longest content of a member's own prompt, and the longest text of a session, in characters.
pub const MAX_UNTRUSTED_CHARS: usize = 4_000;
/// Smaller ones come first within their scope.
pub const PRIORITY: RangeInclusive<u16> = 0..=1_000;
/// The priority where nobody chose.
pub const DEFAULT_PRIORITY: u16 = 100;
/// The most prompts of the platform, and of one organization.
pub const MAX_PROMPTS: i64 = 50;
/// The most prompts of one member.
pub const MAX_OWN_PROMPTS: i64 = 20;
/// What the enabled prompts of one owner (the platform, an organization, a member) say together at most, in bytes of
/// content and template.
pub const MAX_SCOPE_BYTES: usize = 32 * 1024;
/// What the prompts of the platform, and those of an organization, turn into together at most, in bytes: more than
/// [`MAX_SCOPE_BYTES`] only by templates.
pub const MAX_LAYER_BYTES: usize = 36 * 1024;
/// The longest composed prompt, in bytes. Two layers of trusted text, the most that a member may keep with the lines
/// around it, and a session's text stay below it: no layer takes the room of another.
pub const MAX_COMPOSED_BYTES: usize = 128 * 1024;

/// Whose a prompt is, and so who writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "PromptScope")]
pub enum Scope {
    /// The platform's: before everything else, for everybody. Operators write it.
    Global,
    /// The organization's: for all its members. Admins write it.
    Organization,
    /// One member's own, for themselves.
    User,
}

impl Scope {
    /// Every scope, in the order of composition.
    pub const ALL: [Self; 3] = [Self::Global, Self::Organization, Self::User];

    /// The name in rows and requests.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::Organization => "organization",
            Self::User => "user",
        }
    }

    /// Reads a row's name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == name)
    }
}

/// Where a part of a composed prompt comes from, in the order of composition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "PromptLayer")]
pub enum Layer {
    /// The platform's prompts.
    Global,
    /// The organization's.
    Organization,
    /// The member's.
    User,
    /// The text that was given with the session.
    Session,
}

impl From<Scope> for Layer {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::Global => Self::Global,
            Scope::Organization => Self::Organization,
            Scope::User => Self::User,
        }
    }
}

/// What a prompt says: one of the two.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// Text, as it is.
    Content(String),
    /// A template, rendered for each session.
    Template(String),
}

impl Source {
    /// What is written, whichever it is.
    pub fn text(&self) -> &str {
        match self {
            Self::Content(text) | Self::Template(text) => text,
        }
    }

    /// The field that it is written in.
    pub const fn field(&self) -> &'static str {
        match self {
            Self::Content(_) => "content",
            Self::Template(_) => "template",
        }
    }
}

/// What a prompt says and where it stands, apart from whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// 1 to 100 characters; unique among the owner's.
    pub name: String,
    /// What it says. A member's own is content.
    pub source: Source,
    /// Whether it takes part.
    pub enabled: bool,
    /// 0 to 1,000; smaller ones come first within the scope.
    pub priority: u16,
}

/// A system prompt. It has either `content` or `template`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Prompt {
    /// Its id.
    pub id: PromptId,
    /// Whose it is.
    pub scope: Scope,
    /// Unique among the owner's.
    pub name: String,
    /// Text, as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// A template, rendered for each session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// Whether it takes part.
    pub enabled: bool,
    /// Smaller ones come first within the scope.
    pub priority: u16,
    /// Grows with every change; the `ETag`.
    pub version: i64,
    /// SHA-256 of content or template, in hexadecimal.
    pub sha256: String,
    /// The subject that wrote it first. Of a global prompt, only operators are told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// When.
    pub created_at: DateTime<Utc>,
    /// The subject that changed it last. Of a global prompt, only operators are told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_by: Option<String>,
    /// When.
    pub updated_at: DateTime<Utc>,
}

/// What a prompt was from one change to the next. Versions never change and are never removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "PromptVersion")]
pub struct Version {
    /// Counts from 1.
    pub version: i64,
    /// Its name then.
    pub name: String,
    /// Text, as it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// The template, as it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// Whether it took part.
    pub enabled: bool,
    /// Where it stood.
    pub priority: u16,
    /// True of the last version of a prompt that is gone.
    pub removed: bool,
    /// SHA-256 of content or template, in hexadecimal.
    pub sha256: String,
    /// The subject that wrote it.
    pub written_by: String,
    /// When.
    pub written_at: DateTime<Utc>,
}

/// A composed system prompt: the text, where each stretch of it comes from, and what looked suspicious.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ComposedPrompt")]
pub struct Composed {
    /// The text.
    pub text: String,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
    /// Its parts in their order. Together they are the text, without a gap.
    pub parts: Vec<Part>,
    /// What looked suspicious in text that neither an operator nor an admin wrote. Nothing was changed for it.
    pub flags: Vec<Flag>,
}

/// One stretch of a composed prompt, with the lines around it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "PromptPart")]
pub struct Part {
    /// Where it comes from.
    pub scope: Layer,
    /// The prompt; absent for the session's text.
    pub prompt: Option<PromptId>,
    /// The prompt's name; absent for the session's text.
    pub name: Option<String>,
    /// The prompt's version; absent for the session's text.
    pub version: Option<i64>,
    /// SHA-256 of what was written, in hexadecimal: of this version's content or template, or of the session's text.
    pub sha256: String,
    /// How many characters (Unicode scalar values) of the text it is.
    pub characters: u32,
}

/// Why a part deserves a second look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "PromptFlag")]
pub struct Flag {
    /// Which of the parts, from 0.
    pub part: u32,
    /// What was seen, e.g. `overrides_instructions`.
    pub sign: String,
    /// The variable whose value it was seen in, where it came in through one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variable: Option<String>,
}

/// Writes a new prompt.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Create {
    /// Whose it shall be.
    pub scope: Scope,
    /// What it says.
    pub settings: Settings,
}

/// Lists the prompts the caller sees, by name and id: the platform's, the organization's and their own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct List {
    /// Where the last page ended.
    pub cursor: Option<String>,
    /// At most this many.
    pub limit: u32,
    /// Of this scope only.
    pub scope: Option<Scope>,
    /// Enabled or disabled ones only.
    pub enabled: Option<bool>,
}

/// Reads one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Get {
    /// Which.
    pub id: PromptId,
}

/// Replaces what one says, unless it changed since it was read. It stays in its scope.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Replace {
    /// Which.
    pub id: PromptId,
    /// Of which version.
    pub expected: Expected,
    /// What it says from now on.
    pub settings: Settings,
}

/// Removes one. Its versions stay.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Remove {
    /// Which.
    pub id: PromptId,
    /// Of which version.
    pub expected: Expected,
}

/// Lists the versions of one, the latest first, for those who may write it. It may be gone.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Versions {
    /// Of which.
    pub id: PromptId,
    /// Where the last page ended.
    pub cursor: Option<String>,
    /// At most this many.
    pub limit: u32,
}

/// Composes a prompt as a session would get it, and keeps nothing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Preview {
    /// For this member; for the caller if absent. Only admins name another.
    pub user: Option<UserId>,
    /// The text that a session could be given.
    pub text: Option<String>,
}
