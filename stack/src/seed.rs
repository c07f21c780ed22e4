//! Two organizations with an admin and a user each, and the demo servers registered for both: through the gateway's
//! public API, like anybody else, and safe to repeat.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::http;
use crate::issuer::{Issuer, Role, TokenRequest};

/// The organizations by slug, with their display names.
const ORGANIZATIONS: [(&str, &str); 2] = [("acme", "Acme"), ("globex", "Globex")];
/// Long enough for a working week of development; renewed by every start.
const TOKEN_LIFETIME: Duration = Duration::from_hours(7 * 24);
/// How long a refused "not yet" is repeated: a new organization takes a moment to reach every process.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(50);

/// What was seeded.
#[derive(Debug, Clone)]
pub struct Seeded {
    /// The organization `acme`.
    pub acme: Tenant,
    /// The organization `globex`.
    pub globex: Tenant,
    /// A token with the claim of a platform operator.
    pub operator_token: String,
}

/// One seeded organization.
#[derive(Clone)]
pub struct Tenant {
    /// Its slug.
    pub slug: String,
    /// Its id.
    pub id: Uuid,
    /// Subject `<slug>-admin`.
    pub admin_token: String,
    /// Subject `<slug>-user`.
    pub user_token: String,
}

impl std::fmt::Debug for Tenant {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Tenant").field("slug", &self.slug).field("id", &self.id).finish_non_exhaustive()
    }
}

/// Where the seeded configurations point.
#[derive(Debug, Clone)]
pub(crate) struct Endpoints {
    pub(crate) demo: String,
    pub(crate) demo_fastmcp: String,
}

/// Makes what is missing and corrects what points to last run's ports.
pub(crate) async fn seed(gateway: &str, issuer: &Issuer, endpoints: &Endpoints) -> Result<Seeded> {
    let operator_token = operator_token(issuer)?;
    let operator = Caller { gateway, token: &operator_token };
    let known = operator.list("/api/v1/organizations").await?;
    let mut tenants = Vec::with_capacity(ORGANIZATIONS.len());
    for (slug, name) in ORGANIZATIONS {
        let found = known.iter().find(|organization| organization["slug"] == slug).cloned();
        let organization = match found {
            Some(organization) => organization,
            None => operator.post("/api/v1/organizations", &json!({ "name": name, "slug": slug })).await?,
        };
        let id = organization["id"].as_str().and_then(|id| id.parse().ok());
        let id: Uuid = id.context("an organization was answered without an id")?;
        let tenant = Tenant {
            slug: slug.to_owned(),
            id,
            admin_token: member_token(issuer, id, slug, "admin", Role::Admin)?,
            user_token: member_token(issuer, id, slug, "user", Role::User)?,
        };
        for token in [&tenant.admin_token, &tenant.user_token] {
            // The first authenticated use makes the user.
            Caller { gateway, token }.get("/api/v1/me").await?;
        }
        configure(Caller { gateway, token: &tenant.admin_token }, endpoints).await?;
        tenants.push(tenant);
    }
    let [acme, globex] =
        <[Tenant; 2]>::try_from(tenants).map_err(|_| anyhow::anyhow!("two organizations were meant"))?;
    Ok(Seeded { acme, globex, operator_token })
}

/// A token of a platform operator.
pub(crate) fn operator_token(issuer: &Issuer) -> Result<String> {
    issuer.mint(&TokenRequest {
        subject: "operator".to_owned(),
        email: "operator@switchboard.example".to_owned(),
        operator: true,
        lifetime: TOKEN_LIFETIME,
        ..TokenRequest::default()
    })
}

/// A token of a member; the subject is `<slug>-<user>`.
pub(crate) fn member_token(issuer: &Issuer, organization: Uuid, slug: &str, user: &str, role: Role) -> Result<String> {
    issuer.mint(&TokenRequest {
        organization: Some(organization),
        subject: format!("{slug}-{user}"),
        email: format!("{user}@{slug}.example"),
        role: Some(role),
        lifetime: TOKEN_LIFETIME,
        ..TokenRequest::default()
    })
}

async fn configure(admin: Caller<'_>, endpoints: &Endpoints) -> Result<()> {
    const PATH: &str = "/api/v1/mcp/configurations";
    let wanted = [("demo", &endpoints.demo, None), ("demo-fastmcp", &endpoints.demo_fastmcp, Some("fastmcp"))];
    let known = admin.list(PATH).await?;
    for (name, endpoint, via) in wanted {
        if let Some(found) = known.iter().find(|configuration| configuration["name"] == name) {
            if found["endpoint"] == endpoint.as_str() {
                continue;
            }
            let id = found["id"].as_str().context("a configuration was answered without an id")?;
            admin.send(Method::DELETE, &format!("{PATH}/{id}"), None).await?;
        }
        let mut body = json!({ "name": name, "endpoint": endpoint, "transport": "http", "auth": { "type": "none" } });
        if let Some(via) = via {
            body["via"] = json!(via);
        }
        admin.post(PATH, &body).await?;
    }
    Ok(())
}

/// Somebody who calls the gateway.
#[derive(Clone, Copy)]
struct Caller<'a> {
    gateway: &'a str,
    token: &'a str,
}

impl Caller<'_> {
    async fn get(self, path: &str) -> Result<Value> {
        self.send(Method::GET, path, None).await
    }

    async fn post(self, path: &str, body: &Value) -> Result<Value> {
        self.send(Method::POST, path, Some(body)).await
    }

    /// All pages.
    async fn list(self, path: &str) -> Result<Vec<Value>> {
        let mut items = Vec::new();
        let mut page = self.get(path).await?;
        loop {
            items.extend(page["items"].as_array().cloned().unwrap_or_default());
            let Some(next) = page["next"].as_str() else { return Ok(items) };
            page = self.get(&format!("{path}?cursor={next}")).await?;
        }
    }

    /// Repeats what was refused with nothing accepted (503) or for now (429).
    async fn send(self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut request = http::client().request(method.clone(), format!("{}{path}", self.gateway));
            if let Some(body) = body {
                request = request.json(body);
            }
            let answer = request.bearer_auth(self.token).send().await.context("the gateway does not answer")?;
            let status = answer.status();
            let text = answer.text().await?;
            if status.is_success() {
                return Ok(serde_json::from_str(&text).unwrap_or(Value::Null));
            }
            let passing = matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS);
            if !passing || Instant::now() > deadline {
                bail!("seeding: {method} {path} was answered {status}: {text}");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
