//! What an upstream's misbehaviour means to the caller: one place turns transport errors, HTTP
//! statuses and JSON-RPC errors into [`Fault`]s, so that both kinds of client say the same.
//!
//! An upstream's body is never echoed. The one exception is the `message` of a JSON-RPC error that
//! answers a call, cut and made printable: it is what the server wanted its caller to read.

use std::{borrow::Cow, error::Error, io};

use http::StatusCode;
use serde::Deserialize;
use shared::{Code, Fault};

use crate::egress::{self, SendError};

/// JSON-RPC: invalid method parameters (JSON-RPC 2.0 section 5.1); MCP uses it for unknown tools too.
pub(super) const INVALID_PARAMS: i64 = -32602;
/// JSON-RPC: the method does not exist.
pub(super) const METHOD_NOT_FOUND: i64 = -32601;
/// MCP 2026-07-28: the protocol version of the request is not supported.
pub(super) const UNSUPPORTED_VERSION: i64 = -32022;
/// MCP 2026-07-28: headers and body of a request disagree.
pub(super) const HEADER_MISMATCH: i64 = -32020;
/// The most that is shown of an upstream's own words, in characters.
const SHOWN_CHARACTERS: usize = 300;

/// The error object of a JSON-RPC response (JSON-RPC 2.0 section 5.1); `data` is not read.
#[derive(Debug, Deserialize)]
pub(super) struct RpcError<'a> {
    /// Which error.
    pub(super) code: i64,
    /// The server's words.
    #[serde(borrow, default)]
    pub(super) message: Cow<'a, str>,
}

impl RpcError<'_> {
    /// The fault of a call that the server answered with this error.
    pub(super) fn into_fault(self) -> Fault {
        rpc(self.code, &self.message)
    }
}

/// The fault of a call that ended in a JSON-RPC error.
pub(super) fn rpc(code: i64, message: &str) -> Fault {
    let words = printable(message);
    if code == INVALID_PARAMS {
        return Fault::new(Code::Invalid, format!("The MCP server refused the request: {words}"));
    }
    Fault::new(Code::UpstreamFailed, format!("The MCP server answered with an error: {words}"))
}

/// No connection: DNS, TCP, TLS, or the server refused it. Nothing was sent.
pub(super) fn unreachable() -> Fault {
    Fault::new(Code::UpstreamFailed, "The MCP server cannot be reached.")
}

/// The server does not accept the credential (HTTP 401).
pub(super) fn credential_refused() -> Fault {
    Fault::new(Code::Reconnect, "The MCP server refused the credential.")
}

/// The deadline passed, or the server was silent for as long as we wait.
pub(super) fn late() -> Fault {
    Fault::timeout("The MCP server did not answer in time.")
}

/// The connection ended between request and answer: the effect may have happened.
pub(super) fn broken() -> Fault {
    Fault::new(Code::UpstreamFailed, "The connection to the MCP server was lost before it answered.")
}

/// The answer is not what MCP asks for; `what` completes "The MCP server's answer ...".
pub(super) fn garbage(what: &str) -> Fault {
    Fault::new(Code::UpstreamFailed, format!("The MCP server's answer {what}."))
}

/// The answer is larger than we carry.
pub(super) fn too_large() -> Fault {
    garbage("is too large")
}

/// An HTTP status that is no success and came without a JSON-RPC error.
pub(super) fn status(status: StatusCode) -> Fault {
    let message = match status {
        StatusCode::UNAUTHORIZED => return credential_refused(),
        StatusCode::FORBIDDEN => "The MCP server forbids this.".to_owned(),
        StatusCode::TOO_MANY_REQUESTS => "The MCP server asks to be called less often.".to_owned(),
        other if other.is_redirection() => "The MCP server's address redirects elsewhere.".to_owned(),
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
            format!("There is no MCP endpoint at the address (HTTP {}).", status.as_u16())
        }
        other => format!("The MCP server failed (HTTP {}).", other.as_u16()),
    };
    Fault::new(Code::UpstreamFailed, message)
}

/// A request that got no answer. Logged here: no cause holds a path or a query, and what a server put
/// into one is cut.
pub(super) fn sending(error: &SendError, request_id: &str) -> Fault {
    tracing::warn!(request_id, cause = printable(&Chain(error).to_string()), "the upstream could not be asked");
    match error {
        SendError::Refused(refused) => (*refused).into(),
        SendError::Unreachable(_) => unreachable(),
        SendError::Broken(cause) if is_silence(cause) => late(),
        SendError::Broken(_) => broken(),
    }
}

/// Whether the other side of a connection confirmed nothing for too long.
fn is_silence(error: &(dyn Error + 'static)) -> bool {
    std::iter::successors(Some(error), |&error| error.source())
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::TimedOut)
}

/// An error of the client that rmcp is given.
pub(super) fn transport(error: &reqwest::Error) -> Fault {
    match egress::refusal_in(error) {
        Some(refused) => refused.into(),
        None if error.is_connect() || error.is_builder() => unreachable(),
        None if error.is_redirect() => status(StatusCode::PERMANENT_REDIRECT),
        None if error.is_timeout() => late(),
        None => broken(),
    }
}

/// An error with its causes, in one line.
struct Chain<'a>(&'a dyn Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// Foreign text made fit to show: one line, no control, direction or hidden characters, at most 300.
pub(crate) fn printable(text: &str) -> String {
    let visible = |character: char| match character {
        '\u{ad}'
        | '\u{180e}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e01ef}' => ' ',
        other if other.is_control() => ' ',
        other => other,
    };
    text.chars().take(SHOWN_CHARACTERS).map(visible).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_words_are_cut_and_made_printable() {
        let hostile = format!("a\r\nb\u{1b}[31m\u{202e}\u{e0041}{}", "x".repeat(5_000));
        let shown = printable(&hostile);
        assert_eq!(shown.chars().count(), SHOWN_CHARACTERS);
        assert!(shown.starts_with("a  b [31m  x"), "{shown:?}");
        assert!(!shown.contains(char::is_control));
    }

    #[test]
    fn only_invalid_parameters_are_the_callers_mistake() {
        assert_eq!(rpc(INVALID_PARAMS, "no").code, Code::Invalid);
        for code in [METHOD_NOT_FOUND, UNSUPPORTED_VERSION, -32603, -32000, 7] {
            assert_eq!(rpc(code, "no").code, Code::UpstreamFailed, "{code}");
        }
    }

    #[test]
    fn a_refused_credential_asks_to_reconnect_and_nothing_else_does() {
        for code in (300..600).filter_map(|code| StatusCode::from_u16(code).ok()) {
            let fault = status(code);
            let expected = if code == 401 { Code::Reconnect } else { Code::UpstreamFailed };
            assert_eq!(fault.code, expected, "{code}");
        }
    }
}
