//! Arguments that travel as headers too (MCP 2026-07-28, Streamable HTTP, `x-mcp-header`), and the
//! form in which text travels in a header at all.

use std::{borrow::Cow, collections::BTreeMap};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, value::RawValue};
use shared::json::Raw;

/// A property of a tool's arguments that the server wants repeated in a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderParameter {
    /// The property names from the root of the arguments to the property.
    pub path: Vec<String>,
    /// The whole header name, `mcp-param-<name>`.
    pub header: HeaderName,
}

/// Why a tool's `x-mcp-header` annotations cannot be obeyed; such a tool must not be offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAnnotation {
    /// Not on a property that is reached from the root through `properties` alone.
    #[error("x-mcp-header stands where no property is")]
    OffPath,
    /// Not a non-empty token (RFC 9110 section 5.6.2).
    #[error("x-mcp-header is not a header name")]
    Name,
    /// Twice the same header; names are compared without regard to case.
    #[error("x-mcp-header names a header twice")]
    Twice,
    /// On a property that is no string, integer or boolean.
    #[error("x-mcp-header annotates a property that is no string, integer or boolean")]
    Type,
}

impl HeaderParameter {
    /// The annotations of a tool's `inputSchema`, in the schema's order.
    pub fn in_schema(schema: &Value) -> Result<Vec<Self>, BadAnnotation> {
        let mut found = Vec::new();
        walk(schema, Some(&mut Vec::new()), &mut found)?;
        for (index, parameter) in found.iter().enumerate() {
            // `HeaderName` is lower case, so equality is the specification's comparison.
            if found[..index].iter().any(|earlier: &Self| earlier.header == parameter.header) {
                return Err(BadAnnotation::Twice);
            }
        }
        Ok(found)
    }
}

/// `path` is `Some` while only `properties` lay between the root and this schema.
fn walk(
    schema: &Value,
    mut path: Option<&mut Vec<String>>,
    found: &mut Vec<HeaderParameter>,
) -> Result<(), BadAnnotation> {
    let Value::Object(schema) = schema else {
        return match schema {
            Value::Array(schemas) => schemas.iter().try_for_each(|schema| walk(schema, None, found)),
            _ => Ok(()),
        };
    };
    if let Some(name) = schema.get("x-mcp-header") {
        let path = path.as_deref().filter(|path| !path.is_empty()).ok_or(BadAnnotation::OffPath)?;
        found.push(HeaderParameter { path: path.clone(), header: header_name(name)? });
        if !matches!(schema.get("type").and_then(Value::as_str), Some("string" | "integer" | "boolean")) {
            return Err(BadAnnotation::Type);
        }
    }
    for (keyword, value) in schema {
        match (keyword.as_str(), value) {
            ("properties", Value::Object(properties)) => {
                for (name, property) in properties {
                    if let Some(path) = path.as_deref_mut() {
                        path.push(name.clone());
                        walk(property, Some(&mut *path), found)?;
                        path.pop();
                    } else {
                        walk(property, None, found)?;
                    }
                }
            }
            // Maps from names to schemas: their keys are no keywords.
            (
                "$defs" | "definitions" | "dependencies" | "dependentSchemas" | "patternProperties",
                Value::Object(schemas),
            ) => {
                schemas.values().try_for_each(|schema| walk(schema, None, found))?;
            }
            // Data, not schemas.
            ("default" | "const" | "enum" | "examples" | "dependentRequired", _) => {}
            (_, schema) => walk(schema, None, found)?,
        }
    }
    Ok(())
}

fn header_name(annotation: &Value) -> Result<HeaderName, BadAnnotation> {
    let name = annotation.as_str().filter(|name| !name.is_empty()).ok_or(BadAnnotation::Name)?;
    HeaderName::try_from(format!("mcp-param-{name}")).map_err(|_| BadAnnotation::Name)
}

/// Adds the headers of the annotated arguments. What is absent or null has none.
pub(super) fn insert(headers: &mut HeaderMap, arguments: &Raw, parameters: &[HeaderParameter]) {
    for parameter in parameters {
        if let Some(value) = at(arguments.bytes(), &parameter.path).and_then(text_of) {
            headers.insert(parameter.header.clone(), encoded(&value));
        }
    }
}

/// The JSON text of the property, if every step to it exists.
fn at<'a>(json: &'a [u8], path: &[String]) -> Option<&'a str> {
    let mut value: &'a RawValue = serde_json::from_slice(json).ok()?;
    for name in path {
        let mut object: BTreeMap<Cow<'a, str>, &'a RawValue> = serde_json::from_str(value.get()).ok()?;
        value = object.remove(name.as_str())?;
    }
    Some(value.get())
}

/// The text of a JSON string, boolean or number as it was written.
fn text_of(json: &str) -> Option<Cow<'_, str>> {
    match json.as_bytes().first()? {
        b'"' => serde_json::from_str::<String>(json).ok().map(Cow::Owned),
        b'{' | b'[' | b'n' => None,
        _ => Some(Cow::Borrowed(json)),
    }
}

/// Text as a header value: as it is where a header can carry it, else `=?base64?<base64>?=`.
pub(super) fn encoded(text: &str) -> HeaderValue {
    let is_padded = text.starts_with(' ') || text.ends_with(' ');
    let looks_wrapped = text.starts_with("=?base64?") && text.ends_with("?=");
    let is_printable = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let value = if is_printable && !is_padded && !looks_wrapped {
        HeaderValue::from_str(text)
    } else {
        HeaderValue::from_str(&format!("=?base64?{}?=", BASE64_STANDARD.encode(text)))
    };
    // Both branches hold printable ASCII only; the empty value is unreachable.
    value.unwrap_or(const { HeaderValue::from_static("") })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::*;

    fn names(schema: &Value) -> Result<Vec<String>, BadAnnotation> {
        let found = HeaderParameter::in_schema(schema)?;
        Ok(found.iter().map(|p| format!("{}={}", p.path.join("/"), p.header)).collect())
    }

    #[test]
    fn annotations_are_found_along_properties_only() {
        let nested = json!({"properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
            "at": {"type": "object", "properties": {"zone": {"type": "integer", "x-mcp-header": "Zone"}}},
            "plain": {"type": "string", "default": {"x-mcp-header": "is data"}},
        }});
        assert_eq!(names(&nested).unwrap(), ["region=mcp-param-region", "at/zone=mcp-param-zone"]);
        for off in [
            json!({"x-mcp-header": "Root", "type": "string"}),
            json!({"properties": {"a": {"items": {"type": "string", "x-mcp-header": "A"}}}}),
            json!({"$defs": {"a": {"type": "string", "x-mcp-header": "A"}}}),
            json!({"anyOf": [{"properties": {"a": {"type": "string", "x-mcp-header": "A"}}}]}),
        ] {
            assert_eq!(names(&off), Err(BadAnnotation::OffPath), "{off}");
        }
    }

    #[test]
    fn annotations_that_no_header_can_obey_are_refused() {
        let property = |header: Value, kind: &str| json!({"properties": {"a": {"type": kind, "x-mcp-header": header}}});
        assert_eq!(names(&property(json!(""), "string")), Err(BadAnnotation::Name));
        assert_eq!(names(&property(json!("two words"), "string")), Err(BadAnnotation::Name));
        assert_eq!(names(&property(json!(1), "string")), Err(BadAnnotation::Name));
        assert_eq!(names(&property(json!("A"), "object")), Err(BadAnnotation::Type));
        assert_eq!(names(&property(json!("A"), "number")), Err(BadAnnotation::Type));
        let twice = json!({"properties": {
            "a": {"type": "string", "x-mcp-header": "Key"}, "b": {"type": "string", "x-mcp-header": "KEY"},
        }});
        assert_eq!(names(&twice), Err(BadAnnotation::Twice));
    }

    #[test]
    fn what_a_header_cannot_carry_is_wrapped() {
        for plain in ["us-west1", "a b c", ""] {
            assert_eq!(encoded(plain), plain);
        }
        assert_eq!(encoded("caf\u{e9}"), "=?base64?Y2Fmw6k=?=");
        for wrapped in [" padded", "padded ", "two\r\nlines", "\t", "=?base64?eA==?="] {
            let value = encoded(wrapped);
            let inner = value.to_str().unwrap().strip_prefix("=?base64?").unwrap().strip_suffix("?=").unwrap();
            assert_eq!(BASE64_STANDARD.decode(inner).unwrap(), wrapped.as_bytes());
        }
    }

    #[test]
    fn absent_null_and_composite_arguments_have_no_header() {
        let parameter = |path: &str, header: &'static str| HeaderParameter {
            path: path.split('/').map(str::to_owned).collect(),
            header: HeaderName::from_static(header),
        };
        let arguments = r#"{"s":"\u00e9x","n":12345678901234567890,"b":true,"z":null,"o":{"deep":"in"}}"#;
        let arguments = Raw::parse(Bytes::from_static(arguments.as_bytes())).unwrap();
        let mut headers = HeaderMap::new();
        insert(
            &mut headers,
            &arguments,
            &[
                parameter("s", "mcp-param-s"),
                parameter("n", "mcp-param-n"),
                parameter("b", "mcp-param-b"),
                parameter("z", "mcp-param-z"),
                parameter("o", "mcp-param-o"),
                parameter("o/deep", "mcp-param-deep"),
                parameter("missing/deeper", "mcp-param-missing"),
            ],
        );
        assert_eq!(headers["mcp-param-s"], "=?base64?w6l4?=");
        assert_eq!(headers["mcp-param-n"], "12345678901234567890");
        assert_eq!(headers["mcp-param-b"], "true");
        assert_eq!(headers["mcp-param-deep"], "in");
        assert_eq!(headers.len(), 4);
    }
}
