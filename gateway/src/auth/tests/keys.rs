//! How often the issuer is asked, and what happens while it does not answer.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use poem::http::StatusCode;
use serde_json::json;

use super::{
    super::{Denied, jwks::Pace},
    issuer::{EC_A, EC_B, Issuer, RSA, key_set, token, token_naming},
};

/// The set is due at every look-up; nothing else is in the way.
const ALWAYS_DUE: Pace = Pace {
    fresh_for: Duration::ZERO,
    extra_every: Duration::ZERO,
    retry_with_keys: Duration::ZERO,
    retry_without_keys: Duration::ZERO,
    absent_for: Duration::from_mins(1),
    timeout: Duration::from_secs(5),
};

#[tokio::test]
async fn a_hundred_invented_key_ids_cost_two_fetches() {
    let issuer = Issuer::publishing(&[EC_A]).await;
    let authenticator = issuer.authenticator();
    for number in 0..100 {
        let invented = token_naming(&format!("invented-{number}"), EC_A, &issuer.claims());
        assert_eq!(authenticator.verify(&invented).await, Err(Denied::UnknownKey));
    }
    assert!((1..=2).contains(&issuer.fetches()), "{}", issuer.fetches());
    assert!(authenticator.verify(&token(EC_A, &issuer.claims())).await.is_ok());
}

#[tokio::test]
async fn a_hundred_invented_key_ids_at_once_cost_two_fetches() {
    let issuer = Issuer::publishing(&[EC_A]).await;
    let authenticator = issuer.authenticator();
    let invented: Vec<_> =
        (0..100).map(|number| token_naming(&format!("invented-{number}"), EC_A, &issuer.claims())).collect();
    for answer in join_all(invented.iter().map(|token| authenticator.verify(token))).await {
        assert_eq!(answer, Err(Denied::UnknownKey));
    }
    assert!((1..=2).contains(&issuer.fetches()), "{}", issuer.fetches());
}

#[tokio::test]
async fn first_callers_share_one_fetch() {
    let issuer = Issuer::publishing(&[EC_A]).await;
    let authenticator = issuer.authenticator();
    let tokens: Vec<_> = (0..20)
        .map(|number| {
            let mut claims = issuer.claims();
            claims["sub"] = json!(format!("user-{number}"));
            token(EC_A, &claims)
        })
        .collect();
    for answer in join_all(tokens.iter().map(|token| authenticator.verify(token))).await {
        assert!(answer.is_ok());
    }
    assert_eq!(issuer.fetches(), 1);
}

#[tokio::test]
async fn an_absent_key_id_is_remembered_and_leaves_the_fetch_to_others() {
    let issuer = Issuer::publishing(&[EC_A]).await;
    let pace = Pace { fresh_for: Duration::from_mins(10), ..ALWAYS_DUE };
    let authenticator = issuer.authenticator_at(pace);
    let invented = token_naming("invented", EC_A, &issuer.claims());
    for _ in 0..5 {
        assert_eq!(authenticator.verify(&invented).await, Err(Denied::UnknownKey));
    }
    assert_eq!(issuer.fetches(), 1);
    issuer.publish(&[EC_A, EC_B]);
    assert!(authenticator.verify(&token(EC_B, &issuer.claims())).await.is_ok());
    assert_eq!(issuer.fetches(), 2);
}

#[tokio::test]
async fn a_rotated_key_is_picked_up_by_its_unknown_id() {
    let issuer = Issuer::publishing(&[EC_A]).await;
    let authenticator = issuer.authenticator();
    assert!(authenticator.verify(&token(EC_A, &issuer.claims())).await.is_ok());
    issuer.publish(&[EC_B, RSA]);
    for key in [EC_B, RSA] {
        assert!(authenticator.verify(&token(key, &issuer.claims())).await.is_ok(), "{key:?}");
    }
    assert_eq!(issuer.fetches(), 2);
    let mut claims = issuer.claims();
    claims["sub"] = json!("somebody-new");
    assert_eq!(authenticator.verify(&token(EC_A, &claims)).await, Err(Denied::UnknownKey), "withdrawn");
}

#[tokio::test]
async fn the_set_is_fetched_again_when_it_is_due() {
    let issuer = Issuer::publishing(&[EC_A, EC_B]).await;
    let authenticator = issuer.authenticator_at(ALWAYS_DUE);
    assert!(authenticator.verify(&token(EC_A, &issuer.claims())).await.is_ok());
    issuer.publish(&[EC_A]);
    assert_eq!(authenticator.verify(&token(EC_B, &issuer.claims())).await, Err(Denied::UnknownKey));
}

#[tokio::test]
async fn known_keys_outlive_the_issuer() {
    let mut issuer = Issuer::publishing(&[EC_A]).await;
    let authenticator = issuer.authenticator_at(ALWAYS_DUE);
    assert!(authenticator.verify(&token(EC_A, &issuer.claims())).await.is_ok());
    issuer.die().await;
    let mut claims = issuer.claims();
    claims["sub"] = json!("somebody-new");
    assert!(authenticator.verify(&token(EC_A, &claims)).await.is_ok());
    // What nobody can look up is not called unknown.
    assert_eq!(authenticator.verify(&token(EC_B, &claims)).await, Err(Denied::KeysUnavailable));
    issuer.publish(&[EC_B]);
    issuer.revive().await;
    assert!(authenticator.verify(&token(EC_B, &claims)).await.is_ok());
}

#[tokio::test]
async fn an_error_page_does_not_replace_good_keys() {
    let issuer = Issuer::publishing(&[EC_A]).await;
    let authenticator = issuer.authenticator_at(ALWAYS_DUE);
    assert!(authenticator.verify(&token(EC_A, &issuer.claims())).await.is_ok());
    for (number, (status, body)) in [
        (StatusCode::OK, b"<html>down for maintenance</html>".to_vec()),
        (StatusCode::OK, b"{}".to_vec()),
        (StatusCode::BAD_GATEWAY, key_set(&[]).into_bytes()),
    ]
    .into_iter()
    .enumerate()
    {
        issuer.answer(status, &[], body);
        let mut claims = issuer.claims();
        claims["sub"] = json!(format!("user-{number}"));
        assert!(authenticator.verify(&token(EC_A, &claims)).await.is_ok());
        assert_eq!(issuer.fetches(), number + 2);
    }
}

#[tokio::test]
async fn without_any_keys_the_gateway_says_that_it_cannot_tell() {
    let mut issuer = Issuer::publishing(&[EC_A]).await;
    issuer.die().await;
    let authenticator = issuer.authenticator_at(ALWAYS_DUE);
    let good = token(EC_A, &issuer.claims());
    assert_eq!(authenticator.verify(&good).await, Err(Denied::KeysUnavailable));
    issuer.revive().await;
    assert!(authenticator.verify(&good).await.is_ok());
}

#[tokio::test]
async fn an_issuer_that_is_down_is_not_hammered() {
    let issuer = Issuer::publishing(&[EC_A]).await;
    issuer.answer(StatusCode::INTERNAL_SERVER_ERROR, &[], Vec::new());
    let pace = Pace { retry_without_keys: Duration::from_mins(1), ..Pace::default() };
    let authenticator = issuer.authenticator_at(pace);
    for number in 0..50 {
        let some = token_naming(&format!("kid-{number}"), EC_A, &issuer.claims());
        assert_eq!(authenticator.verify(&some).await, Err(Denied::KeysUnavailable));
    }
    assert!((1..=2).contains(&issuer.fetches()), "{}", issuer.fetches());
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Issuer::publishing(&[EC_A]).await;
    let issuer = Issuer::publishing(&[EC_A]).await;
    let location = format!("{}/.well-known/jwks.json", elsewhere.url);
    issuer.answer(StatusCode::FOUND, &[("location", location)], Vec::new());
    let good = token(EC_A, &issuer.claims());
    assert_eq!(issuer.authenticator().verify(&good).await, Err(Denied::KeysUnavailable));
    assert_eq!(elsewhere.fetches(), 0);
}

#[tokio::test]
async fn a_key_set_over_256_kib_is_not_read() {
    let issuer = Issuer::publishing(&[EC_A]).await;
    let padded = |bytes: usize| {
        let mut body = key_set(&[EC_A.jwk()]).into_bytes();
        body.resize(bytes, b' ');
        body
    };
    issuer.answer(StatusCode::OK, &[], padded(256 * 1024 + 1));
    let good = token(EC_A, &issuer.claims());
    assert_eq!(issuer.authenticator().verify(&good).await, Err(Denied::KeysUnavailable));
    issuer.answer(StatusCode::OK, &[], padded(256 * 1024));
    assert!(issuer.authenticator().verify(&good).await.is_ok());
}

#[tokio::test]
async fn an_issuer_that_hangs_is_given_up() {
    let issuer = Issuer::publishing(&[EC_A]).await;
    issuer.close();
    let authenticator = issuer.authenticator_at(Pace { timeout: Duration::from_millis(100), ..Pace::default() });
    let good = token(EC_A, &issuer.claims());
    let answer = tokio::time::timeout(Duration::from_secs(30), authenticator.verify(&good)).await.unwrap();
    assert_eq!(answer, Err(Denied::KeysUnavailable));
}

#[tokio::test]
async fn a_caller_with_a_known_key_does_not_wait_for_a_fetch_of_another() {
    let issuer = Issuer::publishing(&[EC_A]).await;
    let authenticator = Arc::new(issuer.authenticator_at(ALWAYS_DUE));
    assert!(authenticator.verify(&token(EC_A, &issuer.claims())).await.is_ok());
    issuer.asked().await;
    issuer.close();
    let rotated = token(EC_B, &issuer.claims());
    let waiting = tokio::spawn({
        let authenticator = Arc::clone(&authenticator);
        async move { authenticator.verify(&rotated).await }
    });
    issuer.asked().await;
    let mut claims = issuer.claims();
    claims["sub"] = json!("somebody-new");
    assert!(authenticator.verify(&token(EC_A, &claims)).await.is_ok());
    assert!(!waiting.is_finished());
    issuer.publish(&[EC_A, EC_B]);
    issuer.open();
    assert!(waiting.await.unwrap().is_ok());
}

#[tokio::test]
async fn a_caller_that_hangs_up_does_not_undo_the_fetch() {
    let issuer = Issuer::publishing(&[EC_A]).await;
    let authenticator = Arc::new(issuer.authenticator());
    assert!(authenticator.verify(&token(EC_A, &issuer.claims())).await.is_ok());
    issuer.asked().await;
    issuer.publish(&[EC_B]);
    issuer.close();
    let invented = token_naming("invented", EC_A, &issuer.claims());
    let attacker = tokio::spawn({
        let authenticator = Arc::clone(&authenticator);
        async move { authenticator.verify(&invented).await }
    });
    issuer.asked().await;
    attacker.abort();
    assert!(attacker.await.unwrap_err().is_cancelled());
    issuer.open();
    assert!(authenticator.verify(&token(EC_B, &issuer.claims())).await.is_ok());
    assert_eq!(issuer.fetches(), 2, "the attacker's fetch served the others");
}
