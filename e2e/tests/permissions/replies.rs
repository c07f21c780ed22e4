//! Where a server's answer goes is the asker's choice, and NATS does not hold that choice against the
//! asker's permissions. An answer without a payload is a valid request to delete; one with a payload
//! of the asker's making is a valid request for anything. So no answer that a role can provoke may
//! reach a subject that means something: JetStream's own, another pool's commands, the audit trail.
//!
//! Streams of this test's own are attacked: should an attack work, nothing else is harmed.

use std::sync::Arc;

use serde_json::{Value, json};
use shared::bus::kv::Bucket;
use uuid::Uuid;

use super::{ROLES, wire::Wire};
use crate::world::System;

/// Requests whose answers a role may provoke; each is answered by JetStream, not by our code.
fn requests(role: &str, tag: &str) -> Vec<(String, Value)> {
    let mut requests = vec![(format!("$KV.INSTANCES.{role}.reply-{tag}"), json!({ "beat_at_ms": 0, "version": "0", "healthy": false, "running": 0 }))];
    for bucket in Bucket::ALL {
        let missing = format!("{}reply-{tag}", bucket.subject_prefix());
        requests.push((format!("$JS.API.DIRECT.GET.{}", bucket.stream()), json!({ "last_by_subj": missing })));
        requests.push((format!("$JS.API.STREAM.INFO.{}", bucket.stream()), json!({})));
    }
    requests.push(("$JS.API.STREAM.INFO.AUDIT".to_owned(), json!({})));
    requests.push(("$JS.API.CONSUMER.INFO.AUDIT.writer".to_owned(), json!({})));
    // Nothing waits: the answer says so, without a payload. One that waits comes again.
    requests.push(("$JS.API.CONSUMER.MSG.NEXT.AUDIT.writer".to_owned(), json!({ "batch": 0, "no_wait": true })));
    requests
}

struct Target {
    stream: String,
    consumer: String,
}

impl Target {
    /// A stream with a consumer and three messages, nobody's but this test's.
    async fn new(controller: &mut Wire, tag: &str) -> Self {
        let target = Self { stream: format!("SCRATCH_{tag}"), consumer: "reader".to_owned() };
        let stream = json!({ "name": target.stream, "subjects": [format!("scratch.{tag}.*")], "storage": "memory" });
        let made = controller.request(&format!("$JS.API.STREAM.CREATE.{}", target.stream), &stream).await;
        assert!(made["error"].is_null(), "{made}");
        let consumer = json!({ "stream_name": target.stream, "config": { "durable_name": target.consumer, "ack_policy": "explicit" } });
        let path = format!("$JS.API.CONSUMER.DURABLE.CREATE.{}.{}", target.stream, target.consumer);
        let made = controller.request(&path, &consumer).await;
        assert!(made["error"].is_null(), "{made}");
        target
    }

    /// What must not be reachable by an answer.
    fn attacks(&self, tag: &str) -> Vec<String> {
        let Self { stream, consumer } = self;
        vec![
            format!("$JS.API.CONSUMER.DELETE.{stream}.{consumer}"),
            format!("$JS.API.STREAM.PURGE.{stream}"),
            format!("$JS.API.STREAM.DELETE.{stream}"),
            format!("$JS.API.STREAM.CREATE.LOOT_{tag}"),
        ]
    }
}

async fn exists(controller: &mut Wire, what: &str) -> bool {
    controller.request(&format!("$JS.API.{what}"), &Value::Null).await["error"].is_null()
}

pub(crate) async fn an_answer_carries_no_role_past_its_permissions(system: Arc<System>) {
    let mut controller = Wire::connect(&system, "controller").await;
    let mut broken = Vec::new();
    for role in ROLES.into_iter().filter(|role| *role != "controller") {
        let tag = Uuid::new_v4().simple().to_string();
        let target = Target::new(&mut controller, &tag).await;
        let mut attacker = Wire::connect(&system, role).await;
        // A stream over whatever the attacker likes, as the value of the one entry that it may write.
        let loot = json!({ "name": format!("LOOT_{tag}"), "subjects": [format!("loot.{tag}.>")], "storage": "memory" });
        let key = format!("$KV.INSTANCES.{role}.loot-{tag}");
        let ttl = [("Nats-TTL", "30")];
        assert_eq!(attacker.publish_with(&key, None, &ttl, loot.to_string().as_bytes()).await, None);
        for attack in target.attacks(&tag) {
            for (subject, body) in requests(role, &tag) {
                // Refused or not: what counts is what happens over there.
                let _ = attacker.publish_with(&subject, Some(&attack), &ttl, body.to_string().as_bytes()).await;
            }
            let own = json!({ "last_by_subj": key }).to_string();
            let _ = attacker.publish_with("$JS.API.DIRECT.GET.KV_INSTANCES", Some(&attack), &[], own.as_bytes()).await;
        }
        // The controller asks after everything else: its own requests wait behind the attacker's.
        for (what, wanted) in [
            (format!("CONSUMER.INFO.{}.{}", target.stream, target.consumer), true),
            (format!("STREAM.INFO.{}", target.stream), true),
            (format!("STREAM.INFO.LOOT_{tag}"), false),
        ] {
            if exists(&mut controller, &what).await != wanted {
                broken.push(format!("{role} {} {what}", if wanted { "deleted" } else { "created" }));
            }
        }
        for stream in [&target.stream, &format!("LOOT_{tag}")] {
            controller.request(&format!("$JS.API.STREAM.DELETE.{stream}"), &Value::Null).await;
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}
