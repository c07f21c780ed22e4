//! Every refusal the gateway promises, with real signatures and a real server for the keys.

mod claims;
mod config;
mod issuer;
mod keys;
mod signatures;

use self::issuer::{EC_A, Issuer, token};
use super::*;
use serde_json::json;

#[tokio::test]
async fn a_token_of_the_issuer_becomes_a_person_in_an_organization() {
    let issuer = Issuer::publishing(&[EC_A]).await;
    let authenticator = issuer.authenticator();
    let claims = issuer.claims();
    let verified = authenticator.verify(&token(EC_A, &claims)).await.unwrap();
    assert_eq!(verified.organization, issuer::organization());
    assert_eq!(verified.access_key, shared::bus::state::access_key(verified.organization, &verified.subject));
    assert_eq!(verified.subject, "8f14e45f-ceea-467f-a8b5-0c1b2f3d4e5f");
    assert_eq!(verified.email.as_deref(), Some("ada@acme.example"));
    assert_eq!(verified.role, Role::Admin);
    assert!(!verified.operator);
    assert_eq!(verified.expires_at_unix_s, claims["exp"].as_u64().unwrap());
}

#[tokio::test]
async fn a_token_seen_before_is_the_same_allocation_and_needs_no_issuer() {
    let mut issuer = Issuer::publishing(&[EC_A]).await;
    let authenticator = issuer.authenticator();
    let token = token(EC_A, &issuer.claims());
    let first = authenticator.verify(&token).await.unwrap();
    issuer.die().await;
    let second = authenticator.verify(&token).await.unwrap();
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!(issuer.fetches(), 1);
}

#[tokio::test]
async fn a_remembered_token_is_refused_from_the_second_it_expires() {
    let issuer = Issuer::publishing(&[EC_A]).await;
    let authenticator = issuer.authenticator();
    let token = token(EC_A, &issuer.claims());
    let end = authenticator.verify(&token).await.unwrap().expires_at_unix_s + issuer::LEEWAY_S;
    assert!(authenticator.verify_at(&token, end - 1).await.is_ok());
    assert_eq!(authenticator.verify_at(&token, end).await, Err(Denied::Expired));
}

#[tokio::test]
async fn a_refused_token_is_not_remembered() {
    let issuer = Issuer::publishing(&[EC_A]).await;
    let authenticator = issuer.authenticator();
    let mut claims = issuer.claims();
    let starts = claims["iat"].as_u64().unwrap() + 1_000;
    claims["nbf"] = json!(starts);
    let token = token(EC_A, &claims);
    assert_eq!(authenticator.verify(&token).await, Err(Denied::NotYetValid));
    assert!(authenticator.verify_at(&token, starts).await.is_ok());
}

#[test]
fn a_token_leaves_the_map_when_it_expires_and_after_ten_minutes_at_the_latest() {
    let lasting = |seconds: u64| Verified {
        organization: OrganizationId::PLATFORM,
        subject: "s".to_owned(),
        access_key: String::new(),
        email: None,
        role: Role::User,
        operator: true,
        expires_at_unix_s: (now_unix_ms() / 1_000).saturating_add(seconds),
    };
    let policy = UntilExpiry { leeway_s: 5 };
    let soon = policy.left(&lasting(60));
    assert!((Duration::from_secs(63)..=Duration::from_secs(65)).contains(&soon), "{soon:?}");
    assert_eq!(policy.left(&lasting(7 * 86_400)), REMEMBERED_FOR);
    assert_eq!(policy.left(&lasting(u64::MAX)), REMEMBERED_FOR);
}

#[test]
fn only_the_bearer_scheme_carries_a_token() {
    assert_eq!(bearer(Some("Bearer abc.def.ghi")), Ok("abc.def.ghi"));
    assert_eq!(bearer(Some("bearer  abc")), Ok("abc"));
    for missing in [None, Some(""), Some("Bearer"), Some("Bearer "), Some("Basic YTpi"), Some("abc.def.ghi")] {
        assert_eq!(bearer(missing), Err(Denied::Missing), "{missing:?}");
    }
    assert_eq!(bearer(Some("Bearer abc def")), Err(Denied::Malformed));
}

#[tokio::test]
async fn an_empty_token_is_a_missing_one() {
    let issuer = Issuer::publishing(&[EC_A]).await;
    assert_eq!(issuer.authenticator().verify("").await, Err(Denied::Missing));
}

#[tokio::test]
async fn what_is_no_jwt_is_malformed_and_reaches_no_issuer() {
    let issuer = Issuer::publishing(&[EC_A]).await;
    let authenticator = issuer.authenticator();
    let good = token(EC_A, &issuer.claims());
    let (message, signature) = good.rsplit_once('.').unwrap();
    let oversized = "a".repeat(MAX_TOKEN_BYTES + 1);
    let padded = format!("{message}.{signature}=");
    let extended = format!("{good}.more");
    for bad in ["abc", "a.b", "a.b.c", "..", "!!.!!.!!", message, &extended, &oversized, " ", "sb_secret_0123456789"] {
        assert_eq!(authenticator.verify(bad).await, Err(Denied::Malformed), "{bad}");
    }
    assert_eq!(issuer.fetches(), 0);
    assert_eq!(authenticator.verify(&padded).await, Err(Denied::Malformed));
}

#[tokio::test]
async fn headers_that_ask_for_more_than_a_signature_are_malformed() {
    let issuer = Issuer::publishing(&[EC_A]).await;
    let authenticator = issuer.authenticator();
    let altered = |change: fn(&mut Header)| {
        let mut header = issuer::header(EC_A);
        change(&mut header);
        issuer::sign(&header, EC_A, &issuer.claims())
    };
    let critical = altered(|header| header.crit = Some(vec!["exp".to_owned()]));
    let proof = altered(|header| header.typ = Some("dpop+jwt".to_owned()));
    let long_kid = altered(|header| header.kid = Some("k".repeat(MAX_KID_BYTES + 1)));
    for bad in [critical, proof, long_kid] {
        assert_eq!(authenticator.verify(&bad).await, Err(Denied::Malformed));
    }
    assert_eq!(issuer.fetches(), 0);
    for typ in [None, Some("at+jwt"), Some("application/at+jwt"), Some("jwt")] {
        let mut header = issuer::header(EC_A);
        header.typ = typ.map(str::to_owned);
        let good = issuer::sign(&header, EC_A, &issuer.claims());
        assert!(authenticator.verify(&good).await.is_ok(), "{typ:?}");
    }
}

#[test]
fn every_refusal_has_its_status_its_label_and_words_for_a_header() {
    let labels: std::collections::HashSet<_> = Denied::ALL.iter().map(|denied| denied.reason()).collect();
    assert_eq!(labels.len(), Denied::ALL.len());
    for denied in Denied::ALL {
        let unavailable = denied == Denied::KeysUnavailable;
        let fault = denied.fault();
        assert_eq!(fault.code.face().http, if unavailable { 503 } else { 401 }, "{denied}");
        assert_eq!(fault.retry_after_ms.is_some(), unavailable, "{denied}");
        let printable = |c: char| (' '..='~').contains(&c) && c != '"' && c != '\\';
        assert!(denied.message().chars().all(printable), "{denied}");
        let challenges = !unavailable && denied != Denied::Missing;
        assert_eq!(denied.challenge_error().is_some(), challenges, "{denied}");
    }
}
