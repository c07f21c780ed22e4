//! Bodies that do not fit: refused by the field, and nothing kept.

use std::sync::Arc;

use reqwest::Method;
use serde_json::json;

use super::{PROMPTS, body, item, write};
use crate::world::{Client, System};

pub(crate) async fn bad_bodies_of_a_prompt_are_refused_by_field_and_keep_nothing(system: Arc<System>) {
    let tenant = system.organization().await;
    let prompt = write(&tenant.admin, "organization", "good", json!({})).await;
    let long = "x".repeat(16_385);
    let cases = [
        (json!({ "scope": "session" }), "scope"),
        (json!({ "scope": null }), "scope"),
        (json!({ "name": "" }), "name"),
        (json!({ "name": "  " }), "name"),
        (json!({ "name": "a\nb" }), "name"),
        (json!({ "name": "a\u{0}b" }), "name"),
        (json!({ "name": "a\u{200b}b" }), "name"),
        (json!({ "name": "é".repeat(101) }), "name"),
        (json!({ "name": 1 }), "name"),
        (json!({ "content": "" }), "content"),
        (json!({ "content": " \n\t" }), "content"),
        (json!({ "content": "a\u{0}b" }), "content"),
        (json!({ "content": long }), "content"),
        (json!({ "content": ["x"] }), "content"),
        (json!({ "content": null }), "content"),
        (json!({ "content": null, "template": "" }), "template"),
        (json!({ "content": null, "template": long }), "template"),
        (json!({ "content": null, "template": "a\u{0}b" }), "template"),
        (json!({ "template": "both" }), "template"),
        (json!({ "priority": -1 }), "priority"),
        (json!({ "priority": 1_001 }), "priority"),
        (json!({ "priority": 1.5 }), "priority"),
        (json!({ "enabled": "yes" }), "enabled"),
        (json!({ "version": 1 }), "version"),
        (json!({ "organization_id": tenant.id }), "organization_id"),
        (json!({ "sha256": "x" }), "sha256"),
    ];
    for (more, field) in &cases {
        let mut sent = body("organization", "bad", json!({ "content": "x" }));
        sent.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let answer = tenant.admin.post(PROMPTS, &sent).await;
        assert_eq!(answer.problem(400, "invalid")["field"], *field, "{more}: {}", answer.text);
        if *field == "scope" {
            continue;
        }
        sent.as_object_mut().expect("an object").remove("scope");
        let answer = tenant.admin.put(&item(&prompt), "*", &sent).await;
        assert_eq!(answer.problem(400, "invalid")["field"], *field, "{more}: {}", answer.text);
    }
    a_members_own_is_shorter(&tenant.user).await;
    // A prompt stays in its scope.
    let moved = json!({ "scope": "user", "name": "good", "content": "x" });
    assert_eq!(tenant.admin.put(&item(&prompt), "*", &moved).await.problem(400, "invalid")["field"], "scope");
    for (path, field) in
        [("?scope=session", "scope"), ("?enabled=1", "enabled"), ("?cursor=x", "cursor"), ("?who=x", "who")]
    {
        assert_eq!(tenant.user.get(&format!("{PROMPTS}{path}")).await.problem(400, "invalid")["field"], field);
    }
    tenant.user.get(&format!("{PROMPTS}/x")).await.problem(400, "invalid");
    assert_eq!(tenant.admin.get(&item(&prompt)).await.json(), prompt, "nothing was kept");
    let list = tenant.admin.get(&format!("{PROMPTS}?scope=organization")).await.json();
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1), "{list}");
}

/// By what is left once what nobody sees was taken out.
async fn a_members_own_is_shorter(member: &Client) {
    for content in ["é".repeat(4_001), "\u{200b}\u{202e}".to_owned(), String::new()] {
        let answer = member.post(PROMPTS, &body("user", "bad", json!({ "content": content }))).await;
        assert_eq!(answer.problem(400, "invalid")["field"], "content");
    }
    let fits = format!("{}\u{200b}", "é".repeat(4_000));
    let kept = write(member, "user", "fits", json!({ "content": fits })).await;
    assert_eq!(kept["content"], "é".repeat(4_000));
}

pub(crate) async fn there_is_room_for_so_many_prompts_and_so_much_text(system: Arc<System>) {
    let tenant = system.organization().await;
    for number in 0..20 {
        write(&tenant.user, "user", &format!("{number:02}"), json!({})).await;
    }
    tenant.user.post(PROMPTS, &body("user", "one too many", json!({}))).await.problem(429, "throttled");
    write(&tenant.admin, "user", "another member's own", json!({})).await;
    // Pages show each once and in order.
    let mut seen = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let mut request = tenant.user.request(Method::GET, PROMPTS).query(&[("scope", "user"), ("limit", "7")]);
        if let Some(cursor) = &cursor {
            request = request.query(&[("cursor", cursor)]);
        }
        let page = tenant.user.send(request).await.json();
        let name = |item: &serde_json::Value| item["name"].as_str().expect("a name").to_owned();
        seen.extend(page["items"].as_array().expect("items").iter().map(name));
        cursor = page["next"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, (0..20).map(|number| format!("{number:02}")).collect::<Vec<_>>());

    // What an owner says together has a bound: what is disabled does not count.
    let large = "x".repeat(16_000);
    for name in ["one", "two"] {
        write(&tenant.admin, "organization", name, json!({ "content": large })).await;
    }
    let third = body("organization", "three", json!({ "content": large }));
    assert_eq!(tenant.admin.post(PROMPTS, &third).await.problem(400, "invalid")["field"], "content");
    let asleep = write(&tenant.admin, "organization", "three", json!({ "content": large, "enabled": false })).await;
    let woken = json!({ "name": "three", "template": large });
    assert_eq!(tenant.admin.put(&item(&asleep), "*", &woken).await.problem(400, "invalid")["field"], "template");
    assert_eq!(tenant.admin.get(&item(&asleep)).await.json(), asleep);
    // All of it together is still a prompt.
    let composed = super::preview(&tenant.user).await;
    assert!(composed["text"].as_str().is_some_and(|text| text.len() > 32_000));
}
