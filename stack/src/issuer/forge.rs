//! Tokens as an attacker would write them, for tests that must see them refused.

use anyhow::{Context as _, bail};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use serde_json::Value;

use super::Issuer;

impl Issuer {
    /// A token with exactly this header and these claims, whatever they say.
    ///
    /// The signature follows `header.alg`: `ES256` with the issuer's key; `none` leaves it empty; `HS256` uses the
    /// text of the *public* key as the shared secret (the confusion attack of RFC 8725 section 2.1). To sign with a
    /// foreign key under this issuer's `kid`, ask another issuer to mint with this one's header and claims.
    ///
    /// # Errors
    /// When `alg` is missing or another one.
    pub fn mint_with(&self, header: &Value, claims: &Value) -> anyhow::Result<String> {
        let message = format!("{}.{}", encode(header)?, encode(claims)?);
        let algorithm = header["alg"].as_str().context("the header names no algorithm")?;
        let signature = match algorithm.to_ascii_lowercase().as_str() {
            "es256" => crypto::sign(message.as_bytes(), &self.inner.key, Algorithm::ES256)?,
            "hs256" => {
                let secret = EncodingKey::from_secret(self.public_key_pem().as_bytes());
                crypto::sign(message.as_bytes(), &secret, Algorithm::HS256)?
            }
            "none" => String::new(),
            other => bail!("this forger cannot sign with {other}"),
        };
        Ok(format!("{message}.{signature}"))
    }
}

fn encode(part: &Value) -> anyhow::Result<String> {
    Ok(BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(part)?))
}
