//! Members as their admins manage them: what is decided counts on every gateway and worker, at once and
//! for good.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use shared::command::users::MAX_MEMBERS;
use stack::issuer::{Role, TokenRequest};
use uuid::Uuid;

use crate::{
    members::soon,
    world::{Answer, Client, PATIENCE, System, Tenant},
};

pub(crate) const USERS: &str = "/api/v1/users";

/// The member with a subject, as its admin sees it.
async fn member(tenant: &Tenant, subject: &str) -> Option<Value> {
    let list = tenant.admin.get(&format!("{USERS}?limit=200")).await;
    assert_eq!(list.status, 200, "{}", list.text);
    list.json()["items"].as_array().expect("items").iter().find(|item| item["subject"] == subject).cloned()
}

/// A member's address.
pub(crate) fn path(member: &Value) -> String {
    format!("{USERS}/{}", member["id"].as_str().expect("an id"))
}

/// A member who has been here: their client, and what an admin sees of them.
pub(crate) async fn newcomer(system: &System, tenant: &Tenant, name: &str, role: Role) -> (Client, Value) {
    let subject = format!("{name}-{}", tenant.id);
    let client = system.client(&system.token(tenant.id, &subject, role));
    let me = client.get("/api/v1/me").await;
    assert_eq!(me.status, 200, "{}", me.text);
    let seen = member(tenant, &subject).await.expect("first use made a row");
    (client, seen)
}

pub(crate) async fn an_admin_adds_changes_removes_and_puts_back_a_member(system: Arc<System>) {
    let tenant = system.organization().await;
    let subject = format!("invited|{}", tenant.id);
    let added =
        tenant.admin.post(USERS, &json!({ "subject": subject, "email": "i@example.test", "role": "admin" })).await;
    assert_eq!(added.status, 201, "{}", added.text);
    assert_eq!(added.headers["etag"], "\"1\"");
    let seen = added.json();
    assert_eq!(
        (&seen["role"], &seen["state"], &seen["email"]),
        (&json!("admin"), &json!("active"), &json!("i@example.test"))
    );
    assert_eq!(tenant.admin.get(&path(&seen)).await.json(), seen);
    assert_eq!(member(&tenant, &subject).await.as_ref(), Some(&seen));
    let twice = tenant.admin.post(USERS, &json!({ "subject": subject })).await;
    assert_eq!(twice.problem(409, "conflict")["field"], "subject");

    // The row that was made for them is theirs on first use; the lower of claim and row applies.
    let invited = system.client(&system.token(tenant.id, &subject, Role::Admin));
    assert_eq!(invited.get("/api/v1/me").await.json()["role"], "admin");
    assert_eq!(invited.get(USERS).await.status, 200);
    let demoted = tenant.admin.put(&path(&seen), "\"1\"", &json!({ "role": "user" })).await;
    assert_eq!((demoted.status.as_u16(), &demoted.json()["role"]), (200, &json!("user")), "{}", demoted.text);
    soon_refused(&invited, USERS).await;
    assert_eq!(invited.get("/api/v1/me").await.json()["role"], "user");

    let disabled = tenant.admin.put(&path(&seen), "*", &json!({ "state": "disabled" })).await;
    assert_eq!((disabled.status.as_u16(), &disabled.json()["state"]), (200, &json!("disabled")));
    soon(&invited, 403).await;
    assert_eq!(tenant.admin.put(&path(&seen), "*", &json!({ "state": "active" })).await.status, 200);
    soon(&invited, 200).await;

    assert_eq!(tenant.admin.delete(&path(&seen)).await.status, 204);
    soon(&invited, 403).await;
    assert_eq!(member(&tenant, &subject).await, None, "a removed member is not listed");
    tenant.admin.get(&path(&seen)).await.problem(404, "unknown");
    tenant.admin.put(&path(&seen), "*", &json!({ "state": "active" })).await.problem(404, "unknown");
    tenant.admin.delete(&path(&seen)).await.problem(404, "unknown");
    // Signing in again, with whatever claim, does not bring them back; an admin does.
    let promoted = system.client(&system.token(tenant.id, &subject, Role::Admin));
    promoted.get("/api/v1/me").await.problem(403, "forbidden");
    let back = tenant.admin.post(USERS, &json!({ "subject": subject })).await;
    assert_eq!(back.status, 201, "{}", back.text);
    assert_eq!((&back.json()["id"], &back.json()["role"]), (&seen["id"], &json!("user")));
    assert_eq!(back.json()["email"], "i@example.test", "what was known is known again");
    soon(&invited, 200).await;
    assert_eq!(invited.get("/api/v1/me").await.json()["role"], "user");
    the_trail_tells(&system, &subject).await;
}

/// Waits until a path is refused to a member who may still act.
async fn soon_refused(client: &Client, path: &str) {
    let asked = Instant::now();
    while client.get(path).await.status != 403 {
        assert!(asked.elapsed() < Duration::from_secs(3), "still let in");
    }
}

async fn the_trail_tells(system: &System, subject: &str) {
    for action in ["users.add", "users.change", "users.remove"] {
        let row = system
            .eventually(
                "what was done to the member",
                "SELECT to_jsonb(l) - 'event' FROM audit_logs l WHERE resource_id || ' ' || action = $1 \
                     AND outcome = 'succeeded'",
                &format!("{subject} {action}"),
            )
            .await;
        assert_eq!(row["resource_type"], "user");
        assert!(row["details"]["state"].is_string() && row["details"]["role"].is_string(), "{row}");
    }
}

pub(crate) async fn the_last_active_admin_stays_one(system: Arc<System>) {
    let tenant = system.organization().await;
    let subject = tenant.admin.get("/api/v1/me").await.json()["subject"].as_str().expect("a subject").to_owned();
    let admin = member(&tenant, &subject).await.expect("the admin");
    let attempts = async || {
        vec![
            tenant.admin.put(&path(&admin), "*", &json!({ "role": "user" })).await,
            tenant.admin.put(&path(&admin), "*", &json!({ "state": "disabled" })).await,
            tenant.admin.delete(&path(&admin)).await,
        ]
    };
    for answer in attempts().await {
        answer.problem(409, "conflict");
    }
    // One who cannot act does not count as another.
    let (_, second) = newcomer(&system, &tenant, "second", Role::Admin).await;
    assert_eq!(tenant.admin.put(&path(&second), "*", &json!({ "state": "disabled" })).await.status, 200);
    for answer in attempts().await {
        answer.problem(409, "conflict");
    }
    assert_eq!(tenant.admin.put(&path(&admin), "*", &json!({ "email": "a@example.test" })).await.status, 200);
    // With another admin one may go, and of two who demote each other at the same moment one stays.
    assert_eq!(tenant.admin.put(&path(&second), "*", &json!({ "state": "active" })).await.status, 200);
    for _ in 0..5 {
        let (a, b) = (path(&admin), path(&second));
        let demote = json!({ "role": "user" });
        let (first, other) = tokio::join!(tenant.admin.put(&a, "*", &demote), tenant.admin.put(&b, "*", &demote));
        let done = [&first, &other].into_iter().filter(|answer| answer.status == 200).count();
        assert!(done <= 1, "{} {}", first.text, other.text);
        restore(&system, &tenant, &[&admin, &second]).await;
    }
}

/// Makes both admins again, whoever is left of them.
async fn restore(system: &System, tenant: &Tenant, admins: &[&Value]) {
    let database = system.database("superuser").await;
    let left: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM users WHERE organization_id = $1 AND role = 'admin' AND state = 'active'",
    )
    .bind(tenant.id)
    .fetch_one(&database)
    .await
    .expect("a count");
    assert!(left >= 1, "the organization has no admin any more");
    database.close().await;
    let asked = Instant::now();
    for admin in admins {
        let subject = admin["subject"].as_str().expect("a subject");
        let each: Vec<Client> = admins
            .iter()
            .map(|one| {
                system.client(&system.token(tenant.id, one["subject"].as_str().expect("a subject"), Role::Admin))
            })
            .collect();
        // Whoever of them is an admin makes the other one.
        loop {
            let (path, promote) = (path(admin), json!({ "role": "admin" }));
            let answers = join_all(each.iter().map(|one| one.put(&path, "*", &promote))).await;
            if answers.iter().any(|answer| answer.status == 200) {
                break;
            }
            assert!(asked.elapsed() < PATIENCE, "nobody could restore {subject}");
        }
    }
    for one in admins {
        let client = system.client(&system.token(tenant.id, one["subject"].as_str().expect("a subject"), Role::Admin));
        while client.get(USERS).await.status != 200 {
            assert!(asked.elapsed() < PATIENCE, "the news of the restored admin never came");
        }
    }
}

pub(crate) async fn one_person_in_two_organizations_sees_both_and_acts_in_one(system: Arc<System>) {
    let (one, two) = (system.organization().await, system.organization().await);
    let subject = Uuid::new_v4().to_string();
    let in_one = system.client(&system.token(one.id, &subject, Role::Admin));
    let in_two = system.client(&system.token(two.id, &subject, Role::User));
    let memberships = |answer: &Answer| -> Vec<String> {
        let all = answer.json()["memberships"].clone();
        let all = all.as_array().expect("memberships").clone();
        let fields = |one: &Value| one.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
        assert!(all.iter().all(|one| fields(one) == ["id", "slug"]), "{all:?}");
        all.iter().map(|one| one["id"].as_str().expect("an id").to_owned()).collect()
    };
    let first = in_one.get("/api/v1/me").await;
    assert_eq!(memberships(&first), [one.id.to_string()]);
    let second = in_two.get("/api/v1/me").await;
    let mut both = memberships(&second);
    both.sort_unstable();
    let mut expected = [one.id.to_string(), two.id.to_string()];
    expected.sort_unstable();
    assert_eq!(both, expected);
    // A token acts in the organization it names, in the role that applies there.
    assert_eq!((&second.json()["role"], &second.json()["organization"]["id"]), (&json!("user"), &json!(two.id)));
    in_two.get(USERS).await.problem(403, "forbidden");
    assert_eq!(in_one.get(USERS).await.status, 200);
    // Removed in one, they are not in the other, and neither is listed where they cannot act.
    let there = member(&one, &subject).await.expect("a member");
    assert_eq!(one.admin.delete(&path(&there)).await.status, 204);
    soon(&in_one, 403).await;
    assert_eq!(memberships(&in_two.get("/api/v1/me").await), [two.id.to_string()]);
    // Nobody else sees them.
    assert_eq!(memberships(&two.user.get("/api/v1/me").await), [two.id.to_string()]);
}

pub(crate) async fn no_admin_can_become_an_operator(system: Arc<System>) {
    let tenant = system.organization().await;
    for role in ["operator", "owner", "Admin", ""] {
        let answer = tenant.admin.post(USERS, &json!({ "subject": "x", "role": role })).await;
        assert_eq!(answer.problem(400, "invalid")["field"], "role");
    }
    // Neither by a token that claims the role, nor by membership of the platform.
    for (organization, role) in [(tenant.id, "operator"), (Uuid::nil(), "admin")] {
        let request =
            TokenRequest { organization: Some(organization), subject: "climber".into(), ..TokenRequest::default() };
        let mut claims = system.issuer().claims(&request);
        claims["app_metadata"]["org_role"] = json!(role);
        let token = system.issuer().mint_with(&system.issuer().header(), &claims).expect("a token");
        let climber = system.client(&token);
        let answer = climber.get("/api/v1/organizations").await;
        assert!([401, 403].contains(&answer.status.as_u16()), "{}", answer.text);
    }
    let database = system.database("superuser").await;
    let operators: i64 = sqlx::query_scalar("SELECT count(*) FROM users WHERE role NOT IN ('admin', 'user')")
        .fetch_one(&database)
        .await
        .expect("a count");
    assert_eq!(operators, 0);
    database.close().await;
}

pub(crate) async fn bad_bodies_of_a_member_are_refused_by_field_and_keep_nothing(system: Arc<System>) {
    let tenant = system.organization().await;
    let (_, seen) = newcomer(&system, &tenant, "steady", Role::User).await;
    let before = tenant.admin.get(USERS).await.json();
    let (long, address) = ("s".repeat(256), format!("{}@x", "e".repeat(320)));
    let adds = [
        ("subject", json!({})),
        ("subject", json!({ "subject": "" })),
        ("subject", json!({ "subject": "a b" })),
        ("subject", json!({ "subject": "a\u{0}b" })),
        ("subject", json!({ "subject": "\u{fc}" })),
        ("subject", json!({ "subject": long })),
        ("subject", json!({ "subject": 7 })),
        ("email", json!({ "subject": "s", "email": "" })),
        ("email", json!({ "subject": "s", "email": "no address" })),
        ("email", json!({ "subject": "s", "email": "a@\u{0}" })),
        ("email", json!({ "subject": "s", "email": address })),
        ("role", json!({ "subject": "s", "role": 1 })),
        ("state", json!({ "subject": "s", "state": "active" })),
        ("organization_id", json!({ "subject": "s", "organization_id": Uuid::now_v7() })),
    ];
    for (field, body) in adds {
        assert_eq!(tenant.admin.post(USERS, &body).await.problem(400, "invalid")["field"], field, "{body}");
    }
    let changes = [
        ("state", json!({ "state": "removed" })),
        ("state", json!({ "state": "gone" })),
        ("role", json!({ "role": "operator" })),
        ("email", json!({ "email": "\n@" })),
        ("subject", json!({ "subject": "another" })),
        ("id", json!({ "id": Uuid::now_v7() })),
    ];
    for (field, body) in changes {
        assert_eq!(tenant.admin.put(&path(&seen), "*", &body).await.problem(400, "invalid")["field"], field, "{body}");
    }
    for id in ["x", "%00", "00000000-0000-0000-0000-00000000000g"] {
        for method in [Method::GET, Method::PUT, Method::DELETE] {
            let request =
                tenant.admin.request(method, &format!("{USERS}/{id}")).header("if-match", "*").json(&json!({}));
            assert_eq!(tenant.admin.send(request).await.problem(400, "invalid")["field"], "id");
        }
    }
    for (query, field) in
        [("limit=0", "limit"), ("limit=201", "limit"), ("cursor=", "cursor"), ("state=removed", "state")]
    {
        let answer = tenant.admin.get(&format!("{USERS}?{query}")).await;
        assert_eq!(answer.problem(400, "invalid")["field"], field);
    }
    assert_eq!(tenant.admin.get(USERS).await.json(), before, "something was half written");
}

pub(crate) async fn pages_of_members_show_everybody_once_and_in_order(system: Arc<System>) {
    let tenant = system.organization().await;
    for name in ["b", "A", "a", "B", "z|1", "_"] {
        newcomer(&system, &tenant, name, Role::User).await;
    }
    let whole = tenant.admin.get(USERS).await.json();
    let subjects_of = |page: &Value| -> Vec<String> {
        let items = page["items"].as_array().expect("items").iter();
        items.map(|item| item["subject"].as_str().expect("a subject").to_owned()).collect()
    };
    let (mut subjects, mut query) = (Vec::new(), "limit=1".to_owned());
    loop {
        let page = tenant.admin.get(&format!("{USERS}?{query}")).await.json();
        subjects.extend(subjects_of(&page));
        let Some(next) = page["next"].as_str() else { break };
        query = page_after(next);
    }
    assert_eq!(subjects, subjects_of(&whole));
    assert!(subjects.is_sorted() && subjects.len() >= 7, "{subjects:?}");
}

/// The query of the page after this cursor.
fn page_after(cursor: &str) -> String {
    url::form_urlencoded::Serializer::new("limit=1".to_owned()).append_pair("cursor", cursor).finish()
}

/// What every gateway and worker holds in memory of members has room for all organizations: one cannot take it
/// from the others. Rows are made by the database, since 10,000 requests would show nothing more.
pub(crate) async fn an_organization_has_room_for_so_many_members_and_no_more(system: Arc<System>) {
    let tenant = system.organization().await;
    assert_eq!(tenant.admin.get("/api/v1/me").await.status, 200);
    let superuser = system.database("superuser").await;
    sqlx::query(
        "INSERT INTO users (organization_id, id, subject, role) \
         SELECT $1, gen_random_uuid(), 'crowd-' || n, 'user' \
         FROM generate_series(1, $2 - (SELECT count(*) FROM users WHERE organization_id = $1)) AS n",
    )
    .bind(tenant.id)
    .bind(MAX_MEMBERS)
    .execute(&superuser)
    .await
    .expect("a crowd");
    tenant.admin.post(USERS, &json!({ "subject": "one-too-many" })).await.problem(429, "throttled");
    let stranger = system.client(&system.token(tenant.id, "another-too-many", Role::User));
    stranger.get("/api/v1/me").await.problem(429, "throttled");
    assert_eq!(tenant.admin.get("/api/v1/me").await.status, 200, "members go on");
    let members: i64 = sqlx::query_scalar("SELECT count(*) FROM users WHERE organization_id = $1")
        .bind(tenant.id)
        .fetch_one(&superuser)
        .await
        .expect("a count");
    assert_eq!(members, MAX_MEMBERS, "nothing was kept of those refused");
    // Or every other test's gateways would be told of them.
    sqlx::query("DELETE FROM users WHERE organization_id = $1 AND subject LIKE 'crowd-%'")
        .bind(tenant.id)
        .execute(&superuser)
        .await
        .expect("the crowd leaves");
    superuser.close().await;
}
