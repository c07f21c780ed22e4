//! The bytes of JSON-RPC messages: requests are spliced from parts that are JSON already, answers
//! are taken apart without reading what is inside. Payloads cross unchanged.

use std::io::Write as _;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::json::Raw;

use crate::upstream::failure::RpcError;

/// One message of the server, borrowed from its bytes.
#[derive(Debug, Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Option<&'a RawValue>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

/// What a message of the server is to the request that waits.
#[derive(Debug)]
pub(super) enum Message<'a> {
    /// The answer: the `result`, still the bytes it came in.
    Result(Bytes),
    /// The answer: a JSON-RPC error.
    Error(RpcError<'a>),
    /// Progress of the request: `progress`, `total`, `message` as the server wrote them.
    Progress(Raw),
    /// A request of the server's own, with the bytes of its id.
    Request {
        /// The id, to be sent back as it is.
        id: &'a str,
        /// True for `ping`, the one request that every client answers.
        is_ping: bool,
    },
    /// Something for somebody else.
    Other,
}

/// Reads a message that arrived for request `id`; `None` when it is no JSON-RPC message.
pub(super) fn read(bytes: &Bytes, id: u64) -> Option<Message<'_>> {
    let envelope: Envelope<'_> = serde_json::from_slice(bytes).ok()?;
    if let Some(method) = envelope.method {
        return Some(match (envelope.id, method.get()) {
            (Some(id), method) => Message::Request { id: id.get(), is_ping: method == r#""ping""# },
            (None, r#""notifications/progress""#) => progress(envelope.params, id),
            (None, _) => Message::Other,
        });
    }
    // An error may come without an id: the server could not read ours (JSON-RPC 2.0 section 5).
    let ours = envelope.id.map_or(envelope.error.is_some(), |answered| is_same(answered.get(), id));
    match (envelope.result, envelope.error) {
        (Some(_), None) | (None, Some(_)) if !ours => Some(Message::Other),
        (Some(result), None) => Some(Message::Result(bytes.slice_ref(result.get().as_bytes()))),
        (None, Some(error)) => serde_json::from_str(error.get()).ok().map(Message::Error),
        _ => None,
    }
}

/// Some servers answer a number with a string of its digits.
fn is_same(answered: &str, id: u64) -> bool {
    let digits = answered.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(answered);
    digits.parse() == Ok(id)
}

#[derive(Deserialize, Serialize)]
struct Step<'a> {
    #[serde(borrow, rename = "progressToken", skip_serializing)]
    token: &'a RawValue,
    #[serde(borrow)]
    progress: &'a RawValue,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    total: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    message: Option<&'a RawValue>,
}

fn progress(params: Option<&RawValue>, id: u64) -> Message<'_> {
    let read = params.and_then(|params| serde_json::from_str::<Step<'_>>(params.get()).ok());
    match read.filter(|step| is_same(step.token.get(), id)) {
        // Our token means nothing to the caller, so it is left out.
        Some(step) => Raw::of(&step).map_or(Message::Other, Message::Progress),
        None => Message::Other,
    }
}

/// `tools/call`. `meta` is the inside of the era's `_meta` object, empty in the handshake era.
pub(super) fn call(id: u64, tool: &str, arguments: &[u8], meta: &str, wants_progress: bool) -> Vec<u8> {
    let mut body = Vec::with_capacity(160 + tool.len() + arguments.len() + meta.len());
    head(&mut body, id, "tools/call");
    body.extend_from_slice(br#""name":"#);
    text(&mut body, tool);
    body.extend_from_slice(br#","arguments":"#);
    body.extend_from_slice(arguments);
    if wants_progress || !meta.is_empty() {
        body.extend_from_slice(br#","_meta":{"#);
        body.extend_from_slice(meta.as_bytes());
        if wants_progress {
            let comma = if meta.is_empty() { "" } else { "," };
            put(&mut body, &format_args!(r#"{comma}"progressToken":{id}"#));
        }
        body.push(b'}');
    }
    body.extend_from_slice(b"}}");
    body
}

/// `tools/list`.
pub(super) fn list(id: u64, cursor: Option<&str>, meta: &str) -> Vec<u8> {
    let mut body = Vec::with_capacity(160 + meta.len());
    head(&mut body, id, "tools/list");
    if let Some(cursor) = cursor {
        body.extend_from_slice(br#""cursor":"#);
        text(&mut body, cursor);
    }
    if !meta.is_empty() {
        let comma = if cursor.is_some() { "," } else { "" };
        put(&mut body, &format_args!(r#"{comma}"_meta":{{{meta}}}"#));
    }
    body.extend_from_slice(b"}}");
    body
}

/// `notifications/cancelled`: the caller of request `id` went away.
pub(super) fn cancelled(id: u64) -> Vec<u8> {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id},"reason":"the caller went away"}}}}"#
    )
    .into_bytes()
}

/// The answer to a request of the server: `{}` to a ping, "method not found" to all else.
pub(super) fn reply(id: &str, is_ping: bool) -> Vec<u8> {
    if is_ping {
        return format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#).into_bytes();
    }
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32601,"message":"Method not found"}}}}"#).into_bytes()
}

fn head(body: &mut Vec<u8>, id: u64, method: &str) {
    put(body, &format_args!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{"#));
}

// Writing to a `Vec` cannot fail.
fn put(body: &mut Vec<u8>, text: &std::fmt::Arguments<'_>) {
    let _ = body.write_fmt(*text);
}

fn text(body: &mut Vec<u8>, value: &str) {
    let _ = serde_json::to_writer(body, value);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn bytes(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    #[test]
    fn arguments_and_result_keep_their_bytes() {
        let odd = r#"{"n":12345678901234567890123,"e":1e3, "z":1,"a":0.10}"#;
        let sent = call(7, "a\"\u{e9}", odd.as_bytes(), r#""v":1"#, true);
        let sent = String::from_utf8(sent).unwrap();
        assert!(sent.contains(odd));
        let read_back: Value = serde_json::from_str(&sent).unwrap();
        assert_eq!(read_back["params"]["name"], "a\"\u{e9}");
        assert_eq!(read_back["params"]["_meta"], json!({"v": 1, "progressToken": 7}));

        let answer = bytes(&format!(r#"{{"id":7,"jsonrpc":"2.0","result":{odd},"vendor":1}}"#));
        let Some(Message::Result(result)) = read(&answer, 7) else { panic!("no result") };
        assert_eq!(result, odd.as_bytes());
    }

    #[test]
    fn the_handshake_era_has_no_metadata_unless_progress_is_wanted() {
        let plain: Value = serde_json::from_slice(&call(1, "t", b"{}", "", false)).unwrap();
        assert_eq!(plain["params"], json!({"name": "t", "arguments": {}}));
        let watched: Value = serde_json::from_slice(&call(1, "t", b"{}", "", true)).unwrap();
        assert_eq!(watched["params"]["_meta"], json!({"progressToken": 1}));
        let first: Value = serde_json::from_slice(&list(2, None, "")).unwrap();
        assert_eq!(first["params"], json!({}));
        let next: Value = serde_json::from_slice(&list(2, Some(""), r#""v":1"#)).unwrap();
        assert_eq!(next["params"], json!({"cursor": "", "_meta": {"v": 1}}));
    }

    #[test]
    fn an_answer_to_another_request_is_not_ours() {
        for text in [
            r#"{"id":8,"result":{}}"#,
            r#"{"id":"x","result":{}}"#,
            r#"{"result":{}}"#,
            r#"{"id":8,"error":{"code":1}}"#,
        ] {
            assert!(matches!(read(&bytes(text), 7), Some(Message::Other)), "{text}");
        }
        assert!(matches!(read(&bytes(r#"{"id":"7","result":{}}"#), 7), Some(Message::Result(_))));
        assert!(matches!(read(&bytes(r#"{"id":null,"error":{"code":1,"message":"m"}}"#), 7), Some(Message::Error(_))));
    }

    #[test]
    fn what_is_no_message_is_told_apart() {
        for text in [
            "",
            "[]",
            "{}",
            "nonsense",
            r#"{"id":7}"#,
            r#"{"id":7,"result":{},"error":{"code":1}}"#,
            r#"{"id":7,"error":1}"#,
        ] {
            assert!(read(&bytes(text), 7).is_none(), "{text}");
        }
    }

    #[test]
    fn progress_keeps_its_numbers_and_loses_our_token() {
        let text = r#"{"method":"notifications/progress","params":{"progressToken":7,"progress":1e0,"message":"half","_meta":{}}}"#;
        let text = bytes(text);
        let Some(Message::Progress(progress)) = read(&text, 7) else { panic!("no progress") };
        assert_eq!(progress.bytes(), r#"{"progress":1e0,"message":"half"}"#.as_bytes());
        assert!(matches!(read(&text, 8), Some(Message::Other)), "another request's progress");
    }

    #[test]
    fn requests_of_the_server_are_recognised_with_their_id() {
        let text = bytes(r#"{"method":"ping","id":"p\u00e9-1"}"#);
        let Some(Message::Request { id, is_ping: true }) = read(&text, 7) else { panic!("no ping") };
        let answer: Value = serde_json::from_slice(&reply(id, true)).unwrap();
        assert_eq!(answer, json!({"jsonrpc": "2.0", "id": "p\u{e9}-1", "result": {}}));
        let text = bytes(r#"{"method":"roots/list","id":3}"#);
        let Some(Message::Request { id, is_ping: false }) = read(&text, 7) else { panic!("no request") };
        let answer: Value = serde_json::from_slice(&reply(id, false)).unwrap();
        assert_eq!(answer["error"]["code"], -32601);
    }
}
