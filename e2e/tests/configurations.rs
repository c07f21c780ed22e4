//! MCP configurations as people keep them: replaced under a tag, secrets kept or replaced in place,
//! tools filtered, servers switched off, and all of it obeyed by every worker that has heard of it.

use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{Answer, Client, System};

mod accepting;
mod fields;
mod replacing;
mod secrets;
mod testing;

pub(crate) use self::{accepting::*, fields::*, replacing::*, secrets::*, testing::*};

const CONFIGURATIONS: &str = "/api/v1/mcp/configurations";

/// Where one is.
fn item(id: &str) -> String {
    format!("{CONFIGURATIONS}/{id}")
}

/// Replaces one, whatever there is, and waits until every worker has heard of it.
async fn replace(system: &System, client: &Client, id: &str, body: &Value) -> Answer {
    let answer = replace_if(client, id, Some("*"), body).await;
    system.configurations_are_known().await;
    answer
}

/// Replaces one, if it is this generation.
async fn replace_if(client: &Client, id: &str, tag: Option<&str>, body: &Value) -> Answer {
    let mut request = client.request(Method::PUT, &item(id)).json(body);
    if let Some(tag) = tag {
        request = request.header("if-match", tag);
    }
    client.send(request).await
}

/// The tag of an answer.
fn tag(answer: &Answer) -> String {
    let tag = answer.headers.get("etag").unwrap_or_else(|| panic!("no tag: {} {}", answer.status, answer.text));
    tag.to_str().expect("a tag").to_owned()
}

/// A body with further fields.
fn with(body: &Value, more: Value) -> Value {
    let mut body = body.clone();
    if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
        body.extend(more);
    }
    body
}

/// Who a test is between: both clients that can speak streamable HTTP.
fn server(via: &str, name: &str, endpoint: &str) -> Value {
    json!({ "name": name, "endpoint": endpoint, "via": via })
}
