//! Files of a session's workspace. Only the member whose session it is uses them.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    fault::{Code, Fault},
    id::{ObjectId, SessionId},
};

mod path;

pub use path::{FilePath, MAX_DEPTH, MAX_PATH_BYTES, MAX_SEGMENT_BYTES, Rule};

/// A file's bytes travel and lie in parts of this size; the last one may be smaller.
pub const PART_BYTES: usize = 512 * 1024;
/// The largest file, in bytes.
pub const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;
/// The most files of a session.
pub const MAX_FILES: i64 = 1_000;
/// The most contents of a session: files, what is being written, and what is still to be removed.
pub const MAX_OBJECTS: i64 = 4 * MAX_FILES;
/// What the files of all sessions of an organization may take together, in bytes: a quarter of what a
/// deployment has for all of them by default.
pub const MAX_ORGANIZATION_BYTES: i64 = 1024 * 1024 * 1024;
/// What the files of a session may take, in bytes, unless the deployment says otherwise.
pub const DEFAULT_QUOTA_BYTES: u64 = 64 * 1024 * 1024;
/// How long an upload may stand still before it is given up, in seconds.
pub const UPLOAD_PATIENCE_SECONDS: u32 = 600;

/// How many parts a size takes.
pub const fn parts_of(size_bytes: u64) -> u32 {
    // A file has at most 32.
    #[expect(clippy::cast_possible_truncation, reason = "sizes are at most MAX_FILE_BYTES")]
    let parts = size_bytes.div_ceil(PART_BYTES as u64) as u32;
    parts
}

/// A file as its member sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "SessionFile")]
pub struct File {
    /// Where it stands in the workspace.
    pub path: FilePath,
    /// Its size.
    pub size_bytes: u64,
    /// Of its content, in hexadecimal digits; in quotes, the `ETag`.
    #[schemars(regex(pattern = "^[0-9a-f]{64}$"))]
    pub sha256: String,
    /// When it was written.
    pub written_at: DateTime<Utc>,
}

/// Contents by their SHA-256, as a precondition names them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tags {
    /// Whatever there is, as long as there is something.
    Any,
    /// One of these. None of them where the tags that were sent are not ours.
    OneOf(Vec<String>),
}

impl Tags {
    /// True when they name this content; `None` where there is no file.
    pub fn name(&self, sha256: Option<&str>) -> bool {
        match (self, sha256) {
            (_, None) => false,
            (Self::Any, Some(_)) => true,
            (Self::OneOf(tags), Some(sha256)) => tags.iter().any(|tag| tag == sha256),
        }
    }
}

/// What must, and what must not, stand at a path for a change of it (RFC 9110 sections 13.1.1 and 13.1.2).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conditions {
    /// `If-Match`.
    pub if_match: Option<Tags>,
    /// `If-None-Match`.
    pub if_none_match: Option<Tags>,
}

impl Conditions {
    /// Compares with what stands there, which must be locked until it is changed.
    pub fn check(&self, sha256: Option<&str>) -> Result<(), Fault> {
        if self.if_match.as_ref().is_some_and(|tags| !tags.name(sha256)) {
            return Err(Fault::new(Code::Stale, "It is not what you read; read it again."));
        }
        if self.if_none_match.as_ref().is_some_and(|tags| tags.name(sha256)) {
            return Err(Fault::new(Code::Stale, "There is a file already."));
        }
        Ok(())
    }
}

/// Lists files by path.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct List {
    /// Whose.
    pub session: SessionId,
    /// Only those whose paths begin so.
    pub prefix: Option<String>,
    /// Where the last page ended.
    pub cursor: Option<String>,
    /// At most this many.
    pub limit: u32,
}

/// Looks at a file, and reads its first part.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Open {
    /// Whose.
    pub session: SessionId,
    /// Which.
    pub path: FilePath,
    /// `If-Match` fails the command; what `If-None-Match` names is not read.
    pub conditions: Conditions,
    /// Looks only.
    pub head: bool,
}

/// A file that was opened.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Opened {
    /// What it is.
    pub file: File,
    /// This content of it, for reading the rest.
    pub object: ObjectId,
    /// The first part; empty where there is none, or it was not asked for.
    pub first: Bytes,
}

/// Reads a further part of a content that was opened.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Read {
    /// Whose.
    pub session: SessionId,
    /// Which content.
    pub object: ObjectId,
    /// Which part, from 0.
    pub part: u32,
}

/// One part of a content.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Part {
    /// Its bytes: [`PART_BYTES`], or fewer in the last one.
    pub bytes: Bytes,
}

/// Keeps one part of a content that is larger than one, in their order.
#[derive(Clone, Serialize, Deserialize)]
pub struct Append {
    /// Whose.
    pub session: SessionId,
    /// What the parts before belong to; absent for the first.
    pub upload: Option<ObjectId>,
    /// Which part, from 0. Each but the last is of [`PART_BYTES`].
    pub part: u32,
    /// Its bytes.
    pub bytes: Bytes,
}

/// An upload under way.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Appended {
    /// For the next part.
    pub upload: ObjectId,
}

/// Makes a content the file at a path, and dooms what stood there.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Write {
    /// Whose.
    pub session: SessionId,
    /// Where.
    pub path: FilePath,
    /// What.
    pub content: Content,
    /// If this holds.
    pub conditions: Conditions,
}

/// The content of a file that is written.
#[derive(Clone, Serialize, Deserialize)]
pub enum Content {
    /// All of it: at most one part.
    Whole(Bytes),
    /// What was appended.
    Upload {
        /// To which upload.
        upload: ObjectId,
        /// How many parts.
        parts: u32,
        /// Of the whole, in hexadecimal digits.
        sha256: String,
    },
}

/// A file that was written.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Written {
    /// What it is now.
    pub file: File,
    /// True where there was none.
    pub created: bool,
}

/// Removes the file at a path.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Remove {
    /// Whose.
    pub session: SessionId,
    /// Which.
    pub path: FilePath,
    /// If this holds.
    pub conditions: Conditions,
}

/// Gives an upload up, and its room back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Discard {
    /// Whose.
    pub session: SessionId,
    /// Which.
    pub upload: ObjectId,
}

impl std::fmt::Debug for Append {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Append").field("session", &self.session).field("part", &self.part).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Whole(bytes) => write!(f, "Whole({} bytes)", bytes.len()),
            Self::Upload { upload, parts, .. } => write!(f, "Upload({upload}, {parts} parts)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_file_takes_as_many_parts_as_its_row_allows() {
        let part = u64::try_from(PART_BYTES).unwrap();
        for (size, parts) in [(0, 0), (1, 1), (part, 1), (part + 1, 2), (MAX_FILE_BYTES, 32)] {
            assert_eq!(parts_of(size), parts, "{size}");
        }
    }

    #[test]
    fn conditions_compare_with_what_stands_there() {
        let one = |tags: &[&str]| Some(Tags::OneOf(tags.iter().map(|tag| (*tag).to_owned()).collect()));
        let check = |if_match: Option<Tags>, if_none_match: Option<Tags>, there: Option<&str>| {
            Conditions { if_match, if_none_match }.check(there).map_err(|fault| fault.code)
        };
        let stale = Err(Code::Stale);
        assert_eq!(check(None, None, None), Ok(()));
        assert_eq!(check(Some(Tags::Any), None, None), stale);
        assert_eq!(check(Some(Tags::Any), None, Some("a")), Ok(()));
        assert_eq!(check(one(&["b", "a"]), None, Some("a")), Ok(()));
        assert_eq!(check(one(&["b"]), None, Some("a")), stale);
        assert_eq!(check(one(&[]), None, Some("a")), stale);
        assert_eq!(check(None, Some(Tags::Any), None), Ok(()));
        assert_eq!(check(None, Some(Tags::Any), Some("a")), stale);
        assert_eq!(check(None, one(&["a"]), Some("a")), stale);
        assert_eq!(check(None, one(&["b"]), Some("a")), Ok(()));
    }

    #[test]
    fn bytes_cross_as_bytes() {
        let bytes = Bytes::from(vec![200_u8; 1_000]);
        let packed = rmp_serde::to_vec_named(&Part { bytes: bytes.clone() }).unwrap();
        assert!(packed.len() < 1_020, "a list of numbers would take {}", packed.len());
        let part: Part = rmp_serde::from_slice(&packed).unwrap();
        assert_eq!(part.bytes, bytes);
    }
}
