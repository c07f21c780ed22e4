//! The part of the faulty server that speaks MCP properly, in either era, and writes down what it
//! was asked: what we send to a server is a promise too.

use serde_json::{Value, json};

/// One request as it reached the server.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    /// The HTTP method.
    pub(crate) http: String,
    /// Path without query.
    pub(crate) path: String,
    /// Names in lower case, in order.
    pub(crate) headers: Vec<(String, String)>,
    /// Null without a body.
    pub(crate) body: Value,
    /// The body as it came.
    pub(crate) text: String,
}

impl Recorded {
    /// A header's value; empty without it.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// The JSON-RPC method; empty without one.
    pub(crate) fn method(&self) -> &str {
        self.body["method"].as_str().unwrap_or_default()
    }
}

/// An answer: status line, further header lines, JSON body.
pub(super) struct Said {
    pub(super) status: &'static str,
    pub(super) headers: String,
    pub(super) body: String,
}

impl Said {
    fn ok(body: &Value) -> Self {
        Self { status: "200 OK", headers: String::new(), body: body.to_string() }
    }

    /// For now.
    pub(super) fn unwell() -> Self {
        Self::bare("503 Service Unavailable")
    }

    fn bare(status: &'static str) -> Self {
        Self { status, headers: String::new(), body: String::new() }
    }
}

/// The tool of both eras. Its `region` travels as a header too in the modern one.
pub(crate) const TOOL: &str = "note";
/// A tool whose name no header can carry as it is.
pub(crate) const FOREIGN_TOOL: &str = "größe";

fn tools(asked: &Recorded, description: &str) -> Value {
    let schema = json!({
        "type": "object",
        "properties": { "text": { "type": "string" }, "region": { "type": "string", "x-mcp-header": "Region" } },
    });
    let hints = if asked.path.contains("/repeatable") { json!({ "readOnlyHint": true }) } else { json!({}) };
    let tool =
        |name: &str| json!({ "name": name, "description": description, "inputSchema": schema, "annotations": hints });
    json!([tool(TOOL), tool(FOREIGN_TOOL)])
}

fn echoed(asked: &Recorded) -> Value {
    let text = asked.body["params"]["arguments"]["text"].as_str().unwrap_or_default();
    json!([{ "type": "text", "text": text }])
}

fn result(asked: &Recorded, result: &Value) -> Said {
    Said::ok(&json!({ "jsonrpc": "2.0", "id": asked.body["id"], "result": result }))
}

fn unknown_method(asked: &Recorded) -> Said {
    let error = json!({ "code": -32601, "message": "Method not found" });
    Said::ok(&json!({ "jsonrpc": "2.0", "id": asked.body["id"], "error": error }))
}

/// A minimal server of 2026-07-28.
pub(super) fn modern(asked: &Recorded, description: &str) -> Said {
    let info = json!({ "io.modelcontextprotocol/serverInfo": { "name": "recording", "version": "1" } });
    match asked.method() {
        "server/discover" => {
            let known = json!({
                "resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": { "tools": {} },
                "ttlMs": 0, "cacheScope": "private", "_meta": info,
            });
            result(asked, &known)
        }
        "tools/list" => {
            let list = json!({ "resultType": "complete", "tools": tools(asked, description), "ttlMs": 0, "cacheScope": "private", "_meta": info });
            result(asked, &list)
        }
        "tools/call" => result(asked, &json!({ "resultType": "complete", "content": echoed(asked), "_meta": info })),
        _ if asked.body["id"].is_null() && asked.http == "POST" => Said::bare("202 Accepted"),
        _ if asked.http != "POST" => Said::bare("405 Method Not Allowed"),
        _ => unknown_method(asked),
    }
}

/// A minimal server of 2025-11-25 that keeps sessions; `session` names a new one.
pub(super) fn legacy(asked: &Recorded, description: &str, session: impl FnOnce() -> String) -> Said {
    match (asked.http.as_str(), asked.method()) {
        ("GET", _) => Said::bare("405 Method Not Allowed"),
        ("DELETE", _) => Said::bare("200 OK"),
        (_, "initialize") => {
            let known = json!({
                "protocolVersion": "2025-11-25", "capabilities": { "tools": {} },
                "serverInfo": { "name": "recording", "version": "1" },
            });
            let headers = format!("mcp-session-id: {}\r\n", session());
            Said { headers, ..result(asked, &known) }
        }
        _ if asked.header("mcp-session-id").is_empty() => Said {
            status: "400 Bad Request",
            headers: String::new(),
            body:
                r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: Server not initialized"},"id":null}"#
                    .to_owned(),
        },
        (_, "tools/list") => result(asked, &json!({ "tools": tools(asked, description) })),
        (_, "tools/call") => result(asked, &json!({ "content": echoed(asked) })),
        _ if asked.body["id"].is_null() => Said::bare("202 Accepted"),
        _ => unknown_method(asked),
    }
}
