//! Every write is a version, under a tag, and no version is ever lost.

use std::sync::Arc;

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{item, operator, withdraw, write};
use crate::world::{Client, System};

pub(crate) async fn every_write_of_a_prompt_is_a_version_that_outlives_it(system: Arc<System>) {
    let tenant = system.organization().await;
    let global = format!("global-{}", tenant.id.simple());
    for (client, scope, name) in [
        (&operator(&system), "global", global.as_str()),
        (&tenant.admin, "organization", "kept"),
        (&tenant.user, "user", "kept"),
    ] {
        let prompt = write(client, scope, name, json!({ "content": "one" })).await;
        assert_eq!(
            (&prompt["version"], &prompt["priority"], &prompt["enabled"]),
            (&json!(1), &json!(100), &json!(true))
        );
        let read = client.get(&item(&prompt)).await;
        assert_eq!((&read.headers["etag"], read.json()), (&"\"1\"".parse().expect("a tag"), prompt.clone()));
        let body = json!({ "name": name, "content": "two", "priority": 7, "enabled": false });
        let changed = client.put(&item(&prompt), "\"1\"", &body).await;
        assert_eq!(changed.status, 200, "{}", changed.text);
        assert_eq!(changed.headers["etag"], "\"2\"");
        client.put(&item(&prompt), "\"1\"", &body).await.problem(412, "stale");
        client.send(client.request(Method::PUT, &item(&prompt)).json(&body)).await.problem(428, "precondition");
        let stale = client.request(Method::DELETE, &item(&prompt)).header("if-match", "\"1\"");
        client.send(stale).await.problem(412, "stale");
        assert_eq!(client.delete(&item(&prompt)).await.status, 204);
        for gone in [client.get(&item(&prompt)).await, client.delete(&item(&prompt)).await] {
            gone.problem(404, "unknown");
        }
        let path = format!("{}/versions", item(&prompt));
        let versions = client.get(&path).await.json();
        let said: Vec<(Value, Value, Value, Value)> = versions["items"]
            .as_array()
            .expect("items")
            .iter()
            .map(|version| {
                let of = |field: &str| version[field].clone();
                (of("version"), of("content"), of("priority"), of("removed"))
            })
            .collect();
        assert_eq!(
            said,
            [
                (json!(3), json!("two"), json!(7), json!(true)),
                (json!(2), json!("two"), json!(7), json!(false)),
                (json!(1), json!("one"), json!(100), json!(false)),
            ],
            "{scope}"
        );
        assert_eq!(versions["items"][2]["sha256"], prompt["sha256"]);
        assert_eq!(versions["items"][0]["written_by"], prompt["created_by"]);
        assert_eq!(page_by_page(client, &path).await, versions["items"]);
        client.get(&format!("{path}?cursor=x")).await.problem(400, "invalid");
    }
    // What is gone is nobody else's to read.
    let prompt = write(&tenant.admin, "organization", "gone", json!({})).await;
    assert_eq!(tenant.admin.delete(&item(&prompt)).await.status, 204);
    tenant.user.get(&format!("{}/versions", item(&prompt))).await.problem(404, "unknown");
    tenant.admin.get(&format!("/api/v1/prompts/{}/versions", Uuid::now_v7())).await.problem(404, "unknown");
}

/// Two pages of a list of three, put together.
async fn page_by_page(client: &Client, path: &str) -> Value {
    let first = client.get(&format!("{path}?limit=2")).await.json();
    let next = first["next"].as_str().expect("a second page");
    let second = client.get(&format!("{path}?limit=2&cursor={next}")).await.json();
    assert!(second["next"].is_null());
    let pages = [first["items"].as_array().cloned(), second["items"].as_array().cloned()];
    json!(pages.into_iter().flatten().flatten().collect::<Vec<_>>())
}

pub(crate) async fn of_many_who_replace_the_same_version_of_a_prompt_one_wins(system: Arc<System>) {
    let tenant = system.organization().await;
    let prompt = write(&tenant.admin, "organization", "contested", json!({})).await;
    let path = item(&prompt);
    let bodies: Vec<Value> = (0..10).map(|n| json!({ "name": "contested", "content": format!("by {n}") })).collect();
    let answers = join_all(bodies.iter().map(|body| tenant.admin.put(&path, "\"1\"", body))).await;
    let won = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(won, 1, "{answers:?}");
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        answer.problem(412, "stale");
    }
    let versions = tenant.admin.get(&format!("{path}/versions")).await.json();
    assert_eq!(versions["items"].as_array().map(Vec::len), Some(2), "{versions}");
}

pub(crate) async fn a_prompt_changed_by_hand_is_a_version_too(system: Arc<System>) {
    let tenant = system.organization().await;
    let operator = operator(&system);
    let global = write(&operator, "global", &format!("global-{}", tenant.id.simple()), json!({})).await;
    let id: Uuid = global["id"].as_str().expect("an id").parse().expect("a uuid");
    let superuser = system.database("superuser").await;
    let generation = "SELECT generation FROM prompt_generations WHERE organization_id = $1";
    let before: i64 = sqlx::query_scalar(generation).bind(Uuid::nil()).fetch_one(&superuser).await.expect("a number");
    sqlx::query("UPDATE system_prompts SET content = 'by hand', updated_by = 'psql' WHERE id = $1")
        .bind(id)
        .execute(&superuser)
        .await
        .expect("it is changed");
    let after: i64 = sqlx::query_scalar(generation).bind(Uuid::nil()).fetch_one(&superuser).await.expect("a number");
    superuser.close().await;
    assert!(after > before, "caches would not hear of it: {before}, {after}");
    let versions = operator.get(&format!("{}/versions", item(&global))).await.json();
    assert_eq!(
        (&versions["items"][0]["content"], &versions["items"][0]["written_by"]),
        (&json!("by hand"), &json!("psql"))
    );
    withdraw(&operator, &global).await;
}
