//! Organizations: by platform operators, and what an organization's own admins choose.

use std::{collections::HashSet, ops::RangeInclusive};

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::{Expected, tools::ToolPolicy};
use crate::{fault::Fault, id::OrganizationId};

/// How many queued calls run at once where nobody chose.
pub const DEFAULT_CONCURRENCY: u16 = 8;
/// Calls that may run at once.
pub const CONCURRENCY: RangeInclusive<u16> = 1..=256;
/// Calls a minute.
pub const CALLS_PER_MINUTE: RangeInclusive<u32> = 1..=1_000_000;
/// Waiting and running calls together.
pub const QUEUE: RangeInclusive<u32> = 1..=1_000_000;
/// Open sessions, of one member or of all.
pub const SESSIONS: RangeInclusive<u32> = 1..=100_000;
/// How long a result can be collected, in seconds: a minute to 90 days.
pub const RETENTION_SECONDS: RangeInclusive<u32> = 60..=7_776_000;
/// The longest name, in characters.
pub const MAX_NAME_CHARS: usize = 200;
/// The longest slug, in bytes.
pub const MAX_SLUG_BYTES: usize = 63;
/// What a slug is made of, as a schema says it; the database checks the same.
pub const SLUG_PATTERN: &str = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$";
/// Text for people without control characters, as a schema says it.
pub const TEXT_PATTERN: &str = r"^[^\x00-\x1f\x7f-\x9f]*$";
/// Most browser origins of one organization.
pub const MAX_ORIGINS: usize = 100;
/// The longest origin, in bytes: a scheme, a host name (RFC 1035 section 2.3.4) and a port.
pub const MAX_ORIGIN_BYTES: usize = 270;

/// An organization (tenant).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    /// How many tool calls may be sent in a minute, through all gateways together.
    pub calls_per_minute: u32,
    /// How many calls may wait and run together. Absent where the deployment's bound alone applies.
    pub queue_limit: Option<u32>,
    /// How many sessions may be open.
    pub session_limit: u32,
    /// How many of them may be one member's.
    pub user_session_limit: u32,
    /// How long the result of a durable call can be collected, in seconds.
    pub result_retention_seconds: u32,
    /// Browser origins that may call with its tokens.
    pub allowed_origins: Vec<String>,
    /// What happens to a call of a tool that changed.
    pub tool_policy: ToolPolicy,
    /// Grows with every change; the `ETag`.
    pub generation: i64,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// The last change.
    pub updated_at: DateTime<Utc>,
}

/// What an admin chooses of their own organization. What is absent stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "OrganizationChoices")]
pub struct Choices {
    /// 1 to 200 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MAX_NAME_CHARS), regex(pattern = TEXT_PATTERN))]
    pub name: Option<String>,
    /// 60 to 7,776,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = *RETENTION_SECONDS.start(), max = *RETENTION_SECONDS.end()))]
    pub result_retention_seconds: Option<u32>,
    /// At most 100, each as a browser sends it in `Origin`: `https`, or `http` to the loopback host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = MAX_ORIGINS), inner(length(max = MAX_ORIGIN_BYTES)))]
    pub allowed_origins: Option<Vec<String>>,
    /// What happens to a call of a tool that changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_policy: Option<ToolPolicy>,
}

/// What an operator decides of any organization: all that an admin chooses, and what costs the platform.
/// What is absent stays as it is, or is the default of a new one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "OrganizationChanges")]
pub struct Changes {
    /// 1 to 200 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MAX_NAME_CHARS), regex(pattern = TEXT_PATTERN))]
    pub name: Option<String>,
    /// 1 to 256. Running calls are never cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = *CONCURRENCY.start(), max = *CONCURRENCY.end()))]
    pub concurrency_limit: Option<u16>,
    /// Lets its calls wait, or go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
    /// 1 to 1,000,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = *CALLS_PER_MINUTE.start(), max = *CALLS_PER_MINUTE.end()))]
    pub calls_per_minute: Option<u32>,
    /// 1 to 1,000,000; `null` lifts it.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[schemars(range(min = *QUEUE.start(), max = *QUEUE.end()))]
    pub queue_limit: Option<Bound>,
    /// 1 to 100,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = *SESSIONS.start(), max = *SESSIONS.end()))]
    pub session_limit: Option<u32>,
    /// 1 to 100,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = *SESSIONS.start(), max = *SESSIONS.end()))]
    pub user_session_limit: Option<u32>,
    /// 60 to 7,776,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = *RETENTION_SECONDS.start(), max = *RETENTION_SECONDS.end()))]
    pub result_retention_seconds: Option<u32>,
    /// As in [`Choices`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = MAX_ORIGINS), inner(length(max = MAX_ORIGIN_BYTES)))]
    pub allowed_origins: Option<Vec<String>>,
    /// What happens to a call of a tool that changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_policy: Option<ToolPolicy>,
}

/// A limit that there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Bound(pub Option<u32>);

/// Tells `null`, which lifts a limit, from absent, which keeps it.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Bound>, D::Error> {
    Bound::deserialize(deserializer).map(Some)
}

impl Choices {
    /// What is out of bounds, by its field.
    pub fn check(&self) -> Result<(), Fault> {
        check_name(self.name.as_deref())?;
        within("result_retention_seconds", self.result_retention_seconds, &RETENTION_SECONDS)?;
        self.allowed_origins.as_deref().map_or(Ok(()), check_origins)
    }
}

impl Changes {
    /// What is out of bounds, by its field.
    pub fn check(&self) -> Result<(), Fault> {
        check_name(self.name.as_deref())?;
        within("concurrency_limit", self.concurrency_limit, &CONCURRENCY)?;
        within("calls_per_minute", self.calls_per_minute, &CALLS_PER_MINUTE)?;
        within("queue_limit", self.queue_limit.and_then(|bound| bound.0), &QUEUE)?;
        within("session_limit", self.session_limit, &SESSIONS)?;
        within("user_session_limit", self.user_session_limit, &SESSIONS)?;
        within("result_retention_seconds", self.result_retention_seconds, &RETENTION_SECONDS)?;
        self.allowed_origins.as_deref().map_or(Ok(()), check_origins)
    }
}

fn check_name(name: Option<&str>) -> Result<(), Fault> {
    let fits = |name: &str| !name.contains(char::is_control) && (1..=MAX_NAME_CHARS).contains(&name.chars().count());
    if name.is_none_or(fits) {
        return Ok(());
    }
    Err(Fault::invalid("name", format!("Use 1 to {MAX_NAME_CHARS} characters without control characters.")))
}

fn within<T: PartialOrd + std::fmt::Display>(
    field: &str,
    value: Option<T>,
    range: &RangeInclusive<T>,
) -> Result<(), Fault> {
    if value.is_none_or(|value| range.contains(&value)) {
        return Ok(());
    }
    Err(Fault::invalid(field, format!("Use {} to {}.", range.start(), range.end())))
}

fn check_origins(origins: &[String]) -> Result<(), Fault> {
    let refused = |why: String| Err(Fault::invalid("allowed_origins", why));
    if origins.len() > MAX_ORIGINS {
        return refused(format!("List at most {MAX_ORIGINS} origins."));
    }
    let mut seen = HashSet::new();
    for (index, origin) in origins.iter().enumerate() {
        if !is_origin(origin) {
            return refused(format!(
                "Number {} is no origin as a browser sends it: `https://` (`http://` for the loopback host only), \
                 a host in lower case, a port unless it is the scheme's own, and nothing more.",
                index + 1
            ));
        }
        if !seen.insert(origin) {
            return refused(format!("Number {} stands twice.", index + 1));
        }
    }
    Ok(())
}

/// True for the serialization of an origin (RFC 6454 section 6.2) that a token may be trusted to.
fn is_origin(text: &str) -> bool {
    let Ok(url) = url::Url::parse(text) else { return false };
    let is_loopback = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    // The parser takes more for a name than any browser has one of: `*` above all.
    let is_name = |character: char| character.is_ascii_alphanumeric() || "-._:[]".contains(character);
    let is_safe = url.scheme() == "https" || (url.scheme() == "http" && is_loopback);
    is_safe
        && url.host_str().is_some_and(|host| host.chars().all(is_name))
        && text.len() <= MAX_ORIGIN_BYTES
        && url.origin().ascii_serialization() == text
}

/// Creates an organization.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Create {
    /// 1 to 63 of `a-z 0-9 -`, beginning and ending with a letter or digit; unique for ever.
    pub slug: String,
    /// 1 to 200 characters.
    pub name: String,
    /// The rest; its own `name` is not looked at.
    pub settings: Changes,
}

/// Reads one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Get {
    /// Which.
    pub id: OrganizationId,
}

/// Changes one. Limits take effect on its lane within a second, on its gateways at once.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Change {
    /// Which.
    pub id: OrganizationId,
    /// Of which generation.
    pub expected: Expected,
    /// To what.
    pub changes: Changes,
}

/// Ends one: from now on its members are refused everywhere. What runs is not cut.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Remove {
    /// Which.
    pub id: OrganizationId,
    /// Of which generation.
    pub expected: Expected,
}

/// Lists organizations by slug.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct List {
    /// Where the last page ended.
    pub cursor: Option<String>,
    /// At most this many.
    pub limit: u32,
}

/// Reads the caller's own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReadOwn {}

/// Changes the caller's own, as far as it is its admins' to choose.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChangeOwn {
    /// Of which generation.
    pub expected: Expected,
    /// To what.
    pub choices: Choices,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_what_a_browser_sends_and_safe() {
        for good in [
            "https://app.example.com",
            "https://app.example.com:8443",
            "http://localhost:5173",
            "http://127.0.0.1:8080",
            "http://[::1]:8080",
            "https://xn--bcher-kva.example",
        ] {
            assert!(is_origin(good), "{good}");
        }
        for bad in [
            "",
            "*",
            "null",
            "https://",
            "https://*.example.com",
            "app.example.com",
            "https://app.example.com/",
            "https://app.example.com:443",
            "HTTPS://app.example.com",
            "https://App.example.com",
            "https://user@app.example.com",
            "https://app.example.com#x",
            "https://bücher.example",
            "http://app.example.com",
            "http://localhost.example.com",
            "http://10.0.0.1",
            "ftp://localhost",
            "file:///x",
            " https://app.example.com",
        ] {
            assert!(!is_origin(bad), "{bad}");
        }
    }

    #[test]
    fn null_lifts_a_limit_and_absence_keeps_it_on_both_wires() {
        let read = |text: &str| serde_json::from_str::<Changes>(text).unwrap();
        for (text, limit) in [
            ("{}", None),
            (r#"{"queue_limit":null}"#, Some(Bound(None))),
            (r#"{"queue_limit":7}"#, Some(Bound(Some(7)))),
        ] {
            let changes = read(text);
            assert_eq!(changes.queue_limit, limit);
            assert_eq!(serde_json::to_string(&changes).unwrap(), text);
            let packed = rmp_serde::to_vec_named(&changes).unwrap();
            assert_eq!(rmp_serde::from_slice::<Changes>(&packed).unwrap(), changes);
        }
    }

    #[test]
    fn what_is_out_of_bounds_is_named() {
        let field = |changes: Changes| changes.check().err().and_then(|fault| fault.field);
        let default = Changes::default;
        assert_eq!(field(default()), None);
        for (changes, expected) in [
            (Changes { concurrency_limit: Some(0), ..default() }, "concurrency_limit"),
            (Changes { calls_per_minute: Some(1_000_001), ..default() }, "calls_per_minute"),
            (Changes { queue_limit: Some(Bound(Some(0))), ..default() }, "queue_limit"),
            (Changes { session_limit: Some(0), ..default() }, "session_limit"),
            (Changes { user_session_limit: Some(100_001), ..default() }, "user_session_limit"),
            (Changes { result_retention_seconds: Some(59), ..default() }, "result_retention_seconds"),
            (Changes { name: Some("a\nb".into()), ..default() }, "name"),
            (Changes { allowed_origins: Some(vec!["https://a.example".into(); 2]), ..default() }, "allowed_origins"),
        ] {
            assert_eq!(field(changes).as_deref(), Some(expected));
        }
    }
}
