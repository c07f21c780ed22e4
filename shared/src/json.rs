//! MCP payloads as the bytes they came in: born JSON, die JSON. Unknown fields, number formats and
//! key order survive because nothing here parses further than it must.

use std::borrow::Cow;

use bytes::Bytes;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use serde_json::value::RawValue;

/// The deepest nesting of arrays and objects that is accepted from outside.
pub const MAX_DEPTH: usize = 64;

/// One JSON value as UTF-8 bytes, known to be well formed. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Raw(Bytes);

impl Raw {
    /// Checks that the bytes are one JSON value no deeper than [`MAX_DEPTH`].
    pub fn parse(bytes: Bytes) -> Result<Self, NotJson> {
        serde_json::from_slice::<&RawValue>(&bytes).map_err(|cause| NotJson(cause.to_string()))?;
        if exceeds_depth(&bytes, MAX_DEPTH) {
            return Err(NotJson(format!("nested deeper than {MAX_DEPTH} levels")));
        }
        Ok(Self(bytes))
    }

    /// The JSON text of a value of ours.
    pub fn of<T: Serialize>(value: &T) -> Result<Self, serde_json::Error> {
        serde_json::to_vec(value).map(|bytes| Self(bytes.into()))
    }

    /// The empty object, `{}`.
    pub fn empty_object() -> Self {
        Self(Bytes::from_static(b"{}"))
    }

    /// The JSON text.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// True when the value is an object.
    pub fn is_object(&self) -> bool {
        self.0.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{')
    }

    /// Reads the value as a type.
    pub fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.0)
    }

    fn text(&self) -> Result<&str, std::str::Utf8Error> {
        std::str::from_utf8(&self.0)
    }
}

impl From<Box<RawValue>> for Raw {
    fn from(value: Box<RawValue>) -> Self {
        Self(Bytes::from(Box::<str>::from(value).into_boxed_bytes()))
    }
}

impl std::fmt::Debug for Raw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Payloads may hold what people would not want in a log.
        write!(f, "[json, {} bytes]", self.0.len())
    }
}

/// Why bytes were refused as JSON; safe to show to the sender.
#[derive(Debug, thiserror::Error)]
#[error("not JSON: {0}")]
pub struct NotJson(String);

/// True when arrays and objects nest deeper than `limit`. Linear, without recursion, so that
/// hostile nesting costs nothing; brackets inside strings do not count.
pub fn exceeds_depth(bytes: &[u8], limit: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in bytes {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > limit {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

impl JsonSchema for Raw {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Raw".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        true.into()
    }
}

impl Serialize for Raw {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            let text = self.text().map_err(ser::Error::custom)?;
            let raw: &RawValue = serde_json::from_str(text).map_err(ser::Error::custom)?;
            raw.serialize(serializer)
        } else {
            serializer.serialize_bytes(&self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            Box::<RawValue>::deserialize(deserializer).map(Self::from)
        } else {
            // The sender is one of our own processes and checked the text when it came in.
            let bytes = Bytes::deserialize(deserializer)?;
            std::str::from_utf8(&bytes).map_err(de::Error::custom)?;
            Ok(Self(bytes))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ODD: &str = r#"{"n":12345678901234567890123,"e":1e3,"p":0.123456789012,"z":1,"a":[{"x":null}]}"#;

    #[test]
    fn numbers_and_order_survive_both_encodings() {
        let raw = Raw::parse(Bytes::from_static(ODD.as_bytes())).unwrap();
        assert_eq!(serde_json::to_string(&raw).unwrap(), ODD);
        let packed = rmp_serde::to_vec_named(&raw).unwrap();
        let back: Raw = rmp_serde::from_slice(&packed).unwrap();
        assert_eq!(back.bytes(), ODD.as_bytes());
        let embedded: Raw = serde_json::from_str(ODD).unwrap();
        assert_eq!(embedded, raw);
    }

    #[test]
    fn hostile_nesting_is_refused_without_recursion() {
        let deep = "[".repeat(200_000);
        assert!(exceeds_depth(deep.as_bytes(), MAX_DEPTH));
        let balanced = format!("{}{}", "[".repeat(65), "]".repeat(65));
        assert!(Raw::parse(balanced.into()).is_err());
        let allowed = format!("{}{}", "[".repeat(64), "]".repeat(64));
        assert!(Raw::parse(allowed.into()).is_ok());
        assert!(!exceeds_depth(br#"{"a":"[[[[\"[[[["}"#, 1));
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for text in ["", "{", "nul", "{\"a\":1}x", "\u{1}"] {
            assert!(Raw::parse(Bytes::copy_from_slice(text.as_bytes())).is_err(), "{text:?}");
        }
    }
}
