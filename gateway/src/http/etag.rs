//! Optimistic concurrency (RFC 9110 sections 8.8.3 and 13.1.1): the tag of a thing is the generation
//! of its row. Whoever replaces it says which one they read; the worker compares within the
//! transaction that changes it. The tag stands for what was configured: what is merely observed
//! (when a secret was last seen to be valid) may change under the same tag.

use std::borrow::Cow;

use poem::{
    FromRequest, Request, RequestBody, Result,
    http::{HeaderMap, HeaderName, HeaderValue, header},
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use shared::{Fault, command::Expected};

use super::{
    answer::Answer,
    problem::{EdgeError, Problem},
};

/// The longest header that is read, in bytes.
const MAX_HEADER_BYTES: usize = 1_024;

/// `If-Match` of a change that replaces: without it 428 (RFC 6585 section 3), since what is not read
/// should not be overwritten. `*` overwrites whatever there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IfMatch(pub Expected);

impl<'a> FromRequest<'a> for IfMatch {
    async fn from_request(request: &'a Request, _body: &mut RequestBody) -> Result<Self> {
        match read(request.headers()).map_err(Problem::from)? {
            Some(expected) => Ok(Self(expected)),
            None => Err(EdgeError::Precondition.into()),
        }
    }
}

impl JsonSchema for IfMatch {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "IfMatch".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": r#"^(\*|"[0-9]+"(, ?"[0-9]+")*)$"# })
    }
}

/// A list of tags of contents, for the document: who reads files reads it.
#[derive(Clone, Copy, Debug)]
pub struct ContentTags;

impl JsonSchema for ContentTags {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "ContentTags".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": r#"^(\*|"[0-9a-f]{64}"(, ?"[0-9a-f]{64}")*)$"# })
    }
}

/// `If-Match` where it may be left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MayMatch(pub Expected);

impl<'a> FromRequest<'a> for MayMatch {
    async fn from_request(request: &'a Request, _body: &mut RequestBody) -> Result<Self> {
        Ok(Self(read(request.headers()).map_err(Problem::from)?.unwrap_or(Expected::Any)))
    }
}

/// The answer with the tag of what it shows.
pub fn tagged(generation: i64, answer: Answer) -> Answer {
    let mut response = answer?;
    let tag = HeaderValue::from_str(&format!("\"{generation}\"")).map_err(Fault::internal)?;
    response.headers_mut().insert(header::ETAG, tag);
    Ok(response)
}

/// Reads `If-Match` of a thing whose tags are generations. A weak tag and one that is not of our making
/// are no mistake: they match nothing.
fn read(headers: &HeaderMap) -> std::result::Result<Option<Expected>, Fault> {
    let strong = |(is_weak, tag): (bool, String)| if is_weak { None } else { tag.parse().ok() };
    Ok(listed(headers, &header::IF_MATCH)?.map(|listed| match listed {
        Listed::Any => Expected::Any,
        Listed::Tags(tags) => Expected::OneOf(tags.into_iter().filter_map(strong).collect()),
    }))
}

/// What a header says that lists tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Listed {
    /// `*`.
    Any,
    /// These: whether each is weak, and what stands in its quotes.
    Tags(Vec<(bool, String)>),
}

/// Reads `If-Match` or `If-None-Match`.
pub(super) fn listed(headers: &HeaderMap, name: &HeaderName) -> std::result::Result<Option<Listed>, Fault> {
    let malformed = || malformed(name);
    let mut tags = Vec::new();
    let mut values = headers.get_all(name).iter().peekable();
    if values.peek().is_none() {
        return Ok(None);
    }
    let mut size_bytes = 0;
    for value in values {
        size_bytes += value.len();
        let text = value.to_str().ok().filter(|_| size_bytes <= MAX_HEADER_BYTES).ok_or_else(malformed)?;
        if text.trim() == "*" {
            return Ok(Some(Listed::Any));
        }
        read_tags(text, &mut tags).ok_or_else(malformed)?;
    }
    if tags.is_empty() {
        // A condition that names nothing is a mistake: no answer to it is what its sender expects.
        return Err(malformed());
    }
    Ok(Some(Listed::Tags(tags)))
}

/// Reads a list of tags; `None` where it is none.
fn read_tags(mut text: &str, tags: &mut Vec<(bool, String)>) -> Option<()> {
    loop {
        text = text.trim_start_matches([' ', '\t', ',']);
        if text.is_empty() {
            return Some(());
        }
        let (is_weak, quoted) = text.strip_prefix("W/").map_or((false, text), |rest| (true, rest));
        let (tag, rest) = quoted.strip_prefix('"').and_then(|rest| rest.split_once('"'))?;
        if !tag.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        tags.push((is_weak, tag.to_owned()));
        text = rest.trim_start_matches([' ', '\t']);
        if !text.is_empty() && !text.starts_with(',') {
            return None;
        }
    }
}

fn malformed(name: &HeaderName) -> Fault {
    let name = if *name == header::IF_MATCH { "If-Match" } else { "If-None-Match" };
    Fault::invalid(name, "Give back the ETag as it was, in its quotes, or `*`.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(values: &[&str]) -> std::result::Result<Option<Expected>, Fault> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::IF_MATCH, value.parse().unwrap());
        }
        read(&headers)
    }

    #[test]
    fn tags_are_generations_and_foreign_ones_match_nothing() {
        assert_eq!(expected(&[]).unwrap(), None);
        assert_eq!(expected(&["*"]).unwrap(), Some(Expected::Any));
        assert_eq!(expected(&["\"7\""]).unwrap(), Some(Expected::OneOf(vec![7])));
        assert_eq!(expected(&["\"7\" , \"8\"", "\"9\""]).unwrap(), Some(Expected::OneOf(vec![7, 8, 9])));
        for foreign in ["W/\"7\"", "\"abc\"", "\"7,8\"", "\"\""] {
            assert_eq!(expected(&[foreign]).unwrap(), Some(Expected::OneOf(Vec::new())), "{foreign}");
        }
    }

    #[test]
    fn what_is_no_list_of_tags_is_refused_by_name() {
        let long = format!("\"{}\"", "1".repeat(MAX_HEADER_BYTES));
        for bad in ["7", "\"7", "7\"", "\"7\" \"8\"", "\"7\"x", "w/\"7\"", "\"a b\"", "*, \"7\"", "", ", ,", &long] {
            assert_eq!(expected(&[bad]).unwrap_err().field.as_deref(), Some("If-Match"), "{bad}");
        }
    }
}
