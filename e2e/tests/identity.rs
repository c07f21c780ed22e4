//! Who is let in, over real HTTP: every token that must not be believed is refused with 401 and a
//! challenge, and nothing is sent to a worker on its behalf.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use reqwest::{Method, header::WWW_AUTHENTICATE};
use serde_json::{Value, json};
use stack::issuer::{Role, TokenRequest};
use uuid::Uuid;

use crate::{
    trail::Trail,
    world::{Answer, System, Tenant},
};

/// The least time between two fetches that unknown key ids can cause (gateway, `Pace::extra_every`).
const EXTRA_FETCH_EVERY: Duration = Duration::from_secs(10);

/// What a forger starts from: an honest member's token.
fn honest(system: &System, tenant: &Tenant) -> (Value, Value) {
    let request = TokenRequest {
        organization: Some(tenant.id),
        subject: format!("forger-{}", tenant.id),
        role: Some(Role::Admin),
        ..TokenRequest::default()
    };
    (system.issuer().header(), system.issuer().claims(&request))
}

/// A token with one thing changed about header and claims.
fn forged(system: &System, tenant: &Tenant, change: impl FnOnce(&mut Value, &mut Value)) -> String {
    let (mut header, mut claims) = honest(system, tenant);
    change(&mut header, &mut claims);
    system.issuer().mint_with(&header, &claims).expect("a forgery")
}

fn now_unix_s() -> i64 {
    chrono::Utc::now().timestamp()
}

/// Tokens that say too much or too little, each with what the answer must say about it.
fn wrong_claims(system: &System, tenant: &Tenant) -> Vec<(&'static str, String, &'static str)> {
    let forge = |change: &dyn Fn(&mut Value, &mut Value)| forged(system, tenant, change);
    vec![
        ("expired", forge(&|_, claims| claims["exp"] = json!(now_unix_s() - 60)), "expired"),
        ("not yet valid", forge(&|_, claims| claims["nbf"] = json!(now_unix_s() + 600)), "not valid yet"),
        ("without an expiry", forge(&|_, claims| remove(claims, "exp")), "well-formed"),
        ("of another issuer", forge(&|_, claims| claims["iss"] = json!("https://issuer.example.test")), "issuer"),
        ("of no issuer", forge(&|_, claims| remove(claims, "iss")), "issuer"),
        ("for another audience", forge(&|_, claims| claims["aud"] = json!("elsewhere")), "audience"),
        ("for no audience", forge(&|_, claims| remove(claims, "aud")), "audience"),
        ("without a tenant", forge(&|_, claims| remove(&mut claims["app_metadata"], "org_id")), "organization"),
        (
            "with its tenant in metadata that users edit",
            forge(&|_, claims| {
                claims["user_metadata"] = claims["app_metadata"].clone();
                remove(claims, "app_metadata");
            }),
            "organization",
        ),
        ("of a service role", forge(&|_, claims| claims["role"] = json!("service_role")), "organization"),
        ("of an anonymous key", forge(&|_, claims| claims["role"] = json!("anon")), "organization"),
        (
            "for the platform without being an operator's",
            forge(&|_, claims| claims["app_metadata"]["org_id"] = json!(Uuid::nil())),
            "organization",
        ),
        ("whose tenant is no id", forge(&|_, claims| claims["app_metadata"]["org_id"] = json!("acme")), "organization"),
        ("without a subject", forge(&|_, claims| remove(claims, "sub")), "well-formed"),
        ("whose subject breaks lines", forge(&|_, claims| claims["sub"] = json!("a\r\nRole: admin")), "well-formed"),
    ]
}

/// Tokens whose signature must not be believed.
fn wrong_signatures(system: &System, tenant: &Tenant) -> Vec<(&'static str, String, &'static str)> {
    let forge = |change: &dyn Fn(&mut Value, &mut Value)| forged(system, tenant, change);
    let own = forge(&|_, _| {});
    let other = forge(&|_, claims| claims["app_metadata"]["org_id"] = json!(Uuid::now_v7()));
    let (mut stolen, mut signature) = (other.split('.').take(2).collect::<Vec<_>>().join("."), String::new());
    signature.push_str(own.rsplit('.').next().unwrap_or_default());
    stolen = format!("{stolen}.{signature}");
    vec![
        ("unsigned", forge(&|header, _| header["alg"] = json!("none")), "algorithm"),
        ("unsigned, in capitals", forge(&|header, _| header["alg"] = json!("NONE")), "algorithm"),
        ("signed with the public key as a secret", forge(&|header, _| header["alg"] = json!("HS256")), "algorithm"),
        ("with somebody else's signature", stolen, "signature"),
        (
            "with its signature cut off",
            own.rsplit_once('.').map(|(head, _)| format!("{head}.")).unwrap_or_default(),
            "",
        ),
        ("that is no JWT", "not-a-token".to_owned(), "well-formed"),
        ("of three dots", "...".to_owned(), "well-formed"),
        (
            "with an unknown extension marked critical",
            forge(&|header, _| header["crit"] = json!(["b64"])),
            "well-formed",
        ),
        ("of nine kibibytes", "a".repeat(9 * 1024), "well-formed"),
        ("signed with an unknown key", forge(&|header, _| header["kid"] = json!("nobody-published-this")), "key"),
    ]
}

fn remove(object: &mut Value, name: &str) {
    object.as_object_mut().expect("an object").remove(name);
}

/// Checks a refusal: 401, a problem document, a challenge by RFC 6750 section 3.
#[track_caller]
fn refused(what: &str, answer: &Answer, token_was_sent: bool) -> String {
    assert_eq!(answer.status, 401, "a token {what}: {}", answer.text);
    let problem = answer.problem(401, "unauthenticated");
    let challenge = answer.headers.get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    assert!(challenge.starts_with("Bearer realm="), "{what}: {challenge}");
    assert_eq!(challenge.contains("error=\"invalid_token\""), token_was_sent, "{what}: {challenge}");
    assert_eq!(challenge.contains("error="), token_was_sent, "{what}: {challenge}");
    problem["detail"].as_str().unwrap_or_default().to_owned()
}

pub(crate) async fn a_token_that_cannot_be_believed_is_refused_and_nothing_is_sent(system: Arc<System>) {
    let tenant = system.organization().await;
    let mut trail = Trail::new(&system, &tenant);
    // The forger knows how: the same token without a change is let in.
    let honest = system.client(&forged(&system, &tenant, |_, _| {}));
    assert_eq!(honest.get("/api/v1/me").await.status, 200);
    let cases = [wrong_claims(&system, &tenant), wrong_signatures(&system, &tenant)].concat();
    for (what, token, reason) in cases {
        let forger = system.client(&token);
        let body = json!({ "configuration": "demo", "tool": "echo", "arguments": { "text": what } });
        let request = forger.request(Method::POST, "/api/v1/tool-calls").header("x-request-id", trail.id()).json(&body);
        let answer = forger.send(request).await;
        let detail = refused(what, &answer, true);
        assert!(detail.contains(reason), "a token {what}: {detail}");
        assert!(!answer.text.contains(&token), "a token {what} is repeated: {}", answer.text);
    }
    trail.left_nothing().await;
}

pub(crate) async fn a_request_without_a_bearer_token_is_challenged_without_an_error(system: Arc<System>) {
    let tenant = system.organization().await;
    let mut trail = Trail::new(&system, &tenant);
    let token = &tenant.user.token;
    let cases = [
        ("nothing", None, String::new()),
        ("another scheme", Some("Basic YWxpY2U6c2VjcmV0".to_owned()), String::new()),
        ("a token under another scheme", Some(format!("Token {token}")), String::new()),
        ("a bare token", Some(token.clone()), String::new()),
        ("an empty bearer", Some("Bearer ".to_owned()), String::new()),
        ("a token in the query", None, format!("?access_token={token}")),
    ];
    for (what, authorization, query) in cases {
        let mut request =
            system.http.get(format!("{}/api/v1/me{query}", system.url)).header("x-request-id", trail.id());
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        refused(what, &tenant.user.send(request).await, false);
    }
    let two = format!("Bearer {token} {token}");
    let request = system
        .http
        .get(format!("{}/api/v1/me", system.url))
        .header("x-request-id", trail.id())
        .header("authorization", two);
    refused("twice in one header", &tenant.user.send(request).await, true);
    trail.left_nothing().await;
}

pub(crate) async fn every_route_of_the_api_asks_for_a_token_first(system: Arc<System>) {
    let id = Uuid::now_v7();
    let routes = [
        (Method::GET, "/api/v1/me".to_owned()),
        (Method::GET, "/api/v1/organizations".to_owned()),
        (Method::POST, "/api/v1/organizations".to_owned()),
        (Method::GET, format!("/api/v1/organizations/{id}")),
        (Method::PUT, format!("/api/v1/organizations/{id}")),
        (Method::DELETE, format!("/api/v1/organizations/{id}")),
        (Method::GET, "/api/v1/organization".to_owned()),
        (Method::PUT, "/api/v1/organization".to_owned()),
        (Method::GET, "/api/v1/users".to_owned()),
        (Method::POST, "/api/v1/users".to_owned()),
        (Method::GET, format!("/api/v1/users/{id}")),
        (Method::PUT, format!("/api/v1/users/{id}")),
        (Method::DELETE, format!("/api/v1/users/{id}")),
        (Method::GET, "/api/v1/mcp/configurations".to_owned()),
        (Method::POST, "/api/v1/mcp/configurations".to_owned()),
        (Method::GET, format!("/api/v1/mcp/configurations/{id}")),
        (Method::DELETE, format!("/api/v1/mcp/configurations/{id}")),
        (Method::GET, format!("/api/v1/mcp/configurations/{id}/tools")),
        (Method::POST, "/api/v1/tool-calls".to_owned()),
    ];
    let anybody = system.client("");
    for (method, path) in routes {
        // Nonsense in the body, so that a route which looks there first is caught.
        let request = system.http.request(method.clone(), format!("{}{path}", system.url)).body("{");
        refused(&format!("{method} {path}"), &anybody.send(request).await, false);
    }
}

pub(crate) async fn a_flood_of_unknown_key_ids_costs_a_bounded_number_of_look_ups(system: Arc<System>) {
    let tenant = system.organization().await;
    let started = Instant::now();
    let before = key_fetches(&system);
    for number in 0..60 {
        let token = forged(&system, &tenant, |header, _| header["kid"] = json!(format!("invented-{number}")));
        refused("signed with an invented key", &system.client(&token).get("/api/v1/me").await, true);
    }
    let windows = started.elapsed().as_secs() / EXTRA_FETCH_EVERY.as_secs() + 1;
    // One more for a fetch by age that may fall into the same time.
    let allowed = usize::try_from(windows).unwrap_or(usize::MAX) + 1;
    let fetches = key_fetches(&system) - before;
    assert!(fetches <= allowed, "{fetches} look-ups for 60 invented key ids in {:?}", started.elapsed());
    assert_eq!(tenant.user.get("/api/v1/me").await.status, 200, "honest tokens are verified as before");
}

/// How often the gateway says that it fetched the issuer's keys.
fn key_fetches(system: &System) -> usize {
    let log = std::fs::read_to_string(system.log_dir.join("gateway-1.log")).expect("the gateway's log");
    log.lines().filter(|line| line.contains("fetched the issuer's keys")).count()
}

pub(crate) async fn a_token_for_an_organization_that_does_not_exist_is_forbidden(system: Arc<System>) {
    let nowhere = Uuid::now_v7();
    let stranger = system.client(&system.token(nowhere, "stranger", Role::Admin));
    for path in ["/api/v1/me", "/api/v1/mcp/configurations"] {
        stranger.get(path).await.problem(403, "forbidden");
    }
    let body = json!({ "configuration": "demo", "tool": "echo", "arguments": { "text": "x" } });
    stranger.post("/api/v1/tool-calls", &body).await.problem(403, "forbidden");
    let database = system.database("superuser").await;
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM users WHERE organization_id = $1")
        .bind(nowhere)
        .fetch_one(&database)
        .await
        .expect("the query runs");
    assert_eq!(rows, 0);
}
