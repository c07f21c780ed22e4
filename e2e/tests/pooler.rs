//! Workers behind a transaction pooler, as on Supabase: a real `PgBouncer` of a version that knows no
//! prepared statements, with fewer connections to the server than there are clients, so that every
//! one is lent to one client after the other.

use std::sync::Arc;

use futures::future::join_all;
use serde_json::json;
use stack::Options;

use crate::{
    files::{PART, Workspace, content, settled},
    servers::BEARER,
    trail::Trail,
    world::{System, Tenant},
};

/// Members who work at the same time: more than the pooler has connections.
const AT_ONCE: usize = 12;
/// What the pooler opens for each role (`stack/src/pooler.rs`).
const LENT: i64 = 2;

/// True where the machine has one; says so where it has none.
pub(crate) fn is_here() -> bool {
    let found = stack::pooler::program().is_some();
    if !found {
        println!("Nothing was run through a transaction pooler: there is no pgbouncer on the PATH.");
    }
    found
}

/// A system whose workers reach the database through it.
pub(crate) fn before_the_database(options: &mut Options) {
    options.pooler = true;
    options.workers_per_pool = 2;
}

pub(crate) async fn every_command_works_through_a_transaction_pooler(system: Arc<System>) {
    let tenants = join_all((0..AT_ONCE).map(|_| system.organization())).await;
    join_all(tenants.iter().map(|tenant| work(&system, tenant))).await;

    let operator = system.client(&system.seeded.operator_token);
    let listed = operator.get("/api/v1/organizations?limit=200").await;
    assert_eq!(listed.status, 200, "{}", listed.text);
    for tenant in &tenants {
        assert!(listed.text.contains(&tenant.id.to_string()), "{}", listed.text);
    }
    let superuser = system.database("superuser").await;
    let most: Vec<(String, i64)> = sqlx::query_as(
        "SELECT usename::text, count(*) FROM pg_stat_activity WHERE usename LIKE 'switchboard\\_%' GROUP BY 1",
    )
    .fetch_all(&superuser)
    .await
    .expect("the connections");
    superuser.close().await;
    assert!(!most.is_empty() && most.iter().all(|(_, count)| *count <= LENT), "not through the pooler: {most:?}");
}

/// Registers, lists, reads, calls and removes, and finds it all in the trail.
async fn work(system: &System, tenant: &Tenant) {
    let mut trail = Trail::new(system, tenant);
    let auth = json!({ "auth": { "type": "bearer", "token": BEARER } });
    let id = tenant.register("protected", &system.servers.protected_url, auth).await;
    let path = format!("/api/v1/mcp/configurations/{id}");
    for path in [path.clone(), format!("{path}/tools"), "/api/v1/me".to_owned()] {
        let answer = tenant.admin.get(&path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    }
    let list = tenant.user.get("/api/v1/mcp/configurations").await.json();
    let names: Vec<_> = list["items"].as_array().expect("items").iter().map(|item| &item["name"]).collect();
    assert_eq!(names, ["demo", "protected"], "its own and nobody else's");
    for _ in 0..5 {
        let request =
            tenant.user.request(reqwest::Method::POST, "/api/v1/tool-calls").header("x-request-id", trail.id());
        let body = json!({ "configuration": "protected", "tool": "echo", "arguments": { "text": "x" } });
        let answer = tenant.user.send(request.json(&body)).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    let workspace = Workspace::open(tenant).await;
    for size in [10, 2 * PART + 1] {
        workspace.write("over", &content(1, size)).await;
        assert!(workspace.read("over").await == content(1, size));
    }
    assert_eq!(workspace.paths("").await, ["over"]);
    assert_eq!(workspace.delete("over").await.status, 204);
    assert_eq!(settled(system, tenant.id).await, 0);
    let removed = tenant.admin.delete(&path).await;
    assert_eq!(removed.status, 204, "{}", removed.text);
    assert_eq!(tenant.admin.get(&path).await.status, 404);
    trail.caught_up().await;
    let mut rows = trail.rows().await;
    // The first call opens the lane besides.
    rows.retain(|row| row["action"] == "tools.call");
    assert_eq!(rows.len(), 5, "{rows:?}");
    assert!(rows.iter().all(|row| row["outcome"] == "succeeded"), "{rows:?}");
}
