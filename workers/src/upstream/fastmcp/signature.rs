//! How worker and `FastMCP` service prove to each other that they hold the same key, without ever
//! sending it: the worker signs each request, the service proves itself over the request's nonce
//! in each answer (`fastmcp/README.md`).

use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use sha2::{Digest, Sha256};
use shared::{context::now_unix_ms, hex, secret::Secret};

const TIME: HeaderName = HeaderName::from_static("x-switchboard-time");
const NONCE: HeaderName = HeaderName::from_static("x-switchboard-nonce");
const SIGNATURE: HeaderName = HeaderName::from_static("x-switchboard-signature");
const PROOF: HeaderName = HeaderName::from_static("x-switchboard-proof");

/// The shared key, ready for use.
#[derive(Clone)]
pub(super) struct Key(Hmac<Sha256>);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

/// 32 hexadecimal digits, never used twice.
#[derive(Clone, Debug)]
pub(super) struct Nonce(String);

impl Nonce {
    pub(super) fn new() -> Self {
        Self(hex(&rand::random::<[u8; 16]>()))
    }
}

impl Key {
    pub(super) fn new(secret: &Secret<String>) -> Self {
        // HMAC takes keys of any length (RFC 2104 section 2), so this is never the other arm.
        let key = Hmac::new_from_slice(secret.reveal().as_bytes());
        Self(key.unwrap_or_else(|_| Hmac::new(&hmac::digest::Key::<Hmac<Sha256>>::default())))
    }

    /// Adds the three headers that authenticate a request.
    pub(super) fn sign(&self, headers: &mut HeaderMap, method: &Method, path: &str, nonce: &Nonce, body: &[u8]) {
        let time = (now_unix_ms() / 1_000).to_string();
        let digest = hex(&Sha256::digest(body));
        let text = format!("switchboard-fastmcp-request\n{method}\n{path}\n{time}\n{}\n{digest}", nonce.0);
        let signature = hex(&self.0.clone().chain_update(text).finalize().into_bytes());
        for (name, value) in [(TIME, time), (NONCE, nonce.0.clone()), (SIGNATURE, signature)] {
            // Digits and hexadecimal digits always fit a header.
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        }
    }

    /// True when the answer comes from a holder of the key. Takes the same time either way.
    pub(super) fn is_proven(&self, headers: &HeaderMap, nonce: &Nonce, status: StatusCode) -> bool {
        let Some(proof) = headers.get(PROOF).and_then(|value| unhex(value.as_bytes())) else { return false };
        let text = format!("switchboard-fastmcp-response\n{}\n{}", nonce.0, status.as_u16());
        self.0.clone().chain_update(text).verify_slice(&proof).is_ok()
    }
}

fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |digit: &u8| char::from(*digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let (pairs, rest) = text.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::new(&Secret::new(text.to_owned()))
    }

    fn proof(key: &Key, nonce: &Nonce, status: u16) -> HeaderMap {
        let text = format!("switchboard-fastmcp-response\n{}\n{status}", nonce.0);
        let proof = hex(&key.0.clone().chain_update(text).finalize().into_bytes());
        HeaderMap::from_iter([(PROOF, HeaderValue::try_from(proof).unwrap())])
    }

    #[test]
    fn only_a_holder_of_the_key_proves_this_answer_to_this_request() {
        let (ours, theirs) = (key("k".repeat(32).as_str()), key("x".repeat(32).as_str()));
        let (nonce, other) = (Nonce::new(), Nonce::new());
        let honest = proof(&ours, &nonce, 200);
        assert!(ours.is_proven(&honest, &nonce, StatusCode::OK));
        assert!(!ours.is_proven(&honest, &nonce, StatusCode::BAD_GATEWAY), "another status");
        assert!(!ours.is_proven(&honest, &other, StatusCode::OK), "a replayed answer");
        assert!(!ours.is_proven(&proof(&theirs, &nonce, 200), &nonce, StatusCode::OK), "another key");
        assert!(!ours.is_proven(&HeaderMap::new(), &nonce, StatusCode::OK), "no proof");
        for malformed in ["", "zz", "abc", "é"] {
            let headers = HeaderMap::from_iter([(PROOF, HeaderValue::from_bytes(malformed.as_bytes()).unwrap())]);
            assert!(!ours.is_proven(&headers, &nonce, StatusCode::OK), "{malformed}");
        }
    }

    #[test]
    fn a_key_is_never_text() {
        assert_eq!(format!("{:?}", key("hunter2")), "[secret]");
    }
}
