//! `/docs`: the API's description as a page for people, written from the document itself. Plain HTML
//! without scripts, which nothing has to be loaded for from elsewhere.

use std::{fmt::Write as _, sync::Arc};

use poem::{
    Response, handler,
    http::{HeaderValue, header},
    web::Data,
};
use serde_json::Value;

use super::{
    Gateway,
    operation::{self, Operation, get},
};

mod fields;

use self::fields::{escape, fields, text, words};

const STYLE: &str = include_str!("docs/style.css");

/// Our own style and nothing else.
const POLICY: &str =
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) fn operations() -> Vec<Operation> {
    operation::of(
        "Documentation",
        [
            get("/docs", show, "This description, as a page.").answers_other("text/html"),
            get("/docs/style.css", style, "The style of the pages.").answers_other("text/css"),
        ],
    )
}

/// The page.
#[handler]
#[expect(clippy::needless_pass_by_value, reason = "an extractor")]
pub(crate) fn show(gateway: Data<&Arc<Gateway>>) -> Response {
    Response::builder()
        .header(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"))
        .header(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY))
        .header(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"))
        .body(gateway.published.page.clone())
}

/// Its style.
#[handler]
pub(crate) fn style() -> Response {
    Response::builder()
        .header(header::CONTENT_TYPE, HeaderValue::from_static("text/css; charset=utf-8"))
        .header(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"))
        .body(STYLE)
}

/// The document as a page.
pub(super) fn render(document: &Value) -> String {
    let mut page = String::from(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>Switchboard: the API</title><link rel=stylesheet href=\"docs/style.css\"><main>",
    );
    let _ = write!(page, "<h1>The HTTP API</h1>{}", words(text(&document["info"]["description"])));
    page.push_str(
        "<p>For tools: <a href=\"openapi.json\">openapi.json</a> (OpenAPI 3.1). \
         <a href=\"docs/faults\">Every fault</a> and what to do about it. <a href=\"./\">The console</a>.</p>",
    );
    let tags: Vec<&str> = document["tags"].as_array().into_iter().flatten().map(|tag| text(&tag["name"])).collect();
    contents(&mut page, document, &tags);
    for tag in &tags {
        let _ = write!(page, "<h2>{}</h2>", escape(tag));
        for (path, method, operation) in of_tag(document, tag) {
            one(&mut page, document, path, method, operation);
        }
    }
    page.push_str("<h2 id=shapes>Shapes</h2>");
    for (name, schema) in document["components"]["schemas"].as_object().into_iter().flatten() {
        let name = escape(name);
        let _ = write!(page, "<section id=\"shape-{name}\"><h3>{name}</h3>{}</section>", fields(schema));
    }
    page.push_str("</main></html>");
    page
}

/// The operations of a chapter: path, method, operation.
fn of_tag<'a>(document: &'a Value, tag: &str) -> Vec<(&'a str, &'a str, &'a Value)> {
    let paths = document["paths"].as_object().into_iter().flatten();
    paths
        .flat_map(|(path, item)| item.as_object().into_iter().flatten().map(move |(method, one)| (path, method, one)))
        .filter(|(_, _, operation)| operation["tags"][0] == tag)
        .map(|(path, method, operation)| (path.as_str(), method.as_str(), operation))
        .collect()
}

fn contents(page: &mut String, document: &Value, tags: &[&str]) {
    page.push_str("<nav>");
    for tag in tags {
        let _ = write!(page, "<h2>{}</h2><ul>", escape(tag));
        for (path, method, operation) in of_tag(document, tag) {
            let (id, method) = (escape(text(&operation["operationId"])), method.to_uppercase());
            let _ = write!(page, "<li><a href=\"#{id}\"><b>{method}</b> <code>{}</code></a>", escape(path));
        }
        page.push_str("</ul>");
    }
    page.push_str("</nav>");
}

fn one(page: &mut String, document: &Value, path: &str, method: &str, operation: &Value) {
    let (id, method) = (escape(text(&operation["operationId"])), method.to_uppercase());
    let _ = write!(
        page,
        "<section id=\"{id}\"><h3><b>{method}</b> <code>{}</code></h3><p>{} {}</p>",
        escape(path),
        escape(text(&operation["summary"])),
        escape(text(&operation["description"]))
    );
    if let Some(parameters) = operation["parameters"].as_array() {
        page.push_str("<h4>Parameters</h4><table><tr><th>Name<th>In<th>Value<th>About");
        for parameter in parameters {
            let needed = if parameter["required"] == true { "" } else { "?" };
            let _ = write!(
                page,
                "<tr><td><code>{}</code>{needed}<td>{}<td>{}<td>{}",
                escape(text(&parameter["name"])),
                escape(text(&parameter["in"])),
                fields::kind(&parameter["schema"]),
                escape(text(&parameter["description"]))
            );
        }
        page.push_str("</table>");
    }
    if let Some(body) = operation["requestBody"]["content"].get("application/json") {
        let _ = write!(page, "<h4>Body</h4><p>{}</p>", fields::kind(&body["schema"]));
    }
    page.push_str("<h4>Answers</h4><table>");
    for (status, response) in operation["responses"].as_object().into_iter().flatten() {
        let response = resolve(document, response);
        let _ = write!(page, "<tr><td><code>{status}</code><td>{}<td>", words(text(&response["description"])));
        for (media_type, content) in response["content"].as_object().into_iter().flatten() {
            match media_type.as_str() {
                "application/problem+json" => page.push_str("<a href=\"#shape-Problem\">Problem</a>"),
                other => match content.get("schema") {
                    Some(schema) => page.push_str(&fields::kind(schema)),
                    None => page.push_str(&escape(other)),
                },
            }
        }
    }
    page.push_str("</table></section>");
}

/// What a reference among the components names.
fn resolve<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    let pointer = value["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
    pointer.and_then(|pointer| document.pointer(pointer)).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::http::{openapi, operations};

    #[test]
    fn every_operation_and_shape_has_its_place_on_the_page() {
        let document = openapi::document(&operations(), "https://mcp.example.com");
        let page = render(&document);
        for operation in operations() {
            assert!(page.contains(&format!("<code>{}</code>", operation.template())), "{operation:?}");
        }
        let mut links = page.split("href=\"#").skip(1).map(|rest| rest.split('"').next().unwrap());
        assert!(links.all(|link| page.contains(&format!("id=\"{link}\""))), "a link leads nowhere");
        assert!(!page.contains("<script") && !page.contains("http:") && !page.contains("style="), "{page}");
    }

    #[test]
    fn what_a_description_says_is_text() {
        let document = json!({
            "info": { "description": "<b>bold</b> & `<i>`" },
            "components": { "schemas": { "<x>": { "description": "\"<y>\"", "type": "string" } } },
        });
        let page = render(&document);
        assert!(page.contains("&lt;b&gt;bold&lt;/b&gt; &amp; <code>&lt;i&gt;</code>"), "{page}");
        assert!(page.contains("&lt;x&gt;") && page.contains("&lt;y&gt;") && !page.contains("<y>"), "{page}");
    }
}
