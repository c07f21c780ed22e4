//! The API's description: it is valid, it says what the router does and nothing else, and a change of
//! it is seen. Whether answers keep to it is the fuzzer's to find (`cargo dev test`).

use std::{collections::BTreeSet, fmt::Write as _, path::Path, process::Command, sync::Arc};

use gateway::http::{openapi, operations};
use reqwest::Method;
use serde_json::Value;
use stack::Scratch;
use uuid::Uuid;
use walkdir::WalkDir;

use crate::world::{Answer, System};

const PUBLIC_URL: &str = "https://mcp.example.com";

fn document() -> Value {
    openapi::document(&operations(), PUBLIC_URL)
}

/// Method and path of every operation of a document.
fn described(document: &Value) -> BTreeSet<(String, String)> {
    let paths = document["paths"].as_object().expect("paths");
    let methods = |item: &Value| item.as_object().expect("a path").keys().cloned().collect::<Vec<_>>();
    paths
        .iter()
        .flat_map(|(path, item)| methods(item).into_iter().map(|method| (method.to_uppercase(), path.clone())))
        .collect()
}

pub(crate) fn every_operation_of_the_table_is_in_the_document_once() {
    let table: Vec<_> = operations().iter().map(|row| (row.method().to_string(), row.template())).collect();
    assert!(table.len() >= 17, "the table was not found: {table:?}");
    assert_eq!(table.len(), table.iter().collect::<BTreeSet<_>>().len(), "an operation stands twice: {table:?}");
    let document = document();
    assert_eq!(described(&document), table.into_iter().collect());
    let paths = document["paths"].as_object().expect("paths").values();
    let ids =
        paths.flat_map(|item| item.as_object().expect("a path").values()).map(|one| one["operationId"].to_string());
    let ids: Vec<String> = ids.collect();
    assert_eq!(ids.len(), ids.iter().collect::<BTreeSet<_>>().len(), "a name stands twice: {ids:?}");
}

/// The router takes nothing but the table, and the console's own paths.
pub(crate) fn no_route_is_made_beside_the_table() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gateway/src");
    let mut routers = Vec::new();
    for entry in WalkDir::new(&sources) {
        let entry = entry.expect("readable sources");
        if entry.path().extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let path = entry.path().strip_prefix(&sources).expect("below the sources").display().to_string();
        let text = std::fs::read_to_string(entry.path()).expect("readable sources");
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        if [".at(\"/", "route.at(", "Route::new()", ".nest("].iter().any(|sign| text.contains(sign)) {
            routers.push(path);
        }
    }
    routers.sort();
    assert_eq!(routers, ["assets.rs", "http/operation.rs"], "a router beside the table");
    let http = std::fs::read_to_string(sources.join("http.rs")).expect("readable sources");
    assert_eq!(http.matches("nest_no_strip").count(), 1, "the console's paths, and no others");
}

pub(crate) fn the_document_is_valid_openapi() {
    let scratch = Scratch::new().expect("a scratch folder");
    let file = scratch.path().join("openapi.json");
    let check = |document: &Value| {
        std::fs::write(&file, document.to_string()).expect("the file is written");
        let python = stack::places::Places::find().expect("the repository").tool("python");
        let output = Command::new(python).args(["-m", "openapi_spec_validator"]).arg(&file).output();
        let output = output.expect("the validator runs");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let mut document = document();
    let (valid, words) = check(&document);
    assert!(valid, "{words}");
    // The validator sees what is wrong: a reference into the void, a parameter that the path lacks.
    document["paths"]["/api/v1/me"]["get"]["responses"]["200"] = serde_json::json!({ "description": 1 });
    assert!(!check(&document).0, "a broken document passed");
}

/// Every reference leads somewhere, every component is referred to, and names are of types and not of
/// accidents.
pub(crate) fn components_are_named_and_used() {
    let document = document();
    let text = document.to_string();
    for kind in ["schemas", "responses", "headers"] {
        for (name, component) in document["components"][kind].as_object().expect("components") {
            let reference = format!("\"#/components/{kind}/{name}\"");
            assert!(text.contains(&reference), "{kind}/{name} is used nowhere");
            assert!(!name.ends_with(|last: char| last.is_ascii_digit()), "two different shapes are called {name}");
            assert!(kind != "schemas" || component.get("description").is_some(), "{name} has no description");
        }
    }
    for reference in text.split("\"$ref\":\"#").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(document.pointer(reference).is_some(), "{reference} leads nowhere");
    }
}

/// One line for each operation and component, so that a change of the API is read in the diff.
pub(crate) fn the_document_is_as_it_was_reviewed() {
    let document = document();
    let mut lines = String::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("a path") {
            let _ = writeln!(lines, "{} {path} {operation}", method.to_uppercase());
        }
    }
    for (kind, components) in document["components"].as_object().expect("components") {
        for (name, component) in components.as_object().expect("components") {
            let _ = writeln!(lines, "{kind}/{name} {component}");
        }
    }
    insta::assert_snapshot!(lines);
}

pub(crate) async fn the_served_document_says_which_methods_every_path_has(system: Arc<System>) {
    let response = system.http.get(format!("{}/openapi.json", system.url)).send().await.expect("an answer");
    assert_eq!(response.status(), 200);
    let served: Value = response.json().await.expect("JSON");
    assert_eq!(served["servers"][0]["url"], system.url.as_str());
    assert_eq!(described(&served), described(&document()), "the built gateway is of these sources");
    let tenant = system.organization().await;
    for (path, item) in served["paths"].as_object().expect("paths") {
        let mut methods: BTreeSet<String> =
            item.as_object().expect("a path").keys().map(|method| method.to_uppercase()).collect();
        if methods.contains("GET") {
            methods.insert("HEAD".to_owned());
        }
        let concrete: Vec<String> = path
            .split('/')
            .map(|segment| if segment.starts_with('{') { Uuid::now_v7().to_string() } else { segment.to_owned() })
            .collect();
        let answer = tenant.user.send(tenant.user.request(Method::TRACE, &concrete.join("/"))).await;
        answer.problem(405, "method");
        let allow = answer.headers.get("allow").and_then(|value| value.to_str().ok()).unwrap_or_default();
        assert_eq!(allow.split(", ").map(str::to_owned).collect::<BTreeSet<_>>(), methods, "{path}");
    }
}

pub(crate) async fn the_page_of_the_document_needs_nothing_from_elsewhere(system: Arc<System>) {
    let get = async |path: &str| {
        let response = system.http.get(format!("{}{path}", system.url)).send().await.expect("an answer");
        let (status, headers) = (response.status(), response.headers().clone());
        Answer { status, headers, text: response.text().await.expect("a body") }
    };
    let page = get("/docs").await;
    assert_eq!(page.status, 200);
    let policy = page.headers["content-security-policy"].to_str().expect("a policy");
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert!(page.text.contains("/api/v1/tool-calls") && !page.text.contains("<script"), "{}", page.text);
    let links = page.text.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next());
    for link in links.filter(|link| !link.starts_with('#')).collect::<BTreeSet<_>>() {
        assert!(!link.contains("://"), "{link} is elsewhere");
        let target = get(&format!("/{}", link.trim_start_matches("./"))).await;
        assert_eq!(target.status, 200, "{link}");
    }
    assert_eq!(get("/docs/style.css").await.headers["content-type"], "text/css; charset=utf-8");
}
