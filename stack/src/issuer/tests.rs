//! What the gateway will rely on, and what it will be attacked with.

use std::{
    collections::HashSet,
    fs::{self, Permissions},
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    time::Duration,
};

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header, jwk::JwkSet};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Issuer, Role, TokenRequest, key};

/// A directory of this test's own, removed with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("switchboard-issuer-{}", Uuid::new_v4()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn open(&self) -> Issuer {
        let issuer = Issuer::open(&self.0).unwrap();
        issuer.set_url("http://127.0.0.1:1/");
        issuer
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// Verifies as a relying party would: by the published key set, ES256 only.
fn verify(jwks: &JwkSet, token: &str) -> Result<Value, jsonwebtoken::errors::Error> {
    let kid = decode_header(token)?.kid.unwrap_or_default();
    let jwk = jwks
        .find(&kid)
        .ok_or_else(|| jsonwebtoken::errors::Error::from(jsonwebtoken::errors::ErrorKind::InvalidKeyFormat))?;
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_audience(&["switchboard"]);
    validation.set_issuer(&["http://127.0.0.1:1"]);
    validation.validate_nbf = true;
    decode(token, &DecodingKey::from_jwk(jwk)?, &validation).map(|data| data.claims)
}

fn published(issuer: &Issuer) -> JwkSet {
    serde_json::from_value(issuer.jwks()).unwrap()
}

#[test]
fn a_minted_token_verifies_against_the_published_keys_and_says_what_was_asked() {
    let scratch = Scratch::new();
    let issuer = scratch.open();
    let organization = Uuid::new_v4();
    let token = issuer
        .mint(&TokenRequest {
            organization: Some(organization),
            subject: "alice".to_owned(),
            email: "alice@example.test".to_owned(),
            role: Some(Role::Admin),
            operator: true,
            lifetime: Duration::from_mins(1),
            ..TokenRequest::default()
        })
        .unwrap();
    let claims = verify(&published(&issuer), &token).unwrap();
    assert_eq!(claims["sub"], "alice");
    assert_eq!(claims["email"], "alice@example.test");
    assert_eq!(claims["role"], "authenticated");
    assert_eq!(
        claims["app_metadata"],
        json!({ "org_id": organization, "org_role": "admin", "platform_role": "operator" })
    );
    let seconds = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
    assert_eq!(seconds, 60);
    assert_eq!(claims["nbf"], claims["iat"]);
}

#[test]
fn a_token_without_organization_role_or_operator_has_none_of_their_claims() {
    let scratch = Scratch::new();
    let issuer = scratch.open();
    let claims = issuer.claims(&TokenRequest::default());
    assert_eq!(claims["app_metadata"], json!({}));
}

#[test]
fn the_key_survives_and_is_kept_from_others() {
    let scratch = Scratch::new();
    let first = scratch.open();
    let again = scratch.open();
    assert_eq!(first.kid(), again.kid());
    let token = again.mint(&TokenRequest::default()).unwrap();
    verify(&published(&first), &token).unwrap();
    let file = scratch.0.join(key::FILE);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let files = fs::read_dir(&scratch.0).unwrap().count();
    assert_eq!(files, 1, "a draft was left behind");
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    let refusal = Issuer::open(&scratch.0).unwrap_err().to_string();
    assert!(refusal.contains("chmod 600"), "{refusal}");
}

#[test]
fn the_kid_is_the_thumbprint_of_rfc_7638_and_differs_between_keys() {
    use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
    use sha2::{Digest as _, Sha256};
    let (scratch, other) = (Scratch::new(), Scratch::new());
    let issuer = scratch.open();
    let jwk = &issuer.jwks()["keys"][0];
    let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":{},"y":{}}}"#, jwk["x"], jwk["y"]);
    let thumbprint = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(canonical));
    assert_eq!(issuer.kid(), thumbprint);
    assert_eq!(jwk["kid"], thumbprint);
    assert_ne!(issuer.kid(), other.open().kid());
}

#[test]
fn issuers_that_start_at_once_share_one_key() {
    let scratch = Scratch::new();
    let kids: HashSet<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| scratch.open().kid().to_owned())).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(kids.len(), 1);
}

#[test]
fn forged_tokens_are_what_they_claim_to_be_and_do_not_verify() {
    let (scratch, other) = (Scratch::new(), Scratch::new());
    let (issuer, stranger) = (scratch.open(), other.open());
    let jwks = published(&issuer);
    let claims = issuer.claims(&TokenRequest::default());
    let kid = issuer.kid();
    verify(&jwks, &issuer.mint_with(&issuer.header(), &claims).unwrap()).unwrap();
    let forged = [
        issuer.mint_with(&json!({ "alg": "none", "kid": kid }), &claims),
        issuer.mint_with(&json!({ "alg": "HS256", "kid": kid }), &claims),
        issuer.mint_with(&json!({ "alg": "ES256", "kid": "unknown" }), &claims),
        stranger.mint_with(&issuer.header(), &claims),
    ];
    for token in forged {
        let token = token.unwrap();
        assert_eq!(token.split('.').count(), 3);
        assert!(verify(&jwks, &token).is_err(), "{token} was believed");
    }
    assert!(issuer.mint_with(&json!({}), &claims).is_err());
}

#[test]
fn debug_output_holds_no_key() {
    let scratch = Scratch::new();
    let printed = format!("{:?}", scratch.open());
    assert!(printed.contains("kid"), "{printed}");
    let pem = fs::read_to_string(scratch.0.join(key::FILE)).unwrap();
    let secret = pem.lines().nth(1).unwrap();
    assert!(!printed.contains(secret));
}

#[tokio::test]
async fn the_key_set_and_its_place_are_served_over_http() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let scratch = Scratch::new();
    let issuer = Issuer::open(&scratch.0).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let shutdown = CancellationToken::new();
    let server = tokio::spawn({
        let (issuer, shutdown) = (issuer.clone(), shutdown.clone());
        async move { issuer.serve(listener, shutdown).await }
    });
    let read = async |url: String| -> Value {
        let body = reqwest::get(url).await.unwrap().text().await.unwrap();
        serde_json::from_str(&body).unwrap()
    };
    let configuration = read(format!("{origin}/.well-known/openid-configuration")).await;
    assert_eq!(configuration["issuer"], origin);
    let jwks_uri = configuration["jwks_uri"].as_str().unwrap().to_owned();
    assert_eq!(jwks_uri, format!("{origin}/.well-known/jwks.json"));
    let jwks = read(jwks_uri).await;
    assert_eq!(jwks, issuer.jwks());
    assert_eq!(jwks["keys"][0]["kid"], issuer.kid());
    assert!(jwks["keys"][0].get("d").is_none());
    assert_eq!(issuer.claims(&TokenRequest::default())["iss"], origin);
    shutdown.cancel();
    server.await.unwrap().unwrap();
}
