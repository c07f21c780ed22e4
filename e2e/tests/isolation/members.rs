//! Within one organization: what is a member's own, and what takes an admin or a platform operator.

use std::sync::Arc;

use reqwest::Method;
use serde_json::json;
use stack::issuer::Role;
use uuid::Uuid;

use crate::world::{Client, System};

const CONFIGURATIONS: &str = "/api/v1/mcp/configurations";
const ORGANIZATIONS: &str = "/api/v1/organizations";

/// Registers the demo server as a member's own; answers its id.
pub(crate) async fn register_own(system: &System, member: &Client, name: &str) -> String {
    let body = json!({ "name": name, "endpoint": system.demo_url, "scope": "user" });
    let made = member.post(CONFIGURATIONS, &body).await;
    assert_eq!(made.status, 201, "{}", made.text);
    made.json()["id"].as_str().expect("an id").to_owned()
}

pub(crate) async fn a_members_own_configuration_is_unknown_to_the_rest(system: Arc<System>) {
    let tenant = system.organization().await;
    let name = format!("own-{}", tenant.id.simple());
    let own = register_own(&system, &tenant.user, &name).await;
    for configuration in [&own, &name] {
        let answer = tenant.call(configuration, "echo", json!({ "text": "mine" })).await;
        assert_eq!(answer.status, 200, "its owner calls it: {}", answer.text);
    }
    assert!(tenant.user.get(CONFIGURATIONS).await.text.contains(&own), "its owner sees it");
    let colleague = system.client(&system.token(tenant.id, &format!("colleague-{}", tenant.id), Role::User));
    for other in [&tenant.admin, &colleague] {
        assert!(!other.get(CONFIGURATIONS).await.text.contains(&own), "others do not see it");
        let nothing = Uuid::now_v7().to_string();
        for (method, tail) in [(Method::GET, ""), (Method::DELETE, ""), (Method::GET, "/tools")] {
            let ask = async |id: &str| {
                let answer = other.send(other.request(method.clone(), &format!("{CONFIGURATIONS}/{id}{tail}"))).await;
                let mut problem = answer.problem(404, "unknown");
                problem.as_object_mut().expect("an object").remove("instance");
                problem
            };
            assert_eq!(ask(&own).await, ask(&nothing).await);
        }
        for configuration in [&own, &name] {
            let body = json!({ "configuration": configuration, "tool": "echo", "arguments": { "text": "x" } });
            other.post("/api/v1/tool-calls", &body).await.problem(404, "unknown");
        }
        // The name is free for their own.
        let theirs = register_own(&system, other, &name).await;
        assert_ne!(theirs, own);
    }
    assert_eq!(tenant.user.delete(&format!("{CONFIGURATIONS}/{own}")).await.status, 204);
}

pub(crate) async fn a_member_with_role_user_cannot_do_what_admins_do(system: Arc<System>) {
    let tenant = system.organization().await;
    let shared = tenant.register("shared", &system.demo_url, json!({})).await;
    let item = format!("{CONFIGURATIONS}/{shared}");
    let before = tenant.admin.get(CONFIGURATIONS).await.json();
    for scope in [json!({}), json!({ "scope": "organization" })] {
        let mut body = json!({ "name": "by-a-user", "endpoint": system.demo_url });
        body.as_object_mut().expect("an object").extend(scope.as_object().expect("an object").clone());
        tenant.user.post(CONFIGURATIONS, &body).await.problem(403, "forbidden");
    }
    tenant.user.delete(&item).await.problem(403, "forbidden");
    let put = tenant.user.request(Method::PUT, &item).header("if-match", "*");
    let body = json!({ "name": "by-a-user", "endpoint": system.demo_url });
    tenant.user.send(put.json(&body)).await.problem(403, "forbidden");
    assert_eq!(before, tenant.admin.get(CONFIGURATIONS).await.json(), "nothing changed");
    // What everybody may: see it and call it.
    assert_eq!(tenant.user.get(&item).await.status, 200);
    assert_eq!(tenant.call(&shared, "echo", json!({ "text": "x" })).await.status, 200);
    // And an admin does what the user was refused.
    assert_eq!(tenant.admin.delete(&item).await.status, 204);
    tenant.user.get(&item).await.problem(404, "unknown");
}

pub(crate) async fn only_an_operator_creates_and_lists_organizations(system: Arc<System>) {
    let tenant = system.organization().await;
    let slug = format!("grab-{}", tenant.id.simple());
    let body = json!({ "slug": slug, "name": "Grabbed" });
    for member in [&tenant.admin, &tenant.user] {
        member.post(ORGANIZATIONS, &body).await.problem(403, "forbidden");
        let list = member.get(ORGANIZATIONS).await;
        list.problem(403, "forbidden");
        assert!(!list.text.contains("slug"), "{}", list.text);
        // Not even of their own organization.
        let limits = member.request(Method::PUT, &format!("{ORGANIZATIONS}/{}", tenant.id));
        let limits = limits.header("if-match", "*").json(&json!({ "concurrency_limit": 256 }));
        member.send(limits).await.problem(403, "forbidden");
    }
    let database = system.database("superuser").await;
    let made: i64 = sqlx::query_scalar("SELECT count(*) FROM organizations WHERE slug = $1")
        .bind(&slug)
        .fetch_one(&database)
        .await
        .expect("a count");
    assert_eq!(made, 0, "a refused organization exists");
    database.close().await;
    let operator = system.client(&system.seeded.operator_token);
    assert_eq!(operator.post(ORGANIZATIONS, &body).await.status, 201);
    assert_eq!(operator.get(ORGANIZATIONS).await.status, 200);
    // An operator is no member: what is a tenant's stays a tenant's.
    let list = operator.get(CONFIGURATIONS).await;
    assert!(!list.text.contains("demo"), "{}", list.text);
    let theirs = tenant.admin.get(CONFIGURATIONS).await.json();
    let id = theirs["items"][0]["id"].as_str().expect("an id");
    operator.get(&format!("{CONFIGURATIONS}/{id}")).await.problem(404, "unknown");
    operator.delete(&format!("{CONFIGURATIONS}/{id}")).await.problem(404, "unknown");
}
