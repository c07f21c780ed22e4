//! Reading a JSON body: size, media type, depth, syntax, unknown fields, types. What is wrong is
//! named by its path before anything is sent.

use std::{marker::PhantomData, time::Duration};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, LengthLimitError, Limited, combinators::BoxBody};
use hyper::body::Body as _;
use poem::{FromRequest, Request, RequestBody, Result, http::header};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_path_to_error::Segment;
use shared::{
    Fault,
    json::{MAX_DEPTH, exceeds_depth},
};

use super::problem::{EdgeError, Limit, Problem};

/// The largest body, in bytes.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;

/// How long a body may take to arrive.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// A JSON body as a type. The type denies unknown fields.
#[derive(Debug)]
pub struct Body<T>(pub T);

impl<'a, T: DeserializeOwned> FromRequest<'a> for Body<T> {
    async fn from_request(request: &'a Request, body: &mut RequestBody) -> Result<Self> {
        if !is_json(request) {
            return Err(EdgeError::MediaType.into());
        }
        if announced_bytes(request).is_some_and(|bytes| bytes > MAX_BODY_BYTES) {
            return Err(EdgeError::TooLarge(Limit::Body).into());
        }
        let bytes = collect(body.take()?, MAX_WAIT).await?;
        Ok(Self(read(&bytes).map_err(Problem::from)?))
    }
}

/// The whole body, if it comes within `patience`: a sender that trickles holds a connection, and
/// what it has sent so far, for nothing.
async fn collect(body: poem::Body, patience: Duration) -> Result<Bytes> {
    match tokio::time::timeout(patience, whole(body)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(EdgeError::TooLarge(Limit::Body).into()),
        Ok(Err(_)) => Err(Problem::from(Fault::invalid("", "The body could not be read to its end.")).into()),
        Err(_) => {
            let message = format!("The body did not arrive within {} seconds.", patience.as_secs());
            Err(Problem::from(Fault::invalid("", message)).into())
        }
    }
}

/// As it came where it came in one piece, as nearly all do: poem's own way copies it through a buffer of 4 KiB within
/// the future. Pieces are copied together: each may hold on to a buffer that is much larger than itself.
async fn whole(body: poem::Body) -> std::result::Result<Bytes, Box<dyn std::error::Error + Send + Sync>> {
    let mut body = Limited::new(BoxBody::from(body), MAX_BODY_BYTES);
    let mut copied = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(piece) = frame?.into_data() else { continue };
        if copied.is_empty() && body.is_end_stream() {
            return Ok(piece);
        }
        copied.extend_from_slice(&piece);
    }
    Ok(copied.freeze())
}

fn is_json(request: &Request) -> bool {
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = content_type.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

/// What `Content-Length` says. Nobody has to wait for a body that will be refused.
fn announced_bytes(request: &Request) -> Option<usize> {
    request.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> std::result::Result<T, Fault> {
    if exceeds_depth(bytes, MAX_DEPTH) {
        return Err(Fault::invalid("", format!("The body nests deeper than {MAX_DEPTH} levels.")));
    }
    // An array would be taken for the fields in their order.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(Fault::invalid("", "The body must be a JSON object."));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| complaint(&error))?;
    deserializer.end().map_err(|_| Fault::invalid("", "The body goes on after its JSON value."))?;
    Ok(value)
}

/// Reads a field that is an object or left out. A bare struct would be read from a list of its
/// values too, which no document of ours says.
pub fn object<'de, D, T>(deserializer: D) -> std::result::Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Fields<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
        type Value = Option<T>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_none<E>(self) -> std::result::Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_some<D: Deserializer<'de>>(self, inner: D) -> std::result::Result<Self::Value, D::Error> {
            inner.deserialize_map(self)
        }

        fn visit_map<A: MapAccess<'de>>(self, fields: A) -> std::result::Result<Self::Value, A::Error> {
            T::deserialize(MapAccessDeserializer::new(fields)).map(Some)
        }
    }

    deserializer.deserialize_option(Fields(PhantomData))
}

/// The longest path of a field that is repeated to the sender, in characters.
const MAX_FIELD_CHARS: usize = 128;

/// The parser's complaint as a fault. It names the field and never repeats a value: what stands in
/// the wrong place may be a secret.
fn complaint(error: &serde_path_to_error::Error<serde_json::Error>) -> Fault {
    let known = error.path().iter().filter(|segment| !matches!(segment, Segment::Unknown));
    let mut path: Vec<String> = known.map(ToString::to_string).collect();
    if !error.inner().is_data() {
        return Fault::invalid(field(&path), format!("The body is not JSON: {}.", error.inner()));
    }
    let text = error.inner().to_string();
    let message = if let Some((kind, name)) = about_a_field(&text) {
        if path.last().is_none_or(|last| last != name) {
            path.push(name.to_owned());
        }
        match kind {
            "missing" => "The field is missing.".to_owned(),
            "duplicate" => "The field stands twice.".to_owned(),
            _ => "There is no such field.".to_owned(),
        }
    } else {
        match text.rsplit_once(", expected ").and_then(|(_, rest)| rest.split(" at line ").next()) {
            Some(expected) if expected.starts_with("struct ") => "Expected an object.".to_owned(),
            Some(expected) => format!("Expected {expected}."),
            None => "The value does not fit.".to_owned(),
        }
    };
    Fault::invalid(field(&path), message)
}

/// Which field the parser misses, knows twice or does not know.
fn about_a_field(text: &str) -> Option<(&str, &str)> {
    let (kind, rest) = text.split_once(" field `")?;
    let name = rest.split('`').next()?;
    matches!(kind, "missing" | "duplicate" | "unknown").then_some((kind, name))
}

fn field(path: &[String]) -> String {
    // A place in a list stands behind its name: `tools.deny[1]`.
    path.join(".").replace(".[", "[").chars().take(MAX_FIELD_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use shared::json::Raw;

    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        name: String,
        #[serde(default, deserialize_with = "object")]
        inner: Option<Inner>,
        payload: Option<Raw>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        count: u32,
        #[serde(default)]
        list: Vec<u32>,
    }

    fn field(text: &str) -> Option<String> {
        read::<Sample>(text.as_bytes()).unwrap_err().field
    }

    #[test]
    fn the_field_at_fault_is_named() {
        assert_eq!(field(r#"{"name":1}"#).as_deref(), Some("name"));
        assert_eq!(field(r#"{"name":"a","inner":{"count":-1}}"#).as_deref(), Some("inner.count"));
        assert_eq!(field(r#"{"name":"a","inner":{"count":1,"list":[1,"x"]}}"#).as_deref(), Some("inner.list[1]"));
        assert_eq!(field(r#"{"name":"a","inner":[1,[]]}"#).as_deref(), Some("inner"), "no list of its values either");
        assert_eq!(field(r#"{"name":"a","nmae":1}"#).as_deref(), Some("nmae"));
        assert_eq!(field(r#"{"name":"a","inner":{}}"#).as_deref(), Some("inner.count"));
        assert_eq!(field(r#"{"name":"a","name":"b"}"#).as_deref(), Some("name"));
        assert_eq!(field("{}").as_deref(), Some("name"));
        assert_eq!(field(r#"{"name":"a""#).as_deref(), Some(""));
        assert_eq!(field(r#"["a",null,null]"#).as_deref(), Some(""), "no array of its values");
    }

    #[test]
    fn a_value_in_the_wrong_place_is_not_repeated() {
        for text in [
            r#"{"name":["s3cret"]}"#,
            r#"{"name":"a","inner":"s3cret"}"#,
            r#"{"name":"a","inner":{"count":"s3cret, expected x"}}"#,
        ] {
            let fault = read::<Sample>(text.as_bytes()).unwrap_err();
            assert!(!fault.message.contains("s3cret") && fault.message.starts_with("Expected "), "{fault}");
        }
    }

    #[test]
    fn a_payload_is_kept_byte_for_byte() {
        let sample: Sample = read(br#"{"name":"a","payload":{"n":12345678901234567890123, "e":1e3}}"#).unwrap();
        assert_eq!(sample.payload.unwrap().bytes().as_ref(), br#"{"n":12345678901234567890123, "e":1e3}"#);
        assert_eq!(sample.name, "a");
        assert!(sample.inner.is_none_or(|inner| inner.count == 0 && inner.list.is_empty()));
    }

    #[tokio::test]
    async fn a_body_that_does_not_arrive_in_time_is_refused() {
        let (mut sender, reader) = tokio::io::duplex(64);
        tokio::io::AsyncWriteExt::write_all(&mut sender, b"{").await.unwrap();
        let error = collect(poem::Body::from_async_read(reader), Duration::from_millis(50)).await.unwrap_err();
        assert_eq!(error.status(), 400);
        assert!(error.to_string().contains("did not arrive"), "{error}");
        assert_eq!(collect(poem::Body::from("{}"), MAX_WAIT).await.unwrap(), "{}");
    }

    #[tokio::test]
    async fn pieces_of_a_body_keep_no_buffers_alive() {
        let buffer = Bytes::from(vec![b' '; 64 * 1024]);
        let pieces: Vec<_> = (0..1_000).map(|at| Ok::<_, std::io::Error>(buffer.slice(at..=at))).collect();
        let body = poem::Body::from_bytes_stream(futures::stream::iter(pieces));
        let whole = collect(body, MAX_WAIT).await.unwrap();
        assert_eq!(whole, buffer[..1_000]);
        assert!(buffer.try_into_mut().is_ok(), "the pieces are copies");
        let more = vec![Ok::<_, std::io::Error>(Bytes::from(vec![b' '; MAX_BODY_BYTES])), Ok(Bytes::from_static(b" "))];
        let body = poem::Body::from_bytes_stream(futures::stream::iter(more));
        assert_eq!(collect(body, MAX_WAIT).await.unwrap_err().status(), 413);
    }

    #[test]
    fn depth_and_trailing_text_are_refused() {
        let deep = format!(r#"{{"name":"a","payload":{}{}}}"#, "[".repeat(70), "]".repeat(70));
        assert!(read::<Sample>(deep.as_bytes()).is_err());
        assert!(read::<Sample>(br#"{"name":"a"} x"#).is_err());
    }
}
