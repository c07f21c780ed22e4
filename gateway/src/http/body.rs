//! Reading a JSON body: size, media type, depth, syntax, unknown fields, types. What is wrong is
//! named by its path before anything is sent.

use poem::{FromRequest, Request, RequestBody, Result, http::header};
use serde::de::DeserializeOwned;
use shared::{
    Fault,
    json::{MAX_DEPTH, exceeds_depth},
};

use super::problem::{EdgeError, Problem};

/// The largest body, in bytes.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;

/// A JSON body as a type. The type denies unknown fields.
#[derive(Debug)]
pub struct Body<T>(pub T);

impl<'a, T: DeserializeOwned> FromRequest<'a> for Body<T> {
    async fn from_request(request: &'a Request, body: &mut RequestBody) -> Result<Self> {
        if !is_json(request) {
            return Err(EdgeError::MediaType.into());
        }
        let bytes = body.take()?.into_bytes_limit(MAX_BODY_BYTES).await.map_err(|cause| match cause {
            poem::error::ReadBodyError::PayloadTooLarge => poem::Error::from(EdgeError::TooLarge),
            _ => Problem::from(Fault::invalid("", "The body could not be read to its end.")).into(),
        })?;
        Ok(Self(read(&bytes).map_err(Problem::from)?))
    }
}

fn is_json(request: &Request) -> bool {
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = content_type.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> std::result::Result<T, Fault> {
    if exceeds_depth(bytes, MAX_DEPTH) {
        return Err(Fault::invalid("", format!("The body nests deeper than {MAX_DEPTH} levels.")));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let field = if path == "." { String::new() } else { path };
        let inner = error.into_inner();
        let message = if inner.is_data() { sentence(&inner) } else { format!("The body is not JSON: {inner}.") };
        Fault::invalid(field, message)
    })?;
    deserializer.end().map_err(|_| Fault::invalid("", "The body goes on after its JSON value."))?;
    Ok(value)
}

/// The parser's complaint without the position, which the path says better.
fn sentence(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or_default();
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", characters.as_str())
}

#[cfg(test)]
mod tests {
    use shared::json::Raw;

    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        name: String,
        inner: Option<Inner>,
        payload: Option<Raw>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        count: u32,
    }

    fn field(text: &str) -> Option<String> {
        read::<Sample>(text.as_bytes()).unwrap_err().field
    }

    #[test]
    fn the_field_at_fault_is_named() {
        assert_eq!(field(r#"{"name":1}"#).as_deref(), Some("name"));
        assert_eq!(field(r#"{"name":"a","inner":{"count":-1}}"#).as_deref(), Some("inner.count"));
        assert_eq!(field(r#"{"name":"a","nmae":1}"#).as_deref(), Some("nmae"));
        assert_eq!(field("[1").as_deref(), Some(""));
    }

    #[test]
    fn a_payload_is_kept_byte_for_byte() {
        let sample: Sample = read(br#"{"name":"a","payload":{"n":12345678901234567890123, "e":1e3}}"#).unwrap();
        assert_eq!(sample.payload.unwrap().bytes().as_ref(), br#"{"n":12345678901234567890123, "e":1e3}"#);
        assert_eq!(sample.name, "a");
        assert!(sample.inner.is_none_or(|inner| inner.count == 0));
    }

    #[test]
    fn depth_and_trailing_text_are_refused() {
        let deep = format!(r#"{{"name":"a","payload":{}{}}}"#, "[".repeat(70), "]".repeat(70));
        assert!(read::<Sample>(deep.as_bytes()).is_err());
        assert!(read::<Sample>(br#"{"name":"a"} x"#).is_err());
    }
}
