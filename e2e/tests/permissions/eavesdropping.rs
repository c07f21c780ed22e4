//! Listening in on others: the subscription is refused, real traffic flows meanwhile, and nothing of
//! it arrives. Whoever may listen does hear it, so the silence means something.

use std::sync::Arc;

use serde_json::json;

use super::{
    CALLER, LISTENER, ROLES,
    wire::{Heard, Wire},
};
use crate::world::System;

/// Every role but one, each refused the subscriptions.
async fn refused_spies(system: &System, except: &str, subjects: &[(&str, Option<&str>)]) -> Vec<(&'static str, Wire)> {
    let mut spies = Vec::new();
    for role in ROLES.into_iter().chain([CALLER, LISTENER]).filter(|role| *role != except) {
        let mut wire = Wire::connect(system, role).await;
        for (subject, queue) in subjects {
            let refusal = wire.subscribe(subject, *queue).await;
            assert!(
                refusal.is_some_and(|refusal| refusal.contains("Permissions Violation")),
                "{role}: {subject} {queue:?}"
            );
        }
        spies.push((role, wire));
    }
    spies
}

async fn heard_nothing(spies: Vec<(&'static str, Wire)>) {
    for (role, mut wire) in spies {
        let heard = wire.heard().await;
        assert!(heard.is_empty(), "{role} listened in: {heard:?}");
    }
}

fn contains(heard: &[Heard], secret: &str) -> bool {
    heard.iter().any(|message| message.payload.windows(secret.len()).any(|window| window == secret.as_bytes()))
}

pub(crate) async fn replies_to_the_gateway_are_heard_by_the_gateway_only(system: Arc<System>) {
    let tenant = system.organization().await;
    let mut gateway = Wire::connect(&system, "gateway").await;
    assert_eq!(gateway.subscribe("_INBOX_gateway.>", None).await, None);
    let subjects = [("_INBOX_gateway.>", None), ("_INBOX_gateway.*.*", Some("w")), (">", None)];
    let spies = refused_spies(&system, "gateway", &subjects).await;
    let secret = format!("overheard-{}", tenant.id);
    let answer = tenant.call("demo", "echo", json!({ "text": secret })).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert!(contains(&gateway.heard().await, &secret), "the reply travels where the spies would have listened");
    heard_nothing(spies).await;
}

pub(crate) async fn work_is_heard_by_workers_only(system: Arc<System>) {
    let tenant = system.organization().await;
    let subjects = [("work.tool", None), ("work.tool", Some("w")), ("work.tool", Some("spies")), ("calls.>", None)];
    let spies = refused_spies(&system, LISTENER, &subjects).await;
    // A tool worker's own credentials do not allow a copy either: a share of the work, or nothing.
    let mut worker = Wire::connect(&system, LISTENER).await;
    for queue in [None, Some("spies")] {
        let refusal = worker.subscribe("work.tool", queue).await;
        assert!(refusal.is_some_and(|refusal| refusal.contains("Permissions Violation")), "{queue:?}");
    }
    for number in 0..5 {
        let answer = tenant.call("demo", "add", json!({ "a": number, "b": 1 })).await;
        assert_eq!(answer.status, 200, "no call was taken from its worker: {}", answer.text);
    }
    heard_nothing(spies).await;
    assert!(worker.heard().await.is_empty());
}

pub(crate) async fn a_secret_on_its_way_is_heard_by_no_other_role(system: Arc<System>) {
    let tenant = system.organization().await;
    let subjects = [
        ("cmd.token.>", None),
        ("cmd.token.>", Some("token")),
        ("cmd.token.configurations.register.*", None),
        ("cmd.*.>", Some("token")),
    ];
    let spies = refused_spies(&system, "token", &subjects).await;
    let mut token = Wire::connect(&system, "token").await;
    for queue in [None, Some("spies")] {
        let refusal = token.subscribe("cmd.token.>", queue).await;
        assert!(refusal.is_some_and(|refusal| refusal.contains("Permissions Violation")), "{queue:?}");
    }
    let mut gateway = Wire::connect(&system, "gateway").await;
    assert_eq!(gateway.subscribe("_INBOX_gateway.>", None).await, None);
    let secret = format!("bearer-{}", uuid::Uuid::new_v4().simple());
    let more = json!({ "auth": { "type": "bearer", "token": secret } });
    tenant.register("secretive", &system.demo_url, more).await;
    let replies = gateway.heard().await;
    assert!(contains(&replies, "secretive"), "the answer travels on the gateway's inbox");
    assert!(!contains(&replies, &secret), "the secret does not travel back");
    heard_nothing(spies).await;
    assert!(token.heard().await.is_empty());
}
