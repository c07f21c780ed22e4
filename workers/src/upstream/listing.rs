//! A list of tools as it grows page by page, within bounds that a hostile server cannot exceed.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use shared::{Fault, json::Raw};

use super::{
    failure::{garbage, too_large},
    parameters::HeaderParameter,
};

/// The most pages that are asked for.
pub(super) const MAX_PAGES: usize = 64;
/// The most tools that are taken from one server.
pub(super) const MAX_TOOLS: usize = 10_000;
/// The most bytes that all definitions together may have.
pub(super) const MAX_BYTES: usize = 8 * 1024 * 1024;

/// One page: the result of `tools/list`, or the answer of the `FastMCP` service.
#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    tools: Vec<&'a RawValue>,
    #[serde(default, rename = "nextCursor")]
    next: Option<String>,
}

/// The tools so far.
#[derive(Debug, Default)]
pub(super) struct Listing {
    tools: Vec<Raw>,
    size_bytes: usize,
    pages: usize,
    cursor: Option<String>,
}

impl Listing {
    /// Takes a page in; `Some` is the cursor of the next one. The definitions stay the page's bytes.
    pub(super) fn take(&mut self, page: &Bytes) -> Result<Option<&str>, Fault> {
        let read: Page<'_> = serde_json::from_slice(page).map_err(|_| garbage("is no list of tools"))?;
        self.pages += 1;
        self.size_bytes += page.len();
        if self.size_bytes > MAX_BYTES || self.tools.len() + read.tools.len() > MAX_TOOLS {
            return Err(too_large());
        }
        for tool in read.tools {
            let tool = Raw::parse(page.slice_ref(tool.get().as_bytes()))
                .map_err(|_| garbage("holds a tool that nests too deep"))?;
            if !tool.is_object() {
                return Err(garbage("is no list of tools"));
            }
            self.tools.push(tool);
        }
        if read.next.is_some() && (self.pages == MAX_PAGES || read.next == self.cursor) {
            return Err(garbage("is a list without an end"));
        }
        self.cursor = read.next;
        Ok(self.cursor.as_deref())
    }

    /// How many bytes the next page may have.
    pub(super) fn room_bytes(&self) -> usize {
        MAX_BYTES.saturating_sub(self.size_bytes)
    }

    /// Every tool, in the server's order. Where arguments travel in headers, tools whose
    /// annotations cannot be obeyed are left out: clients must (MCP 2026-07-28, `x-mcp-header`).
    pub(super) fn finish(mut self, has_header_parameters: bool) -> Vec<Raw> {
        if has_header_parameters {
            self.tools.retain(is_callable);
        }
        self.tools
    }
}

fn is_callable(tool: &Raw) -> bool {
    const ANNOTATION: &[u8] = b"x-mcp-header";
    if !tool.bytes().windows(ANNOTATION.len()).any(|window| window == ANNOTATION) {
        return true;
    }
    let schema = tool.read::<Value>().ok().and_then(|mut tool| tool.get_mut("inputSchema").map(Value::take));
    match HeaderParameter::in_schema(&schema.unwrap_or_default()) {
        Ok(_) => true,
        Err(reason) => {
            tracing::warn!(%reason, "a tool is left out");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    #[test]
    fn definitions_stay_the_bytes_they_came_in() {
        let mut listing = Listing::default();
        let odd = r#"{"name":"odd","x":1e3, "huge":98765432109876543210}"#;
        let next = listing.take(&page(&format!(r#"{{"tools":[{odd}],"nextCursor":""}}"#))).unwrap();
        assert_eq!(next, Some(""), "the empty text is a cursor");
        assert_eq!(listing.take(&page(r#"{"tools":[]}"#)).unwrap(), None);
        assert_eq!(listing.finish(false)[0].bytes(), odd.as_bytes());
    }

    #[test]
    fn a_tool_with_an_impossible_header_is_left_out_in_the_modern_era_only() {
        let tools = r#"{"tools":[
            {"name":"good","inputSchema":{"properties":{"a":{"type":"string","x-mcp-header":"A"}}}},
            {"name":"bad","inputSchema":{"properties":{"a":{"type":"string","x-mcp-header":"no header"}}}},
            {"name":"plain","description":"says x-mcp-header","inputSchema":{}}]}"#;
        let count = |modern| {
            let mut listing = Listing::default();
            listing.take(&page(tools)).unwrap();
            listing.finish(modern).len()
        };
        assert_eq!((count(true), count(false)), (2, 3));
    }

    #[test]
    fn a_list_without_end_ends() {
        let mut listing = Listing::default();
        listing.take(&page(r#"{"tools":[],"nextCursor":"a"}"#)).unwrap();
        listing.take(&page(r#"{"tools":[],"nextCursor":"a"}"#)).unwrap_err();
        let mut listing = Listing::default();
        let failed =
            (0..1_000).find(|n| listing.take(&page(&format!(r#"{{"tools":[],"nextCursor":"{n}"}}"#))).is_err());
        assert_eq!(failed, Some(MAX_PAGES - 1));
    }

    #[test]
    fn too_many_tools_and_too_many_bytes_are_refused() {
        let many = vec!["{}"; MAX_TOOLS + 1].join(",");
        Listing::default().take(&page(&format!(r#"{{"tools":[{many}]}}"#))).unwrap_err();
        let fat = format!(r#"{{"tools":[{{"d":"{}"}}]}}"#, "x".repeat(MAX_BYTES / 2));
        let mut listing = Listing::default();
        listing.take(&page(&fat.replace("]}", r#"],"nextCursor":"2"}"#))).unwrap();
        listing.take(&page(&fat)).unwrap_err();
    }

    #[test]
    fn what_is_no_list_of_tools_is_refused() {
        for text in ["[]", "{}", r#"{"tools":{}}"#, r#"{"tools":[1]}"#, r#"{"tools":[],"nextCursor":1}"#] {
            Listing::default().take(&page(text)).unwrap_err();
        }
    }
}
