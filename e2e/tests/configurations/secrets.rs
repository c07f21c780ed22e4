//! Secrets of configurations: kept, replaced in place, removed; where they go, and what is shown of them.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{CONFIGURATIONS, item, replace, server, tag, with};
use crate::{
    faulty::TOOL,
    servers::BEARER,
    upstreams::{BOTH, listed},
    world::{Client, System},
};

const ECHO: &str = "echo";

fn text() -> Value {
    json!({ "text": "x" })
}

/// Waits until the state of a secret is shown, and answers `auth` as it is shown.
async fn shown(client: &Client, id: &str, state: &str) -> Value {
    let waiting = async {
        loop {
            let auth = client.get(&item(id)).await.json()["auth"].clone();
            if auth["state"] == state {
                return auth;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let shown = tokio::time::timeout(crate::world::PATIENCE, waiting).await;
    shown.unwrap_or_else(|_| panic!("the secret never was {state}"))
}

pub(crate) async fn a_secret_is_kept_unless_it_is_given_again_and_then_replaced_in_place(system: Arc<System>) {
    let tenant = system.organization().await;
    let database = system.database("superuser").await;
    for via in BOTH {
        let body = server(via, via, &system.servers.protected_url);
        let bearer = |token: &str| with(&body, json!({ "auth": { "type": "bearer", "token": token } }));
        let made = tenant.admin.post(CONFIGURATIONS, &bearer(BEARER)).await;
        assert_eq!(made.status, 201, "{}", made.text);
        let id = made.json()["id"].as_str().expect("an id").to_owned();
        let put = async |body: &Value| {
            let replaced = replace(&system, &tenant.admin, &id, body).await;
            assert_eq!(replaced.status, 200, "{}", replaced.text);
            assert!(!replaced.text.contains(BEARER), "{}", replaced.text);
            replaced.json()["auth"].clone()
        };
        let call = async || tenant.call(via, ECHO, text()).await;
        let generation = async || -> i64 {
            let sql = "SELECT secret_generation FROM mcp_configurations WHERE id::text = $1";
            sqlx::query_scalar(sql).bind(&id).fetch_one(&database).await.expect("a row")
        };
        assert_eq!(call().await.status, 200);
        let first = generation().await;
        // Left out, or named without a token: kept.
        for kept in [body.clone(), with(&body, json!({ "auth": { "type": "bearer" } }))] {
            assert_eq!(put(&kept).await["set_at"], made.json()["auth"]["set_at"], "{via}");
            assert_eq!(call().await.status, 200, "{via}: the kept token opens the server");
            assert_eq!(generation().await, first);
        }
        // Given: another one in its place, at once.
        let wrong = put(&bearer("an0ther-token-9876")).await;
        assert_eq!((&wrong["hint"], &wrong["state"]), (&json!("9876"), &json!("unused")));
        assert_ne!(wrong["set_at"], made.json()["auth"]["set_at"]);
        call().await.problem(424, "reconnect");
        assert_eq!(generation().await, first + 1, "{via}: an older seal would open");
        put(&bearer(BEARER)).await;
        assert_eq!(call().await.status, 200);
        // `none` removes it, for good.
        assert_eq!(put(&with(&body, json!({ "auth": { "type": "none" } }))).await, json!({ "type": "none" }));
        call().await.problem(424, "reconnect");
        let sealed: Option<Vec<u8>> = sqlx::query_scalar("SELECT secret FROM mcp_configurations WHERE id::text = $1")
            .bind(&id)
            .fetch_one(&database)
            .await
            .expect("a row");
        assert_eq!(sealed, None, "{via}");
        for (auth, field) in [
            (json!({ "type": "bearer" }), "auth.token"),
            (json!({ "type": "header", "name": "X-Api-Key" }), "auth.value"),
        ] {
            let answer = replace(&system, &tenant.admin, &id, &with(&body, json!({ "auth": auth }))).await;
            assert_eq!(answer.problem(400, "invalid")["field"], field, "there is nothing to keep");
        }
        put(&bearer(BEARER)).await;
        assert!(generation().await > first + 2, "{via}: generations of secrets never fall");
        assert_eq!(call().await.status, 200);
    }
}

pub(crate) async fn a_secret_does_not_follow_its_configuration_to_another_server(system: Arc<System>) {
    let tenant = system.organization().await;
    let path = format!("/record/modern/thief-{}", tenant.id);
    let thief = system.faulty.url(&path);
    let auth = json!({ "auth": { "type": "bearer", "token": BEARER } });
    let id = tenant.register("own", &system.servers.protected_url, auth.clone()).await;
    let before = tenant.admin.get(&item(&id)).await;
    for auth in [json!({}), json!({ "auth": { "type": "bearer" } })] {
        let answer = replace(&system, &tenant.admin, &id, &with(&server("native", "own", &thief), auth)).await;
        assert_eq!(answer.problem(400, "invalid")["field"], "auth");
    }
    assert_eq!(tenant.admin.get(&item(&id)).await.text, before.text);
    // Another path of the same server keeps it; another server gets what is given for it.
    let elsewhere = format!("{}?tenant=1", system.servers.protected_url);
    assert_eq!(replace(&system, &tenant.admin, &id, &server("native", "own", &elsewhere)).await.status, 200);
    let given = json!({ "auth": { "type": "bearer", "token": "for-the-other-server" } });
    assert_eq!(replace(&system, &tenant.admin, &id, &with(&server("native", "own", &thief), given)).await.status, 200);
    assert_eq!(tenant.call("own", TOOL, text()).await.status, 200);
    let asked = system.faulty.recorded(&path);
    assert!(!asked.is_empty());
    for asked in asked {
        assert_eq!(asked.header("authorization"), "Bearer for-the-other-server");
    }
}

pub(crate) async fn a_header_of_the_servers_own_carries_the_secret_to_it_and_nowhere_else(system: Arc<System>) {
    const VALUE: &str = "Key c4nary-of-a-header-5512";
    let tenant = system.organization().await;
    for via in BOTH {
        for era in ["modern", "legacy"] {
            let path = format!("/record/{era}/header-{via}-{}", tenant.id);
            let name = format!("{era}.{via}");
            let body = server(via, &name, &system.faulty.url(&path));
            let header = |name: &str| json!({ "auth": { "type": "header", "name": name, "value": VALUE } });
            let made = tenant.admin.post(CONFIGURATIONS, &with(&body, header("X-Api-Key"))).await;
            assert_eq!(made.status, 201, "{}", made.text);
            let auth = &made.json()["auth"];
            assert_eq!((&auth["type"], &auth["name"]), (&json!("header"), &json!("X-Api-Key")), "{auth}");
            assert_eq!((&auth["hint"], &auth["state"]), (&json!("5512"), &json!("unused")), "{auth}");
            let id = made.json()["id"].as_str().expect("an id").to_owned();
            let answer = tenant.call(&name, TOOL, text()).await;
            assert_eq!(answer.status, 200, "{}", answer.text);
            let asked = system.faulty.recorded(&path);
            assert!(asked.iter().any(|asked| asked.method() == "tools/call"));
            for asked in &asked {
                assert_eq!(asked.header("x-api-key"), VALUE, "{via} {era}: {asked:?}");
                assert_eq!(asked.header("authorization"), "", "{via} {era}: {asked:?}");
            }
            // Renamed, its value stays.
            let renamed = with(&body, json!({ "auth": { "type": "header", "name": "X-Other-Key" } }));
            let replaced = replace(&system, &tenant.admin, &id, &renamed).await;
            assert_eq!(replaced.json()["auth"]["set_at"], auth["set_at"], "{}", replaced.text);
            assert_eq!(tenant.call(&name, TOOL, text()).await.status, 200);
            let renamed = system.faulty.recorded(&path).split_off(asked.len());
            let calls: Vec<_> = renamed.iter().filter(|asked| asked.method() == "tools/call").collect();
            assert!(!calls.is_empty());
            for asked in calls {
                assert_eq!((asked.header("x-other-key"), asked.header("x-api-key")), (VALUE, ""), "{via} {era}");
            }
            let said = [made.text, answer.text, replaced.text, listed(&tenant.admin, &id).await.text];
            assert!(said.iter().all(|text| !text.contains(VALUE)), "{said:?}");
        }
    }
    for name in ["Host", "Content-Length", "Mcp-Session-Id", "Cookie", "Authorization", "Connection", "a b", ""] {
        let auth = json!({ "auth": { "type": "header", "name": name, "value": VALUE } });
        let answer = tenant.admin.post(CONFIGURATIONS, &with(&server("native", "h", &system.demo_url), auth)).await;
        assert_eq!(answer.problem(400, "invalid")["field"], "auth.name", "{name}");
        assert!(!answer.text.contains(VALUE));
    }
}

pub(crate) async fn what_the_server_said_to_a_secret_is_shown_and_is_no_change(system: Arc<System>) {
    let tenant = system.organization().await;
    for via in BOTH {
        let body = server(via, via, &system.servers.protected_url);
        let bearer = |token: &str| with(&body, json!({ "auth": { "type": "bearer", "token": token } }));
        let made = tenant.admin.post(CONFIGURATIONS, &bearer(BEARER)).await;
        let id = made.json()["id"].as_str().expect("an id").to_owned();
        let auth = &made.json()["auth"];
        assert_eq!((&auth["state"], &auth["state_at"]), (&json!("unused"), &Value::Null), "{auth}");
        assert_eq!(tenant.call(via, ECHO, text()).await.status, 200);
        let valid = shown(&tenant.user, &id, "valid").await;
        assert!(valid["state_at"].is_string(), "{valid}");
        let read = tenant.admin.get(&item(&id)).await;
        assert_eq!(tag(&read), tag(&made), "{via}: a use is no change");
        assert_eq!(read.json()["updated_at"], made.json()["updated_at"]);
        // Not written again while it stays the same.
        assert_eq!(tenant.call(via, ECHO, text()).await.status, 200);
        assert_eq!(shown(&tenant.user, &id, "valid").await, valid);
        // A wrong one; and one that says itself that it is over.
        for (token, state) in [("wr0ng-token", "refused"), ("e30.eyJleHAiOjEwMDAwMDAwMDB9.c2ln", "expired")] {
            assert_eq!(replace(&system, &tenant.admin, &id, &bearer(token)).await.json()["auth"]["state"], "unused");
            listed(&tenant.user, &id).await.problem(424, "reconnect");
            shown(&tenant.user, &id, state).await;
        }
        // What was seen holds for the address it was seen at.
        assert_eq!(replace(&system, &tenant.admin, &id, &bearer(BEARER)).await.status, 200);
        assert_eq!(tenant.call(via, ECHO, text()).await.status, 200);
        shown(&tenant.user, &id, "valid").await;
        let renamed = with(&body, json!({ "description": "renamed" }));
        assert_eq!(replace(&system, &tenant.admin, &id, &renamed).await.json()["auth"]["state"], "valid");
        let moved = with(&body, json!({ "endpoint": format!("{}?x=1", system.servers.protected_url) }));
        assert_eq!(replace(&system, &tenant.admin, &id, &moved).await.json()["auth"]["state"], "unused");
    }
}
