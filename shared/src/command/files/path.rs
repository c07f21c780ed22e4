//! Paths within a workspace. They are rows here and names in a program's directory there, so that what
//! any file system, shell or person could take for something else is refused by name.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use unicode_normalization::{UnicodeNormalization, is_nfc};

use crate::fault::Fault;

/// The longest path, in bytes.
pub const MAX_PATH_BYTES: usize = 1_024;
/// The longest name between two slashes, in bytes: what file systems hold.
pub const MAX_SEGMENT_BYTES: usize = 255;
/// The most names of a path.
pub const MAX_DEPTH: usize = 32;

/// A path that keeps every [`Rule`]: names with slashes between them, from the workspace on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FilePath(String);

/// What a path must keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rule {
    /// Not empty, not too long.
    #[error("A path has 1 to 1,024 bytes.")]
    Length,
    /// It starts in the workspace.
    #[error("A path does not begin with a slash.")]
    Absolute,
    /// No two slashes in a row, none at the end.
    #[error("A path has no empty names: no two slashes in a row, and none at its end.")]
    Empty,
    /// It leads down only.
    #[error("`.` and `..` are no names, nor is what looks like them.")]
    Dots,
    /// Each name fits into a file system.
    #[error("A name has at most 255 bytes.")]
    Segment,
    /// Not too deep.
    #[error("A path has at most 32 names.")]
    Depth,
    /// A separator elsewhere.
    #[error("A path has no backslash, and nothing that looks like a backslash or a slash.")]
    Separator,
    /// What nobody sees.
    #[error("A path has no control, bidirectional or invisible characters.")]
    Invisible,
    /// One spelling.
    #[error("A path is in Unicode's normalization form C.")]
    Form,
}

impl FilePath {
    /// Reads a path as it was decoded, once.
    pub fn parse(text: &str) -> Result<Self, Rule> {
        if !(1..=MAX_PATH_BYTES).contains(&text.len()) {
            return Err(Rule::Length);
        }
        if text.starts_with('/') {
            return Err(Rule::Absolute);
        }
        if text.contains(is_invisible) {
            return Err(Rule::Invisible);
        }
        if !is_nfc(text) {
            return Err(Rule::Form);
        }
        for (index, segment) in text.split('/').enumerate() {
            if index == MAX_DEPTH {
                return Err(Rule::Depth);
            }
            check_segment(segment)?;
        }
        Ok(Self(text.to_owned()))
    }

    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The directories that it lies in, the outermost first.
    pub fn ancestors(&self) -> impl Iterator<Item = &str> {
        self.0.match_indices('/').map(|(end, _)| &self.0[..end])
    }
}

fn check_segment(segment: &str) -> Result<(), Rule> {
    if segment.is_empty() {
        return Err(Rule::Empty);
    }
    if segment.len() > MAX_SEGMENT_BYTES {
        return Err(Rule::Segment);
    }
    // Compatible characters are other characters that somebody may take for these.
    let seen: Cow<'_, str> =
        if segment.is_ascii() { segment.into() } else { segment.nfkc().collect::<String>().into() };
    if seen == "." || seen == ".." {
        return Err(Rule::Dots);
    }
    if seen.contains(['/', '\\']) || segment.contains(is_like_a_separator) {
        return Err(Rule::Separator);
    }
    Ok(())
}

/// Slashes and backslashes that compatibility does not lead back to the real ones.
const fn is_like_a_separator(character: char) -> bool {
    matches!(character, '\u{2044}' | '\u{2215}' | '\u{2216}' | '\u{29f5}' | '\u{29f8}' | '\u{29f9}' | '\u{3033}')
}

/// Controls, line and paragraph separators, bidirectional controls, and what is drawn as nothing
/// (Unicode's `Default_Ignorable_Code_Point`, and the blank of Braille).
fn is_invisible(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

impl TryFrom<String> for FilePath {
    type Error = Rule;

    fn try_from(text: String) -> Result<Self, Rule> {
        Self::parse(&text)
    }
}

impl From<FilePath> for String {
    fn from(path: FilePath) -> Self {
        path.0
    }
}

impl std::fmt::Display for FilePath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Rule> for Fault {
    fn from(rule: Rule) -> Self {
        Self::invalid("path", rule.to_string())
    }
}

impl JsonSchema for FilePath {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "FilePath".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 1, "maxLength": MAX_PATH_BYTES })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn honest_paths_are_kept_as_they_are() {
        let deepest = ["d"; MAX_DEPTH].join("/");
        let longest = format!("{0}/{0}/{0}/{0}", "x".repeat(MAX_SEGMENT_BYTES));
        for path in [
            "a",
            "notes.txt",
            "src/main.rs",
            ".hidden/..double/...",
            "a b/c d",
            "größe/日本語/файл.txt",
            "%2e%2e",
            "a:b*?\"<>|",
            "😀",
            deepest.as_str(),
            &longest[..MAX_PATH_BYTES - 1],
        ] {
            assert_eq!(FilePath::parse(path).as_ref().map(FilePath::as_str), Ok(path));
        }
    }

    #[test]
    fn every_rule_is_named_by_what_breaks_it() {
        let deep = ["d"; MAX_DEPTH + 1].join("/");
        let long = "x/".repeat(MAX_PATH_BYTES / 2) + "y";
        for (path, rule) in [
            ("", Rule::Length),
            (&long, Rule::Length),
            ("/etc/passwd", Rule::Absolute),
            ("//a", Rule::Absolute),
            ("a//b", Rule::Empty),
            ("a/", Rule::Empty),
            (".", Rule::Dots),
            ("..", Rule::Dots),
            ("a/../b", Rule::Dots),
            ("a/.", Rule::Dots),
            ("\u{2024}\u{2024}/a", Rule::Dots),
            ("\u{ff0e}\u{ff0e}/a", Rule::Dots),
            ("\u{2025}", Rule::Dots),
            (&"x".repeat(MAX_SEGMENT_BYTES + 1), Rule::Segment),
            (&"ü".repeat(128), Rule::Segment),
            (&deep, Rule::Depth),
            ("a\\b", Rule::Separator),
            ("a\u{ff0f}b", Rule::Separator),
            ("a\u{ff3c}b", Rule::Separator),
            ("a\u{2215}b", Rule::Separator),
            ("a\u{2044}b", Rule::Separator),
            ("a\0b", Rule::Invisible),
            ("a\nb", Rule::Invisible),
            ("a\u{85}b", Rule::Invisible),
            ("a\u{202e}txt.exe", Rule::Invisible),
            ("a\u{2066}b", Rule::Invisible),
            ("a\u{200b}b", Rule::Invisible),
            ("\u{feff}a", Rule::Invisible),
            ("a\u{2028}b", Rule::Invisible),
            ("a\u{e0041}", Rule::Invisible),
            ("u\u{308}", Rule::Form),
            ("\u{212b}", Rule::Form),
        ] {
            assert_eq!(FilePath::parse(path), Err(rule), "{path:?}");
        }
    }

    #[test]
    fn a_path_lies_in_its_directories() {
        let path = FilePath::parse("a/b/c.txt").unwrap();
        assert_eq!(path.ancestors().collect::<Vec<_>>(), ["a", "a/b"]);
        assert_eq!(FilePath::parse("c.txt").unwrap().ancestors().count(), 0);
    }

    #[test]
    fn a_path_from_elsewhere_is_checked_too() {
        assert!(serde_json::from_str::<FilePath>("\"a/b\"").is_ok());
        assert!(serde_json::from_str::<FilePath>("\"../b\"").is_err());
    }
}
