//! `POST /api/v1/mcp/test`: how far a connection comes, on both paths, and that neither the trial nor
//! its report can be turned against us.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use uuid::Uuid;

use super::{CONFIGURATIONS, item, server, with};
use crate::{
    faulty::{TOOL, UPSTREAM_BODY},
    servers::BEARER,
    upstreams::{BOTH, known},
    world::{Client, System},
};

const TEST: &str = "/api/v1/mcp/test";

async fn try_out(client: &Client, body: &Value) -> Value {
    let answer = client.post(TEST, body).await;
    assert_eq!(answer.status, 200, "{body}: {}", answer.text);
    for secret in [BEARER, UPSTREAM_BODY] {
        assert!(!answer.text.contains(secret), "{body}: {}", answer.text);
    }
    answer.json()
}

/// The stages of a report that were passed, and the one that was not.
fn stages(report: &Value) -> (Vec<&str>, Option<&str>) {
    let stages = report["stages"].as_array().expect("stages");
    assert!(stages.iter().all(|stage| stage["ms"].as_f64().is_some_and(|ms| ms >= 0.0)), "{report}");
    let of =
        |ok: bool| stages.iter().filter(move |stage| stage["ok"] == ok).filter_map(|stage| stage["stage"].as_str());
    let failed: Vec<&str> = of(false).collect();
    assert!(failed.len() <= 1, "{report}");
    assert_eq!(report["ok"], failed.is_empty(), "{report}");
    assert!(failed.is_empty() || stages.last().is_some_and(|last| last["ok"] == false), "{report}");
    (of(true).collect(), failed.first().copied())
}

pub(crate) async fn a_trial_of_a_good_server_passes_every_stage_and_lists_its_tools(system: Arc<System>) {
    let tenant = system.organization().await;
    for known in known(&system) {
        let body = with(&json!({ "endpoint": known.endpoint }), known.more.clone());
        let report = try_out(&tenant.admin, &body).await;
        let all = vec!["address", "dns", "tcp", "http", "protocol", "auth", "tools"];
        assert_eq!(stages(&report), (all, None), "{}: {report}", known.name);
        let tools = report["tools"].as_array().expect("tools");
        let found = tools.iter().find(|tool| tool["name"] == known.tool).expect("the tool");
        assert_eq!(found["problems"], json!([]), "{}: {report}", known.name);
        let protocol = &report["stages"][4]["detail"];
        assert!(protocol.as_str().is_some_and(|detail| detail.starts_with("MCP 20")), "{}: {report}", known.name);
    }
    // Nothing of it was kept.
    let list = tenant.admin.get(CONFIGURATIONS).await.json();
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1), "{list}");
}

pub(crate) async fn a_trial_says_at_which_stage_a_server_fails_and_what_to_do(system: Arc<System>) {
    let tenant = system.organization().await;
    let tls = system.demo_url.replace("http://", "https://");
    let cases = [
        (tls.as_str(), "tls", "TLS"),
        (system.servers.closed_url.as_str(), "tcp", "Nothing listens"),
        ("https://does-not-exist.invalid-host-of-switchboard.example/mcp", "dns", "public internet"),
        ("https://10.0.0.1/mcp", "address", "public internet"),
        ("http://169.254.169.254/latest/meta-data/", "address", "public internet"),
        ("https://mcp.example.com:5432/mcp", "address", "port"),
    ];
    for (endpoint, stage, says) in cases {
        for via in BOTH {
            let report = try_out(&tenant.admin, &json!({ "endpoint": endpoint, "via": via })).await;
            assert_eq!(stages(&report).1, Some(stage), "{endpoint} via {via}: {report}");
            let last = report["stages"].as_array().and_then(|stages| stages.last()).expect("a stage");
            assert!(last["detail"].as_str().is_some_and(|detail| detail.contains(says)), "{endpoint}: {report}");
            assert!(report["hint"].as_str().is_some_and(|hint| hint.len() > 20), "{endpoint}: {report}");
            assert_eq!(report["tools"], json!([]));
        }
    }
    // What the server answers. The service cannot tell all of it apart.
    for (path, native, service) in [
        ("/status/404", "http", "protocol"),
        ("/status/500", "http", "protocol"),
        ("/status/401", "auth", "auth"),
        ("/not-json", "protocol", "protocol"),
        ("/cut", "http", "protocol"),
        ("/redirect?http://169.254.169.254/", "http", "protocol"),
    ] {
        for via in BOTH {
            let report = try_out(&tenant.admin, &json!({ "endpoint": system.faulty.url(path), "via": via })).await;
            let expected = if via == "native" && !system.through_fastmcp { native } else { service };
            assert_eq!(stages(&report).1, Some(expected), "{path} via {via}: {report}");
            assert!(report["hint"].as_str().is_some_and(|hint| hint.len() > 20), "{path}: {report}");
        }
    }
}

pub(crate) async fn a_trial_of_a_server_that_hangs_ends_within_its_limit(system: Arc<System>) {
    let tenant = system.organization().await;
    let started = Instant::now();
    let trials = BOTH.map(|via| {
        let (admin, body) = (&tenant.admin, json!({ "endpoint": system.faulty.url("/hang"), "via": via }));
        async move { (via, try_out(admin, &body).await) }
    });
    for (via, report) in futures::future::join_all(trials).await {
        assert_eq!(stages(&report).1, Some("http"), "{via}: {report}");
    }
    assert!(started.elapsed() < Duration::from_secs(29), "{:?}", started.elapsed());
}

pub(crate) async fn a_trial_tries_the_secret_and_never_shows_it(system: Arc<System>) {
    let tenant = system.organization().await;
    for via in BOTH {
        let body = json!({ "endpoint": system.servers.protected_url, "via": via });
        let bearer = |token: &str| with(&body, json!({ "auth": { "type": "bearer", "token": token } }));
        let passed = try_out(&tenant.admin, &bearer(BEARER)).await;
        assert_eq!(stages(&passed).1, None, "{passed}");
        for (body, says) in [(bearer("wr0ng-t0ken"), "secret"), (body.clone(), "credential")] {
            let report = try_out(&tenant.admin, &body).await;
            assert_eq!(stages(&report).1, Some("auth"), "{via}: {report}");
            assert!(report["hint"].as_str().is_some_and(|hint| hint.contains(says)), "{via}: {report}");
            assert!(!report.to_string().contains("wr0ng"), "{report}");
        }
        // A header of the server's own gets there too.
        let path = format!("/record/modern/tried-{via}-{}", tenant.id);
        let auth = json!({ "auth": { "type": "header", "name": "X-Api-Key", "value": "k3y-of-a-trial" } });
        let body = with(&json!({ "endpoint": system.faulty.url(&path), "via": via }), auth);
        assert_eq!(stages(&try_out(&tenant.admin, &body).await).1, None);
        let asked = system.faulty.recorded(&path);
        assert!(
            !asked.is_empty() && asked.iter().all(|asked| asked.header("x-api-key") == "k3y-of-a-trial"),
            "{asked:?}"
        );
    }
}

pub(crate) async fn a_trial_of_a_saved_configuration_pins_its_tools_and_notes_its_secret(system: Arc<System>) {
    let tenant = system.organization().await;
    let database = system.database("superuser").await;
    for via in BOTH {
        let path = format!("/record/legacy/saved-{via}-{}", tenant.id);
        let auth = json!({ "via": via, "auth": { "type": "bearer", "token": "s3cret-of-a-saved-one" } });
        let id = tenant.register(via, &system.faulty.url(&path), auth).await;
        let report = try_out(&tenant.admin, &json!({ "configuration": id })).await;
        assert_eq!(stages(&report).1, None, "{report}");
        let names: Vec<&Value> = report["tools"].as_array().expect("tools").iter().map(|tool| &tool["name"]).collect();
        assert_eq!(names, [TOOL, "größe"], "{report}");
        assert_eq!(report["tools"][1]["problems"][0]["code"], "name_characters", "{report}");
        assert!(report["hint"].is_string(), "{report}");
        let pinned: Vec<String> =
            sqlx::query_scalar("SELECT name FROM mcp_tools WHERE configuration_id::text = $1 ORDER BY name")
                .bind(&id)
                .fetch_all(&database)
                .await
                .expect("the pins");
        assert_eq!(pinned, ["größe", TOOL], "{via}");
        assert!(system.faulty.recorded(&path).iter().all(|asked| asked.method() != "tools/call"));
        let noted = "SELECT to_jsonb(c) FROM mcp_configurations c WHERE id::text = $1 AND secret_state = 'valid'";
        system.eventually("the state of the secret", noted, &id).await;
        // A disabled server may be tried out: that is how one finds out.
        let off = with(&server(via, via, &system.faulty.url(&path)), json!({ "enabled": false }));
        assert_eq!(super::replace(&system, &tenant.admin, &id, &off).await.status, 200);
        assert_eq!(stages(&try_out(&tenant.admin, &json!({ "configuration": id })).await).1, None);
    }
}

pub(crate) async fn who_may_register_a_server_may_try_it_out_and_nobody_else(system: Arc<System>) {
    let (tenant, other) = (system.organization().await, system.organization().await);
    let shared = tenant.register("shared", &system.demo_url, json!({})).await;
    let unsaved = json!({ "endpoint": system.demo_url });
    tenant.user.post(TEST, &unsaved).await.problem(403, "forbidden");
    tenant.user.post(TEST, &json!({ "configuration": shared })).await.problem(403, "forbidden");
    assert_eq!(stages(&try_out(&tenant.user, &with(&unsaved, json!({ "scope": "user" }))).await).1, None);
    for id in [shared.as_str(), &Uuid::now_v7().to_string()] {
        other.admin.post(TEST, &json!({ "configuration": id })).await.problem(404, "unknown");
    }
    assert_eq!(tenant.admin.get(&item(&shared)).await.status, 200);
    for (body, field) in [
        (json!({}), "endpoint"),
        (json!({ "configuration": "shared" }), "configuration"),
        (json!({ "configuration": shared, "endpoint": system.demo_url }), "endpoint"),
        (json!({ "configuration": shared, "auth": { "type": "none" } }), "auth"),
        (json!({ "endpoint": "mcp" }), "endpoint"),
        (json!({ "endpoint": "http://user:secret@127.0.0.1/" }), "endpoint"),
        (json!({ "endpoint": 1 }), "endpoint"),
        (json!({ "endpoint": system.demo_url, "command": "/bin/sh" }), "command"),
        (json!({ "endpoint": system.demo_url, "transport": "stdio" }), "endpoint"),
        (json!({ "endpoint": system.demo_url, "auth": { "type": "bearer", "token": "a b" } }), "auth.token"),
        (json!({ "endpoint": system.demo_url, "auth": { "type": "oauth" } }), "auth.type"),
        (
            json!({ "endpoint": system.demo_url, "auth": { "type": "header", "name": "Host", "value": "x" } }),
            "auth.name",
        ),
    ] {
        let answer = tenant.admin.post(TEST, &body).await;
        assert_eq!(answer.problem(400, "invalid")["field"], field, "{body}: {}", answer.text);
        assert!(!answer.text.contains("secret@") && !answer.text.contains("/bin/sh"), "{}", answer.text);
    }
}
