//! `/openapi.json`: the API's description (`OpenAPI` 3.1), generated from the table of operations and
//! the types they read and answer.

use std::sync::Arc;

use bytes::Bytes;
use poem::{
    Response, handler,
    http::{HeaderValue, StatusCode, header},
    web::Data,
};
use serde_json::{Map, Value, json};

use self::{failures::Failures, schemas::Schemas};
use super::{
    Gateway, docs,
    operation::{self, Content, Operation, Place, Sends, Tag, get},
};

mod failures;
mod schemas;

/// The document and its page, as they are served.
#[derive(Clone, Debug)]
pub struct Published {
    document: Bytes,
    /// The page for people.
    pub(super) page: Bytes,
}

impl Published {
    /// Written once: the table does not change while the process runs.
    pub fn new(public_url: &str) -> Self {
        let document = document(&super::operations(), public_url);
        Self { document: document.to_string().into(), page: docs::render(&document).into() }
    }
}

pub(super) fn operations() -> Vec<Operation> {
    operation::of("Documentation", [get("/openapi.json", read, "This document.").answers_other("application/json")])
}

/// The document.
#[handler]
#[expect(clippy::needless_pass_by_value, reason = "an extractor")]
pub(crate) fn read(gateway: Data<&Arc<Gateway>>) -> Response {
    Response::builder()
        .header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .header(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"))
        .body(gateway.published.document.clone())
}

const ABOUT: &str = "A multi-tenant gateway between people's agents and MCP servers. JSON in, JSON out; the \
organization is the token's and stands in no body or path. Names are snake_case; MCP payloads (`arguments`, `result`, \
tool definitions) keep MCP's own names, and their bytes.

Every error is a problem document (RFC 9457) whose `code` is one of a closed set. Beside the faults that each operation \
lists, any path that does not exist answers 404 `route`, and any method that a path does not have 405 `method` with \
`Allow`. Where there is `GET` there is `HEAD`.

Bodies are JSON objects of at most 1 MiB and 64 levels, without unknown or repeated fields; those of files are the bytes \
of the file, up to 16 MiB. Lists are pages: `next` is \
given back as `cursor`, and is null at the end.";

/// The whole document.
pub fn document(operations: &[Operation], public_url: &str) -> Value {
    let (mut schemas, mut failures) = (Schemas::default(), Failures::default());
    let mut paths = Map::new();
    for operation in operations {
        let item = paths.entry(operation.template()).or_insert_with(|| json!({}));
        item[operation.method().as_str().to_ascii_lowercase()] = describe(operation, &mut schemas, &mut failures);
    }
    let mut tags: Vec<&str> = Vec::new();
    for operation in operations {
        if !tags.contains(&operation.tag) {
            tags.push(operation.tag);
        }
    }
    let problem = schemas.of_answer(failures::PROBLEM);
    let responses = failures.finish(&problem);
    json!({
        "openapi": "3.1.1",
        "info": {
            "title": "Switchboard",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": { "name": "Apache 2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": public_url }],
        "tags": tags.into_iter().map(|tag| json!({ "name": tag })).collect::<Vec<_>>(),
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "An access token of the deployment's issuer, which names one organization.",
                },
            },
            "headers": headers(),
            "responses": responses,
            "schemas": schemas.finish(),
        },
    })
}

/// Headers of answers, by their names among the components.
fn headers() -> Value {
    json!({
        "RequestId": {
            "description": "Names the request in every answer, log line and audit record: the sender's own, or a new one.",
            "required": true,
            "schema": { "type": "string", "minLength": 1, "maxLength": 128 },
        },
        "ETag": {
            "description": "Which version this is; give it back as `If-Match` to change it.",
            "required": true,
            "schema": { "type": "string", "pattern": "^\"[0-9]+\"$" },
        },
        "ContentTag": {
            "description": "The SHA-256 of the content, in hexadecimal digits.",
            "required": true,
            "schema": { "type": "string", "pattern": "^\"[0-9a-f]{64}\"$" },
        },
        "RetryAfter": {
            "description": "When to try again, in seconds.",
            "schema": { "type": "integer", "minimum": 1 },
        },
        "Challenge": {
            "description": "What is wrong with the token (RFC 6750 section 3).",
            "required": true,
            "schema": { "type": "string", "pattern": "^Bearer " },
        },
    })
}

fn describe(operation: &Operation, schemas: &mut Schemas, failures: &mut Failures) -> Value {
    let mut object = json!({
        "operationId": name(operation),
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": operation::who(operation),
    });
    let parameters = parameters(operation, schemas);
    if !parameters.is_empty() {
        object["parameters"] = parameters.into();
    }
    if let Some(body) = operation.body {
        object["requestBody"] = match body {
            Content::Json(describe) => {
                let content = json!({ "application/json": { "schema": schemas.of_request(describe) } });
                json!({ "required": true, "content": content })
            }
            Content::Other(media_type) => {
                json!({ "content": { media_type: { "schema": { "type": "string", "format": "binary" } } } })
            }
            Content::Empty => Value::Null,
        };
    }
    let mut responses = Map::new();
    for (status, content) in &operation.answers {
        let mut response = json!({
            "description": status.canonical_reason().unwrap_or("An answer."),
            "headers": { "X-Request-Id": { "$ref": "#/components/headers/RequestId" } },
        });
        match operation.tagged.filter(|_| status.is_success() || *status == StatusCode::NOT_MODIFIED) {
            Some(Tag::Generation) => response["headers"]["ETag"] = json!({ "$ref": "#/components/headers/ETag" }),
            Some(Tag::Content) => response["headers"]["ETag"] = json!({ "$ref": "#/components/headers/ContentTag" }),
            None => {}
        }
        match content {
            Content::Empty => {}
            Content::Json(describe) => {
                response["content"] = json!({ "application/json": { "schema": schemas.of_answer(*describe) } });
            }
            Content::Other(media_type) => response["content"] = json!({ *media_type: {} }),
        }
        responses.insert(status.as_str().to_owned(), response);
    }
    responses.extend(failures.references(&operation.failures));
    object["responses"] = responses.into();
    object["security"] = match operation.sends {
        Some(_) => json!([{ "bearer": [] }]),
        None => json!([]),
    };
    object
}

/// The command's name; for what sends none, its path.
fn name(operation: &Operation) -> String {
    match operation.sends {
        Some(Sends { name, .. }) => name.to_owned(),
        None => operation.path().trim_start_matches('/').replace('/', "."),
    }
}

fn parameters(operation: &Operation, schemas: &mut Schemas) -> Vec<Value> {
    let mut parameters = Vec::new();
    for parameter in &operation.parameters {
        parameters.push(json!({
            "name": parameter.name,
            "in": match parameter.place { Place::Path => "path", Place::Header => "header" },
            "required": parameter.required,
            "description": parameter.about,
            "schema": schemas.of_request(parameter.describe),
        }));
    }
    parameters.extend(operation.query.iter().flat_map(|query| schemas.query(*query)));
    parameters
}
