//! What a configuration may say: every field is judged before anything is sealed or kept, and the
//! one at fault is named.

use shared::{
    Fault,
    command::configurations::{
        Credential, MAX_DESCRIPTION_CHARS, MAX_ENDPOINT_BYTES, MAX_HEADER_BYTES, MAX_NAME_BYTES, MAX_PATTERN_BYTES,
        MAX_PATTERNS, MAX_PREFIX_BYTES, MAX_RETRIES, MAX_SECRET_BYTES, Settings, TIMEOUT_RANGE_MS, ToolFilter,
        Transport,
    },
    id::ConfigurationId,
};
use url::Url;

/// Headers that belong to HTTP, to whoever stands in between, to the protocol, or to another kind of
/// credential: a tenant's secret may bend none of them. No narrower than what the `FastMCP` service
/// refuses.
const RESERVED_HEADERS: [&str; 29] = [
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "authorization",
    "cache-control",
    "connection",
    "cookie",
    "date",
    "expect",
    "forwarded",
    "from",
    "host",
    "keep-alive",
    "last-event-id",
    "max-forwards",
    "origin",
    "pragma",
    "range",
    "referer",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
    "x-real-ip",
    "x-request-id",
];
const RESERVED_PREFIXES: [&str; 8] =
    ["access-control-", "content-", "if-", "mcp-", "proxy-", "sec-", "x-forwarded-", "x-switchboard-"];

/// The endpoint as a URL without credentials or fragment.
pub fn endpoint(text: &str) -> Result<Url, Fault> {
    let refused = |message: &str| Fault::invalid("endpoint", message);
    if text.len() > MAX_ENDPOINT_BYTES {
        return Err(refused("The endpoint is longer than 2,048 bytes."));
    }
    // The parser would drop or escape them, and what is kept would not be what is used.
    if text.contains(|character: char| character.is_control() || character.is_whitespace()) {
        return Err(refused("The endpoint must not contain spaces or control characters."));
    }
    let url = Url::parse(text).map_err(|_| refused("Give an absolute URL such as https://mcp.example.com/mcp."))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(refused("The endpoint must be an http or https URL."));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refused("The endpoint must not hold credentials; give them under `auth`."));
    }
    if url.fragment().is_some() {
        return Err(refused("The endpoint must not have a fragment."));
    }
    Ok(url)
}

/// Where the server is: the endpoint, or nothing for a program, whose name the catalogue judges.
/// Exactly one of the two is given.
pub fn target(transport: Transport, address: Option<&str>, program: Option<&str>) -> Result<Option<Url>, Fault> {
    match (transport, address, program) {
        (Transport::Stdio, Some(_), _) => {
            Err(Fault::invalid("endpoint", "Transport `stdio` has no endpoint: it names a program of the catalogue."))
        }
        (Transport::Stdio, None, None) => {
            Err(Fault::invalid("catalogue", "Transport `stdio` needs the name of a program in the catalogue."))
        }
        (Transport::Stdio, None, Some(_)) => Ok(None),
        (_, _, Some(_)) => Err(Fault::invalid("catalogue", "Only transport `stdio` names a program of the catalogue.")),
        (_, None, None) => Err(Fault::invalid("endpoint", "Give the server's endpoint.")),
        (_, Some(address), None) => endpoint(address).map(Some),
    }
}

/// Everything but the endpoint and the credential.
pub(super) fn settings(settings: &Settings) -> Result<(), Fault> {
    let name = &settings.name;
    // An id and a name must not be taken for each other.
    if !(1..=MAX_NAME_BYTES).contains(&name.len()) || !is_plain(name) || name.parse::<ConfigurationId>().is_ok() {
        return Err(Fault::invalid(
            "name",
            "Use 1 to 64 of the characters A-Z a-z 0-9 . _ - (and not the form of an id).",
        ));
    }
    let description = settings.description.as_deref().unwrap_or_default();
    if description.chars().count() > MAX_DESCRIPTION_CHARS || description.contains('\0') {
        return Err(Fault::invalid("description", "Use at most 1,000 characters."));
    }
    if !TIMEOUT_RANGE_MS.contains(&settings.timeout_ms) {
        return Err(Fault::invalid("timeout_ms", "Use 1,000 to 300,000 milliseconds."));
    }
    if settings.retries > MAX_RETRIES {
        return Err(Fault::invalid("retries", "Use 0 to 5."));
    }
    if settings.name_prefix.as_ref().is_some_and(|prefix| prefix.len() > MAX_PREFIX_BYTES || !is_plain(prefix)) {
        return Err(Fault::invalid("name_prefix", "Use at most 32 of the characters A-Z a-z 0-9 . _ -."));
    }
    patterns(&settings.tools)
}

/// The characters that a tool's name may be made of (MCP 2026-07-28, tool names).
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

fn patterns(filter: &ToolFilter) -> Result<(), Fault> {
    for (field, patterns) in [("tools.allow", &filter.allow), ("tools.deny", &filter.deny)] {
        if patterns.len() > MAX_PATTERNS {
            return Err(Fault::invalid(field, "Use at most 100 patterns."));
        }
        for (index, pattern) in patterns.iter().enumerate() {
            if !(1..=MAX_PATTERN_BYTES).contains(&pattern.len()) || pattern.contains(char::is_control) {
                return Err(Fault::invalid(
                    format!("{field}[{index}]"),
                    "A pattern is 1 to 128 bytes without control characters; `*` stands for any.",
                ));
            }
        }
    }
    Ok(())
}

/// The form of a secret and of the header that carries it.
pub(crate) fn credential(transport: Transport, credential: &Credential) -> Result<(), Fault> {
    if transport == Transport::Stdio && *credential != Credential::None {
        return Err(Fault::invalid("auth.type", "A program of the catalogue is given no credential."));
    }
    match credential {
        Credential::None => Ok(()),
        Credential::Bearer(token) => {
            let token = token.reveal();
            if (1..=MAX_SECRET_BYTES).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Ok(());
            }
            Err(Fault::invalid("auth.token", "A bearer token is 1 to 8,192 visible ASCII characters without spaces."))
        }
        Credential::Header { name, value } => {
            header(name)?;
            let value = value.reveal();
            let is_sendable = value.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
            if (1..=MAX_SECRET_BYTES).contains(&value.len()) && is_sendable && value.trim() == value {
                return Ok(());
            }
            Err(Fault::invalid(
                "auth.value",
                "A header's value is 1 to 8,192 visible ASCII characters, with spaces only within.",
            ))
        }
    }
}

/// A header that may carry a tenant's secret (RFC 9110 section 5.1).
pub(super) fn header(name: &str) -> Result<(), Fault> {
    let refused = |message: &str| Err(Fault::invalid("auth.name", message));
    let is_token = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
    if !(1..=MAX_HEADER_BYTES).contains(&name.len()) || !is_token {
        return refused("A header's name is 1 to 64 of the characters A-Z a-z 0-9 ! # $ % & ' * + - . ^ _ ` | ~.");
    }
    let name = name.to_ascii_lowercase();
    if name == "authorization" {
        return refused("`Authorization` is sent by type `bearer`.");
    }
    let is_reserved = RESERVED_HEADERS.contains(&name.as_str())
        || RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || matches!(name.as_str(), "traceparent" | "tracestate" | "baggage");
    if is_reserved {
        return refused("This header belongs to HTTP or to the protocol and cannot carry a secret.");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use shared::secret::Secret;

    use super::*;

    #[test]
    fn headers_that_belong_to_others_carry_no_secret() {
        for name in ["X-Api-Key", "api_key", "Ocp-Apim-Subscription-Key", "PRIVATE-TOKEN", "x"] {
            assert!(header(name).is_ok(), "{name}");
        }
        for name in RESERVED_HEADERS.into_iter().chain([
            "Authorization",
            "HOST",
            "Content-Length",
            "content-type",
            "Mcp-Session-Id",
            "MCP-Protocol-Version",
            "mcp-param-region",
            "Proxy-Authorization",
            "Sec-Fetch-Site",
            "X-Forwarded-For",
            "X-Switchboard-Call",
            "traceparent",
            "If-Match",
            "",
            "a b",
            "a:b",
            "a\r\nb",
            "\u{fc}",
        ]) {
            assert_eq!(header(name).unwrap_err().field.as_deref(), Some("auth.name"), "{name}");
        }
        assert!(header(&"h".repeat(65)).is_err());
    }

    #[test]
    fn a_value_that_no_header_can_carry_is_refused_and_not_repeated() {
        let checked = |value: &str| {
            let value = Secret::new(value.to_owned());
            credential(Transport::Http, &Credential::Header { name: "X-Api-Key".into(), value })
        };
        assert!(checked("Token abc").is_ok());
        for bad in ["", " a", "a ", "a\tb", "a\r\nb", "a\0", "\u{fc}", &"v".repeat(8_193)] {
            let fault = checked(bad).unwrap_err();
            assert_eq!(fault.field.as_deref(), Some("auth.value"), "{bad:?}");
            assert!(bad.trim().is_empty() || bad.len() < 3 || !fault.message.contains(bad), "{fault}");
        }
    }
}
