//! What the `FastMCP` service answers, and what its error codes mean (`fastmcp/README.md`).

use bytes::{Bytes, BytesMut};
use reqwest::Response;
use serde::Deserialize;
use serde_json::value::RawValue;
use shared::{Code, Fault, json::Raw};

use crate::{
    catalogue::no_such_program,
    egress::{BodyError, read_capped},
    upstream::failure::{self, RpcError},
};

/// The largest answer that is read, in bytes: a result of 7 MiB, or a list of tools of 8 MiB.
const MAX_BYTES: usize = 8 * 1024 * 1024 + 64 * 1024;
/// The largest result that is carried, in bytes.
const MAX_RESULT_BYTES: usize = 7 * 1024 * 1024;

/// `{"result"}`, `{"progress"}` or `{"error"}`: an answer, or one line of a streamed one.
#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    progress: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<ServiceError<'a>>,
}

#[derive(Deserialize)]
struct ServiceError<'a> {
    code: &'a str,
    #[serde(default)]
    message: String,
    #[serde(borrow, default)]
    jsonrpc: Option<RpcError<'a>>,
}

/// The body of an answer that is one document; the fault, if it is an error.
pub(super) async fn whole(response: Response) -> Result<Bytes, Fault> {
    let status = response.status();
    let body =
        read_capped(http::Response::from(response).into_body(), MAX_BYTES).await.map_err(|error| match error {
            BodyError::TooLarge { .. } => failure::too_large(),
            BodyError::Broken(_) => failure::broken(),
        })?;
    if status.is_success() {
        return Ok(body);
    }
    match serde_json::from_slice::<Frame<'_>>(&body) {
        Ok(Frame { error: Some(error), .. }) => Err(fault(error)),
        _ => Err(Fault::internal(format_args!("the FastMCP service answered HTTP {status} without an error"))),
    }
}

/// The version of the protocol that a new client speaks; empty where it is not told.
pub(super) fn version(body: &Bytes) -> String {
    #[derive(Deserialize)]
    struct Met {
        protocol_version: String,
    }
    serde_json::from_slice::<Met>(body).map(|met| failure::printable(&met.protocol_version)).unwrap_or_default()
}

/// The `result` of a call, still the bytes it came in.
pub(super) fn result(body: &Bytes) -> Result<Raw, Fault> {
    match serde_json::from_slice::<Frame<'_>>(body) {
        Ok(Frame { result: Some(result), .. }) => raw(body, result),
        Ok(Frame { error: Some(error), .. }) => Err(fault(error)),
        _ => Err(Fault::internal("the FastMCP service answered something else")),
    }
}

/// Reads lines until one is the result; what is progress is handed on.
pub(super) async fn framed(mut response: Response, progress: &(dyn Fn(Raw) + Send + Sync)) -> Result<Raw, Fault> {
    if !response.status().is_success() {
        return result(&whole(response).await?);
    }
    let mut pending = BytesMut::new();
    loop {
        // Only what came last can hold the end of the line.
        let Some(chunk) = response.chunk().await.map_err(|_| failure::broken())? else {
            return Err(failure::broken());
        };
        let mut searched = pending.len();
        pending.extend_from_slice(&chunk);
        while let Some(end) = pending[searched..].iter().position(|byte| *byte == b'\n') {
            let line = pending.split_to(searched + end + 1).freeze();
            searched = 0;
            match serde_json::from_slice::<Frame<'_>>(&line) {
                Ok(Frame { progress: Some(step), .. }) => progress(raw(&line, step)?),
                _ => return result(&line),
            }
        }
        if pending.len() > MAX_BYTES {
            return Err(failure::too_large());
        }
    }
}

fn raw(body: &Bytes, value: &RawValue) -> Result<Raw, Fault> {
    if value.get().len() > MAX_RESULT_BYTES {
        return Err(failure::too_large());
    }
    let value = Raw::parse(body.slice_ref(value.get().as_bytes())).map_err(|_| failure::garbage("nests too deep"))?;
    if value.is_object() { Ok(value) } else { Err(failure::garbage("is not MCP")) }
}

fn fault(error: ServiceError<'_>) -> Fault {
    let words = failure::printable(&error.message);
    match (error.code, error.jsonrpc) {
        ("upstream", Some(error)) => error.into_fault(),
        ("unreachable", _) => failure::unreachable(),
        ("unauthorized", _) => failure::credential_refused(),
        ("timeout", _) => failure::late(),
        ("protocol" | "upstream", _) => failure::garbage("is not MCP, or it failed"),
        // Nothing was delivered.
        ("busy", _) => Fault::unavailable("The FastMCP service", "it is busy"),
        ("lost", _) => Fault::unavailable("The session's workspace", words),
        // What we describe the server with is ours to get right, except for its address and token.
        ("invalid", _) if words.starts_with("specification.url") => {
            Fault::invalid("endpoint", "The FastMCP service cannot use this address.")
        }
        ("invalid", _) if words.starts_with("specification.auth") => {
            Fault::invalid("auth.token", "The token holds characters that no header can carry.")
        }
        ("invalid", _) if words.starts_with("specification.catalogue") => no_such_program(),
        ("invalid", _) if words.starts_with("specification.headers") => {
            Fault::invalid("auth.name", "The FastMCP service cannot send this header.")
        }
        ("invalid", _) if !words.starts_with("specification.") && !words.starts_with("client_id") => {
            Fault::new(Code::Invalid, format!("The call cannot be carried: {words}"))
        }
        (code, _) => Fault::internal(format_args!("the FastMCP service refused us: {code}: {words}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code_of(body: &str) -> Code {
        result(&Bytes::copy_from_slice(body.as_bytes())).unwrap_err().code
    }

    #[test]
    fn a_result_stays_the_bytes_it_came_in() {
        let odd = r#"{"content":[],"n":98765432109876543210,"e":1e3, "z":1}"#;
        let body = Bytes::from(format!(r#"{{"result":{odd}}}"#));
        assert_eq!(result(&body).unwrap().bytes(), odd.as_bytes());
    }

    #[test]
    fn every_code_of_the_service_has_its_fault() {
        for (code, expected) in [
            ("invalid", Code::Invalid),
            ("unauthenticated", Code::Internal),
            ("unreachable", Code::UpstreamFailed),
            ("unauthorized", Code::Reconnect),
            ("protocol", Code::UpstreamFailed),
            ("upstream", Code::UpstreamFailed),
            ("timeout", Code::Timeout),
            ("busy", Code::Unavailable),
            ("lost", Code::Unavailable),
            ("internal", Code::Internal),
        ] {
            assert_eq!(code_of(&format!(r#"{{"error":{{"code":"{code}","message":"m"}}}}"#)), expected, "{code}");
        }
        let refused = r#"{"error":{"code":"upstream","message":"m","jsonrpc":{"code":-32602,"message":"no \u001b"}}}"#;
        let fault = result(&Bytes::from_static(refused.as_bytes())).unwrap_err();
        assert_eq!((fault.code, fault.message.as_str()), (Code::Invalid, "The MCP server refused the request: no  "));
    }

    #[test]
    fn a_mistake_in_our_specification_is_not_the_callers() {
        let refused = |message: &str| code_of(&format!(r#"{{"error":{{"code":"invalid","message":"{message}"}}}}"#));
        assert_eq!(refused("specification.proxy: is required"), Code::Internal);
        assert_eq!(refused("specification.url: is not a URL"), Code::Invalid);
        assert_eq!(refused("specification.auth.bearer.token: is not a bearer token"), Code::Invalid);
        assert_eq!(refused("specification.catalogue: is not in the operator's catalogue"), Code::Invalid);
        assert_eq!(refused("arguments: holds half of a surrogate pair"), Code::Invalid);
    }
}
