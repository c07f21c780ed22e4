//! Transport `stdio`: programs of the operator's catalogue through the whole road, and hostile ones
//! against their tenant's neighbours and us. What a box withstands from inside is tried in
//! `fastmcp/tests/test_boxes.py`; here it is what the product hands it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use serde_json::{Value, json};
use stack::DEMO_PROGRAM;

use crate::{
    upstreams::listed,
    world::{Answer, PATIENCE, System, Tenant},
};

const CONFIGURATIONS: &str = "/api/v1/mcp/configurations";
const TEST: &str = "/api/v1/mcp/test";

fn body(name: &str) -> Value {
    json!({ "name": name, "transport": "stdio", "catalogue": DEMO_PROGRAM })
}

async fn register(tenant: &Tenant, name: &str) -> String {
    let made = tenant.admin.post(CONFIGURATIONS, &body(name)).await;
    assert_eq!(made.status, 201, "{}", made.text);
    made.json()["id"].as_str().expect("an id").to_owned()
}

/// What a tool answered, or the text of its refusal.
async fn said(tenant: &Tenant, configuration: &str, tool: &str, arguments: Value) -> Value {
    let answer = tenant.call(configuration, tool, arguments).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let result = answer.json()["result"].clone();
    if result["isError"] == true {
        return result["content"][0]["text"].clone();
    }
    result["structuredContent"]["result"].clone()
}

/// The field at fault, or the one that holds it.
#[track_caller]
fn refused(answer: &Answer, field: &str) {
    let problem = answer.problem(400, "invalid");
    let named = problem["field"].as_str().unwrap_or_default();
    assert_eq!(named.split('.').next(), Some(field), "{problem}");
}

/// Directories of programs on this machine: `<organization>/<member or _>/<configuration>-<generation>`.
fn workspaces(system: &System) -> Vec<PathBuf> {
    let below = |folder: PathBuf| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
    };
    let members = below(system.workspaces.clone()).into_iter().flat_map(below);
    members.flat_map(below).collect()
}

/// Those of one configuration, whatever its generation.
fn workspaces_of(system: &System, configuration: &str) -> Vec<String> {
    let names = workspaces(system).into_iter().filter_map(|path| path.file_name()?.to_str().map(str::to_owned));
    names.filter(|name| name.starts_with(configuration)).collect()
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("{what} never came true"));
}

pub(crate) async fn a_program_of_the_catalogue_is_listed_and_called_like_any_server(system: Arc<System>) {
    let tenant = system.organization().await;
    let id = register(&tenant, "files").await;
    let shown = tenant.user.get(&format!("{CONFIGURATIONS}/{id}")).await.json();
    assert_eq!(
        (&shown["transport"], &shown["catalogue"], &shown["endpoint"], &shown["auth"]),
        (&json!("stdio"), &json!(DEMO_PROGRAM), &Value::Null, &json!({ "type": "none" }))
    );
    let tools = listed(&tenant.user, &id).await.json();
    let names: Vec<&str> =
        tools["items"].as_array().expect("tools").iter().filter_map(|tool| tool["name"].as_str()).collect();
    assert!(names.contains(&"write_file") && names.contains(&"echo"), "{names:?}");
    assert_eq!(said(&tenant, "files", "write_file", json!({ "path": "a", "text": "grüße" })).await, "5 characters");
    assert_eq!(said(&tenant, "files", "read_file", json!({ "path": "a" })).await, "grüße");
    // What the program refuses is its result, and no fault.
    let refused = said(&tenant, "files", "read_file", json!({ "path": "none" })).await;
    assert!(refused.as_str().is_some_and(|text| text.starts_with("FileNotFoundError")), "{refused}");
}

pub(crate) async fn members_see_names_and_descriptions_of_the_catalogue_and_nothing_else(system: Arc<System>) {
    let tenant = system.organization().await;
    let answer = tenant.user.get("/api/v1/mcp/catalogue").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let listed = answer.json();
    assert_eq!(listed["next"], Value::Null);
    let items = listed["items"].as_array().expect("items");
    assert_eq!(items.len(), 1, "{listed}");
    assert_eq!(items[0]["name"], DEMO_PROGRAM);
    assert!(items[0]["description"].as_str().is_some_and(|text| text.starts_with("Works with files")));
    assert_eq!(items[0].as_object().map(serde_json::Map::len), Some(2), "{listed}");
}

pub(crate) async fn a_command_never_comes_in_through_the_api(system: Arc<System>) {
    let tenant = system.organization().await;
    let bad = [
        (json!({ "command": "/bin/sh" }), "command"),
        (json!({ "args": ["-c", "id"] }), "args"),
        (json!({ "program": "/bin/sh" }), "program"),
        (json!({ "environment": { "LD_PRELOAD": "x" } }), "environment"),
        (json!({ "catalogue": "/bin/sh" }), "catalogue"),
        (json!({ "catalogue": "../demo" }), "catalogue"),
        (json!({ "catalogue": "" }), "catalogue"),
        (json!({ "catalogue": null }), "catalogue"),
        (json!({ "catalogue": { "command": "/bin/sh" } }), "catalogue"),
        (json!({ "endpoint": "/bin/sh" }), "endpoint"),
        (json!({ "endpoint": "https://mcp.example.com/mcp" }), "endpoint"),
        (json!({ "auth": { "type": "bearer", "token": "t".repeat(20) } }), "auth"),
        (json!({ "transport": "http", "endpoint": "https://mcp.example.com/mcp" }), "catalogue"),
        (json!({ "transport": "http", "catalogue": null }), "endpoint"),
    ];
    for (more, field) in bad {
        let mut body = body("refused");
        let object = body.as_object_mut().expect("an object");
        object.extend(more.as_object().expect("an object").clone());
        refused(&tenant.admin.post(CONFIGURATIONS, &body).await, field);
    }
    let kept = tenant.admin.get(CONFIGURATIONS).await.json();
    assert!(kept["items"].as_array().expect("items").iter().all(|kept| kept["name"] != "refused"), "{kept}");
}

pub(crate) async fn a_program_is_tried_out_like_any_server(system: Arc<System>) {
    let tenant = system.organization().await;
    let id = register(&tenant, "files").await;
    let unsaved = json!({ "transport": "stdio", "catalogue": DEMO_PROGRAM });
    for body in [json!({ "configuration": id }), unsaved.clone()] {
        let answer = tenant.admin.post(TEST, &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let report = answer.json();
        assert_eq!(report["ok"], true, "{report}");
        let stages: Vec<&str> =
            report["stages"].as_array().expect("stages").iter().filter_map(|stage| stage["stage"].as_str()).collect();
        assert_eq!(stages, ["program", "protocol", "auth", "tools"]);
        assert!(report["tools"].as_array().is_some_and(|tools| tools.len() > 5), "{report}");
    }
    for (more, field) in [
        (json!({ "command": "/bin/sh" }), "command"),
        (json!({ "endpoint": "https://mcp.example.com/mcp" }), "endpoint"),
        (json!({ "catalogue": null }), "catalogue"),
        (json!({ "catalogue": "no-such-program" }), "catalogue"),
        (json!({ "catalogue": "../demo" }), "catalogue"),
        (json!({ "auth": { "type": "bearer", "token": "t".repeat(20) } }), "auth"),
    ] {
        let mut body = unsaved.clone();
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        refused(&tenant.admin.post(TEST, &body).await, field);
    }
}

pub(crate) async fn a_trial_of_a_saved_program_leaves_the_one_in_use_alone(system: Arc<System>) {
    let tenant = system.organization().await;
    let id = register(&tenant, "files").await;
    said(&tenant, "files", "write_file", json!({ "path": "a", "text": "kept" })).await;
    let began = said(&tenant, "files", "whoami", json!({})).await["started"].clone();
    assert!(began.is_i64(), "{began}");
    for _ in 0..3 {
        let report = tenant.admin.post(TEST, &json!({ "configuration": id })).await.json();
        assert_eq!(report["ok"], true, "{report}");
        // The trial's own directory goes with it.
        let theirs = tenant.id.to_string();
        until("the trial's end", || {
            let all = workspaces(&system);
            all.iter().filter(|path| path.iter().any(|part| part.to_str() == Some(&theirs))).count() == 1
        })
        .await;
        assert_eq!(said(&tenant, "files", "whoami", json!({})).await["started"], began);
        assert_eq!(said(&tenant, "files", "read_file", json!({ "path": "a" })).await, "kept");
    }
}

pub(crate) async fn a_program_that_left_the_catalogue_is_told_so_and_can_be_disabled(system: Arc<System>) {
    let tenant = system.organization().await;
    let id = register(&tenant, "files").await;
    // As if the operator had offered it once.
    let database = system.database("superuser").await;
    let moved = sqlx::query("UPDATE mcp_configurations SET catalogue = 'gone' WHERE id = $1")
        .bind(id.parse::<uuid::Uuid>().expect("a uuid"))
        .execute(&database)
        .await
        .expect("the row moves");
    assert_eq!(moved.rows_affected(), 1);
    database.close().await;

    let report = tenant.admin.post(TEST, &json!({ "configuration": id })).await;
    assert_eq!(report.status, 200, "{}", report.text);
    let report = report.json();
    let stages: Vec<(&str, bool)> = report["stages"]
        .as_array()
        .expect("stages")
        .iter()
        .map(|stage| (stage["stage"].as_str().expect("a stage"), stage["ok"] == true))
        .collect();
    assert_eq!((&report["ok"], stages), (&json!(false), vec![("program", false)]), "{report}");
    assert!(report["hint"].as_str().is_some_and(|hint| hint.contains("/api/v1/mcp/catalogue")), "{report}");
    refused(&tenant.call("files", "echo", json!({ "text": "x" })).await, "catalogue");

    let path = format!("{CONFIGURATIONS}/{id}");
    let named =
        |program: &str| json!({ "name": "files", "transport": "stdio", "catalogue": program, "enabled": false });
    refused(&tenant.admin.put(&path, "*", &named("gone-too")).await, "catalogue");
    let off = tenant.admin.put(&path, "*", &named("gone")).await;
    assert_eq!(off.status, 200, "{}", off.text);
    assert_eq!((&off.json()["enabled"], &off.json()["catalogue"]), (&json!(false), &json!("gone")));
    tenant.call("files", "echo", json!({ "text": "x" })).await.problem(409, "conflict");
    assert_eq!(tenant.admin.put(&path, "*", &body("files")).await.status, 200);
    assert_eq!(said(&tenant, "files", "echo", json!({ "text": "x" })).await, "x");
}

pub(crate) async fn a_changed_program_starts_in_an_empty_directory(system: Arc<System>) {
    let tenant = system.organization().await;
    let id = register(&tenant, "files").await;
    said(&tenant, "files", "write_file", json!({ "path": "a", "text": "x" })).await;
    // The program as it was is still at work when it changes.
    let sleeping = said(&tenant, "files", "sleep", json!({ "ms": 5_000 }));
    let changing = async {
        let asleep = async {
            // Its main thread, the one that answers, and the one that sleeps.
            while said(&tenant, "files", "whoami", json!({})).await["threads"] != 3 {
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
        };
        tokio::time::timeout(PATIENCE, asleep).await.expect("the program sleeps");
        let mut changed = body("files");
        changed["timeout_ms"] = 60_000.into();
        let changed = tenant.admin.put(&format!("{CONFIGURATIONS}/{id}"), "*", &changed).await;
        assert_eq!(changed.status, 200, "{}", changed.text);
        system.configurations_are_known().await;
        assert_eq!(said(&tenant, "files", "list_files", json!({})).await, json!([]));
    };
    let (slept, ()) = tokio::join!(sleeping, changing);
    assert_eq!(slept, "slept 5000 ms");
    until("the old directory's end", || workspaces_of(&system, &id) == [format!("{id}-2")]).await;
}

pub(crate) async fn a_configuration_may_turn_into_a_program_and_back(system: Arc<System>) {
    let tenant = system.organization().await;
    let id = tenant.register("changing", &system.demo_url, json!({})).await;
    // Tools of one server only: a definition that differs would have to be accepted first.
    for (body, tool, arguments) in [
        (body("changing"), "list_files", json!({})),
        (json!({ "name": "changing", "endpoint": system.demo_url }), "add", json!({ "a": 1, "b": 2 })),
    ] {
        let request = tenant.admin.request(reqwest::Method::PUT, &format!("{CONFIGURATIONS}/{id}"));
        let answer = tenant.admin.send(request.header("if-match", "*").json(&body)).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let shown = answer.json();
        assert_eq!(shown["catalogue"].is_null(), !shown["endpoint"].is_null(), "{shown}");
        system.configurations_are_known().await;
        let answer = tenant.call("changing", tool, arguments).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
}

pub(crate) async fn a_program_learns_no_secret_of_ours(system: Arc<System>) {
    let tenant = system.organization().await;
    register(&tenant, "files").await;
    let seen = said(&tenant, "files", "whoami", json!({})).await;
    let variables: Vec<&str> = seen["environment"].as_object().expect("variables").keys().map(String::as_str).collect();
    // The program's own Python sets LC_CTYPE (PEP 538).
    assert!(variables.iter().all(|name| ["PATH", "LC_CTYPE"].contains(name)), "{variables:?}");
    let text = seen.to_string();
    for secret in [&system.fastmcp_service.1, &system.stdio_service.1] {
        assert!(!text.contains(secret.as_str()));
    }
    assert_eq!(seen["mode"], "0o700");
    let isolation = system.http.get(format!("{}/health", system.stdio_service.0)).send().await.expect("health");
    let isolation: Value = serde_json::from_str(&isolation.text().await.expect("health")).expect("JSON");
    if isolation["isolation"] != "full" {
        println!("This machine refuses namespaces ({isolation}): the network's absence was not tried.");
        return;
    }
    assert_eq!(seen["interfaces"], json!(["lo"]));
    assert_eq!(seen["processes"], json!([1, seen["process"]]));
    for address in [&system.url, &system.stdio_service.0, &system.nats_url] {
        let port: u16 = address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
        let answer = said(&tenant, "files", "connect", json!({ "host": "127.0.0.1", "port": port })).await;
        assert!(answer.as_str().is_some_and(|text| text.contains("unreachable")), "{address}: {answer}");
    }
}

pub(crate) async fn two_organizations_and_two_members_never_share_a_workspace(system: Arc<System>) {
    let (acme, globex) = (system.organization().await, system.organization().await);
    for tenant in [&acme, &globex] {
        register(tenant, "files").await;
        assert_eq!(said(tenant, "files", "list_files", json!({})).await, json!([]));
        let text = tenant.id.to_string();
        said(tenant, "files", "write_file", json!({ "path": "whose", "text": text })).await;
    }
    for tenant in [&acme, &globex] {
        assert_eq!(said(tenant, "files", "read_file", json!({ "path": "whose" })).await, tenant.id.to_string());
    }
    let theirs = system.workspaces.join(globex.id.to_string());
    assert!(theirs.is_dir(), "the workspace lies where it is looked for");
    let refused = said(&acme, "files", "list_files", json!({ "path": theirs })).await;
    assert!(refused.as_str().is_some_and(|text| text.contains("Error")), "{refused}");

    // A member's own configuration has a workspace of its own, and its name does not tell whose.
    let mut own = body("own");
    own["scope"] = "user".into();
    let made = acme.user.post(CONFIGURATIONS, &own).await;
    assert_eq!(made.status, 201, "{}", made.text);
    assert_eq!(said(&acme, "own", "list_files", json!({})).await, json!([]));
    let members = std::fs::read_dir(system.workspaces.join(acme.id.to_string())).expect("acme's workspaces");
    let mut members: Vec<String> =
        members.map(|member| member.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    members.sort_unstable_by_key(String::len);
    assert_eq!(members[0], "_");
    assert!(members.len() == 2 && members[1].bytes().all(|byte| byte.is_ascii_hexdigit()), "{members:?}");
}

pub(crate) async fn a_removed_configuration_ends_its_program_and_takes_its_workspace_along(system: Arc<System>) {
    let tenant = system.organization().await;
    let id = register(&tenant, "files").await;
    said(&tenant, "files", "write_file", json!({ "path": "a", "text": "x" })).await;
    assert_eq!(said(&tenant, "files", "spawn", json!({ "count": 3 })).await, 3);
    assert_eq!(workspaces_of(&system, &id).len(), 1);
    let removed = tenant.admin.delete(&format!("{CONFIGURATIONS}/{id}")).await;
    assert_eq!(removed.status, 204, "{}", removed.text);
    system.configurations_are_known().await;
    tenant.call("files", "echo", json!({ "text": "x" })).await.problem(404, "unknown");
    until("the workspace's end", || workspaces_of(&system, &id).is_empty()).await;
}

pub(crate) async fn a_program_that_dies_fails_its_call_and_is_started_for_the_next(system: Arc<System>) {
    let tenant = system.organization().await;
    register(&tenant, "files").await;
    assert_eq!(said(&tenant, "files", "echo", json!({ "text": "before" })).await, "before");
    tenant.call("files", "end", json!({})).await.problem(502, "upstream_failed");
    assert_eq!(said(&tenant, "files", "echo", json!({ "text": "after" })).await, "after");
}

pub(crate) async fn a_program_that_hangs_is_left_at_the_deadline_and_told_so(system: Arc<System>) {
    let tenant = system.organization().await;
    register(&tenant, "files").await;
    said(&tenant, "files", "echo", json!({ "text": "x" })).await;
    let call = json!({ "configuration": "files", "tool": "sleep", "arguments": { "ms": 60_000 }, "timeout_ms": 1_500 });
    tenant.user.post("/api/v1/tool-calls", &call).await.problem(504, "timeout");
    let waited = tokio::time::timeout(PATIENCE, async {
        while !said(&tenant, "files", "list_files", json!({})).await.to_string().contains("cancelled") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    waited.await.expect("the program is told of the cancellation");
}
