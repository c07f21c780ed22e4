//! Schemas in words: kinds of values with their bounds, and tables of fields.

use std::fmt::Write as _;

use serde_json::Value;

/// A value's text; empty if it has none.
pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Text as HTML.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Text with `code` and blank lines as HTML.
pub(super) fn words(text: &str) -> String {
    let paragraph = |text: &str| {
        let parts = text.split('`').enumerate().map(|(place, part)| match place % 2 {
            0 => escape(part),
            _ => format!("<code>{}</code>", escape(part)),
        });
        format!("<p>{}</p>", parts.collect::<String>())
    };
    text.split("\n\n").map(paragraph).collect()
}

/// A schema's description and its fields, or what kind of value it is.
pub(super) fn fields(schema: &Value) -> String {
    let mut out = words(text(&schema["description"]));
    let alternatives = schema["oneOf"].as_array().or_else(|| schema["anyOf"].as_array());
    if let Some(properties) = schema["properties"].as_object() {
        out.push_str("<table><tr><th>Field<th>Value<th>About");
        let required = |name: &str| {
            schema["required"].as_array().is_some_and(|names| names.iter().any(|required| required == name))
        };
        for (name, field) in properties {
            let needed = if required(name) { "" } else { "?" };
            let about = words(text(&field["description"]));
            let _ = write!(out, "<tr><td><code>{}</code>{needed}<td>{}<td>{about}", escape(name), kind(field));
        }
        out.push_str("</table>");
    } else if let Some(alternatives) = alternatives {
        for alternative in alternatives {
            out.push_str(&fields(alternative));
        }
    } else {
        let _ = write!(out, "<p>{}</p>", kind(schema));
    }
    out
}

/// What a value may be, in one line of HTML.
pub(super) fn kind(schema: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = escape(reference.rsplit('/').next().unwrap_or_default());
        return format!("<a href=\"#shape-{name}\">{name}</a>");
    }
    if let Some(value) = schema.get("const") {
        return format!("<code>{}</code>", escape(&value.to_string()));
    }
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<String> =
            values.iter().map(|value| format!("<code>{}</code>", escape(&value.to_string()))).collect();
        return values.join(" | ");
    }
    if let Some(either) = schema["anyOf"].as_array().or_else(|| schema["oneOf"].as_array()) {
        return either.iter().map(kind).collect::<Vec<_>>().join(" | ");
    }
    if schema["type"] == "array" {
        return format!("list of {}", kind(&schema["items"]));
    }
    let kinds = match &schema["type"] {
        Value::String(kind) => kind.clone(),
        Value::Array(kinds) => kinds.iter().map(text).collect::<Vec<_>>().join(" | "),
        _ => "any JSON".to_owned(),
    };
    escape(&format!("{kinds}{}", bounds(schema)))
}

fn bounds(schema: &Value) -> String {
    let mut bounds = String::new();
    if let Some(format) = schema["format"].as_str().filter(|format| !format.contains("int") && *format != "double") {
        let _ = write!(bounds, ", {format}");
    }
    for (least, most, unit) in
        [("minimum", "maximum", ""), ("minLength", "maxLength", " characters"), ("minItems", "maxItems", " items")]
    {
        match (schema.get(least), schema.get(most)) {
            (Some(least), Some(most)) => {
                let _ = write!(bounds, ", {least} to {most}{unit}");
            }
            (Some(least), None) => {
                let _ = write!(bounds, ", at least {least}{unit}");
            }
            (None, Some(most)) => {
                let _ = write!(bounds, ", at most {most}{unit}");
            }
            (None, None) => {}
        }
    }
    if let Some(pattern) = schema["pattern"].as_str() {
        let _ = write!(bounds, ", matching {pattern}");
    }
    if let Some(default) = schema.get("default") {
        let _ = write!(bounds, ", {default} if absent");
    }
    bounds
}
