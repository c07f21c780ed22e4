//! What the gateway believes about tokens, read once from `AUTH_*` and judged before the first
//! request: a claim path that users can write themselves must stop the start, not a request.

use std::net::IpAddr;

use serde::Deserialize;
use shared::{
    config::{list, number},
    secret::Secret,
};
use url::{Host, Url};

use super::claims::{ClaimPath, Rules};

/// The shortest HS256 secret, in bytes (RFC 7518 section 3.2: at least the hash's size).
const MIN_SECRET_BYTES: usize = 32;

/// The most that clocks may differ, in seconds. Leeway also lengthens every token's life.
const MAX_LEEWAY_SECONDS: u64 = 300;

/// `AUTH_*`: whose tokens are believed, and where in them the tenant is written.
#[derive(Clone, Debug, Deserialize)]
pub struct AuthConfig {
    /// The `iss` of every token, compared byte for byte (RFC 7519 section 4.1.1), for instance
    /// `https://<project>.supabase.co/auth/v1`.
    pub issuer: String,
    /// A token names at least one of these in `aud`. Separated by commas.
    #[serde(deserialize_with = "list")]
    pub audiences: Vec<String>,
    /// The issuer's key set (RFC 7517 section 5); `<issuer>/.well-known/jwks.json` if absent.
    /// HTTPS, except on a loopback host.
    #[serde(default)]
    pub jwks_url: Option<String>,
    /// A secret shared with the issuer, at least 32 bytes. HS256 is accepted only with it, and
    /// never with a published key.
    #[serde(default)]
    pub hs256_secret: Option<Secret<String>>,
    /// Where the organization's UUID is: names separated by dots.
    #[serde(default = "default_tenant_claim")]
    pub tenant_claim: String,
    /// Where `admin` or `user` is.
    #[serde(default = "default_role_claim")]
    pub role_claim: String,
    /// Where `operator` is, for the platform's operators.
    #[serde(default = "default_operator_claim")]
    pub operator_claim: String,
    /// How far the issuer's clock may be off, in seconds; at most 300.
    #[serde(default = "default_leeway_seconds", deserialize_with = "number")]
    pub leeway_seconds: u64,
}

fn default_tenant_claim() -> String {
    "app_metadata.org_id".to_owned()
}

fn default_role_claim() -> String {
    "app_metadata.org_role".to_owned()
}

fn default_operator_claim() -> String {
    "app_metadata.platform_role".to_owned()
}

const fn default_leeway_seconds() -> u64 {
    5
}

impl AuthConfig {
    /// The rules for claims and the address of the keys, or everything that is wrong at once.
    pub(super) fn judge(&self) -> anyhow::Result<(Rules, Url)> {
        let mut problems = Vec::new();
        if self.issuer.is_empty() {
            problems.push("AUTH_ISSUER: is empty".to_owned());
        }
        if self.audiences.is_empty() {
            problems.push("AUTH_AUDIENCES: names no audience".to_owned());
        }
        if self.hs256_secret.as_ref().is_some_and(|secret| secret.reveal().len() < MIN_SECRET_BYTES) {
            problems.push(format!("AUTH_HS256_SECRET: is shorter than {MIN_SECRET_BYTES} bytes"));
        }
        if self.leeway_seconds > MAX_LEEWAY_SECONDS {
            problems.push(format!("AUTH_LEEWAY_SECONDS: is more than {MAX_LEEWAY_SECONDS}"));
        }
        let mut path = |variable: &str, text: &str| {
            ClaimPath::parse(text).map_err(|problem| problems.push(format!("{variable}: {problem}"))).ok()
        };
        let tenant = path("AUTH_TENANT_CLAIM", &self.tenant_claim);
        let role = path("AUTH_ROLE_CLAIM", &self.role_claim);
        let operator = path("AUTH_OPERATOR_CLAIM", &self.operator_claim);
        let keys = self.keys_address().map_err(|problem| problems.push(format!("AUTH_JWKS_URL: {problem}"))).ok();

        match (tenant, role, operator, keys) {
            (Some(tenant), Some(role), Some(operator), Some(keys)) if problems.is_empty() => {
                let rules = Rules {
                    issuer: self.issuer.clone(),
                    audiences: self.audiences.clone(),
                    leeway_s: self.leeway_seconds,
                    tenant,
                    role,
                    operator,
                };
                Ok((rules, keys))
            }
            _ => anyhow::bail!("the configuration is wrong:\n  {}", problems.join("\n  ")),
        }
    }

    fn keys_address(&self) -> Result<Url, String> {
        let text = match &self.jwks_url {
            Some(url) => url.clone(),
            None => format!("{}/.well-known/jwks.json", self.issuer.trim_end_matches('/')),
        };
        let url = Url::parse(&text).map_err(|error| error.to_string())?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("carries a user or a password".to_owned());
        }
        match url.scheme() {
            "https" => Ok(url),
            "http" if is_loopback(&url) => Ok(url),
            _ => Err("must be https, or http on a loopback host".to_owned()),
        }
    }
}

/// True for `localhost` and loopback addresses.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).to_canonical().is_loopback(),
        None => false,
    }
}
