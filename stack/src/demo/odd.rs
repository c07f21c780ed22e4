//! The tool `odd`: an answer and a definition that only a lossless gateway passes on unchanged.
//!
//! The protocol library's types cannot hold an unknown content type, a vendor field or a 20-digit integer, so the
//! tool answers with a marker only this process knows, and the marker is replaced in the bytes on their way out.
//! Sessions, header checks and both eras stay the library's work.

use rmcp::model::{ContentBlock, Tool};
use serde_json::json;
use uuid::Uuid;

use super::tools::catalogue::{pure, schema};

/// The `content` of `odd`'s result, and what stands beside it, as the bytes a client must receive.
pub(super) const RESULT: &str = concat!(
    r#"[{"type":"video","data":"AAAA","mimeType":"video/mp4","vendorFrames":{"first":1e3}},"#,
    r#"{"type":"text","text":"odd","annotations":{"priority":0.123456789012,"vendorHint":"kept"},"vendorField":true}],"#,
    r#""vendorResult":{"z":1,"a":[1e3,-0.0,12345678901234567890]},"#,
    r#""structuredContent":{"huge":98765432109876543210,"exponent":1e3,"fine":0.123456789012,"null":null}"#,
);

/// The entry of `odd` in `tools/list`, as the bytes a client must receive.
pub(super) const DEFINITION: &str = concat!(
    r#"{"name":"odd","title":"Odd","description":"Returns what typed clients lose.","#,
    r##""inputSchema":{"type":"object","properties":{},"additionalProperties":false,"$defs":{"n":{"$anchor":"n","type":"number","maximum":1e3}},"x-vendor":12345678901234567890},"##,
    r#""annotations":{"readOnlyHint":true,"destructiveHint":false,"idempotentHint":true,"openWorldHint":false,"vendorHint":0.123456789012},"#,
    r#""execution":{"taskSupport":"forbidden"},"vendorTool":{"z":1,"a":[1e3]}}"#,
);

/// The markers of one server, and what stands in for them.
#[derive(Debug)]
pub(super) struct Odd {
    marker: String,
    content_needle: String,
    definition_needle: String,
}

impl Odd {
    pub(super) fn new() -> Self {
        let marker = format!("odd-{}", Uuid::new_v4());
        let content_needle = json!(content(&marker)).to_string();
        let definition_needle = json!(definition(&marker)).to_string();
        Self { marker, content_needle, definition_needle }
    }

    /// The stand-in content of the result.
    pub(super) fn content(&self) -> Vec<ContentBlock> {
        content(&self.marker)
    }

    /// The stand-in definition. Its schema and hints agree with the real one, since the library validates by it.
    pub(super) fn definition(&self) -> Tool {
        definition(&self.marker)
    }

    /// `None` when the frame holds no marker and may go out as it is.
    pub(super) fn reveal(&self, frame: &[u8]) -> Option<String> {
        let frame = str::from_utf8(frame).ok()?;
        if !frame.contains(&self.marker) {
            return None;
        }
        Some(frame.replace(&self.content_needle, RESULT).replace(&self.definition_needle, DEFINITION))
    }
}

fn content(marker: &str) -> Vec<ContentBlock> {
    vec![ContentBlock::text(marker)]
}

fn definition(marker: &str) -> Tool {
    Tool::new("odd", marker.to_owned(), schema(json!({}))).with_annotations(pure("Odd"))
}
