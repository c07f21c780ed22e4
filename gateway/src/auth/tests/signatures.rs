//! Algorithms, keys and who may choose them.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::{
    super::Denied,
    issuer::{self, EC_A, EC_A_PUBLIC_PEM, EC_B, Issuer, RSA, RSA_PUBLIC_PEM, TestKey, sign, token, token_naming},
};

/// `{"alg":"none","typ":"JWT"}` and `{"alg":"none","kid":"ec-a"}` in base64url.
const UNSIGNED_HEADERS: [&str; 2] = ["eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0", "eyJhbGciOiJub25lIiwia2lkIjoiZWMtYSJ9"];

const SECRET: &str = "a secret that is at least thirty-two bytes long";

fn hs256(key: &[u8], kid: Option<&str>, claims: &Value) -> String {
    let header = Header { kid: kid.map(str::to_owned), ..Header::new(Algorithm::HS256) };
    jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(key)).unwrap()
}

#[tokio::test]
async fn es256_and_rs256_are_accepted() {
    let issuer = Issuer::publishing(&[EC_A, RSA]).await;
    let authenticator = issuer.authenticator();
    for key in [EC_A, RSA] {
        assert!(authenticator.verify(&token(key, &issuer.claims())).await.is_ok(), "{key:?}");
    }
}

#[tokio::test]
async fn an_unsigned_token_is_refused() {
    let issuer = Issuer::publishing(&[EC_A]).await;
    let authenticator = issuer.authenticator_with_secret(SECRET);
    let good = token(EC_A, &issuer.claims());
    let mut parts = good.split('.').skip(1);
    let (payload, signature) = (parts.next().unwrap(), parts.next().unwrap());
    for header in UNSIGNED_HEADERS {
        for signature in ["", signature] {
            let unsigned = format!("{header}.{payload}.{signature}");
            assert_eq!(authenticator.verify(&unsigned).await, Err(Denied::Algorithm));
        }
    }
    let (message, _) = good.rsplit_once('.').unwrap();
    assert_eq!(authenticator.verify(&format!("{message}.")).await, Err(Denied::Signature));
}

#[tokio::test]
async fn hs256_signed_with_a_published_key_is_refused() {
    let issuer = Issuer::publishing(&[EC_A, RSA]).await;
    let without = issuer.authenticator();
    let with = issuer.authenticator_with_secret(SECRET);
    let everything_public = |pem: &str, jwk: &Value| -> Vec<Vec<u8>> {
        let coordinates = ["x", "y", "n"].iter().filter_map(|name| Some(jwk[*name].as_str()?.as_bytes().to_vec()));
        let pem = [pem.as_bytes().to_vec(), pem.trim_end().as_bytes().to_vec()];
        coordinates.chain(pem).chain([jwk.to_string().into_bytes()]).collect()
    };
    for (key, pem) in [(EC_A, EC_A_PUBLIC_PEM), (RSA, RSA_PUBLIC_PEM)] {
        for public in everything_public(pem, &key.jwk()) {
            for kid in [Some(key.kid), None] {
                let forged = hs256(&public, kid, &issuer.claims());
                assert_eq!(without.verify(&forged).await, Err(Denied::Algorithm));
                assert_eq!(with.verify(&forged).await, Err(Denied::Signature));
            }
        }
    }
    assert_eq!(issuer.fetches(), 0, "a published key is never asked about HS256");
}

#[tokio::test]
async fn a_published_symmetric_key_verifies_nothing() {
    let shared_by_mistake =
        json!({ "kty": "oct", "kid": "oct", "alg": "HS256", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0" });
    let issuer = Issuer::answering(&issuer::key_set(&[shared_by_mistake, EC_A.jwk()])).await;
    let forged = hs256(b"secret-secret-secret-secret", Some("oct"), &issuer.claims());
    assert_eq!(issuer.authenticator().verify(&forged).await, Err(Denied::Algorithm));
    assert_eq!(issuer.authenticator_with_secret(SECRET).verify(&forged).await, Err(Denied::Signature));
}

#[tokio::test]
async fn hs256_is_accepted_with_the_configured_secret_only() {
    let issuer = Issuer::publishing(&[EC_A]).await;
    let good = hs256(SECRET.as_bytes(), None, &issuer.claims());
    assert_eq!(issuer.authenticator().verify(&good).await, Err(Denied::Algorithm));
    assert!(issuer.authenticator_with_secret(SECRET).verify(&good).await.is_ok());
    let other = hs256(b"another secret that is just as long as ours", None, &issuer.claims());
    assert_eq!(issuer.authenticator_with_secret(SECRET).verify(&other).await, Err(Denied::Signature));
    let es256 = token(EC_A, &issuer.claims());
    assert!(issuer.authenticator_with_secret(SECRET).verify(&es256).await.is_ok());
}

#[tokio::test]
async fn a_key_verifies_no_other_algorithm_than_its_own() {
    let issuer = Issuer::publishing(&[EC_A, RSA]).await;
    let authenticator = issuer.authenticator();
    let crossed = [token_naming("ec-a", RSA, &issuer.claims()), token_naming("rsa", EC_A, &issuer.claims())];
    for forged in crossed {
        assert_eq!(authenticator.verify(&forged).await, Err(Denied::Algorithm));
    }
    for algorithm in [Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS512] {
        let unlisted = sign(&Header { alg: algorithm, ..issuer::header(RSA) }, RSA, &issuer.claims());
        assert_eq!(authenticator.verify(&unlisted).await, Err(Denied::Algorithm), "{algorithm:?}");
    }
}

#[tokio::test]
async fn a_key_published_for_another_algorithm_or_use_is_not_used() {
    let altered = |key: TestKey, name: &str, value: Value| {
        let mut jwk = key.jwk();
        jwk[name] = value;
        jwk
    };
    for (key, jwk) in [
        (RSA, altered(RSA, "alg", json!("RS512"))),
        (RSA, altered(RSA, "use", json!("enc"))),
        (EC_A, altered(EC_A, "key_ops", json!(["sign"]))),
        (EC_A, altered(EC_A, "crv", json!("P-384"))),
        (EC_A, altered(EC_A, "d", json!("published by mistake"))),
        (EC_A, altered(EC_A, "x", EC_B.jwk()["x"].clone())),
        (EC_A, altered(EC_A, "x", json!("AAAA"))),
        (RSA, altered(RSA, "n", json!("sXch".repeat(32)))),
        (EC_A, json!("not even an object")),
    ] {
        let issuer = Issuer::answering(&issuer::key_set(std::slice::from_ref(&jwk))).await;
        let refused = issuer.authenticator().verify(&token(key, &issuer.claims())).await;
        assert_eq!(refused, Err(Denied::UnknownKey), "{jwk}");
    }
}

#[tokio::test]
async fn a_signature_by_another_key_or_over_other_claims_is_refused() {
    let issuer = Issuer::publishing(&[EC_A, EC_B, RSA]).await;
    let authenticator = issuer.authenticator();
    let foreign = token_naming("ec-a", EC_B, &issuer.claims());
    assert_eq!(authenticator.verify(&foreign).await, Err(Denied::Signature));
    let mut promoted = issuer.claims();
    promoted["app_metadata"]["platform_role"] = json!("operator");
    for key in [EC_A, RSA] {
        let (good, wanted) = (token(key, &issuer.claims()), token(key, &promoted));
        let spliced = format!("{}.{}", wanted.rsplit_once('.').unwrap().0, good.rsplit_once('.').unwrap().1);
        assert_eq!(authenticator.verify(&spliced).await, Err(Denied::Signature), "{key:?}");
    }
}

#[tokio::test]
async fn a_key_that_the_token_brings_along_is_not_used() {
    let issuer = Issuer::publishing(&[EC_A]).await;
    let mut header = issuer::header(EC_A);
    header.jwk = Some(serde_json::from_value(EC_B.jwk()).unwrap());
    header.jku = Some(format!("{}/elsewhere.json", issuer.url));
    let forged = sign(&header, EC_B, &issuer.claims());
    assert_eq!(issuer.authenticator().verify(&forged).await, Err(Denied::Signature));
    assert_eq!(issuer.fetches(), 1, "only the configured address is asked");
}

#[tokio::test]
async fn a_key_id_may_be_left_out_only_when_there_is_one_key() {
    let nameless = |key, claims: &Value| sign(&Header { kid: None, ..issuer::header(key) }, key, claims);
    let one = Issuer::publishing(&[EC_A]).await;
    assert!(one.authenticator().verify(&nameless(EC_A, &one.claims())).await.is_ok());
    let other = one.authenticator().verify(&nameless(RSA, &one.claims())).await;
    assert_eq!(other, Err(Denied::Algorithm));
    let two = Issuer::publishing(&[EC_A, RSA]).await;
    assert_eq!(two.authenticator().verify(&nameless(EC_A, &two.claims())).await, Err(Denied::UnknownKey));
}
