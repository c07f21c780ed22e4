//! The definitions of the demo's tools. Their hints are true: the gateway decides by them what may be repeated.

use std::sync::Arc;

use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use serde_json::{Value, json};

use super::{MAX_BIG_BYTES, MAX_SLEEP_MS};
use crate::demo::odd::Odd;

/// Every tool, in the order of `tools/list`. The last one, `odd`, is what its name says.
pub(in crate::demo) const NAMES: [&str; 8] =
    ["echo", "add", "sleep", "fail", "big", "counter_increment", "read_counter", "odd"];

/// The definitions, in the order of [`NAMES`].
pub(super) fn all(odd: &Odd) -> Vec<Tool> {
    vec![
        Tool::new("echo", "Returns its text.", strings("text")).with_annotations(pure("Echo")),
        Tool::new(
            "add",
            "Adds two numbers; integers stay exact.",
            schema(json!({ "a": { "type": "number" }, "b": { "type": "number" } })),
        )
        .with_raw_output_schema(schema(json!({ "sum": { "type": "number" } })))
        .with_annotations(pure("Add")),
        Tool::new(
            "sleep",
            "Waits, and reports progress every 100 ms to a caller that asked for it.",
            wholes("ms", MAX_SLEEP_MS),
        )
        .with_annotations(pure("Sleep")),
        Tool::new("fail", "Runs and says no: a result with isError and the given message.", strings("message"))
            .with_annotations(pure("Fail")),
        Tool::new("big", "Returns a text of so many bytes.", wholes("bytes", MAX_BIG_BYTES))
            .with_annotations(pure("Big")),
        Tool::new(
            "counter_increment",
            "Adds one to this server's counter and returns it. Every call counts.",
            schema(json!({})),
        )
        .with_raw_output_schema(wholes("count", u64::MAX))
        .with_annotations(
            ToolAnnotations::with_title("Increment the counter")
                .read_only(false)
                .destructive(true)
                .idempotent(false)
                .open_world(false),
        ),
        Tool::new("read_counter", "Returns this server's counter.", schema(json!({})))
            .with_raw_output_schema(wholes("count", u64::MAX))
            .with_annotations(pure("Read the counter")),
        odd.definition(),
    ]
}

/// Hints of a tool without any effect.
pub(in crate::demo) fn pure(title: &str) -> ToolAnnotations {
    ToolAnnotations::with_title(title).read_only(true).destructive(false).idempotent(true).open_world(false)
}

fn strings(name: &str) -> Arc<JsonObject> {
    schema(json!({ name: { "type": "string" } }))
}

fn wholes(name: &str, most: u64) -> Arc<JsonObject> {
    schema(json!({ name: { "type": "integer", "minimum": 0, "maximum": most } }))
}

/// An object schema that requires all its properties and takes no others.
pub(in crate::demo) fn schema(properties: Value) -> Arc<JsonObject> {
    let required: Vec<String> = properties.as_object().map(|named| named.keys().cloned().collect()).unwrap_or_default();
    let mut schema = JsonObject::new();
    schema.insert("type".to_owned(), json!("object"));
    schema.insert("properties".to_owned(), properties);
    schema.insert("required".to_owned(), json!(required));
    schema.insert("additionalProperties".to_owned(), json!(false));
    Arc::new(schema)
}
