//! Every route with another organization's things: the same answer as for things that are not there,
//! nothing foreign in any list, and nothing changed over there.

use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    members,
    routes::{self, RouteLine},
};
use crate::{
    sessions::{self, SESSIONS},
    world::{Answer, Client, System, Tenant},
};

/// How a route is attacked. Every route has one line in [`CASES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    /// Answers of the caller alone.
    Caller,
    /// For platform operators: `members` shows it, here it is 403.
    Operators,
    /// A list: all pages, and another's cursor.
    List,
    /// Creates; names of others are free, and no field says whose it shall be.
    Create,
    /// One thing by its id.
    Item,
    /// A change of the caller's own organization, by its admins.
    Own,
    /// The list of members, and adding one: for admins.
    Members,
    /// One member by id, for admins.
    Member,
    /// A call that names a configuration by id or name.
    Call,
    /// The list of sessions, and opening one.
    Sessions,
    /// One session by id.
    Session,
    /// Never ends by itself: `a_member_hears_their_own_sessions_and_an_admin_everybodys` shows it.
    Stream,
    /// A trial that names a configuration by its id.
    Trial,
    /// A composed prompt, for the caller or a member that is named.
    Preview,
    /// The deployment's, the same for every member.
    Shared,
    /// No token needed: tells nothing of any tenant.
    Public,
}

const CASES: [(&str, &str, Case); 47] = [
    ("GET", "/", Case::Public),
    ("GET", "/api/v1/mcp/catalogue", Case::Shared),
    ("GET", "/api/v1/mcp/configurations", Case::List),
    ("POST", "/api/v1/mcp/configurations", Case::Create),
    ("DELETE", "/api/v1/mcp/configurations/:id", Case::Item),
    ("GET", "/api/v1/mcp/configurations/:id", Case::Item),
    ("PUT", "/api/v1/mcp/configurations/:id", Case::Item),
    ("GET", "/api/v1/mcp/configurations/:id/tools", Case::Item),
    ("PUT", "/api/v1/mcp/configurations/:id/tools/:tool", Case::Item),
    ("POST", "/api/v1/mcp/configurations/:id/tools/:tool/accept", Case::Item),
    ("POST", "/api/v1/mcp/test", Case::Trial),
    ("GET", "/api/v1/sessions", Case::Sessions),
    ("POST", "/api/v1/sessions", Case::Sessions),
    ("GET", "/api/v1/sessions/:id", Case::Session),
    ("DELETE", "/api/v1/sessions/:id", Case::Session),
    ("GET", "/api/v1/events", Case::Stream),
    ("GET", "/api/v1/me", Case::Caller),
    ("GET", "/api/v1/prompts", Case::List),
    ("POST", "/api/v1/prompts", Case::Create),
    ("DELETE", "/api/v1/prompts/:id", Case::Item),
    ("GET", "/api/v1/prompts/:id", Case::Item),
    ("PUT", "/api/v1/prompts/:id", Case::Item),
    ("GET", "/api/v1/prompts/:id/versions", Case::Item),
    ("GET", "/api/v1/prompts/preview", Case::Preview),
    ("GET", "/api/v1/organizations", Case::Operators),
    ("POST", "/api/v1/organizations", Case::Operators),
    ("POST", "/api/v1/tool-calls", Case::Call),
    ("GET", "/assets/*path", Case::Public),
    ("GET", "/docs", Case::Public),
    ("GET", "/docs/faults", Case::Public),
    ("GET", "/docs/style.css", Case::Public),
    ("GET", "/favicon.svg", Case::Public),
    ("GET", "/health", Case::Public),
    ("GET", "/live", Case::Public),
    ("GET", "/metrics", Case::Public),
    ("GET", "/openapi.json", Case::Public),
    ("GET", "/ready", Case::Public),
    ("PUT", "/api/v1/organizations/:id", Case::Operators),
    ("GET", "/api/v1/organizations/:id", Case::Operators),
    ("DELETE", "/api/v1/organizations/:id", Case::Operators),
    ("GET", "/api/v1/organization", Case::Caller),
    ("PUT", "/api/v1/organization", Case::Own),
    ("GET", "/api/v1/users", Case::Members),
    ("POST", "/api/v1/users", Case::Members),
    ("GET", "/api/v1/users/:id", Case::Member),
    ("PUT", "/api/v1/users/:id", Case::Member),
    ("DELETE", "/api/v1/users/:id", Case::Member),
];

/// Every declared route with its case.
fn cases() -> Vec<(RouteLine, Case)> {
    let declared = routes::declared();
    assert!(declared.len() >= 10, "the routes were not found: {declared:?}");
    let with_case = |route: RouteLine| match case_of(&route) {
        Some(case) => (route, case),
        None => panic!("no case says how {} {} keeps organizations apart", route.method, route.path),
    };
    declared.into_iter().map(with_case).collect()
}

fn case_of(route: &RouteLine) -> Option<Case> {
    let found = CASES.iter().find(|(method, path, _)| *method == route.method && *path == route.path);
    found.map(|(_, _, case)| *case)
}

pub(crate) fn a_route_without_a_case_is_noticed() {
    let line = |method: &str, path: &str| RouteLine { method: method.to_owned(), path: path.to_owned() };
    assert_eq!(case_of(&line("PUT", "/api/v1/me")), None, "a route without a case passed");
    assert_eq!(case_of(&line("GET", "/api/v1/me")), Some(Case::Caller));
    let declared = cases();
    assert!(declared.iter().any(|(route, case)| *case == Case::Item && route.path.contains(":id")), "{declared:?}");
}

/// An organization with things of every kind that its name is part of.
struct Side {
    tenant: Tenant,
    demo: String,
    only: String,
    only_name: String,
    own: String,
    own_name: String,
    /// The organization's prompt, and a member's own.
    prompts: [String; 2],
    /// A member's id, and the subject of their tokens.
    member: String,
    subject: String,
    session: String,
}

async fn side(system: &System) -> Side {
    let tenant = system.organization().await;
    let tag = tenant.id.simple();
    let (only_name, own_name) = (format!("only-{tag}"), format!("own-{tag}"));
    let secret = json!({ "auth": { "type": "bearer", "token": format!("secret-{tag}") } });
    let only = tenant.register(&only_name, &system.demo_url, secret).await;
    let own = members::register_own(system, &tenant.user, &own_name).await;
    // Warm in every cache, so that nothing is unknown merely for being new.
    for configuration in ["demo", only_name.as_str(), only.as_str(), own_name.as_str()] {
        let answer = tenant.call(configuration, "echo", json!({ "text": "mine" })).await;
        assert_eq!(answer.status, 200, "{configuration}: {}", answer.text);
    }
    let prompt = async |client: &Client, scope: &str, name: &str| {
        let body = json!({ "scope": scope, "name": name, "content": format!("Say {name}.") });
        let made = client.post("/api/v1/prompts", &body).await;
        assert_eq!(made.status, 201, "{}", made.text);
        made.json()["id"].as_str().expect("an id").to_owned()
    };
    let prompts =
        [prompt(&tenant.admin, "organization", &only_name).await, prompt(&tenant.user, "user", &own_name).await];
    // What the server said to the secret is noted beside the call: the rows shall be at rest.
    let noted = "SELECT to_jsonb(c) FROM mcp_configurations c WHERE id::text = $1 AND secret_state = 'valid'";
    system.eventually("the state of the secret", noted, &only).await;
    assert_eq!(tenant.admin.get("/api/v1/me").await.status, 200);
    let list = tenant.admin.get("/api/v1/mcp/configurations").await.json();
    let demo = list["items"].as_array().expect("items").iter().find(|item| item["name"] == "demo").expect("demo");
    let demo = demo["id"].as_str().expect("an id").to_owned();
    let members = tenant.admin.get("/api/v1/users").await.json();
    let member =
        members["items"].as_array().expect("items").iter().find(|item| item["role"] == "user").expect("a user");
    let of = |field: &str| member[field].as_str().expect("a text").to_owned();
    let (member, subject) = (of("id"), of("subject"));
    let session = sessions::open(&tenant.user, json!({})).await;
    // The rows shall be at rest.
    sessions::settled_hooks(system, &session).await;
    let session = session["id"].as_str().expect("an id").to_owned();
    Side { tenant, demo, only, only_name, own, own_name, prompts, member, subject, session }
}

pub(crate) async fn another_organizations_things_are_as_unknown_as_nothing(system: Arc<System>) {
    let (a, b) = (side(&system).await, side(&system).await);
    for (attacker, victim) in [(&a, &b), (&b, &a)] {
        let before = rows(&system, victim.tenant.id).await;
        for (route, case) in cases() {
            for client in [&attacker.tenant.admin, &attacker.tenant.user] {
                attack(&system, client, attacker, victim, &route, case).await;
            }
        }
        assert_eq!(before, rows(&system, victim.tenant.id).await, "something changed over there");
        the_trail_is_the_attackers(&system, attacker, victim).await;
        for configuration in [&victim.demo, &victim.only_name, &victim.own] {
            let answer = victim.tenant.call(configuration, "echo", json!({ "text": "still mine" })).await;
            assert_eq!(answer.status, 200, "{configuration}: {}", answer.text);
        }
    }
}

async fn attack(system: &System, client: &Client, attacker: &Side, victim: &Side, route: &RouteLine, case: Case) {
    let method: Method = route.method.parse().expect("a method");
    match case {
        Case::Public | Case::Stream => {}
        Case::Sessions => of_sessions(client, victim, &method).await,
        Case::Session => {
            let ask =
                async |id: &str| client.send(client.request(method.clone(), &route.path.replace(":id", id))).await;
            same(&ask(&victim.session).await, &ask(&Uuid::now_v7().to_string()).await);
        }
        Case::Shared => {
            let answer = client.get(&route.path).await;
            assert_eq!(answer.status, 200, "{}", answer.text);
            nothing_of(victim, &answer);
        }
        Case::Caller => {
            let answer = client.get(&route.path).await;
            assert_eq!(answer.status, 200, "{}", answer.text);
            assert!(answer.text.contains(&attacker.tenant.id.to_string()));
            nothing_of(victim, &answer);
        }
        Case::Operators => of_operators(client, attacker, victim, (&method, &route.path)).await,
        Case::List => lists(client, victim, &route.path).await,
        Case::Create => creates(system, attacker, victim, &route.path).await,
        Case::Item => items(system, client, victim, route).await,
        Case::Trial => {
            for id in [&victim.demo, &victim.only, &victim.own] {
                let ask = async |id: &str| client.post(&route.path, &json!({ "configuration": id })).await;
                same(&ask(id).await, &ask(&Uuid::now_v7().to_string()).await);
            }
        }
        Case::Preview => {
            let own = client.get(&route.path).await;
            assert_eq!(own.status, 200, "{}", own.text);
            nothing_of(victim, &own);
            let ask = async |id: &str| client.get(&format!("{}?user={id}", route.path)).await;
            let (theirs, nobodys) = (ask(&victim.member).await, ask(&Uuid::now_v7().to_string()).await);
            if client.token == attacker.tenant.admin.token {
                same(&theirs, &nobodys);
            } else {
                theirs.problem(403, "forbidden");
                nobodys.problem(403, "forbidden");
            }
        }
        Case::Own | Case::Members | Case::Member => {
            of_admins(client, attacker, victim, (&method, &route.path), case).await;
        }
        Case::Call => of_calls(client, victim, &route.path).await,
    }
}

/// What only platform operators may: neither of another's, nor of their own, nor of nobody's.
async fn of_operators(client: &Client, attacker: &Side, victim: &Side, (method, path): (&Method, &str)) {
    let body = match *method {
        Method::PUT => json!({ "concurrency_limit": 1, "paused": true }),
        _ => json!({ "slug": format!("s{}", attacker.tenant.id.simple()), "name": "x" }),
    };
    // Neither of another's, nor of their own, nor of nobody's.
    for id in [victim.tenant.id, attacker.tenant.id, Uuid::now_v7()] {
        let path = path.replace(":id", &id.to_string());
        let request = client.request(method.clone(), &path).header("if-match", "*").json(&body);
        let answer = client.send(request).await;
        answer.problem(403, "forbidden");
        nothing_of(victim, &answer);
    }
}

/// A call of what is theirs is a call of nothing.
async fn of_calls(client: &Client, victim: &Side, path: &str) {
    for (named, nothing) in [
        (&victim.demo, Uuid::now_v7().to_string()),
        (&victim.only, Uuid::now_v7().to_string()),
        (&victim.own, Uuid::new_v4().to_string()),
        (&victim.only_name, format!("only-{}", Uuid::new_v4().simple())),
        (&victim.own_name, format!("own-{}", Uuid::new_v4().simple())),
    ] {
        let ask = async |configuration: &str| {
            let arguments = json!({ "text": "theirs" });
            let body = json!({ "configuration": configuration, "tool": "echo", "arguments": arguments });
            client.post(path, &body).await
        };
        same(&ask(named).await, &ask(&nothing).await);
    }
}

/// Nothing of theirs is listed, by whatever is asked for, and none is opened for them.
async fn of_sessions(client: &Client, victim: &Side, method: &Method) {
    if *method == Method::POST {
        for field in ["organization", "organization_id", "org_id", "user", "subject", "id"] {
            let mut body = json!({ "agent_type": "theirs" });
            body[field] = json!(victim.tenant.id);
            client.post(SESSIONS, &body).await.problem(400, "invalid");
        }
        return;
    }
    for query in [
        String::new(),
        "?all=true".to_owned(),
        format!("?user={}", victim.member),
        format!("?cursor={}", victim.session),
    ] {
        let answer = client.get(&format!("{SESSIONS}{query}")).await;
        assert!([200, 403].contains(&answer.status.as_u16()), "{}", answer.text);
        nothing_of(victim, &answer);
    }
}

/// One thing of theirs, by every id.
async fn items(system: &System, client: &Client, victim: &Side, route: &RouteLine) {
    let method: Method = route.method.parse().expect("a method");
    let ids = if is_of_prompts(&route.path) {
        victim.prompts.iter().collect()
    } else {
        vec![&victim.demo, &victim.only, &victim.own]
    };
    for id in ids {
        let ask = async |id: &str| {
            let path = route.path.replace(":id", id).replace(":tool", "echo");
            let request = client.request(method.clone(), &path).header("if-match", "*");
            let request = match changing(system, &route.path) {
                Some(body) if [Method::PUT, Method::POST].contains(&method) => request.json(&body),
                _ => request,
            };
            client.send(request).await
        };
        same(&ask(id).await, &ask(&Uuid::now_v7().to_string()).await);
    }
}

fn is_of_prompts(path: &str) -> bool {
    path.starts_with("/api/v1/prompts")
}

/// What a route takes that changes one thing.
fn changing(system: &System, path: &str) -> Option<Value> {
    Some(match path.rsplit('/').next()? {
        ":id" if is_of_prompts(path) => json!({ "name": "grabbed", "content": "x" }),
        ":id" => json!({ "name": "grabbed", "endpoint": system.demo_url }),
        ":tool" => json!({ "repeatable": true }),
        "accept" => json!({ "offered_sha256": "0".repeat(64) }),
        _ => return None,
    })
}

/// What only admins may: a user is refused whatever they name, an admin reaches their own.
async fn of_admins(client: &Client, attacker: &Side, victim: &Side, (method, path): (&Method, &str), case: Case) {
    let ask = async |path: &str, body: &Value| {
        client.send(client.request(method.clone(), path).header("if-match", "*").json(body)).await
    };
    let body = match (case, method) {
        (Case::Own, _) => json!({ "name": "Ours" }),
        (Case::Members, _) => json!({ "subject": victim.subject }),
        _ => json!({ "role": "user", "state": "disabled" }),
    };
    let (theirs, nothing) = (path.replace(":id", &victim.member), path.replace(":id", &Uuid::now_v7().to_string()));
    if client.token == attacker.tenant.user.token {
        for path in [&theirs, &nothing] {
            let answer = ask(path, &body).await;
            answer.problem(403, "forbidden");
            nothing_of(victim, &answer);
        }
        return;
    }
    let answer = ask(&theirs, &body).await;
    match (case, method) {
        (Case::Member, _) => same(&answer, &ask(&nothing, &body).await),
        // The subject may be a member here too: another membership, and no word about theirs.
        (Case::Members, &Method::POST) => {
            assert_eq!(answer.status, 201, "{}", answer.text);
            assert_ne!(answer.json()["id"], victim.member.as_str());
            let own = answer.json()["id"].as_str().expect("an id").to_owned();
            assert_eq!(client.delete(&format!("{path}/{own}")).await.status, 204);
        }
        _ => assert_eq!(answer.status, 200, "{}", answer.text),
    }
    assert!(!answer.text.contains(&victim.member) && !answer.text.contains(&victim.tenant.id.to_string()));
}

/// 404 in the same words, down to the headers: existence cannot be asked for.
fn same(foreign: &Answer, missing: &Answer) {
    let parts = |answer: &Answer| {
        let mut body = answer.problem(404, "unknown");
        body.as_object_mut().expect("an object").remove("instance");
        let headers: Vec<(String, String)> = answer
            .headers
            .iter()
            .filter(|(name, _)| !["date", "x-request-id"].contains(&name.as_str()))
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        (body, headers)
    };
    assert_eq!(parts(foreign), parts(missing));
}

/// Nothing in an answer names the other side.
fn nothing_of(victim: &Side, answer: &Answer) {
    let id = victim.tenant.id.to_string();
    let Side { demo, only, own, only_name, own_name, prompts: [shared, private], member, session, .. } = victim;
    for mark in [&id, demo, only, own, only_name, own_name, shared, private, member, session] {
        assert!(!answer.text.contains(mark.as_str()), "{mark} is not theirs to see: {}", answer.text);
    }
}

async fn lists(client: &Client, victim: &Side, path: &str) {
    let whole = client.get(path).await;
    assert_eq!(whole.status, 200, "{}", whole.text);
    assert!(whole.json()["items"].as_array().is_some_and(|items| !items.is_empty()), "{}", whole.text);
    nothing_of(victim, &whole);
    let mut cursors = vec![victim.only_name.clone(), victim.demo.clone(), "0".to_owned()];
    // A cursor of the victim's own page, and every page of one item.
    let theirs = victim.tenant.user.get(&format!("{path}?limit=1")).await.json();
    cursors.push(theirs["next"].as_str().expect("a second page").to_owned());
    while let Some(cursor) = cursors.pop() {
        let page =
            client.send(client.request(Method::GET, path).query(&[("cursor", cursor.as_str()), ("limit", "1")])).await;
        assert!(page.status == 200 || page.status == 400, "{}", page.text);
        nothing_of(victim, &page);
        if let Some(next) = page.json()["next"].as_str() {
            cursors.push(next.to_owned());
        }
    }
}

async fn creates(system: &System, attacker: &Side, victim: &Side, path: &str) {
    let admin = &attacker.tenant.admin;
    let body = if is_of_prompts(path) {
        json!({ "scope": "organization", "name": victim.only_name, "content": "x" })
    } else {
        json!({ "name": victim.only_name, "endpoint": system.demo_url })
    };
    // A name of theirs is free: a conflict would tell that it exists.
    let made = admin.post(path, &body).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let id = made.json()["id"].as_str().expect("an id").to_owned();
    assert_eq!(admin.delete(&format!("{path}/{id}")).await.status, 204);
    // Whose it is comes from the token: no field says otherwise, and an id cannot be chosen.
    for field in ["organization", "organization_id", "org_id", "tenant", "user_subject", "id", "created_by"] {
        let mut body = body.clone();
        body[field] = json!(victim.tenant.id);
        admin.post(path, &body).await.problem(400, "invalid");
    }
    // Neither do headers or the query.
    let request = admin.request(Method::GET, path).header("Org", victim.tenant.id.to_string());
    let request = request.header("X-Organization-Id", victim.tenant.id.to_string());
    let answer = admin.send(request).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    nothing_of(victim, &answer);
    admin.get(&format!("{path}?organization_id={}", victim.tenant.id)).await.problem(400, "invalid");
}

/// Everything that is an organization's, audit apart, by table, as the superuser sees it.
async fn rows(system: &System, organization: Uuid) -> Value {
    let database = system.database("superuser").await;
    let tables: Vec<(String, String)> = sqlx::query_as(
        "SELECT c.relname::text, a.attname::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid \
         WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition \
             AND a.attname = CASE c.relname WHEN 'organizations' THEN 'id' ELSE 'organization_id' END \
             AND c.relname NOT LIKE 'audit%'",
    )
    .fetch_all(&database)
    .await
    .expect("the tables");
    assert!(tables.len() >= 5, "{tables:?}");
    let mut all = json!({});
    for (table, key) in tables {
        let sql = format!(
            "SELECT coalesce(jsonb_agg(to_jsonb(t) ORDER BY to_jsonb(t)::text), '[]') FROM {table} t WHERE {key} = $1"
        );
        let found: Value = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .bind(organization)
            .fetch_one(&database)
            .await
            .expect("the rows");
        assert!(found.as_array().is_some_and(|rows| !rows.is_empty()), "the test has no rows in {table}: give it some");
        all[table] = found;
    }
    database.close().await;
    all
}

/// What was refused stands in the attacker's own trail, and not in the victim's.
async fn the_trail_is_the_attackers(system: &System, attacker: &Side, victim: &Side) {
    for action in ["configurations.get", "configurations.remove", "tools.list", "tools.call", "prompts.get"] {
        let row = system
            .eventually(
                "the refusal in the attacker's trail",
                "SELECT to_jsonb(l) FROM audit_logs l WHERE organization_id::text || ' ' || action = $1 AND code = 'unknown'",
                &format!("{} {action}", attacker.tenant.id),
            )
            .await;
        assert_eq!(row["outcome"], "refused");
    }
    let database = system.database("superuser").await;
    let actors: Vec<String> = sqlx::query_scalar("SELECT DISTINCT actor FROM audit_logs WHERE organization_id = $1")
        .bind(victim.tenant.id)
        .fetch_all(&database)
        .await
        .expect("the actors");
    let members: Vec<String> = sqlx::query_scalar("SELECT subject FROM users WHERE organization_id = $1")
        .bind(victim.tenant.id)
        .fetch_all(&database)
        .await
        .expect("the members");
    assert!(!actors.is_empty() && actors.iter().all(|actor| members.contains(actor)), "{actors:?} are not {members:?}");
    database.close().await;
}

pub(crate) async fn routes_without_a_token_tell_nothing_of_a_tenant(system: Arc<System>) {
    let victim = side(&system).await;
    let stranger = reqwest::Client::new();
    for (route, case) in cases() {
        let path = route.path.replace(":id", &victim.demo).replace(":tool", "echo").replace("*path", &victim.demo);
        let method: Method = route.method.parse().expect("a method");
        let response = stranger.request(method, format!("{}{path}", system.url)).send().await.expect("an answer");
        let (status, headers) = (response.status(), response.headers().clone());
        let answer = Answer { status, headers, text: response.text().await.expect("a body") };
        nothing_of(&victim, &answer);
        if case != Case::Public {
            answer.problem(401, "unauthenticated");
            assert!(answer.headers.contains_key("www-authenticate"), "{path}");
        }
    }
}
