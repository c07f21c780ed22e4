//! What the database says of a member counts at once, however long their token lives.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::HeaderMap;
use futures::future::join_all;
use serde_json::{Value, json};
use shared::{bus::state::access_key, id::OrganizationId};
use stack::issuer::Role;
use uuid::Uuid;

use crate::{
    faulty::TOOL,
    organizations::{pause, until_lane},
    promises::relay::Relay,
    users::{USERS, newcomer, path},
    world::{Client, PATIENCE, System},
};

/// A change of a member's standing is obeyed within this time.
const OBEYED_WITHIN: Duration = Duration::from_secs(3);

/// What the session pool does for `users::Update`: the row first, then the news of it.
async fn set_state(system: &System, organization: Uuid, subject: &str, state: &str) {
    let database = system.database("superuser").await;
    let (role, generation): (String, i64) = sqlx::query_as(
        "UPDATE users SET state = $3 WHERE organization_id = $1 AND subject = $2 RETURNING role, generation",
    )
    .bind(organization)
    .bind(subject)
    .bind(state)
    .fetch_one(&database)
    .await
    .expect("the member has a row");
    announce(system, organization, subject, &json!({ "role": role, "state": state, "generation": generation })).await;
}

async fn announce(system: &System, organization: Uuid, subject: &str, standing: &Value) {
    let payload = serde_json::to_vec(standing).expect("JSON");
    let ack =
        system.nats("session").await.request(entry(organization, subject), payload.into()).await.expect("an answer");
    let ack: Value = serde_json::from_slice(&ack.payload).expect("JSON");
    assert!(ack["error"].is_null(), "{ack}");
}

fn entry(organization: Uuid, subject: &str) -> String {
    format!("$KV.ACCESS.{}", access_key(OrganizationId(organization), subject))
}

/// Waits until the client is answered so; fails if that takes longer than promised.
pub(crate) async fn soon(client: &Client, status: u16) {
    let asked = Instant::now();
    loop {
        let answer = client.get("/api/v1/me").await;
        if answer.status == status {
            return;
        }
        assert!(asked.elapsed() < OBEYED_WITHIN, "still {}: {}", answer.status, answer.text);
    }
}

async fn is_refused_everywhere(client: &Client) {
    let call = json!({ "configuration": "demo", "tool": "echo", "arguments": { "text": "x" } });
    let register = json!({ "name": "mine", "scope": "user", "endpoint": "http://127.0.0.1:1/mcp" });
    client.get("/api/v1/me").await.problem(403, "forbidden");
    client.get("/api/v1/mcp/configurations").await.problem(403, "forbidden");
    client.post("/api/v1/tool-calls", &call).await.problem(403, "forbidden");
    client.post("/api/v1/mcp/configurations", &register).await.problem(403, "forbidden");
}

pub(crate) async fn a_removed_member_is_refused_within_seconds_and_stays_refused(system: Arc<System>) {
    let tenant = system.organization().await;
    let subject = format!("leaver-{}", tenant.id);
    let leaver = system.client(&system.token(tenant.id, &subject, Role::User));
    assert_eq!(leaver.get("/api/v1/me").await.status, 200);
    set_state(&system, tenant.id, &subject, "removed").await;
    soon(&leaver, 403).await;
    is_refused_everywhere(&leaver).await;

    // A token issued later, with a higher role, is the same person's.
    is_refused_everywhere(&system.client(&system.token(tenant.id, &subject, Role::Admin))).await;

    // Even where the news is lost: the gateway asks the session pool as for a first use, and the
    // row is a tombstone that signing in does not lift.
    let mut headers = HeaderMap::new();
    headers.insert("KV-Operation", "DEL");
    let session = system.nats("session").await;
    let gone = session.request_with_headers(entry(tenant.id, &subject), headers, "".into()).await.expect("an answer");
    assert!(!String::from_utf8_lossy(&gone.payload).contains("error"), "{gone:?}");
    is_refused_everywhere(&leaver).await;

    // Only putting the member back lifts it.
    set_state(&system, tenant.id, &subject, "active").await;
    soon(&leaver, 200).await;
}

pub(crate) async fn a_disabled_member_is_refused_until_enabled(system: Arc<System>) {
    let tenant = system.organization().await;
    let subject = format!("sleeper-{}", tenant.id);
    let sleeper = system.client(&system.token(tenant.id, &subject, Role::User));
    assert_eq!(sleeper.get("/api/v1/me").await.status, 200);
    set_state(&system, tenant.id, &subject, "disabled").await;
    soon(&sleeper, 403).await;
    is_refused_everywhere(&sleeper).await;
    assert_eq!(tenant.user.get("/api/v1/me").await.status, 200, "other members are not concerned");
    set_state(&system, tenant.id, &subject, "active").await;
    soon(&sleeper, 200).await;
}

pub(crate) async fn the_lower_of_claimed_and_stored_role_applies(system: Arc<System>) {
    let tenant = system.organization().await;
    let register =
        |name: &str, scope: &str| json!({ "name": name, "scope": scope, "endpoint": "http://127.0.0.1:1/mcp" });

    // Stored as a user on first use; a later claim of more changes nothing.
    let subject = format!("climber-{}", tenant.id);
    let user = system.client(&system.token(tenant.id, &subject, Role::User));
    assert_eq!(user.get("/api/v1/me").await.json()["role"], "user");
    let climber = system.client(&system.token(tenant.id, &subject, Role::Admin));
    assert_eq!(climber.get("/api/v1/me").await.json()["role"], "user");
    climber.post("/api/v1/mcp/configurations", &register("climbed", "organization")).await.problem(403, "forbidden");
    let demo = tenant.admin.get("/api/v1/mcp/configurations").await.json()["items"][0]["id"]
        .as_str()
        .expect("demo")
        .to_owned();
    climber.delete(&format!("/api/v1/mcp/configurations/{demo}")).await.problem(403, "forbidden");

    // Stored as an admin; a token that claims less gets less.
    let subject = format!("humble-{}", tenant.id);
    let admin = system.client(&system.token(tenant.id, &subject, Role::Admin));
    assert_eq!(admin.get("/api/v1/me").await.json()["role"], "admin");
    let humble = system.client(&system.token(tenant.id, &subject, Role::User));
    assert_eq!(humble.get("/api/v1/me").await.json()["role"], "user");
    humble.post("/api/v1/mcp/configurations", &register("humble", "organization")).await.problem(403, "forbidden");
    assert_eq!(admin.get("/api/v1/me").await.json()["role"], "admin", "the stored role stands");
}

pub(crate) async fn first_use_makes_one_row_under_twenty_concurrent_requests(system: Arc<System>) {
    let tenant = system.organization().await;
    let subject = format!("newcomer-{}", tenant.id);
    let newcomer = system.client(&system.token(tenant.id, &subject, Role::User));
    let answers = join_all((0..20).map(|_| newcomer.get("/api/v1/me"))).await;
    for answer in &answers {
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    let database = system.database("superuser").await;
    let rows: Vec<(String, String, i64)> =
        sqlx::query_as("SELECT role, state, generation FROM users WHERE organization_id = $1 AND subject = $2")
            .bind(tenant.id)
            .bind(&subject)
            .fetch_all(&database)
            .await
            .expect("the query runs");
    assert_eq!(rows, [("user".to_owned(), "active".to_owned(), 1)]);
}

pub(crate) async fn a_queued_call_of_a_member_removed_meanwhile_does_not_run(system: Arc<System>) {
    let tenant = system.organization().await;
    let server = format!("/record/modern/leaver-{}", tenant.id);
    tenant.register("recorder", &system.faulty.url(&server), json!({})).await;
    let (leaver, seen) = newcomer(&system, &tenant, "leaver", Role::User).await;
    let call = |client: &Client, text: &str| {
        let client = client.clone();
        let arguments = json!({ "text": text });
        async move {
            let body =
                json!({ "configuration": "recorder", "tool": TOOL, "arguments": arguments, "timeout_ms": 20_000 });
            client.post("/api/v1/tool-calls", &body).await
        }
    };
    assert_eq!(call(&leaver, "before").await.status, 200);
    let operator = system.client(&system.seeded.operator_token);
    let organization = format!("/api/v1/organizations/{}", tenant.id);
    // A paused lane holds calls between their publication and their start.
    pause(&system, &tenant, json!({})).await;
    let waits = join_all([call(&leaver, "late"), call(&tenant.user, "colleague")]);
    let removal = async {
        until_lane(&system, &tenant, "both calls", |lane| lane["num_pending"] == 2).await;
        assert_eq!(tenant.admin.delete(&path(&seen)).await.status, 204);
        soon(&leaver, 403).await;
        assert_eq!(operator.put(&organization, "*", &json!({ "paused": false })).await.status, 200);
    };
    let (answers, ()) = tokio::join!(waits, removal);
    answers[0].problem(403, "forbidden");
    assert_eq!(answers[1].status, 200, "{}", answers[1].text);
    let asked = system.faulty.recorded(&server);
    let calls = asked.iter().filter(|asked| asked.method() == "tools/call");
    let ran: Vec<&Value> = calls.map(|asked| &asked.body["params"]["arguments"]["text"]).collect();
    assert_eq!(ran, ["before", "colleague"]);
    let row = system
        .eventually(
            "the refusal in the trail",
            "SELECT to_jsonb(l) - 'event' FROM audit_logs l WHERE actor = $1 AND action = 'tools.call' AND code = 'forbidden'",
            seen["subject"].as_str().expect("a subject"),
        )
        .await;
    assert_eq!(row["outcome"], "refused");
}

pub(crate) async fn a_removed_member_is_refused_by_every_gateway_also_after_a_reconnect(system: Arc<System>) {
    let relay = Relay::to(&system.nats_url).await;
    let stack = system.stack().await;
    let (name, address) = stack.add_gateway_with(&[("NATS_URL", &relay.url())]).await.expect("a second gateway");
    let tenant = system.organization().await;
    let (near, seen) = newcomer(&system, &tenant, "leaver", Role::User).await;
    let far = near.at(&address);
    assert_eq!(far.get("/api/v1/me").await.status, 200);

    // The second gateway hears nothing of the removal.
    relay.cut();
    assert_eq!(tenant.admin.delete(&path(&seen)).await.status, 204);
    soon(&near, 403).await;
    far.get("/api/v1/me").await.problem(503, "unavailable");
    relay.heal();
    // From now on it refuses: for not knowing, then for knowing. It never lets in on what it knew before.
    let healed = Instant::now();
    loop {
        let answer = far.get("/api/v1/me").await;
        match answer.status.as_u16() {
            403 => break,
            503 => assert!(healed.elapsed() < PATIENCE, "it does not come back: {}", answer.text),
            other => panic!("{other}: {}", answer.text),
        }
    }
    let colleague = tenant.user.at(&address);
    soon(&colleague, 200).await;
    // Nor after a restart, with the same token.
    stack.restart(&name).await.expect("it starts again");
    far.get("/api/v1/me").await.problem(403, "forbidden");
    far.post("/api/v1/tool-calls", &json!({ "configuration": "demo", "tool": "echo" })).await.problem(403, "forbidden");
    assert_eq!(colleague.get("/api/v1/me").await.status, 200);
    // Put back, they are let in by both, the same token still.
    let subject = seen["subject"].clone();
    assert_eq!(tenant.admin.post(USERS, &json!({ "subject": subject })).await.status, 201);
    for client in [&near, &far] {
        soon(client, 200).await;
    }
    stack.stop_one(&name).await.expect("it stops");
}
