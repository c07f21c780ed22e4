//! The issuer's published keys, each bound to the one algorithm it verifies. The binding is made
//! when the set is read, so that a token's header can never choose how a key is used (RFC 8725
//! section 3.1).

use std::sync::Arc;

use anyhow::Context;
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use serde::Deserialize;
use serde_json::Value;

use super::Denied;

/// More keys than any issuer publishes; the rest of a longer set is not read.
const MAX_KEYS: usize = 64;

/// RFC 7518 section 3.3 asks for at least 2,048 bits; above 4,096 a signature is slow to check.
const RSA_MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=512;

/// The length of a P-256 coordinate in base64url (RFC 7518 section 6.2.1.2: 32 octets).
const P256_COORDINATE_CHARS: usize = 43;

/// One key and the algorithm it is for.
#[derive(Debug)]
pub(super) struct Key {
    kid: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
}

/// The keys of a JWK Set (RFC 7517 section 5) that verify ES256 or RS256.
#[derive(Debug, Default)]
pub(super) struct KeySet(Vec<Arc<Key>>);

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

/// RFC 7517 section 4 and RFC 7518 section 6, as far as these two algorithms go.
#[derive(Deserialize)]
struct Published {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
    /// The private part. A published one is known to everybody.
    d: Option<serde::de::IgnoredAny>,
}

impl KeySet {
    /// Reads a JWK Set. Keys of no use here are passed over (RFC 7517 section 5); anything that is
    /// not a set at all is an error, so that an error page does not replace good keys.
    pub(super) fn parse(body: &[u8]) -> anyhow::Result<Self> {
        let document: Document = serde_json::from_slice(body).context("the answer is no JWK Set")?;
        Ok(Self(document.keys.into_iter().take(MAX_KEYS).filter_map(Key::read).map(Arc::new).collect()))
    }

    /// The key for a header: `None` if the set has no such key, `Algorithm` if it has one that the
    /// header's algorithm does not fit. Without a `kid` only a set of exactly one key answers.
    pub(super) fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<Result<Arc<Key>, Denied>> {
        let mut named = match kid {
            None if self.0.len() != 1 => return None,
            None => self.0.iter().collect(),
            Some(_) => self.0.iter().filter(|key| key.kid.as_deref() == kid).collect::<Vec<_>>(),
        };
        if named.is_empty() {
            return None;
        }
        // RFC 7517 section 4.5: keys of different types may share a kid.
        named.retain(|key| key.algorithm == algorithm);
        Some(named.first().map(|key| Arc::clone(key)).ok_or(Denied::Algorithm))
    }

    /// How many keys are usable.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Key {
    fn read(value: Value) -> Option<Self> {
        let published: Published = serde_json::from_value(value).ok()?;
        let (algorithm, decoding) = published.usable()?;
        // Building the verifier is what checks that a point lies on its curve.
        jsonwebtoken::crypto::verify("", b"", &decoding, algorithm).ok()?;
        Some(Self { kid: published.kid, algorithm, decoding })
    }
}

impl Published {
    fn usable(&self) -> Option<(Algorithm, DecodingKey)> {
        if self.d.is_some() {
            tracing::warn!(kid = self.kid, "the issuer publishes a private key; it is not used");
            return None;
        }
        if self.purpose.as_deref().is_some_and(|purpose| purpose != "sig")
            || self.key_ops.as_ref().is_some_and(|operations| !operations.iter().any(|name| name == "verify"))
        {
            return None;
        }
        let is_for = |name: &str| self.alg.as_deref().is_none_or(|alg| alg == name);
        match self.kty.as_str() {
            "EC" if self.crv.as_deref() == Some("P-256") && is_for("ES256") => {
                let (x, y) = (self.x.as_deref()?, self.y.as_deref()?);
                if x.len() != P256_COORDINATE_CHARS || y.len() != P256_COORDINATE_CHARS {
                    return None;
                }
                Some((Algorithm::ES256, DecodingKey::from_ec_components(x, y).ok()?))
            }
            "RSA" if is_for("RS256") => {
                let key = DecodingKey::from_rsa_components(self.n.as_deref()?, self.e.as_deref()?).ok()?;
                let DecodingKeyKind::RsaModulusExponent { n, .. } = key.kind() else { return None };
                let modulus_bytes = n.len() - n.iter().take_while(|byte| **byte == 0).count();
                RSA_MODULUS_BYTES.contains(&modulus_bytes).then_some((Algorithm::RS256, key))
            }
            _ => None,
        }
    }
}
