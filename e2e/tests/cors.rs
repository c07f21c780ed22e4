//! Browsers: a page may call with the tokens of the organization that registered its origin, and no
//! other page may.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use reqwest::Method;
use serde_json::json;

use crate::{
    trail::Trail,
    world::{Answer, Client, System, Tenant},
};

/// How soon a registered origin counts.
const SOON: Duration = Duration::from_secs(3);

async fn register(tenant: &Tenant, origins: &[&str]) {
    let changed = tenant.admin.put("/api/v1/organization", "*", &json!({ "allowed_origins": origins })).await;
    assert_eq!(changed.status, 200, "{}", changed.text);
}

async fn from(client: &Client, origin: &str, method: Method, path: &str) -> Answer {
    client.send(client.request(method, path).header("origin", origin)).await
}

/// Asks until the answer has the status: what was registered reaches the gateway in a moment.
async fn soon(client: &Client, origin: &str, status: u16) -> Answer {
    let asked = Instant::now();
    loop {
        let answer = from(client, origin, Method::GET, "/api/v1/me").await;
        if answer.status == status {
            return answer;
        }
        assert!(asked.elapsed() < SOON, "still {}: {}", answer.status, answer.text);
    }
}

async fn preflight(system: &System, origin: &str, path: &str, method: &str) -> Answer {
    let anybody = system.client("");
    let request = system
        .http
        .request(Method::OPTIONS, format!("{}{path}", system.url))
        .header("origin", origin)
        .header("access-control-request-method", method)
        .header("access-control-request-headers", "authorization,content-type,if-match");
    anybody.send(request).await
}

fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.headers.get(name).map(|value| value.to_str().expect("text"))
}

/// The answer may be read by pages of this origin only.
#[track_caller]
fn is_readable(answer: &Answer, origin: &str) {
    assert_eq!(header(answer, "access-control-allow-origin"), Some(origin), "{}", answer.text);
    assert_eq!(header(answer, "access-control-allow-credentials"), None, "there are no credentials but the token");
    assert!(answer.headers.get_all("vary").iter().any(|value| value == "origin"), "{:?}", answer.headers);
}

#[track_caller]
fn is_unreadable(answer: &Answer) {
    assert_eq!(header(answer, "access-control-allow-origin"), None, "{}", answer.text);
}

pub(crate) async fn a_page_of_a_registered_origin_calls_and_reads_answers_and_errors(system: Arc<System>) {
    let tenant = system.organization().await;
    let origin = format!("https://app-{}.example", tenant.id);
    let first = from(&tenant.user, &origin, Method::GET, "/api/v1/me").await;
    first.problem(403, "forbidden");
    is_unreadable(&first);
    register(&tenant, &[&origin]).await;
    is_readable(&soon(&tenant.user, &origin, 200).await, &origin);

    let asked = preflight(&system, &origin, "/api/v1/tool-calls", "POST").await;
    assert_eq!((asked.status.as_u16(), asked.text.as_str()), (204, ""));
    is_readable(&asked, &origin);
    for (name, wanted) in [
        ("access-control-allow-methods", &["GET", "POST", "PUT", "DELETE"][..]),
        ("access-control-allow-headers", &["authorization", "content-type", "if-match"][..]),
    ] {
        let listed: Vec<&str> = header(&asked, name).expect(name).split(", ").collect();
        assert!(wanted.iter().all(|one| listed.contains(one)) && !listed.contains(&"*"), "{name}: {listed:?}");
    }
    let body = json!({ "configuration": "demo", "tool": "echo", "arguments": { "text": "from a page" } });
    let call = tenant.user.request(Method::POST, "/api/v1/tool-calls").header("origin", &origin).json(&body);
    let called = tenant.user.send(call).await;
    assert_eq!(called.status, 200, "{}", called.text);
    is_readable(&called, &origin);

    // A page must be able to read what went wrong, and when to sign in again.
    let missing = from(&tenant.user, &origin, Method::GET, "/api/v1/nope").await;
    missing.problem(404, "route");
    is_readable(&missing, &origin);
    let stranger = system.client("no-token");
    let refused = from(&stranger, &origin, Method::GET, "/api/v1/me").await;
    refused.problem(401, "unauthenticated");
    is_readable(&refused, &origin);
    let exposed = header(&refused, "access-control-expose-headers").expect("a list").to_owned();
    for name in ["etag", "retry-after", "www-authenticate", "x-request-id"] {
        assert!(exposed.split(", ").any(|one| one == name), "{name} is not in {exposed}");
    }
    // What is the operators' is not for pages, whoever registered them.
    let metrics = system.http.get(format!("{}/metrics", system.url)).header("origin", &origin);
    is_unreadable(&stranger.send(metrics).await);

    // Taken back, it counts as soon.
    register(&tenant, &[]).await;
    is_unreadable(&soon(&tenant.user, &origin, 403).await);
    preflight(&system, &origin, "/api/v1/me", "GET").await.problem(403, "forbidden");
}

pub(crate) async fn a_page_of_any_other_origin_is_refused_and_nothing_is_published(system: Arc<System>) {
    let (tenant, other) = (system.organization().await, system.organization().await);
    let (own, theirs) = (format!("https://own-{}.example", tenant.id), format!("https://theirs-{}.example", other.id));
    register(&tenant, &[&own]).await;
    register(&other, &[&theirs]).await;
    soon(&tenant.user, &own, 200).await;
    soon(&other.user, &theirs, 200).await;
    let mut trail = Trail::new(&system, &tenant);
    let lookalikes = [
        theirs.clone(),
        "null".to_owned(),
        "*".to_owned(),
        String::new(),
        "https://stranger.example".to_owned(),
        own.to_uppercase(),
        format!("{own}."),
        format!("{own}:443"),
        format!("{own}.stranger.example"),
        own.replace("https", "http"),
        format!("{own}/"),
        format!("{own}, {own}"),
    ];
    for origin in &lookalikes {
        for (method, path) in
            [(Method::GET, "/api/v1/me"), (Method::POST, "/api/v1/tool-calls"), (Method::GET, "/api/v1/users")]
        {
            let body = json!({ "configuration": "demo", "tool": "echo", "arguments": { "text": "x" } });
            let request =
                tenant.admin.request(method, path).header("origin", origin).header("x-request-id", trail.id());
            tenant.admin.send(request.json(&body)).await.problem(403, "forbidden");
        }
    }
    let twice = tenant.admin.request(Method::GET, "/api/v1/me").header("origin", &own).header("origin", &own);
    tenant.admin.send(twice.header("x-request-id", trail.id())).await.problem(403, "forbidden");
    trail.left_nothing().await;
    for origin in lookalikes.iter().filter(|origin| **origin != theirs) {
        let asked = preflight(&system, origin, "/api/v1/me", "GET").await;
        asked.problem(403, "forbidden");
        is_unreadable(&asked);
    }
}

pub(crate) async fn the_gateways_own_pages_need_no_registration(system: Arc<System>) {
    let tenant = system.organization().await;
    let own = system.url.clone();
    let answer = from(&tenant.user, &own, Method::GET, "/api/v1/me").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    // A program is no page: it sends no origin and is asked for none.
    assert_eq!(tenant.user.get("/api/v1/me").await.status, 200);
}
