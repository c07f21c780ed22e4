//! Organizations: what operators do about them, what their own admins choose, what they may use, and
//! their end.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use shared::{bus::lanes::lane_name, id::OrganizationId};
use stack::issuer::Role;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::{
    members::soon,
    trail::Trail,
    world::{Client, PATIENCE, System, Tenant},
};

const ORGANIZATIONS: &str = "/api/v1/organizations";
const OWN: &str = "/api/v1/organization";

fn operator(system: &System) -> Client {
    system.client(&system.seeded.operator_token)
}

fn of(tenant: &Tenant) -> String {
    format!("{ORGANIZATIONS}/{}", tenant.id)
}

/// An organization's whole row, as the superuser sees it.
async fn row(system: &System, organization: Uuid) -> Value {
    let database = system.database("superuser").await;
    let row = sqlx::query_scalar("SELECT to_jsonb(o) FROM organizations o WHERE id = $1");
    let row = row.bind(organization).fetch_one(&database).await.expect("the row");
    database.close().await;
    row
}

pub(crate) async fn an_operator_creates_reads_changes_and_lists_organizations(system: Arc<System>) {
    let operator = operator(&system);
    let slug = format!("whole-{}", Uuid::now_v7().simple());
    let wanted = json!({
        "slug": slug, "name": "Whole", "concurrency_limit": 3, "paused": true, "calls_per_minute": 77,
        "queue_limit": 9, "session_limit": 5, "user_session_limit": 2, "result_retention_seconds": 3_600,
        "allowed_origins": ["https://app.example.com", "http://localhost:5173"], "tool_policy": "warn",
    });
    let made = operator.post(ORGANIZATIONS, &wanted).await;
    assert_eq!(made.status, 201, "{}", made.text);
    assert_eq!(made.headers["etag"], "\"1\"");
    let organization = made.json();
    for (field, value) in wanted.as_object().expect("an object") {
        assert_eq!(&organization[field], value, "{field}");
    }
    let path = format!("{ORGANIZATIONS}/{}", organization["id"].as_str().expect("an id"));
    let read = operator.get(&path).await;
    assert_eq!((read.json(), &read.headers["etag"]), (organization.clone(), &made.headers["etag"]));

    // What is absent stays, null lifts the one limit that may be absent, and the tag moves on.
    let change = json!({ "name": "Half", "queue_limit": null, "allowed_origins": [] });
    let changed = operator.put(&path, "\"1\"", &change).await;
    assert_eq!(changed.status, 200, "{}", changed.text);
    assert_eq!(changed.headers["etag"], "\"2\"");
    let mut expected = organization.clone();
    for (field, value) in change.as_object().expect("an object") {
        expected[field] = value.clone();
    }
    expected["generation"] = json!(2);
    expected["updated_at"] = changed.json()["updated_at"].clone();
    assert_eq!(changed.json(), expected);
    assert_ne!(changed.json()["updated_at"], organization["updated_at"]);

    // Its page of the list shows the same.
    let before = format!("{ORGANIZATIONS}?limit=1&cursor={}", &slug[..slug.len() - 1]);
    assert_eq!(operator.get(&before).await.json()["items"], json!([expected]));
    let least = operator.post(ORGANIZATIONS, &json!({ "slug": format!("{slug}-l"), "name": "L" })).await.json();
    let defaults = json!({
        "concurrency_limit": 8, "paused": false, "calls_per_minute": 600, "queue_limit": null, "session_limit": 100,
        "user_session_limit": 10, "result_retention_seconds": 86_400, "allowed_origins": [], "tool_policy": "block",
    });
    for (field, value) in defaults.as_object().expect("an object") {
        assert_eq!(&least[field], value, "{field}");
    }
}

pub(crate) async fn the_bounds_that_are_promised_are_those_that_the_database_keeps(system: Arc<System>) {
    let (tenant, operator) = (system.organization().await, operator(&system));
    for (field, least, most) in [
        ("concurrency_limit", 1, 256),
        ("calls_per_minute", 1, 1_000_000),
        ("queue_limit", 1, 1_000_000),
        ("session_limit", 1, 100_000),
        ("user_session_limit", 1, 100_000),
        ("result_retention_seconds", 60, 7_776_000),
    ] {
        for bound in [least, most] {
            let answer = operator.put(&of(&tenant), "*", &json!({ field: bound })).await;
            assert_eq!((answer.status.as_u16(), &answer.json()[field]), (200, &json!(bound)), "{}", answer.text);
        }
        for beyond in [least - 1, most + 1] {
            let answer = operator.put(&of(&tenant), "*", &json!({ field: beyond })).await;
            assert_eq!(answer.problem(400, "invalid")["field"], field);
        }
    }
}

pub(crate) async fn an_admin_chooses_for_their_organization_and_touches_no_limit(system: Arc<System>) {
    let tenant = system.organization().await;
    let before = tenant.admin.get(OWN).await;
    assert_eq!(before.status, 200, "{}", before.text);
    assert_eq!(tenant.user.get(OWN).await.json(), before.json(), "every member sees what applies to them");
    let choices = json!({
        "name": "Chosen", "tool_policy": "warn", "result_retention_seconds": 60,
        "allowed_origins": [format!("https://{}.example", tenant.id)],
    });
    let tag = before.headers["etag"].to_str().expect("a tag").to_owned();
    let after = tenant.admin.put(OWN, &tag, &choices).await;
    assert_eq!(after.status, 200, "{}", after.text);
    for (field, value) in choices.as_object().expect("an object") {
        assert_eq!(&after.json()[field], value, "{field}");
    }
    assert_eq!(after.json()["id"], tenant.id.to_string());
    let kept = row(&system, tenant.id).await;
    for limit in [
        "concurrency_limit",
        "paused",
        "calls_per_minute",
        "queue_limit",
        "session_limit",
        "user_session_limit",
        "slug",
        "id",
    ] {
        let answer = tenant.admin.put(OWN, "*", &json!({ limit: 1 })).await;
        assert_eq!(answer.problem(400, "invalid")["field"], limit);
    }
    tenant.user.put(OWN, "*", &choices).await.problem(403, "forbidden");
    assert_eq!(row(&system, tenant.id).await, kept, "a refused change left something");
}

pub(crate) async fn a_change_of_what_was_not_read_is_refused(system: Arc<System>) {
    let (tenant, operator) = (system.organization().await, operator(&system));
    let user = tenant.user.get("/api/v1/me").await.json()["subject"].clone();
    let members = tenant.admin.get("/api/v1/users").await.json();
    let member = members["items"].as_array().expect("items").iter().find(|item| item["subject"] == user);
    let member = format!("/api/v1/users/{}", member.expect("the user")["id"].as_str().expect("an id"));
    for (client, path, change) in [
        (&operator, of(&tenant), json!({ "name": "Another" })),
        (&tenant.admin, OWN.to_owned(), json!({ "name": "Another" })),
        (&tenant.admin, member, json!({ "email": "another@example.test" })),
    ] {
        let read = client.get(&path).await;
        let tag = read.headers["etag"].to_str().expect("a tag").to_owned();
        let without = client.send(client.request(Method::PUT, &path).json(&change)).await;
        assert_eq!(without.problem(428, "precondition")["field"], "If-Match");
        for stale in ["\"0\"", "\"x\"", &format!("W/{tag}"), "\"999999\""] {
            client.put(&path, stale, &change).await.problem(412, "stale");
        }
        assert_eq!(client.put(&path, "x", &change).await.problem(400, "invalid")["field"], "If-Match");
        assert_eq!(client.get(&path).await.json(), read.json(), "a refused change left something");
        // Of two who read the same, one changes it.
        let both = join_all([client.put(&path, &tag, &change), client.put(&path, &tag, &change)]).await;
        let mut statuses: Vec<u16> = both.iter().map(|answer| answer.status.as_u16()).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 412], "{path}");
    }
    let stale = operator.request(Method::DELETE, &of(&tenant)).header("if-match", "\"0\"");
    operator.send(stale).await.problem(412, "stale");
    assert_eq!(tenant.user.get("/api/v1/me").await.status, 200, "it is still there");
}

pub(crate) async fn bad_changes_of_an_organization_are_refused_by_field_and_keep_nothing(system: Arc<System>) {
    let (tenant, operator) = (system.organization().await, operator(&system));
    let before = row(&system, tenant.id).await;
    let many: Vec<String> = (0..101).map(|number| format!("https://{number}.example")).collect();
    let long = "n".repeat(201);
    let both = [
        ("name", json!("")),
        ("name", json!("a\u{0}b")),
        ("name", json!(long)),
        ("name", json!(1)),
        ("tool_policy", json!("ask")),
        ("tool_policy", json!(["block"])),
        ("result_retention_seconds", json!(0)),
        ("result_retention_seconds", json!(-1)),
        ("result_retention_seconds", json!("60")),
        ("result_retention_seconds", json!(4_294_967_296_u64)),
        ("allowed_origins", json!("https://a.example")),
        ("allowed_origins", json!(["*"])),
        ("allowed_origins", json!(["null"])),
        ("allowed_origins", json!(["https://*.example.com"])),
        ("allowed_origins", json!(["https://a.example/"])),
        ("allowed_origins", json!(["http://a.example"])),
        ("allowed_origins", json!(["https://a.example\r\nx: y"])),
        ("allowed_origins", json!(["https://a.example", "https://a.example"])),
        ("allowed_origins", json!(many)),
        ("no_such_field", json!(1)),
        ("generation", json!(7)),
        ("deleted_at", json!(null)),
    ];
    let operators = [
        ("concurrency_limit", json!(0)),
        ("concurrency_limit", json!(1.5)),
        ("paused", json!("yes")),
        ("calls_per_minute", json!(0)),
        ("queue_limit", json!(0)),
        ("queue_limit", json!("none")),
        ("session_limit", json!(0)),
        ("user_session_limit", json!(100_001)),
        ("slug", json!("another")),
        ("id", json!(Uuid::nil())),
    ];
    let admins = both.iter().map(|case| (&tenant.admin, OWN.to_owned(), case));
    let cases = admins.chain(both.iter().chain(&operators).map(|case| (&operator, of(&tenant), case)));
    for (client, path, (field, value)) in cases {
        let answer = client.put(&path, "*", &json!({ *field: value })).await;
        let named = answer.problem(400, "invalid")["field"].as_str().expect("a field").to_owned();
        assert!(named == *field || named.starts_with(&format!("{field}.")), "{path} {field} {value}: {named}");
    }
    assert_eq!(row(&system, tenant.id).await, before, "something was half written");
    let nowhere = format!("{ORGANIZATIONS}/{}", Uuid::now_v7());
    operator.get(&nowhere).await.problem(404, "unknown");
    operator.put(&nowhere, "*", &json!({ "name": "x" })).await.problem(404, "unknown");
    operator.delete(&nowhere).await.problem(404, "unknown");
    let platform = format!("{ORGANIZATIONS}/{}", Uuid::nil());
    operator.delete(&platform).await.problem(409, "conflict");
    assert_eq!(operator.get(&format!("{ORGANIZATIONS}/x")).await.problem(400, "invalid")["field"], "id");
}

/// Calls one after another; how many were done, and how many were refused for coming too often.
async fn calls(tenant: &Tenant, trail: &mut Trail<'_>, count: usize) -> (usize, Vec<String>) {
    let (mut done, mut refused) = (0, Vec::new());
    for _ in 0..count {
        let id = trail.id();
        let body = json!({ "configuration": "demo", "tool": "echo", "arguments": { "text": "x" } });
        let request = tenant.user.request(Method::POST, "/api/v1/tool-calls").header("x-request-id", &id).json(&body);
        let answer = tenant.user.send(request).await;
        if answer.status == 200 {
            done += 1;
            continue;
        }
        let problem = answer.problem(429, "throttled");
        let wait: u64 = answer.headers["retry-after"].to_str().expect("text").parse().expect("seconds");
        assert!((1..=61).contains(&wait) && problem["retry_after_ms"].as_u64().is_some(), "{}", answer.text);
        refused.push(id);
    }
    (done, refused)
}

pub(crate) async fn calls_above_the_rate_are_refused_before_anything_is_published(system: Arc<System>) {
    let (tenant, operator) = (system.organization().await, operator(&system));
    assert_eq!(tenant.call("demo", "echo", json!({ "text": "warm" })).await.status, 200);
    let mut trail = Trail::new(&system, &tenant);
    // What was saved under the higher limit is not kept: at most a minute's worth is left, of which a
    // call may come in again while the others are made.
    assert_eq!(operator.put(&of(&tenant), "*", &json!({ "calls_per_minute": 4 })).await.status, 200);
    let asked = Instant::now();
    let (mut done, mut refused) = (0, Vec::new());
    while refused.len() < 5 {
        let (more, others) = calls(&tenant, &mut trail, 1).await;
        done += more;
        refused.extend(others);
        assert!(done <= 5 || asked.elapsed() < Duration::from_secs(1), "{done} calls at 4 a minute");
    }
    // Nobody else is concerned, and what is no call is not counted.
    assert_eq!(tenant.user.get("/api/v1/me").await.status, 200);
    let other = system.organization().await;
    assert_eq!(other.call("demo", "echo", json!({ "text": "x" })).await.status, 200);
    trail.caught_up().await;
    let rows = trail.rows().await;
    assert_eq!(rows.len(), done, "only what was let through became a command");
    assert!(rows.iter().all(|row| !refused.iter().any(|id| row["request_id"] == id.as_str())), "{rows:?}");
    // A raised limit counts at once.
    assert_eq!(operator.put(&of(&tenant), "*", &json!({ "calls_per_minute": 1_000_000 })).await.status, 200);
    let raised = Instant::now();
    while calls(&tenant, &mut trail, 1).await.0 == 0 {
        assert!(raised.elapsed() < Duration::from_secs(1), "still refused after {:?}", raised.elapsed());
    }
    assert_eq!(calls(&tenant, &mut trail, 20).await.0, 20);
}

pub(crate) async fn a_queue_of_its_own_is_full_before_the_deployments(system: Arc<System>) {
    let (tenant, operator) = (system.organization().await, operator(&system));
    assert_eq!(tenant.call("demo", "echo", json!({ "text": "warm" })).await.status, 200);
    pause(&system, &tenant, json!({ "queue_limit": 2 })).await;
    // While it is paused nothing ends: of many callers no more than the bound wait, the rest is told.
    let mut calling = JoinSet::new();
    for _ in 0..6 {
        let user = tenant.user.clone();
        let body = json!({ "configuration": "demo", "tool": "echo", "arguments": { "text": "x" } });
        calling.spawn(async move { user.post("/api/v1/tool-calls", &body).await });
    }
    for _ in 0..4 {
        let refused = calling.join_next().await.expect("a caller").expect("an answer");
        refused.problem(429, "throttled");
        assert!(refused.headers.contains_key("retry-after"));
    }
    assert_eq!(operator.put(&of(&tenant), "*", &json!({ "paused": false })).await.status, 200);
    let waited: Vec<u16> = calling.join_all().await.iter().map(|answer| answer.status.as_u16()).collect();
    assert!(waited.contains(&200) && waited.iter().all(|status| [200, 429].contains(status)), "{waited:?}");
}

pub(crate) async fn a_call_whose_client_left_keeps_its_place(system: Arc<System>) {
    let (tenant, operator) = (system.organization().await, operator(&system));
    assert_eq!(tenant.call("demo", "echo", json!({ "text": "warm" })).await.status, 200);
    pause(&system, &tenant, json!({ "queue_limit": 1 })).await;
    let body = json!({ "configuration": "demo", "tool": "echo", "arguments": { "text": "x" }, "timeout_ms": 20_000 });
    let (user, sent) = (tenant.user.clone(), body.clone());
    let calling = tokio::spawn(async move { user.post("/api/v1/tool-calls", &sent).await });
    until_lane(&system, &tenant, "the call waits", |lane| lane["num_pending"] == 1).await;
    calling.abort();
    assert!(calling.await.expect_err("it was aborted").is_cancelled());
    // The gateway notices within these that the client is gone; what it sent is still in the queue.
    for _ in 0..200 {
        tenant.user.post("/api/v1/tool-calls", &body).await.problem(429, "throttled");
    }
    assert_eq!(operator.put(&of(&tenant), "*", &json!({ "paused": false })).await.status, 200);
    let resumed = Instant::now();
    while tenant.user.post("/api/v1/tool-calls", &body).await.status != 200 {
        assert!(resumed.elapsed() < PATIENCE, "its place is never free again");
    }
}

/// The lane's consumer, as the server keeps it; null without one.
async fn lane(system: &System, tenant: &Tenant) -> Value {
    let organization = OrganizationId(tenant.id);
    let subject = format!("queue.CONSUMER.INFO.CALLS_{}.{}", organization.partition(), lane_name(organization));
    let info = system.nats("jetstream").await.request(subject, "".into()).await.expect("NATS answers");
    let info: Value = serde_json::from_slice(&info.payload).expect("JSON");
    if info["error"]["code"] == 404 { Value::Null } else { info }
}

/// Waits until the lane is so.
pub(crate) async fn until_lane(system: &System, tenant: &Tenant, what: &str, holds: impl Fn(&Value) -> bool) {
    let asked = Instant::now();
    loop {
        let lane = lane(system, tenant).await;
        if holds(&lane) {
            return;
        }
        assert!(asked.elapsed() < PATIENCE, "never: {what}: {lane}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Pauses an organization and waits until nothing more is given out.
pub(crate) async fn pause(system: &System, tenant: &Tenant, more: Value) {
    let mut change = json!({ "paused": true });
    if let (Some(change), Value::Object(more)) = (change.as_object_mut(), more) {
        change.extend(more);
    }
    let paused = operator(system).put(&of(tenant), "*", &change).await;
    assert_eq!(paused.status, 200, "{}", paused.text);
    until_lane(system, tenant, "the pause", |lane| lane["paused"] == true).await;
}

pub(crate) async fn a_deleted_organization_is_refused_everywhere_and_its_lane_goes(system: Arc<System>) {
    let (tenant, operator) = (system.organization().await, operator(&system));
    assert_eq!(tenant.call("demo", "echo", json!({ "text": "x" })).await.status, 200);
    assert_eq!(tenant.admin.get("/api/v1/me").await.status, 200);
    assert!(lane(&system, &tenant).await.is_object(), "it has a lane");
    // A call that waits when the organization ends does not run.
    pause(&system, &tenant, json!({})).await;
    let waits = tenant.call("demo", "counter_increment", json!({}));
    let ends = async {
        until_lane(&system, &tenant, "the call", |lane| lane["num_pending"] == 1).await;
        assert_eq!(operator.delete(&of(&tenant)).await.status, 204);
    };
    let (waited, ()) = tokio::join!(waits, ends);
    waited.problem(403, "forbidden");
    for client in [&tenant.admin, &tenant.user] {
        soon(client, 403).await;
        client
            .post("/api/v1/tool-calls", &json!({ "configuration": "demo", "tool": "echo" }))
            .await
            .problem(403, "forbidden");
        client.get("/api/v1/mcp/configurations").await.problem(403, "forbidden");
        client.get("/api/v1/users").await.problem(403, "forbidden");
    }
    // Nobody comes in anew either.
    let newcomer = system.client(&system.token(tenant.id, &format!("new-{}", tenant.id), Role::Admin));
    newcomer.get("/api/v1/me").await.problem(403, "forbidden");
    until_lane(&system, &tenant, "the end of its lane", Value::is_null).await;
    // For operators it is unknown, and its slug stays taken.
    operator.get(&of(&tenant)).await.problem(404, "unknown");
    operator.put(&of(&tenant), "*", &json!({ "paused": false })).await.problem(404, "unknown");
    operator.delete(&of(&tenant)).await.problem(404, "unknown");
    let slug = row(&system, tenant.id).await["slug"].clone();
    let again = operator.post(ORGANIZATIONS, &json!({ "slug": slug, "name": "Again" })).await;
    assert_eq!(again.problem(409, "conflict")["field"], "slug");
    let listed = operator.get(&format!("{ORGANIZATIONS}?limit=200")).await;
    assert!(!listed.text.contains(&tenant.id.to_string()), "it is listed");
}
