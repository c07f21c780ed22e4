//! The stack's own identity provider: one key, its JWKS, and tokens shaped like those of Supabase.
//!
//! The gateway must verify tokens here exactly as in production, so nothing in it knows that this issuer exists:
//! it fetches the JWKS over HTTP and checks an ES256 signature. Tests also forge tokens here, to be refused there.

use std::{
    fmt,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use anyhow::Context as _;
use jsonwebtoken::{
    Algorithm, EncodingKey, Header,
    jwk::{Jwk, KeyOperations, PublicKeyUse, ThumbprintHash},
};
use p256::pkcs8::{DecodePrivateKey as _, EncodePublicKey as _, LineEnding};
use serde_json::{Value, json};
use uuid::Uuid;

mod forge;
mod key;
mod serve;
#[cfg(test)]
mod tests;

/// The audience the gateway of the stack accepts.
pub const AUDIENCE: &str = "switchboard";

/// A member's role in an organization, as the claim `app_metadata.org_role` states it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    Admin,
    User,
}

impl Role {
    /// The claim's text: `admin` or `user`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::User => "user",
        }
    }
}

/// What a token shall say. `None` and `false` leave their claim out.
#[derive(Debug, Clone)]
pub struct TokenRequest {
    /// `app_metadata.org_id`.
    pub organization: Option<Uuid>,
    /// `sub`.
    pub subject: String,
    /// `email`.
    pub email: String,
    /// `app_metadata.org_role`.
    pub role: Option<Role>,
    /// `app_metadata.platform_role` = `operator`.
    pub operator: bool,
    /// `aud`.
    pub audience: String,
    /// From now (`iat`, `nbf`) to `exp`.
    pub lifetime: Duration,
}

impl Default for TokenRequest {
    fn default() -> Self {
        Self {
            organization: None,
            subject: "nobody".to_owned(),
            email: "nobody@example.test".to_owned(),
            role: None,
            operator: false,
            audience: AUDIENCE.to_owned(),
            lifetime: Duration::from_hours(1),
        }
    }
}

/// An issuer of JWTs with one ES256 key. Clones share the key and the address.
#[derive(Clone)]
pub struct Issuer {
    inner: Arc<Inner>,
}

struct Inner {
    key: EncodingKey,
    public_pem: String,
    jwk: Jwk,
    kid: String,
    url: RwLock<String>,
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer").field("kid", &self.inner.kid).field("url", &self.url()).finish_non_exhaustive()
    }
}

impl Issuer {
    /// Loads the key kept in `directory`, or makes one and keeps it there (`issuer.pem`, readable by its owner only).
    /// Two processes that open an empty directory at once end up with the same key.
    ///
    /// # Errors
    /// When the directory cannot be written, or the file is not a P-256 key in PKCS#8 PEM, or others may read it.
    pub fn open(directory: &Path) -> anyhow::Result<Self> {
        let pem = key::load_or_create(directory)?;
        let secret = p256::SecretKey::from_pkcs8_pem(&pem)
            .context("the issuer's key file does not hold a P-256 key in PKCS#8 PEM")?;
        let public_pem = secret.public_key().to_public_key_pem(LineEnding::LF)?;
        let key = EncodingKey::from_ec_pem(pem.as_bytes())?;
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::ES256)?;
        let kid = jwk.thumbprint(ThumbprintHash::SHA256)?;
        jwk.common.key_id = Some(kid.clone());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        jwk.common.key_operations = Some(vec![KeyOperations::Verify]);
        Ok(Self { inner: Arc::new(Inner { key, public_pem, jwk, kid, url: RwLock::new(String::new()) }) })
    }

    /// The key's id: its RFC 7638 thumbprint.
    pub fn kid(&self) -> &str {
        &self.inner.kid
    }

    /// The public half of the key, as SPKI PEM.
    pub fn public_key_pem(&self) -> &str {
        &self.inner.public_pem
    }

    /// The claim `iss`, without a trailing slash; empty until [`Issuer::set_url`].
    pub fn url(&self) -> String {
        self.inner.url.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// States where this issuer is reached, once the port is known. Tokens minted before name another issuer.
    pub fn set_url(&self, url: &str) {
        let mut held = self.inner.url.write().unwrap_or_else(PoisonError::into_inner);
        url.trim_end_matches('/').clone_into(&mut held);
    }

    /// Where the JWKS is served.
    pub fn jwks_url(&self) -> String {
        format!("{}{}", self.url(), serve::JWKS_PATH)
    }

    /// The key set as served (RFC 7517).
    pub fn jwks(&self) -> Value {
        json!({ "keys": [self.inner.jwk] })
    }

    /// The header of an honest token.
    pub fn header(&self) -> Value {
        json!({ "alg": "ES256", "typ": "JWT", "kid": self.inner.kid })
    }

    /// The claims of an honest token that is valid from now on; a forger starts from these.
    pub fn claims(&self, request: &TokenRequest) -> Value {
        let now = chrono::Utc::now().timestamp();
        let lifetime = i64::try_from(request.lifetime.as_secs()).unwrap_or(i64::MAX);
        let mut app_metadata = json!({});
        if let Some(organization) = request.organization {
            app_metadata["org_id"] = json!(organization);
        }
        if let Some(role) = request.role {
            app_metadata["org_role"] = json!(role.as_str());
        }
        if request.operator {
            app_metadata["platform_role"] = json!("operator");
        }
        json!({
            "iss": self.url(),
            "aud": request.audience,
            "exp": now.saturating_add(lifetime),
            "iat": now,
            "nbf": now,
            "sub": request.subject,
            "email": request.email,
            "role": "authenticated",
            "app_metadata": app_metadata,
        })
    }

    /// A signed token.
    ///
    /// # Errors
    /// When signing fails, which a key that was opened does not do.
    pub fn mint(&self, request: &TokenRequest) -> anyhow::Result<String> {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.inner.kid.clone());
        let claims = self.claims(request);
        jsonwebtoken::encode(&header, &claims, &self.inner.key).context("signing a token failed")
    }
}
