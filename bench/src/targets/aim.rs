//! The bytes of a call, by the language its target speaks: MCP 2026-07-28 (one POST, no session), or the HTTP API.

use std::net::SocketAddr;

use crate::load::Order;
use crate::shape::Shape;

/// The revision of MCP without a handshake.
const PROTOCOL_VERSION: &str = "2026-07-28";

/// The headers of a tool call in MCP 2026-07-28, the tool's name apart.
pub(crate) const MCP_HEADERS: [(&str, &str); 4] = [
    ("accept", "application/json, text/event-stream"),
    ("content-type", "application/json"),
    ("mcp-protocol-version", PROTOCOL_VERSION),
    ("mcp-method", "tools/call"),
];

/// A call in MCP 2026-07-28 to `/mcp`.
pub(crate) fn direct(address: SocketAddr, shape: Shape) -> Order {
    let tool = shape.tool();
    let (before, after) = shape.arguments();
    let mut headers: Vec<_> = MCP_HEADERS.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    headers.push(("mcp-name".to_owned(), tool.to_owned()));
    let head = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{tool}","_meta":{{"io.modelcontextprotocol/protocolVersion":"{PROTOCOL_VERSION}","io.modelcontextprotocol/clientInfo":{{"name":"bench","version":"1"}},"io.modelcontextprotocol/clientCapabilities":{{}}}},"arguments":{before}"#
    );
    order(address, "/mcp", headers, (head, format!("{after}}}}}")), shape)
}

/// A call through the HTTP API, of a registered server by its name.
pub(crate) fn api(address: SocketAddr, token: &str, configuration: &str, shape: Shape) -> Order {
    let tool = shape.tool();
    let (before, after) = shape.arguments();
    let headers = vec![
        ("content-type".to_owned(), "application/json".to_owned()),
        ("authorization".to_owned(), format!("Bearer {token}")),
    ];
    let head = format!(r#"{{"configuration":"{configuration}","tool":"{tool}","arguments":{before}"#);
    order(address, "/api/v1/tool-calls", headers, (head, format!("{after}}}")), shape)
}

fn order(
    address: SocketAddr,
    path: &str,
    headers: Vec<(String, String)>,
    body: (String, String),
    shape: Shape,
) -> Order {
    Order { address, path: path.to_owned(), headers, body, shape, callers: 1, warm_up_s: 0.0, window_s: 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bodies_of_all_calls_are_json() {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        for shape in [Shape::Echo, Shape::Sleep, Shape::Big] {
            for order in [direct(address, shape), api(address, "token", "demo", shape)] {
                let body = format!("{}{}", order.body.0, order.body.1);
                let body: serde_json::Value =
                    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"));
                assert!(
                    body.pointer("/params/arguments")
                        .or(body.pointer("/arguments"))
                        .is_some_and(serde_json::Value::is_object)
                );
            }
        }
    }
}
