//! The product as the bench needs it: an organization that may run as many calls at once as there are callers, with the
//! demo server registered twice, made through the public API like anybody's.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use stack::issuer::{Role, TokenRequest};
use stack::{Issuer, Stack};
use uuid::Uuid;

/// The largest that the API grants.
const CONCURRENCY_LIMIT: u16 = 256;
/// The names of the two configurations.
pub(crate) const NATIVE: &str = "demo";
pub(crate) const FASTMCP: &str = "demo-fastmcp";
/// Longer than any run.
const TOKEN_LIFETIME: Duration = Duration::from_hours(12);
/// How long "not yet" is accepted for an answer: a new organization takes a moment to reach every process.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(50);

/// Who calls, and where. No `Debug`: it holds a token.
pub(crate) struct Member {
    pub(crate) gateway: SocketAddr,
    pub(crate) token: String,
    /// Of an admin of the same organization.
    pub(crate) admin: String,
    pub(crate) organization: Uuid,
    pub(crate) subject: String,
}

/// Makes the organization and returns a user of it.
pub(crate) async fn member(stack: &Stack) -> Result<Member> {
    let seeded = stack.seeded().context("the stack was not seeded")?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let operator = Api { client: &client, url: stack.url(), token: &seeded.operator_token };
    let made = operator
        .post(
            "/api/v1/organizations",
            &json!({
                "slug": "bench", "name": "Bench", "concurrency_limit": CONCURRENCY_LIMIT, "calls_per_minute": 1_000_000,
            }),
        )
        .await?;
    let organization: Uuid = made["id"].as_str().context("an organization without an id")?.parse()?;
    let admin = token(stack.issuer(), organization, Role::Admin)?;
    let api = Api { client: &client, url: stack.url(), token: &admin };
    let endpoint = stack.demo_url();
    for (name, via) in [(NATIVE, "native"), (FASTMCP, "fastmcp")] {
        api.post("/api/v1/mcp/configurations", &json!({ "name": name, "endpoint": endpoint, "via": via })).await?;
    }
    let token = token(stack.issuer(), organization, Role::User)?;
    // The first call opens the lane; it must not be one that is measured.
    let user = Api { client: &client, url: stack.url(), token: &token };
    for configuration in [NATIVE, FASTMCP] {
        let call = json!({ "configuration": configuration, "tool": "echo", "arguments": { "text": "bench" } });
        user.post("/api/v1/tool-calls", &call).await?;
    }
    let gateway = stack.url().strip_prefix("http://").context("the gateway has no address")?.parse()?;
    Ok(Member { gateway, token, admin, organization, subject: subject_of(Role::User) })
}

fn subject_of(role: Role) -> String {
    format!("bench-{}", role.as_str())
}

fn token(issuer: &Issuer, organization: Uuid, role: Role) -> Result<String> {
    let subject = subject_of(role);
    issuer.mint(&TokenRequest {
        organization: Some(organization),
        email: format!("{subject}@bench.example"),
        subject,
        role: Some(role),
        lifetime: TOKEN_LIFETIME,
        ..TokenRequest::default()
    })
}

/// The API, as somebody.
pub(crate) struct Api<'a> {
    pub(crate) client: &'a reqwest::Client,
    pub(crate) url: &'a str,
    pub(crate) token: &'a str,
}

impl Api<'_> {
    /// Repeats what was refused with nothing accepted.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let request = self.client.post(format!("{}{path}", self.url)).bearer_auth(self.token).json(body);
            let answer = request.send().await.context("the gateway does not answer")?;
            let status = answer.status();
            let text = answer.text().await?;
            if status.is_success() {
                return serde_json::from_str(&text).context("the gateway answered no JSON");
            }
            if !matches!(status.as_u16(), 429 | 503) || Instant::now() > deadline {
                bail!("POST {path} was answered {status}: {text}");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
