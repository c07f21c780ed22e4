//! `PUT` and what it costs those who did not look.

use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};
use stack::issuer::Role;
use uuid::Uuid;

use super::{CONFIGURATIONS, item, replace, replace_if, server, tag, with};
use crate::{
    bad_bodies,
    faulty::TOOL,
    upstreams::{BOTH, listed},
    world::{PATIENCE, System},
};

pub(crate) async fn a_configuration_is_replaced_by_whoever_read_its_latest_generation(system: Arc<System>) {
    let tenant = system.organization().await;
    let body = json!({ "name": "first", "endpoint": system.demo_url, "description": "as it was" });
    let made = tenant.admin.post(CONFIGURATIONS, &body).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let id = made.json()["id"].as_str().expect("an id").to_owned();
    assert_eq!(tag(&tenant.user.get(&item(&id)).await), tag(&made), "reading and registering agree on the tag");

    let new =
        json!({ "name": "second", "endpoint": system.demo_url, "timeout_ms": 5_000, "retries": 2, "name_prefix": "" });
    let missing = replace_if(&tenant.admin, &id, None, &new).await;
    assert_eq!(missing.problem(428, "precondition")["field"], "If-Match");
    for stale in ["\"999\"", "W/\"1\"", "\"\"", "\"else\""] {
        replace_if(&tenant.admin, &id, Some(stale), &new).await.problem(412, "stale");
    }
    for malformed in ["1", "\"1", "x\"1\""] {
        let answer = replace_if(&tenant.admin, &id, Some(malformed), &new).await;
        assert_eq!(answer.problem(400, "invalid")["field"], "If-Match", "{malformed}");
    }
    assert_eq!(tenant.admin.get(&item(&id)).await.text, made.text, "nothing was half written");

    // By another admin, so that it is told who did what.
    let subject = format!("second-{}", tenant.id);
    let other = system.client(&system.token(tenant.id, &subject, Role::Admin));
    let replaced = replace_if(&other, &id, Some(&tag(&made)), &new).await;
    assert_eq!(replaced.status, 200, "{}", replaced.text);
    assert_ne!(tag(&replaced), tag(&made));
    let (before, after) = (made.json(), replaced.json());
    for (field, value) in
        [("name", json!("second")), ("description", Value::Null), ("timeout_ms", json!(5_000)), ("retries", json!(2))]
    {
        assert_eq!(after[field], value, "{field}");
    }
    assert_eq!((&after["name_prefix"], &after["updated_by"]), (&json!(""), &json!(subject)));
    assert_eq!((&after["created_by"], &after["created_at"]), (&before["created_by"], &before["created_at"]));
    assert_ne!(after["updated_at"], before["updated_at"]);
    assert_eq!(tenant.admin.get(&item(&id)).await.text, replaced.text);
    replace_if(&tenant.admin, &id, Some(&tag(&made)), &new).await.problem(412, "stale");
    // One of several tags, or none in particular.
    let several = format!("\"999\", {}", tag(&replaced));
    assert_eq!(replace_if(&tenant.admin, &id, Some(&several), &new).await.status, 200);
    assert_eq!(replace(&system, &tenant.admin, &id, &new).await.status, 200);

    let delete = |tag: String| tenant.admin.request(Method::DELETE, &item(&id)).header("if-match", tag);
    tenant.admin.send(delete(tag(&replaced))).await.problem(412, "stale");
    let latest = tag(&tenant.admin.get(&item(&id)).await);
    assert_eq!(tenant.admin.send(delete(latest)).await.status, 204);
    replace(&system, &tenant.admin, &id, &new).await.problem(404, "unknown");
}

pub(crate) async fn of_many_who_replace_the_same_generation_one_wins(system: Arc<System>) {
    let tenant = system.organization().await;
    let id = tenant.register("contested", &system.demo_url, json!({})).await;
    let read = tag(&tenant.admin.get(&item(&id)).await);
    let bodies: Vec<Value> =
        (0..12).map(|writer| server("native", "contested", &format!("{}?writer={writer}", system.demo_url))).collect();
    let writing = bodies.iter().map(|body| replace_if(&tenant.admin, &id, Some(&read), body));
    let answers = futures::future::join_all(writing).await;
    let won: Vec<_> = answers.iter().filter(|answer| answer.status == 200).collect();
    assert_eq!(won.len(), 1, "one of twelve wins");
    for lost in answers.iter().filter(|answer| answer.status != 200) {
        lost.problem(412, "stale");
    }
    assert_eq!(tenant.admin.get(&item(&id)).await.json()["endpoint"], won[0].json()["endpoint"]);
}

pub(crate) async fn a_name_is_unique_within_its_scope_on_replacing_too(system: Arc<System>) {
    let tenant = system.organization().await;
    let id = tenant.register("mine", &system.demo_url, json!({})).await;
    let taken = server("native", "demo", &system.demo_url);
    let answer = replace(&system, &tenant.admin, &id, &taken).await;
    assert_eq!(answer.problem(409, "conflict")["field"], "name");
    assert_eq!(tenant.admin.get(&item(&id)).await.json()["name"], "mine");
    // A member's own names are others.
    let made = tenant.user.post(CONFIGURATIONS, &with(&taken, json!({ "scope": "user" }))).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let own = made.json()["id"].as_str().expect("an id").to_owned();
    // A configuration stays where it is, and saying so is fine.
    let moved = replace(&system, &tenant.user, &own, &with(&taken, json!({ "scope": "organization" }))).await;
    assert_eq!(moved.problem(400, "invalid")["field"], "scope");
    assert_eq!(replace(&system, &tenant.user, &own, &with(&taken, json!({ "scope": "user" }))).await.status, 200);
    // Whose it is not, cannot: unknown where it cannot be seen, forbidden where it can.
    replace(&system, &tenant.admin, &own, &taken).await.problem(404, "unknown");
    replace(&system, &tenant.user, &id, &server("native", "theirs", &system.demo_url)).await.problem(403, "forbidden");
    replace(&system, &tenant.admin, &Uuid::now_v7().to_string(), &taken).await.problem(404, "unknown");
    let answer = replace(&system, &tenant.admin, "no-id", &taken).await;
    assert_eq!(answer.problem(400, "invalid")["field"], "id");
}

pub(crate) async fn bad_bodies_of_a_replacement_are_refused_by_field_and_change_nothing(system: Arc<System>) {
    let tenant = system.organization().await;
    let secret = json!({ "auth": { "type": "bearer", "token": "s3cret-that-stays-1234" } });
    let id = tenant.register("stays", &system.demo_url, secret).await;
    let before = tenant.admin.get(&item(&id)).await;
    // What a bearer needs when it is new, it need not bring along when one is there.
    let fine_here = [json!({ "type": "bearer" }), json!({ "type": "bearer", "token": null })]
        .map(|auth| with(&server("native", "fine", &system.demo_url), json!({ "auth": auth })));
    for case in bad_bodies::of_a_configuration(&system.demo_url) {
        let body = serde_json::from_slice::<Value>(&case.body).map(|body| with(&body, json!({ "via": "native" })));
        if body.is_ok_and(|body| fine_here.contains(&body)) {
            continue;
        }
        let request = tenant.admin.request(Method::PUT, &item(&id)).header("if-match", "*");
        let answer = tenant.admin.send(request.header("content-type", "application/json").body(case.body)).await;
        assert_eq!(answer.status, 400, "{}: {}", case.what, answer.text);
        assert_eq!(answer.problem(400, "invalid")["field"], case.field.as_str(), "{}: {}", case.what, answer.text);
    }
    let after = tenant.admin.get(&item(&id)).await;
    assert_eq!((after.text.as_str(), tag(&after)), (before.text.as_str(), tag(&before)), "something was half written");
}

pub(crate) async fn a_replaced_configuration_is_obeyed_and_its_older_client_closed(system: Arc<System>) {
    let tenant = system.organization().await;
    for via in BOTH {
        let path = format!("/record/legacy/replaced-{via}-{}", tenant.id);
        let other = format!("/record/legacy/other-{via}-{}", tenant.id);
        let body = server(via, via, &system.faulty.url(&path));
        let id = tenant.register(via, &system.faulty.url(&path), json!({ "via": via })).await;
        assert_eq!(tenant.call(via, TOOL, json!({ "text": "x" })).await.status, 200);
        let moved = with(&body, json!({ "endpoint": system.faulty.url(&other) }));
        let replaced = replace(&system, &tenant.admin, &id, &moved).await;
        assert_eq!(replaced.status, 200, "{}", replaced.text);
        // Nobody asks again: the worker is told.
        let goodbye = async {
            while !system.faulty.recorded(&path).iter().any(|asked| asked.http == "DELETE") {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, goodbye).await.unwrap_or_else(|_| panic!("{via}: the session stays open"));
        let before = system.faulty.recorded(&path).len();
        for configuration in [via, id.as_str()] {
            assert_eq!(tenant.call(configuration, TOOL, json!({ "text": "y" })).await.status, 200);
        }
        assert_eq!(listed(&tenant.user, &id).await.status, 200);
        assert_eq!(system.faulty.recorded(&path).len(), before, "{via}: the old address was asked again");
        assert!(system.faulty.recorded(&other).iter().any(|asked| asked.method() == "tools/call"), "{via}");
    }
}
