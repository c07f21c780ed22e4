//! Bad input: every route says what is wrong and in which field, as a problem document, and leaves
//! nothing behind. What the edge can see never becomes a command; what only a worker can see is
//! refused there and audited.

use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    bad_bodies::{self, Case, Seen},
    faulty::TOOL,
    servers::stats,
    trail::Trail,
    world::{Answer, Client, System, Tenant},
};

async fn post(client: &Client, path: &str, id: String, body: &[u8]) -> Answer {
    let request =
        client.request(Method::POST, path).header("x-request-id", id).header("content-type", "application/json");
    client.send(request.body(body.to_vec())).await
}

/// Sends every case of a route and checks the answer and the trail of each.
async fn refuse_all(trail: &mut Trail<'_>, client: &Client, path: &str, cases: Vec<Case>) {
    let mut sent = Vec::new();
    for case in cases {
        let id = trail.id();
        let answer = post(client, path, id.clone(), &case.body).await;
        let said = |what: &str| format!("{path}, {}: {what}: {} {}", case.what, answer.status, answer.text);
        assert_eq!(answer.status, 400, "{}", said("must be the caller's fault"));
        let problem = answer.problem(400, "invalid");
        assert_eq!(problem["field"].as_str(), Some(case.field.as_str()), "{}", said("field"));
        assert!(
            problem["detail"].as_str().is_some_and(|detail| (1..=500).contains(&detail.len())),
            "{}",
            said("detail")
        );
        sent.push((case, id));
    }
    trail.caught_up().await;
    let rows = trail.rows().await;
    for (case, id) in sent {
        let ends: Vec<_> = rows
            .iter()
            .filter(|row| row["request_id"] == id)
            .map(|row| (row["outcome"].as_str(), row["code"].as_str()))
            .collect();
        let expected: &[_] = match case.seen {
            Seen::AtEdge => &[],
            Seen::ByWorker => &[(Some("refused"), Some("invalid"))],
        };
        assert_eq!(ends, expected, "{path}, {}: what was audited", case.what);
    }
}

/// How many rows an organization has in a table.
async fn rows_of(system: &System, tenant: &Tenant) -> i64 {
    let database = system.database("superuser").await;
    sqlx::query_scalar("SELECT count(*) FROM mcp_configurations WHERE organization_id = $1")
        .bind(tenant.id)
        .fetch_one(&database)
        .await
        .expect("the query runs")
}

pub(crate) async fn bad_bodies_of_a_tool_call_are_refused_by_field(system: Arc<System>) {
    let tenant = system.organization().await;
    assert_eq!(tenant.user.get("/api/v1/me").await.status, 200);
    let mut trail = Trail::new(&system, &tenant);
    refuse_all(&mut trail, &tenant.user, "/api/v1/tool-calls", bad_bodies::of_a_tool_call("demo")).await;
}

pub(crate) async fn bad_bodies_of_a_configuration_are_refused_by_field_and_keep_nothing(system: Arc<System>) {
    let tenant = system.organization().await;
    let before = rows_of(&system, &tenant).await;
    let mut trail = Trail::new(&system, &tenant);
    let cases = bad_bodies::of_a_configuration(&system.demo_url);
    refuse_all(&mut trail, &tenant.admin, "/api/v1/mcp/configurations", cases).await;
    assert_eq!(rows_of(&system, &tenant).await, before, "something was half written");
    let database = system.database("superuser").await;
    let keys: i64 = sqlx::query_scalar("SELECT count(*) FROM tenant_keys WHERE organization_id = $1")
        .bind(tenant.id)
        .fetch_one(&database)
        .await
        .expect("the query runs");
    assert_eq!(keys, 0, "a refused registration made a key");
}

pub(crate) async fn bad_bodies_of_an_organization_are_refused_by_field_and_keep_nothing(system: Arc<System>) {
    let tenant = system.organization().await;
    let mark = format!("bad{}", Uuid::now_v7().simple());
    let operator = system.client(&system.seeded.operator_token);
    let mut trail = Trail::new(&system, &tenant);
    refuse_all(&mut trail, &operator, "/api/v1/organizations", bad_bodies::of_an_organization(&mark)).await;
    let database = system.database("superuser").await;
    let kept: i64 =
        sqlx::query_scalar("SELECT count(*) FROM organizations WHERE slug LIKE $1 || '%' OR name LIKE $1 || '%'")
            .bind(&mark)
            .fetch_one(&database)
            .await
            .expect("the query runs");
    assert_eq!(kept, 0, "something was half written");
}

pub(crate) async fn arguments_that_break_the_pinned_schema_do_not_touch_the_server(system: Arc<System>) {
    let tenant = system.organization().await;
    let witness = &system.servers.witness_url;
    tenant.register("witness", witness, json!({})).await;
    let sum = tenant.call("witness", "add", json!({ "a": 1, "b": 2 })).await;
    assert_eq!(sum.status, 200, "{}", sum.text);
    let before = stats(&system.http, witness).await["calls"].clone();
    assert_eq!(before["add"], 1, "the witness counts");

    let mut trail = Trail::new(&system, &tenant);
    refuse_all(&mut trail, &tenant.user, "/api/v1/tool-calls", bad_bodies::of_arguments("witness")).await;
    let id = trail.id();
    let body = json!({ "configuration": "witness", "tool": "no-such-tool", "arguments": {} });
    post(&tenant.user, "/api/v1/tool-calls", id, &serde_json::to_vec(&body).expect("JSON"))
        .await
        .problem(404, "unknown");
    assert_eq!(stats(&system.http, witness).await["calls"], before, "a refused call reached the server");
}

pub(crate) async fn what_is_unknown_and_what_is_anothers_are_told_apart_by_nobody(system: Arc<System>) {
    let (tenant, other) = (system.organization().await, system.organization().await);
    let theirs = other.register("theirs", &system.demo_url, json!({})).await;
    let nowhere = Uuid::now_v7().to_string();
    let call = async |configuration: &str| {
        let answer = tenant.call(configuration, "echo", json!({ "text": "x" })).await;
        without_instance(answer.problem(404, "unknown"))
    };
    let unknown = call(&nowhere).await;
    for configuration in [theirs.as_str(), "theirs", "no-such-name"] {
        assert_eq!(call(configuration).await, unknown, "{configuration}");
    }
    let read = async |client: &Client, method: Method, path: String| {
        let answer = client.send(client.request(method, &path)).await;
        without_instance(answer.problem(404, "unknown"))
    };
    for (method, rest) in [(Method::GET, ""), (Method::DELETE, ""), (Method::GET, "/tools")] {
        let unknown = read(&tenant.admin, method.clone(), format!("/api/v1/mcp/configurations/{nowhere}{rest}")).await;
        let foreign = read(&tenant.admin, method, format!("/api/v1/mcp/configurations/{theirs}{rest}")).await;
        assert_eq!(foreign, unknown);
    }
    assert_eq!(other.admin.get(&format!("/api/v1/mcp/configurations/{theirs}")).await.status, 200, "it is still there");
    tenant.call("demo", "no-such-tool", json!({})).await.problem(404, "unknown");
}

fn without_instance(mut problem: Value) -> Value {
    problem.as_object_mut().expect("an object").remove("instance");
    problem
}

pub(crate) async fn malformed_ids_cursors_limits_and_parameters_are_refused_by_name(system: Arc<System>) {
    let tenant = system.organization().await;
    let operator = system.client(&system.seeded.operator_token);
    let mut trail = Trail::new(&system, &tenant);
    let long = "c".repeat(1_025);
    let queries = [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=-1", "limit"),
        ("limit=x", "limit"),
        ("limit=", "limit"),
        ("limit=1e2", "limit"),
        ("limit=99999999999999999999", "limit"),
        ("limit=1%00", "limit"),
        ("cursor=", "cursor"),
        ("cursor=%00", "cursor"),
        (&format!("cursor={long}"), "cursor"),
        ("page=2", "page"),
        ("limit=5&offset=1", "offset"),
    ];
    for (client, path) in [(&tenant.admin, "/api/v1/mcp/configurations"), (&operator, "/api/v1/organizations")] {
        for (query, field) in queries {
            let request = client.request(Method::GET, &format!("{path}?{query}")).header("x-request-id", trail.id());
            let answer = client.send(request).await;
            assert_eq!(answer.problem(400, "invalid")["field"], field, "{path}?{query}");
        }
    }
    for id in ["not-an-id", "%00", "%ff", "0", "..%2Fme", "00000000-0000-0000-0000-00000000000g", "%27%3B--"] {
        for (method, rest) in [(Method::GET, ""), (Method::DELETE, ""), (Method::GET, "/tools")] {
            let path = format!("/api/v1/mcp/configurations/{id}{rest}");
            let answer =
                tenant.admin.send(tenant.admin.request(method, &path).header("x-request-id", trail.id())).await;
            assert_eq!(answer.problem(400, "invalid")["field"], "id", "{path}");
        }
    }
    trail.left_nothing().await;
    // Only the worker knows what a cursor means.
    for cursor in ["x", "no.id", ".", "%F0%9F%A6%80.x", "00000000-0000-0000-0000-000000000000"] {
        let answer = tenant.admin.get(&format!("/api/v1/mcp/configurations?cursor={cursor}")).await;
        assert_eq!(answer.problem(400, "invalid")["field"], "cursor", "{cursor}");
    }
}

pub(crate) async fn routes_and_methods_that_do_not_exist_say_so(system: Arc<System>) {
    let tenant = system.organization().await;
    let long = format!("/api/v1/{}", "x".repeat(8_000));
    for path in
        ["/api/v1/nope", "/api/v2/me", "/nope", "/api", "/api/v1/tool-calls/", "/api/v1/mcp", "/api/v1/ME", &long]
    {
        let problem = tenant.admin.get(path).await.problem(404, "route");
        assert_eq!(problem["retry"], "never");
    }
    let id = Uuid::now_v7();
    let wrong = [
        (Method::PATCH, "/api/v1/tool-calls".to_owned()),
        (Method::POST, "/api/v1/me".to_owned()),
        (Method::PATCH, "/api/v1/mcp/configurations".to_owned()),
        (Method::PATCH, format!("/api/v1/mcp/configurations/{id}")),
        (Method::DELETE, format!("/api/v1/mcp/configurations/{id}/tools")),
        (Method::DELETE, "/api/v1/organizations".to_owned()),
        (Method::OPTIONS, "/api/v1/me".to_owned()),
        (Method::from_bytes(b"BREW").expect("a method"), "/api/v1/me".to_owned()),
        (Method::TRACE, "/api/v1/me".to_owned()),
    ];
    for (method, path) in wrong {
        let answer = tenant.admin.send(tenant.admin.request(method.clone(), &path)).await;
        answer.problem(405, "method");
        // RFC 9110 section 15.5.6: the answer must say what is allowed.
        let allowed = answer.headers.get("allow").and_then(|value| value.to_str().ok()).unwrap_or_default();
        assert!(allowed.contains("GET") || allowed.contains("POST"), "{method} {path}: Allow: {allowed}");
        assert!(!allowed.split(", ").any(|one| one == method.as_str()), "{method} {path}: Allow: {allowed}");
    }
    let head = tenant.admin.send(tenant.admin.request(Method::HEAD, "/api/v1/me")).await;
    assert_eq!((head.status.as_u16(), head.text.as_str()), (200, ""));
    let head = tenant.admin.send(tenant.admin.request(Method::HEAD, "/api/v1/nope")).await;
    assert_eq!((head.status.as_u16(), head.text.as_str()), (404, ""));
}

pub(crate) async fn a_duplicate_name_is_a_conflict(system: Arc<System>) {
    let tenant = system.organization().await;
    let body = json!({ "name": "demo", "endpoint": system.demo_url });
    let problem = tenant.admin.post("/api/v1/mcp/configurations", &body).await.problem(409, "conflict");
    assert_eq!(problem["field"], "name");
    assert_eq!(rows_of(&system, &tenant).await, 1);
    // A user's own of the same name is another thing; twice is a conflict again.
    let own = json!({ "name": "demo", "scope": "user", "endpoint": system.demo_url });
    assert_eq!(tenant.user.post("/api/v1/mcp/configurations", &own).await.status, 201);
    tenant.user.post("/api/v1/mcp/configurations", &own).await.problem(409, "conflict");

    let operator = system.client(&system.seeded.operator_token);
    let body = json!({ "slug": "acme", "name": "Another" });
    let problem = operator.post("/api/v1/organizations", &body).await.problem(409, "conflict");
    assert_eq!(problem["field"], "slug");
    tenant.admin.post("/api/v1/organizations", &body).await.problem(403, "forbidden");
}

pub(crate) async fn a_body_that_is_not_json_by_its_own_word_is_refused(system: Arc<System>) {
    let tenant = system.organization().await;
    assert_eq!(tenant.user.get("/api/v1/me").await.status, 200);
    let mut trail = Trail::new(&system, &tenant);
    let body = json!({ "configuration": "demo", "tool": "echo", "arguments": { "text": "x" } }).to_string();
    for kind in
        ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "application/json+x", "json", ""]
    {
        for path in ["/api/v1/tool-calls", "/api/v1/mcp/configurations", "/api/v1/organizations"] {
            let request = tenant.user.request(Method::POST, path).header("x-request-id", trail.id());
            let answer = tenant.user.send(request.header("content-type", kind).body(body.clone())).await;
            answer.problem(415, "media_type");
        }
    }
    let bare =
        tenant.user.request(Method::POST, "/api/v1/tool-calls").header("x-request-id", trail.id()).body(body.clone());
    tenant.user.send(bare).await.problem(415, "media_type");
    trail.left_nothing().await;
    for kind in ["application/json", "application/json; charset=utf-8", "APPLICATION/JSON ;charset=UTF-8"] {
        let request =
            tenant.user.request(Method::POST, "/api/v1/tool-calls").header("content-type", kind).body(body.clone());
        assert_eq!(tenant.user.send(request).await.status, 200, "{kind}");
    }
}

pub(crate) async fn odd_but_honest_arguments_arrive_as_they_are(system: Arc<System>) {
    let tenant = system.organization().await;
    let call = async |arguments: &str, tool: &str| {
        let body = format!(r#"{{"configuration":"demo","tool":"{tool}","arguments":{arguments}}}"#);
        post(&tenant.user, "/api/v1/tool-calls", Uuid::now_v7().to_string(), body.as_bytes()).await
    };
    // Text that is awkward in C, in logs or in PostgreSQL.
    for (text, told) in [
        (r"a\u0000b", "a\0b"),
        (r"\ud83e\udd80", "🦀"),
        (r"\u2028\u202e\u200b", "\u{2028}\u{202e}\u{200b}"),
        ("'; DROP", "'; DROP"),
    ] {
        let answer = call(&format!(r#"{{"text":"{text}"}}"#), "echo").await;
        assert_eq!(answer.status, 200, "{text}: {}", answer.text);
        assert_eq!(answer.json()["result"]["content"][0]["text"], told);
    }
    // A number that no double holds is refused: the schema could not be checked.
    for number in ["1e400", "-1e400", &"9".repeat(400)] {
        let problem = call(&format!(r#"{{"a":{number},"b":1}}"#), "add").await.problem(400, "invalid");
        assert_eq!(problem["field"], "arguments");
    }
    let answer = call(r#"{"a":9007199254740993,"b":0}"#, "add").await;
    assert_eq!(answer.json()["result"]["structuredContent"]["sum"].to_string(), "9007199254740993", "{}", answer.text);
}

pub(crate) async fn long_numbers_reach_the_server_digit_by_digit(system: Arc<System>) {
    let tenant = system.organization().await;
    let path = format!("/record/modern/digits-{}", tenant.id);
    tenant.register("recording", &system.faulty.url(&path), json!({})).await;
    let digits = [
        &"1234567890".repeat(20),
        &format!("0.{}", "1234567890".repeat(20)),
        "12345678901234567890123",
        "1E+2",
        "-0.0",
    ];
    for number in digits {
        let body =
            format!(r#"{{"configuration":"recording","tool":"{TOOL}","arguments":{{"text":"x","n":{number}}}}}"#);
        let answer = post(&tenant.user, "/api/v1/tool-calls", Uuid::now_v7().to_string(), body.as_bytes()).await;
        assert_eq!(answer.status, 200, "{number}: {}", answer.text);
        let calls = system.faulty.recorded(&path);
        let arrived = &calls.iter().rfind(|asked| asked.method() == "tools/call").expect("a call").text;
        // Python keeps whole numbers of any length; it writes other numbers its own way.
        let is_kept = !system.through_fastmcp || number.bytes().all(|byte| byte.is_ascii_digit());
        assert!(!is_kept || arrived.contains(number), "{number}: {arrived}");
    }
}
