//! What single fields of a configuration do: tool filters, switching off, lists, retries.

use std::sync::Arc;

use serde_json::{Value, json};
use shared::command::configurations::MAX_OWN_CONFIGURATIONS;

use super::{CONFIGURATIONS, replace, server, with};
use crate::{
    faulty::{FOREIGN_TOOL, TOOL},
    upstreams::{BOTH, listed},
    world::{System, Tenant},
};

fn names(listed: &Value) -> Vec<&str> {
    listed["items"].as_array().expect("items").iter().filter_map(|tool| tool["name"].as_str()).collect()
}

/// How often a path of the faulty server was asked to call a tool.
fn calls(system: &System, path: &str) -> usize {
    system.faulty.recorded(path).iter().filter(|asked| asked.method() == "tools/call").count()
}

pub(crate) async fn a_denied_tool_is_neither_listed_nor_pinned_nor_called(system: Arc<System>) {
    let tenant = system.organization().await;
    let database = system.database("superuser").await;
    for via in BOTH {
        let path = format!("/record/modern/filtered-{via}-{}", tenant.id);
        let body = server(via, via, &system.faulty.url(&path));
        let filter = |tools: Value| with(&body, json!({ "tools": tools }));
        let made = tenant.admin.post(CONFIGURATIONS, &filter(json!({ "allow": ["n*", "x"], "deny": ["*x"] }))).await;
        assert_eq!(made.status, 201, "{}", made.text);
        assert_eq!(made.json()["tools"], json!({ "allow": ["n*", "x"], "deny": ["*x"] }));
        let id = made.json()["id"].as_str().expect("an id").to_owned();
        // Refused before anybody asked the server, and after.
        for _ in 0..2 {
            let denied = tenant.call(via, FOREIGN_TOOL, json!({ "text": "x" })).await;
            assert_eq!(denied.problem(404, "unknown")["detail"], "There is no such tool.");
            assert_eq!(names(&listed(&tenant.user, &id).await.json()), [TOOL], "{via}");
        }
        assert_eq!(calls(&system, &path), 0, "{via}");
        assert_eq!(tenant.call(via, TOOL, json!({ "text": "x" })).await.status, 200);
        let pinned: Vec<String> = sqlx::query_scalar("SELECT name FROM mcp_tools WHERE configuration_id::text = $1")
            .bind(&id)
            .fetch_all(&database)
            .await
            .expect("the pins");
        assert_eq!(pinned, [TOOL], "{via}");
        // Another filter holds at once, for tools pinned before too.
        assert_eq!(replace(&system, &tenant.admin, &id, &filter(json!({ "deny": [TOOL] }))).await.status, 200);
        tenant.call(via, TOOL, json!({ "text": "x" })).await.problem(404, "unknown");
        assert_eq!(tenant.call(via, FOREIGN_TOOL, json!({ "text": "x" })).await.status, 200);
        assert_eq!(names(&listed(&tenant.user, &id).await.json()), [FOREIGN_TOOL], "{via}");
        assert_eq!(calls(&system, &path), 2, "{via}");
        assert_eq!(replace(&system, &tenant.admin, &id, &body).await.status, 200);
        assert_eq!(names(&listed(&tenant.user, &id).await.json()).len(), 2, "{via}");
    }
}

pub(crate) async fn a_disabled_server_is_not_asked_until_it_is_enabled(system: Arc<System>) {
    let tenant = system.organization().await;
    for via in BOTH {
        let path = format!("/record/modern/disabled-{via}-{}", tenant.id);
        let body = server(via, via, &system.faulty.url(&path));
        let id = tenant.register(via, &system.faulty.url(&path), json!({ "via": via })).await;
        assert_eq!(tenant.call(via, TOOL, json!({ "text": "x" })).await.status, 200);
        let off = replace(&system, &tenant.admin, &id, &with(&body, json!({ "enabled": false }))).await;
        assert_eq!(off.json()["enabled"], false, "{}", off.text);
        let before = system.faulty.recorded(&path).len();
        tenant.call(via, TOOL, json!({ "text": "x" })).await.problem(409, "conflict");
        listed(&tenant.user, &id).await.problem(409, "conflict");
        assert_eq!(system.faulty.recorded(&path).len(), before, "{via}");
        assert_eq!(replace(&system, &tenant.admin, &id, &body).await.json()["enabled"], true);
        assert_eq!(tenant.call(via, TOOL, json!({ "text": "x" })).await.status, 200);
    }
}

/// News of a change travel by another road than calls and may come later: here, where the database is changed
/// behind everybody's back, they never come. Nobody is refused by what a worker kept from before.
pub(crate) async fn no_call_is_refused_by_what_a_worker_kept(system: Arc<System>) {
    let tenant = system.organization().await;
    let database = system.database("superuser").await;
    for (name, off, on) in [
        ("off", json!({ "enabled": false }), "UPDATE mcp_configurations SET enabled = true WHERE id::text = $1"),
        (
            "denied",
            json!({ "tools": { "deny": ["*"] } }),
            "UPDATE mcp_configurations SET tools_deny = '{}' WHERE id::text = $1",
        ),
    ] {
        let id = tenant.register(name, &system.demo_url, off).await;
        for _ in 0..2 {
            let refused = tenant.call(name, "echo", json!({ "text": "x" })).await;
            assert!([404, 409].contains(&refused.status.as_u16()), "{name}: {}", refused.text);
        }
        sqlx::query(on).bind(&id).execute(&database).await.expect("the change");
        let called = tenant.call(name, "echo", json!({ "text": "x" })).await;
        assert_eq!(called.status, 200, "{name}: {}", called.text);
    }
}

pub(crate) async fn lists_are_filtered_by_scope_transport_and_state(system: Arc<System>) {
    let tenant = system.organization().await;
    tenant.register("off", &system.demo_url, json!({ "enabled": false })).await;
    tenant.register("old", &system.demo_sse_url, json!({ "transport": "sse" })).await;
    let own = with(&server("native", "own", &system.demo_url), json!({ "scope": "user" }));
    assert_eq!(tenant.user.post(CONFIGURATIONS, &own).await.status, 201);
    let listed = async |query: &str| -> Vec<String> {
        let list = tenant.user.get(&format!("{CONFIGURATIONS}?{query}")).await;
        assert_eq!(list.status, 200, "{query}: {}", list.text);
        let list = list.json();
        let items = list["items"].as_array().expect("items").clone();
        items.iter().map(|item| item["name"].as_str().expect("a name").to_owned()).collect()
    };
    for (query, expected) in [
        ("limit=200", vec!["demo", "off", "old", "own"]),
        ("scope=user", vec!["own"]),
        ("scope=organization", vec!["demo", "off", "old"]),
        ("transport=sse", vec!["old"]),
        ("enabled=false", vec!["off"]),
        ("enabled=true&scope=organization&transport=http", vec!["demo"]),
        ("enabled=true&limit=1", vec!["demo"]),
    ] {
        assert_eq!(listed(query).await, expected, "{query}");
    }
    for (query, field) in [
        ("scope=all", "scope"),
        ("transport=HTTP", "transport"),
        ("transport=", "transport"),
        ("enabled=1", "enabled"),
        ("enabled=", "enabled"),
        ("state=on", "state"),
        ("enabled=true&limit=0", "limit"),
    ] {
        let answer = tenant.user.get(&format!("{CONFIGURATIONS}?{query}")).await;
        assert_eq!(answer.problem(400, "invalid")["field"], field, "{query}");
    }
}

/// A tool that fails twice before it answers, behind a configuration with three retries.
async fn failing_twice(system: &System, tenant: &Tenant, via: &str, kind: &str) -> String {
    let path = format!("/record/modern/{kind}-{via}-{}", tenant.id);
    let more = json!({ "via": via, "retries": 3 });
    let id = tenant.register(&format!("{kind}.{via}"), &system.faulty.url(&path), more).await;
    assert_eq!(listed(&tenant.user, &id).await.status, 200);
    system.faulty.fail(&path, 2);
    path
}

pub(crate) async fn only_a_call_that_may_be_repeated_is_sent_again(system: Arc<System>) {
    let tenant = system.organization().await;
    for via in BOTH {
        let path = failing_twice(&system, &tenant, via, "repeatable").await;
        let answer = tenant.call(&format!("repeatable.{via}"), TOOL, json!({ "text": "x" })).await;
        assert_eq!(answer.status, 200, "{via}: {}", answer.text);
        assert_eq!(calls(&system, &path), 3, "{via}: twice in vain");

        let path = failing_twice(&system, &tenant, via, "single").await;
        let answer = tenant.call(&format!("single.{via}"), TOOL, json!({ "text": "x" })).await;
        answer.problem(502, "upstream_failed");
        assert_eq!(calls(&system, &path), 1, "{via}: it was sent again");
    }
    // A server that says no is believed, however often one might ask.
    let path = failing_twice(&system, &tenant, "native", "repeatable-arguments").await;
    let answer = tenant.call("repeatable-arguments.native", TOOL, json!({ "text": 1 })).await;
    answer.problem(400, "invalid");
    assert_eq!(calls(&system, &path), 0);
    // A server that is down is asked as often as said, and no longer than the deadline.
    tenant.register("down", &system.servers.closed_url, json!({ "retries": 5 })).await;
    let body = json!({ "configuration": "down", "tool": "echo", "arguments": {}, "timeout_ms": 1_000 });
    let started = std::time::Instant::now();
    tenant.user.post("/api/v1/tool-calls", &body).await.problem(502, "upstream_failed");
    assert!(started.elapsed() < crate::world::PATIENCE);
}

pub(crate) async fn a_member_has_room_for_so_many_servers_and_no_more(system: Arc<System>) {
    let tenant = system.organization().await;
    let body = |name: String, scope: &str| json!({ "name": name, "scope": scope, "endpoint": system.demo_url });
    for number in 0..MAX_OWN_CONFIGURATIONS {
        let answer = tenant.user.post(CONFIGURATIONS, &body(format!("own-{number}"), "user")).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
    }
    tenant.user.post(CONFIGURATIONS, &body("one-too-many".to_owned(), "user")).await.problem(429, "throttled");
    // Neither another member nor the organization is concerned.
    for scope in ["user", "organization"] {
        let answer = tenant.admin.post(CONFIGURATIONS, &body(format!("of-the-{scope}"), scope)).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
    }
    let list = tenant.user.get(&format!("{CONFIGURATIONS}?scope=user&limit=200")).await.json();
    let kept = list["items"].as_array().map(Vec::len);
    assert_eq!(kept, usize::try_from(MAX_OWN_CONFIGURATIONS).ok(), "nothing was kept of the one refused");
}
