//! How sessions end: asked for, by the clock, with their member, with their organization. What must
//! follow has followed once the reconcilers have run.

use std::sync::Arc;

use serde_json::{Value, json};
use stack::issuer::Role;

use super::{id, in_the_database, item, news, open, settled, state, until};
use crate::{
    users::{newcomer, path},
    world::System,
};

/// The trail's rows about a session.
async fn trail(system: &System, session: &Value, action: &str) -> Vec<Value> {
    let database = system.database("superuser").await;
    let rows = sqlx::query_scalar(
        "SELECT to_jsonb(l) FROM audit_logs l WHERE resource_id = $1 AND action = $2 ORDER BY occurred_at",
    )
    .bind(id(session))
    .bind(action)
    .fetch_all(&database)
    .await
    .expect("the query runs");
    database.close().await;
    rows
}

pub(crate) async fn an_ended_session_is_told_to_everybody_who_keeps_something_of_it(system: Arc<System>) {
    let tenant = system.organization().await;
    let session = open(&tenant.user, json!({})).await;
    assert_eq!(news(&system, tenant.id, &session).await, None, "nothing is told of one that is open");
    assert_eq!(tenant.user.delete(&item(&session)).await.status, 204);
    let row = settled(&system, &session).await;
    assert_eq!((&row["state"], &row["end_reason"]), (&json!("ended"), &json!("asked")));
    let told = news(&system, tenant.id, &session).await.expect("tool workers are told");
    assert_eq!(told, json!({ "generation": row["generation"], "ended": true, "subject": session["subject"] }));
    let second = tenant.user.delete(&item(&session)).await;
    assert_eq!(second.status, 204);
    assert_eq!(settled(&system, &session).await, row, "ending it again changes nothing");
}

pub(crate) async fn a_session_expires_when_it_is_idle_or_old_and_the_trail_says_so_once(system: Arc<System>) {
    let tenant = system.organization().await;
    for (change, reason) in [
        ("UPDATE sessions SET touched_at = now() - interval '2 hours' WHERE id = $1", "idle"),
        (
            "UPDATE sessions SET created_at = now() - interval '2 days', expires_at = now() - interval '1 second' \
             WHERE id = $1",
            "age",
        ),
    ] {
        let session = open(&tenant.user, json!({})).await;
        in_the_database(&system, change, &session).await;
        // At once, whether the sweep has come by or not.
        let seen = tenant.user.get(&item(&session)).await.json();
        assert_eq!((&seen["state"], &seen["end_reason"]), (&json!("expired"), &json!(reason)));
        assert_eq!(tenant.user.delete(&item(&session)).await.status, 204);
        let row = settled(&system, &session).await;
        assert_eq!((&row["state"], &row["end_reason"]), (&json!("expired"), &json!(reason)), "not ended by the DELETE");
        assert_eq!(news(&system, tenant.id, &session).await.expect("told")["ended"], true);
        let told = "SELECT to_jsonb(l) FROM audit_logs l WHERE action = 'session.expired' AND resource_id = $1";
        let told = system.eventually("the expiry in the trail", told, id(&session)).await;
        assert_eq!((&told["actor"], &told["details"]["reason"]), (&json!("switchboard"), &json!(reason)));
        assert_eq!(trail(&system, &session, "session.expired").await.len(), 1);
    }
}

pub(crate) async fn short_lives_end_by_themselves(system: Arc<System>) {
    let tenant = system.organization().await;
    let idle = open(&tenant.user, json!({ "idle_seconds": 1 })).await;
    let old = open(&tenant.user, json!({ "ttl_seconds": 1 })).await;
    for (session, reason) in [(&idle, "idle"), (&old, "age")] {
        let row = settled(&system, session).await;
        assert_eq!((&row["state"], &row["end_reason"]), (&json!("expired"), &json!(reason)));
    }
}

pub(crate) async fn a_removed_or_disabled_members_sessions_end(system: Arc<System>) {
    let tenant = system.organization().await;
    let (leaver, removed) = newcomer(&system, &tenant, "leaver", Role::User).await;
    let (sleeper, disabled) = newcomer(&system, &tenant, "sleeper", Role::User).await;
    let (of_leaver, of_sleeper) = (open(&leaver, json!({})).await, open(&sleeper, json!({})).await);
    let of_user = open(&tenant.user, json!({})).await;
    assert_eq!(tenant.admin.delete(&path(&removed)).await.status, 204);
    assert_eq!(tenant.admin.put(&path(&disabled), "*", &json!({ "state": "disabled" })).await.status, 200);
    for session in [&of_leaver, &of_sleeper] {
        let row = settled(&system, session).await;
        assert_eq!((&row["state"], &row["end_reason"]), (&json!("ended"), &json!("member_gone")));
        assert_eq!(news(&system, tenant.id, session).await.expect("told")["ended"], true);
        let told = "SELECT to_jsonb(l) FROM audit_logs l WHERE action = 'session.ended' AND resource_id = $1";
        assert_eq!(
            system.eventually("the end in the trail", told, id(session)).await["details"]["reason"],
            "member_gone"
        );
    }
    assert_eq!(state(&tenant.user, &of_user).await, "active", "the others go on");
}

pub(crate) async fn a_deleted_organizations_sessions_end(system: Arc<System>) {
    let (tenant, other) = (system.organization().await, system.organization().await);
    let (session, theirs) = (open(&tenant.user, json!({})).await, open(&other.user, json!({})).await);
    let operator = system.client(&system.seeded.operator_token);
    assert_eq!(operator.delete(&format!("/api/v1/organizations/{}", tenant.id)).await.status, 204);
    let row = settled(&system, &session).await;
    assert_eq!((&row["state"], &row["end_reason"]), (&json!("ended"), &json!("organization_gone")));
    assert_eq!(state(&other.user, &theirs).await, "active");
}

pub(crate) async fn a_session_that_has_long_been_over_is_forgotten(system: Arc<System>) {
    let tenant = system.organization().await;
    let (old, young) = (open(&tenant.user, json!({})).await, open(&tenant.user, json!({})).await);
    for session in [&old, &young] {
        assert_eq!(tenant.user.delete(&item(session)).await.status, 204);
        settled(&system, session).await;
    }
    let long_ago = "UPDATE sessions SET ended_at = now() - interval '8 days' WHERE id = $1";
    in_the_database(&system, long_ago, &old).await;
    until("the old one is forgotten", async || tenant.user.get(&item(&old)).await.status == 404).await;
    assert_eq!(state(&tenant.user, &young).await, "ended", "the young one is still there");
}

/// Nothing leads back: not even whoever writes the row by hand brings a session to life again.
pub(crate) async fn an_ended_session_cannot_be_revived(system: Arc<System>) {
    let tenant = system.organization().await;
    let session = open(&tenant.user, json!({})).await;
    assert_eq!(tenant.user.delete(&item(&session)).await.status, 204);
    settled(&system, &session).await;
    let database = system.database("superuser").await;
    let revived =
        sqlx::query("UPDATE sessions SET state = 'active', ended_at = NULL, end_reason = NULL WHERE id::text = $1")
            .bind(id(&session))
            .execute(&database)
            .await
            .expect_err("it stays what it is");
    assert!(revived.to_string().contains("does not become active"), "{revived}");
    database.close().await;
    assert_eq!(state(&tenant.user, &session).await, "ended");
}
