//! Who is asking: from a bearer token to a person in an organization (law 3: the tenant comes from
//! a verified claim, never from a body). Everything about tokens is decided here, so that a route
//! cannot accept what another refuses.
//!
//! A token is checked once and remembered by its SHA-256; the usual request costs one hash and one
//! look-up.

mod claims;
mod config;
mod denied;
mod jwks;
mod keys;

#[cfg(test)]
mod tests;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation, errors::ErrorKind};
use sha2::{Digest, Sha256};
use shared::{
    context::{Role, now_unix_ms},
    id::OrganizationId,
};

use self::{
    claims::{Claims, Rules},
    jwks::{Jwks, Pace},
};
pub use self::{config::AuthConfig, denied::Denied};

/// The longest token that is looked at, in bytes.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// The longest `kid`, in bytes: it is remembered when unknown.
const MAX_KID_BYTES: usize = 256;

/// The most tokens that are remembered.
const MAX_REMEMBERED: u64 = 10_000;

/// A token is checked anew after this time even if it lives longer, so that a key the issuer
/// withdrew stops working.
const REMEMBERED_FOR: Duration = Duration::from_mins(10);

/// What a verified token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The tenant; [`OrganizationId::PLATFORM`] only for operators.
    pub organization: OrganizationId,
    /// `sub`: 1 to 255 visible ASCII characters.
    pub subject: String,
    /// Where the shared state keeps the member's standing
    /// ([`access_key`](shared::bus::state::access_key)): worked out once per token, not per request.
    pub access_key: String,
    /// `email`, if it looks like one. To show, never to decide by.
    pub email: Option<String>,
    /// The role the token claims; the stored role may lower it.
    pub role: Role,
    /// A platform operator.
    pub operator: bool,
    /// `exp` in seconds since the Unix epoch, without leeway.
    pub expires_at_unix_s: u64,
}

/// Verifies bearer tokens. One per process; shared by reference.
#[derive(Debug)]
pub struct Authenticator {
    rules: Rules,
    keys: Jwks,
    shared_secret: Option<DecodingKey>,
    verified: moka::sync::Cache<Fingerprint, Arc<Verified>>,
}

/// SHA-256 of a token: the token itself is not kept.
type Fingerprint = [u8; 32];

impl Authenticator {
    /// Judges the configuration; fetches no keys yet. The process's rustls provider must be
    /// installed.
    pub fn new(config: &AuthConfig) -> anyhow::Result<Self> {
        Self::at_pace(config, Pace::default())
    }

    fn at_pace(config: &AuthConfig, pace: Pace) -> anyhow::Result<Self> {
        let (rules, keys_url) = config.judge()?;
        let secret = config.hs256_secret.as_ref();
        Ok(Self {
            verified: moka::sync::Cache::builder()
                .max_capacity(MAX_REMEMBERED)
                .expire_after(UntilExpiry { leeway_s: rules.leeway_s })
                .build(),
            rules,
            keys: Jwks::new(keys_url, pace)?,
            shared_secret: secret.map(|secret| DecodingKey::from_secret(secret.reveal().as_bytes())),
        })
    }

    /// Verifies a token in compact form (RFC 7515 section 7.1).
    pub async fn verify(&self, token: &str) -> Result<Arc<Verified>, Denied> {
        self.verify_at(token, now_unix_ms() / 1_000).await
    }

    async fn verify_at(&self, token: &str, now_unix_s: u64) -> Result<Arc<Verified>, Denied> {
        match token.len() {
            0 => return Err(Denied::Missing),
            1..=MAX_TOKEN_BYTES => {}
            _ => return Err(Denied::Malformed),
        }
        let fingerprint: Fingerprint = Sha256::digest(token.as_bytes()).into();
        if let Some(known) = self.verified.get(&fingerprint) {
            // The map drops entries in its own time; the claim decides to the second.
            if self.rules.has_expired(known.expires_at_unix_s, now_unix_s) {
                return Err(Denied::Expired);
            }
            return Ok(known);
        }
        // Boxed: once for a token, and larger than what its other requests need.
        let claims = Box::pin(self.signed_claims(token)).await?;
        let verified = Arc::new(self.rules.judge(&claims, now_unix_s)?);
        self.verified.insert(fingerprint, Arc::clone(&verified));
        Ok(verified)
    }

    /// The claims, once the signature holds. Which kind of key is used follows from our list of
    /// algorithms, never from the token alone.
    async fn signed_claims(&self, token: &str) -> Result<Claims, Denied> {
        let header = readable_header(token)?;
        match header.alg {
            Algorithm::HS256 => {
                let secret = self.shared_secret.as_ref().ok_or(Denied::Algorithm)?;
                open(token, secret, Algorithm::HS256)
            }
            Algorithm::ES256 | Algorithm::RS256 => {
                let key = self.keys.key(header.kid.as_deref(), header.alg).await?;
                open(token, &key.decoding, key.algorithm)
            }
            _ => Err(Denied::Algorithm),
        }
    }
}

/// The token of an `Authorization` header's value (RFC 6750 section 2.1; the scheme's case does not
/// matter, RFC 9110 section 11.1). Another scheme is no bearer token.
pub fn bearer(authorization: Option<&str>) -> Result<&str, Denied> {
    let (scheme, token) = authorization.and_then(|value| value.trim().split_once(' ')).ok_or(Denied::Missing)?;
    match token.trim_start() {
        _ if !scheme.eq_ignore_ascii_case("bearer") => Err(Denied::Missing),
        token if token.contains(' ') => Err(Denied::Malformed),
        token => Ok(token),
    }
}

/// The header, if it is one we may act on.
fn readable_header(token: &str) -> Result<Header, Denied> {
    let header = jsonwebtoken::decode_header(token).map_err(|error| match error.kind() {
        // JSON, but naming no signature algorithm: `none`, or one nobody knows.
        ErrorKind::Json(cause) if cause.is_data() => Denied::Algorithm,
        _ => Denied::Malformed,
    })?;
    // RFC 7515 section 4.1.11: what is critical and not understood must be refused; we understand
    // no extension. Other kinds of JWT (RFC 8725 section 3.11) are not access tokens.
    let is_access_token = header.typ.as_deref().is_none_or(|typ| {
        let kind = typ.strip_prefix("application/").unwrap_or(typ);
        kind.eq_ignore_ascii_case("jwt") || kind.eq_ignore_ascii_case("at+jwt")
    });
    let is_bounded = header.kid.as_ref().is_none_or(|kid| kid.len() <= MAX_KID_BYTES);
    if header.crit.is_some() || !is_access_token || !is_bounded {
        return Err(Denied::Malformed);
    }
    Ok(header)
}

/// Checks the signature and nothing else: claims are judged by [`Rules`], whose clock is exact.
fn open(token: &str, key: &DecodingKey, algorithm: Algorithm) -> Result<Claims, Denied> {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    let data = jsonwebtoken::decode(token, key, &validation).map_err(|error| match error.kind() {
        ErrorKind::InvalidSignature => Denied::Signature,
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidKeyFormat => Denied::Algorithm,
        _ => Denied::Malformed,
    })?;
    Ok(data.claims)
}

/// How long a verified token stays in the map.
struct UntilExpiry {
    leeway_s: u64,
}

impl UntilExpiry {
    fn left(&self, verified: &Verified) -> Duration {
        let end_unix_s = verified.expires_at_unix_s.saturating_add(self.leeway_s);
        Duration::from_secs(end_unix_s.saturating_sub(now_unix_ms() / 1_000)).min(REMEMBERED_FOR)
    }
}

impl moka::Expiry<Fingerprint, Arc<Verified>> for UntilExpiry {
    fn expire_after_create(&self, _: &Fingerprint, value: &Arc<Verified>, _: Instant) -> Option<Duration> {
        Some(self.left(value))
    }

    fn expire_after_update(
        &self,
        _: &Fingerprint,
        value: &Arc<Verified>,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(self.left(value))
    }
}
