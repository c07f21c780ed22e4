//! A removal holds through whatever happens to NATS and to the gateways.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;
use stack::issuer::Role;

use super::accidents::{is_healthy, until};
use crate::{
    members::soon,
    users::newcomer,
    world::{Client, System},
};

/// How soon what the database says is obeyed once NATS is back. The reconciler passes each minute anyway.
const TOLD_WITHIN: Duration = Duration::from_secs(15);

/// Asks until refused; nothing but "not now" may be answered before, for a client that `never` comes in.
async fn refused_soon(client: &Client, never: bool) -> Duration {
    let asked = Instant::now();
    loop {
        let status = client.get("/api/v1/me").await.status.as_u16();
        assert!(!never || [403, 503].contains(&status), "a removed member was answered {status}");
        if status == 403 {
            return asked.elapsed();
        }
        assert!(asked.elapsed() < TOLD_WITHIN, "still {status}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) async fn a_removed_member_stays_refused_through_restarts_of_nats_and_gateways(system: Arc<System>) {
    let stack = system.stack().await;
    let tenant = system.organization().await;
    let (leaver, seen) = newcomer(&system, &tenant, "leaver", Role::User).await;
    let (other, _) = newcomer(&system, &tenant, "other", Role::User).await;
    let gateways = stack.gateways().to_vec();
    let leavers: Vec<Client> = gateways.iter().map(|url| leaver.at(url)).collect();
    let path = format!("/api/v1/users/{}", seen["id"].as_str().expect("an id"));
    assert_eq!(tenant.admin.delete(&path).await.status, 204);
    for client in &leavers {
        soon(client, 403).await;
    }
    // NATS restarts while another member is removed in the database, unheard.
    stack.kill("nats").await.expect("it runs");
    let database = system.database("superuser").await;
    sqlx::query("UPDATE users SET state = 'removed' WHERE organization_id = $1 AND subject LIKE 'other-%'")
        .bind(tenant.id)
        .execute(&database)
        .await
        .expect("the row");
    database.close().await;
    stack.restart("nats").await.expect("it starts");
    for client in &leavers {
        refused_soon(client, true).await;
    }
    for url in &gateways {
        let told = refused_soon(&other.at(url), false).await;
        eprintln!("removal during a restart of NATS: obeyed {told:.1?} after it was back");
    }
    // Gateways that start anew know nothing but what they hear.
    for name in ["gateway-1", "gateway-2"] {
        stack.restart(name).await.expect("it starts");
    }
    for client in &leavers {
        refused_soon(client, true).await;
    }
    for url in &gateways {
        until("everything is back", async || is_healthy(&system.http, url).await).await;
        let call = json!({ "configuration": "demo", "tool": "echo", "arguments": { "text": "x" } });
        let colleague = tenant.user.at(url);
        assert_eq!(colleague.post("/api/v1/tool-calls", &call).await.status, 200, "everybody else goes on");
        leaver.at(url).post("/api/v1/tool-calls", &call).await.problem(403, "forbidden");
    }
    drop(stack);
}
