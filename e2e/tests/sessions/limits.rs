//! How many sessions may be open.

use std::sync::Arc;

use futures::future::join_all;
use serde_json::json;
use stack::issuer::Role;

use super::{SESSIONS, item, open, try_to_open};
use crate::{
    users::newcomer,
    world::{Client, System, Tenant},
};

/// Sets what only operators do.
async fn limit(system: &System, tenant: &Tenant, limits: serde_json::Value) {
    let operator = system.client(&system.seeded.operator_token);
    let changed = operator.put(&format!("/api/v1/organizations/{}", tenant.id), "*", &limits).await;
    assert_eq!(changed.status, 200, "{}", changed.text);
}

/// How many sessions there are in any state.
async fn rows(system: &System, tenant: &Tenant) -> i64 {
    let database = system.database("superuser").await;
    let count = sqlx::query_scalar("SELECT count(*) FROM sessions WHERE organization_id = $1").bind(tenant.id);
    let count = count.fetch_one(&database).await.expect("the query runs");
    database.close().await;
    count
}

/// Everybody opens at once, and again until nothing but a limit refuses. A worker refuses what is too
/// much at once for it before it looks at any limit.
async fn storm(clients: &[&Client], times: usize) -> (usize, Vec<String>) {
    let answers = join_all((0..times).map(|n| try_to_open(clients[n % clients.len()], json!({})))).await;
    let (mut opened, mut refusals) = (0, Vec::new());
    for answer in answers {
        if answer.status == 201 {
            opened += 1;
        } else {
            refusals.push(answer.problem(429, "throttled")["detail"].as_str().expect("words").to_owned());
        }
    }
    (opened, refusals)
}

pub(crate) async fn of_two_hundred_openings_at_once_exactly_the_limit_succeeds(system: Arc<System>) {
    let tenant = system.organization().await;
    limit(&system, &tenant, json!({ "user_session_limit": 10 })).await;
    let (opened, refusals) = storm(&[&tenant.user], 200).await;
    assert_eq!((opened, refusals.len()), (10, 190), "{refusals:?}");
    assert!(refusals.iter().any(|words| words.contains("user_session_limit")), "{refusals:?}");
    assert_eq!(rows(&system, &tenant).await, 10, "nothing but the ten was ever kept");
    let refused = try_to_open(&tenant.user, json!({})).await;
    assert!(refused.headers.contains_key("retry-after"), "{}", refused.text);
    refused.problem(429, "throttled");
    // Another member's limit is their own; what ends makes room.
    open(&tenant.admin, json!({})).await;
    let first = tenant.user.get(&format!("{SESSIONS}?limit=1")).await.json()["items"][0].clone();
    assert_eq!(tenant.user.delete(&item(&first)).await.status, 204);
    open(&tenant.user, json!({})).await;
    try_to_open(&tenant.user, json!({})).await.problem(429, "throttled");
}

pub(crate) async fn an_organizations_limit_holds_for_its_members_together(system: Arc<System>) {
    let tenant = system.organization().await;
    limit(&system, &tenant, json!({ "session_limit": 10, "user_session_limit": 8 })).await;
    let (third, _) = newcomer(&system, &tenant, "third", Role::User).await;
    let (opened, refusals) = storm(&[&tenant.user, &tenant.admin, &third], 90).await;
    assert_eq!((opened, refusals.len()), (10, 80), "{refusals:?}");
    assert!(refusals.iter().any(|words| words.contains("(session_limit)")), "{refusals:?}");
    assert_eq!(rows(&system, &tenant).await, 10);
    // Each organization has its own.
    let other = system.organization().await;
    open(&other.user, json!({})).await;
}
