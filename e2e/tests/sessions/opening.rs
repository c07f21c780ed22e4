//! Opening, reading and listing.

use std::sync::Arc;

use serde_json::{Value, json};
use shared::id::{OrganizationId, SessionId};
use stack::issuer::Role;

use super::{SESSIONS, as_pool, id, in_the_database, item, open, state, try_to_open};
use crate::{
    users::newcomer,
    world::{Client, System},
};

pub(crate) async fn a_session_is_opened_read_listed_and_ended(system: Arc<System>) {
    let tenant = system.organization().await;
    let metadata = json!({ "ticket": 17, "nested": { "a": [1, 2.5, null, "ü"] } });
    let more =
        json!({ "metadata": metadata, "ttl_seconds": 600, "idle_seconds": 60, "prompt": "Answer in one sentence." });
    let opened = open(&tenant.user, more).await;
    assert_eq!(opened["state"], "active");
    assert_eq!(opened["agent_type"], "tester");
    assert_eq!(opened["metadata"], metadata);
    assert_eq!(opened["idle_seconds"], 60);
    assert_eq!(opened["files"]["bytes"], 0);
    let text = opened["prompt"]["text"].as_str().expect("a text");
    assert!(text.contains("Answer in one sentence."), "{text}");
    assert!(
        opened["prompt"]["parts"].as_array().is_some_and(|parts| parts.iter().any(|part| part["scope"] == "session"))
    );
    assert_eq!(tenant.user.get(&item(&opened)).await.json(), opened);
    let list = tenant.user.get(SESSIONS).await.json();
    let mut listed = opened.clone();
    listed["prompt"] = Value::Null;
    assert_eq!(list["items"], json!([listed]), "in lists without the prompt");
    let row = system
        .eventually(
            "the opening in the trail",
            "SELECT to_jsonb(l) FROM audit_logs l WHERE action = 'sessions.open' AND resource_id = $1",
            id(&opened),
        )
        .await;
    assert_eq!(row["outcome"], "succeeded");
    assert_eq!(row["details"]["prompt_sha256"], opened["prompt"]["sha256"]);
    for _ in 0..2 {
        assert_eq!(tenant.user.delete(&item(&opened)).await.status, 204, "ending is the same again");
    }
    let ended = tenant.user.get(&item(&opened)).await.json();
    assert_eq!((&ended["state"], &ended["end_reason"]), (&json!("ended"), &json!("asked")));
    assert_eq!(ended["prompt"], opened["prompt"], "the prompt stays what it was");
}

pub(crate) async fn a_sessions_prompt_does_not_change_any_more(system: Arc<System>) {
    let tenant = system.organization().await;
    let body = json!({ "scope": "organization", "name": "house rules", "content": "Speak plainly." });
    let made = tenant.admin.post("/api/v1/prompts", &body).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let before = open(&tenant.user, json!({})).await;
    assert!(before["prompt"]["text"].as_str().is_some_and(|text| text.contains("Speak plainly.")), "{before}");
    let path = format!("/api/v1/prompts/{}", made.json()["id"].as_str().expect("an id"));
    let body = json!({ "name": "house rules", "content": "Speak in riddles." });
    let changed = tenant.admin.put(&path, "*", &body).await;
    assert_eq!(changed.status, 200, "{}", changed.text);
    assert_eq!(tenant.user.get(&item(&before)).await.json(), before);
    super::until("a new session has the new prompt", async || {
        let after = open(&tenant.admin, json!({})).await;
        assert_eq!(tenant.admin.delete(&item(&after)).await.status, 204);
        after["prompt"]["text"].as_str().is_some_and(|text| text.contains("Speak in riddles."))
    })
    .await;
    assert_eq!(tenant.user.get(&item(&before)).await.json(), before);
}

pub(crate) async fn bad_bodies_of_a_session_are_refused_by_field_and_keep_nothing(system: Arc<System>) {
    let tenant = system.organization().await;
    let deep = (0..9).fold(json!(1), |inner, _| json!({ "a": inner }));
    for (field, body) in [
        ("agent_type", json!({})),
        ("agent_type", json!({ "agent_type": "" })),
        ("agent_type", json!({ "agent_type": "has blanks" })),
        ("agent_type", json!({ "agent_type": "a".repeat(65) })),
        ("agent_type", json!({ "agent_type": "nul\u{0}" })),
        ("ttl_seconds", json!({ "agent_type": "a", "ttl_seconds": 0 })),
        ("ttl_seconds", json!({ "agent_type": "a", "ttl_seconds": 604_801 })),
        ("ttl_seconds", json!({ "agent_type": "a", "ttl_seconds": "60" })),
        ("idle_seconds", json!({ "agent_type": "a", "idle_seconds": 0 })),
        ("idle_seconds", json!({ "agent_type": "a", "idle_seconds": -1 })),
        ("metadata", json!({ "agent_type": "a", "metadata": [] })),
        ("metadata", json!({ "agent_type": "a", "metadata": { "nul": "\u{0}" } })),
        ("metadata", json!({ "agent_type": "a", "metadata": deep })),
        ("metadata", json!({ "agent_type": "a", "metadata": { "long": "x".repeat(4_096) } })),
        ("prompt", json!({ "agent_type": "a", "prompt": 1 })),
        ("prompt", json!({ "agent_type": "a", "prompt": "x".repeat(4_001) })),
        ("user", json!({ "agent_type": "a", "user": "somebody" })),
        ("organization_id", json!({ "agent_type": "a", "organization_id": tenant.id })),
    ] {
        let refused = tenant.user.post(SESSIONS, &body).await;
        assert_eq!(refused.problem(400, "invalid")["field"], field, "{body}: {}", refused.text);
    }
    for (name, query) in
        [("state", "state=gone"), ("all", "all=yes"), ("user", "user=me"), ("cursor", "cursor=x"), ("limit", "limit=0")]
    {
        let refused = tenant.admin.get(&format!("{SESSIONS}?{query}")).await;
        assert_eq!(refused.problem(400, "invalid")["field"], name, "{}", refused.text);
    }
    tenant.user.get(&format!("{SESSIONS}/x")).await.problem(400, "invalid");
    assert_eq!(tenant.admin.get(&format!("{SESSIONS}?all=true")).await.json()["items"], json!([]));
}

/// The ids of a list.
async fn listed(client: &Client, query: &str) -> Vec<String> {
    let list = client.get(&format!("{SESSIONS}?{query}")).await;
    assert_eq!(list.status, 200, "{}", list.text);
    list.json()["items"].as_array().expect("items").iter().map(|item| id(item).to_owned()).collect()
}

pub(crate) async fn members_see_their_own_sessions_and_admins_everybodys(system: Arc<System>) {
    let tenant = system.organization().await;
    let (other, member) = newcomer(&system, &tenant, "other", Role::User).await;
    let (own, theirs) = (open(&tenant.user, json!({})).await, open(&other, json!({})).await);
    let admins = open(&tenant.admin, json!({})).await;
    assert_eq!(listed(&tenant.user, "").await, [id(&own)]);
    assert_eq!(listed(&tenant.admin, "").await, [id(&admins)]);
    assert_eq!(listed(&tenant.admin, "all=true").await, [id(&own), id(&theirs), id(&admins)]);
    let of_member = format!("user={}", member["id"].as_str().expect("an id"));
    assert_eq!(listed(&tenant.admin, &of_member).await, [id(&theirs)]);
    for query in ["all=true", of_member.as_str()] {
        tenant.user.get(&format!("{SESSIONS}?{query}")).await.problem(403, "forbidden");
    }
    // To another member there is no such session; an admin reads it and ends it.
    for session in [&theirs, &admins] {
        tenant.user.get(&item(session)).await.problem(404, "unknown");
        tenant.user.delete(&item(session)).await.problem(404, "unknown");
        assert_eq!(tenant.admin.get(&item(session)).await.json(), *session);
    }
    assert_eq!(tenant.admin.delete(&item(&theirs)).await.status, 204);
    let ended = other.get(&item(&theirs)).await.json();
    assert_eq!((&ended["state"], &ended["end_reason"]), (&json!("ended"), &json!("admin")));
}

pub(crate) async fn pages_of_sessions_show_every_one_once_and_by_state(system: Arc<System>) {
    let tenant = system.organization().await;
    let mut all = Vec::new();
    for _ in 0..5 {
        all.push(open(&tenant.user, json!({})).await);
    }
    assert_eq!(tenant.user.delete(&item(&all[1])).await.status, 204);
    in_the_database(&system, "UPDATE sessions SET touched_at = now() - interval '2 hours' WHERE id = $1", &all[3])
        .await;
    assert_eq!(listed(&tenant.user, "state=ended").await, [id(&all[1])]);
    assert_eq!(listed(&tenant.user, "state=expired").await, [id(&all[3])]);
    assert_eq!(listed(&tenant.user, "state=active").await, [id(&all[0]), id(&all[2]), id(&all[4])]);
    let (mut seen, mut query) = (Vec::new(), "limit=2".to_owned());
    loop {
        let page = tenant.user.get(&format!("{SESSIONS}?{query}")).await.json();
        let items = page["items"].as_array().expect("items");
        assert!(items.len() <= 2);
        seen.extend(items.iter().map(|item| id(item).to_owned()));
        match page["next"].as_str() {
            Some(next) => query = format!("limit=2&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, all.iter().map(id).collect::<Vec<_>>());
}

/// What every use of a session asks first, and does: files and calls come this way.
pub(crate) async fn a_session_is_used_by_its_member_alone_and_while_it_lasts(system: Arc<System>) {
    let tenant = system.organization().await;
    let session = open(&tenant.user, json!({ "idle_seconds": 4 })).await;
    let (subject, organization) = (session["subject"].as_str().expect("a subject"), OrganizationId(tenant.id));
    let number: SessionId = id(&session).parse().expect("an id");
    for role in ["session", "tool"] {
        let database = as_pool(&system, role).await;
        let mut transaction = database.on_behalf_of(organization).await.expect("a transaction");
        let usable = shared::db::sessions::usable(&mut transaction, number, subject).await.expect("it can be used");
        assert_eq!((usable.id, usable.workspace_version), (number, 0));
        let others = shared::db::sessions::usable(&mut transaction, number, "somebody").await;
        assert_eq!(others.expect_err("not theirs").code, shared::Code::Unknown);
        let pending = ["session.touched/tell".to_owned()];
        let touch = async |transaction: &mut shared::db::Transaction| {
            shared::db::sessions::touch(transaction, number, &pending).await.expect("it runs")
        };
        assert!(!touch(&mut transaction).await, "noted when it was opened");
        drop(transaction);
        in_the_database(
            &system,
            "UPDATE sessions SET touched_at = now() - interval '2 seconds' WHERE id = $1",
            &session,
        )
        .await;
        let before = tenant.user.get(&item(&session)).await.json();
        let mut transaction = database.on_behalf_of(organization).await.expect("a transaction");
        assert!(touch(&mut transaction).await && !touch(&mut transaction).await, "once in a while");
        transaction.commit().await.expect("it is kept");
        let after = tenant.user.get(&item(&session)).await.json();
        assert!(after["usable_until"].as_str() > before["usable_until"].as_str(), "{before} {after}");
        database.close().await;
    }
    in_the_database(&system, "UPDATE sessions SET touched_at = now() - interval '5 seconds' WHERE id = $1", &session)
        .await;
    let database = as_pool(&system, "tool").await;
    let mut transaction = database.on_behalf_of(organization).await.expect("a transaction");
    let over = shared::db::sessions::usable(&mut transaction, number, subject).await.expect_err("its time is over");
    assert_eq!(over.code, shared::Code::Conflict);
    assert!(!shared::db::sessions::touch(&mut transaction, number, &[]).await.expect("it runs"), "nothing revives it");
    drop(transaction);
    database.close().await;
    assert_eq!(state(&tenant.user, &session).await, "expired");
    let again = try_to_open(&tenant.user, json!({})).await;
    assert_eq!(again.status, 201, "{}", again.text);
}
