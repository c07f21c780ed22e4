//! Streams and consumers belong to the controller. A consumer's deliver subject is checked by
//! nobody, so that whoever may create one reads and writes everywhere: both attacks are tried, and
//! the first is carried out by the one who may, to show that only the grant stands in between.

use std::sync::Arc;

use serde_json::{Value, json};
use shared::id::OrganizationId;

use super::{ROLES, wire::Wire};
use crate::world::System;

/// Subject and body of a request for a push consumer.
fn consumer(stream: &str, name: &str, filter: &str, deliver: &str, group: Option<&str>) -> (String, Value) {
    let mut config = json!({
        "durable_name": name, "name": name, "deliver_subject": deliver, "deliver_policy": "all",
        "ack_policy": "explicit", "filter_subject": filter, "max_deliver": -1, "mem_storage": true,
    });
    if let Some(group) = group {
        config["deliver_group"] = group.into();
    }
    let body = json!({ "stream_name": stream, "config": config, "action": "create" });
    (format!("$JS.API.CONSUMER.CREATE.{stream}.{name}.{filter}"), body)
}

async fn refused(wire: &mut Wire, role: &str, subject: &str, body: &Value) {
    let refusal = wire.publish(subject, body.to_string().as_bytes()).await;
    assert!(
        refusal.as_ref().is_some_and(|text| text.contains("Permissions Violation")),
        "{role}, {subject}: {refusal:?}"
    );
}

/// The error code of a consumer's or stream's information; 404 when it does not exist.
async fn code_of(controller: &mut Wire, what: &str) -> Value {
    controller.request(&format!("$JS.API.{what}"), &Value::Null).await["error"]["code"].clone()
}

pub(crate) async fn a_consumer_into_the_gateways_inbox_steals_no_work(system: Arc<System>) {
    let tenant = system.organization().await;
    let organization = OrganizationId(tenant.id);
    let stream = format!("CALLS_{}", organization.partition());
    let mut controller = Wire::connect(&system, "controller").await;
    for role in ROLES.into_iter().filter(|role| *role != "controller") {
        let mut thief = Wire::connect(&system, role).await;
        let name = format!("thief_{role}_{}", tenant.id.simple());
        let filter = format!("calls.{}.tool.{organization}", organization.partition());
        let inbox = thief.inbox.clone();
        let (subject, body) = consumer(&stream, &name, &filter, &inbox, None);
        for subject in [
            subject,
            format!("$JS.API.CONSUMER.CREATE.{stream}.{name}"),
            format!("$JS.API.CONSUMER.DURABLE.CREATE.{stream}.{name}"),
            format!("$JS.API.CONSUMER.CREATE.{stream}"),
        ] {
            refused(&mut thief, role, &subject, &body).await;
        }
        let answer = tenant.call("demo", "echo", json!({ "text": "not for thieves" })).await;
        assert_eq!(answer.status, 200, "the call was taken by {role}: {}", answer.text);
        assert!(thief.heard().await.is_empty(), "{role} heard work");
        assert_eq!(code_of(&mut controller, &format!("CONSUMER.INFO.{stream}.{name}")).await, 404, "{name} exists");
    }
    the_grant_alone_stands_in_between(&system, &mut controller, &stream, organization).await;
}

/// With the grant the same request works: the inbox of another role gets what lies in the stream.
/// Subjects of a pool without lanes are used, so that no call is touched.
async fn the_grant_alone_stands_in_between(
    system: &System,
    controller: &mut Wire,
    stream: &str,
    organization: OrganizationId,
) {
    let mut gateway = Wire::connect(system, "gateway").await;
    let name = format!("granted_{}", organization.0.simple());
    let lane = format!("calls.{}.audit.{organization}", organization.partition());
    let (subject, body) = consumer(stream, &name, &lane, &gateway.inbox.clone(), None);
    let made = controller.request(&subject, &body).await;
    assert!(made["error"].is_null(), "{made}");
    assert_eq!(gateway.publish_with(&lane, None, &[("Org", "x")], b"loot").await, None);
    let stolen = gateway.next("the message by way of the consumer").await;
    assert_eq!((stolen.subject.as_str(), stolen.payload.as_slice()), (lane.as_str(), b"loot".as_slice()));
    // The tool pool may acknowledge in these streams; it clears the message away.
    let acknowledgement = stolen.reply.expect("a delivery of a stream");
    let mut tool = Wire::connect(system, "tool").await;
    assert_eq!(tool.publish(&acknowledgement, b"+ACK").await, None);
    tool.next("the confirmation").await;
    let gone = controller.request(&format!("$JS.API.CONSUMER.DELETE.{stream}.{name}"), &Value::Null).await;
    assert_eq!(gone["success"], true, "{gone}");
}

pub(crate) async fn a_consumer_into_a_command_subject_forges_no_command(system: Arc<System>) {
    let (attacker, victim) = (system.organization().await, system.organization().await);
    let mine = OrganizationId(attacker.id);
    let calls = format!("CALLS_{}", mine.partition());
    let mut controller = Wire::connect(&system, "controller").await;
    let targets = [
        (format!("cmd.token.configurations.list.{}", victim.id), Some("token")),
        (format!("cmd.token.configurations.remove.{}", victim.id), Some("token")),
        ("work.tool".to_owned(), Some("w")),
    ];
    for role in ROLES.into_iter().filter(|role| *role != "controller") {
        let mut forger = Wire::connect(&system, role).await;
        // Streams that the role can write into, where it can into any.
        let sources = [
            (calls.as_str(), format!("calls.{}.audit.{mine}", mine.partition())),
            ("KV_INSTANCES", format!("$KV.INSTANCES.{role}.forged")),
            ("KV_ACCESS", "$KV.ACCESS.forged".to_owned()),
            ("KV_CONFIGS", "$KV.CONFIGS.forged".to_owned()),
            ("AUDIT", format!("audit.{mine}")),
        ];
        for (stream, filter) in &sources {
            for (deliver, group) in &targets {
                let name = format!("forger_{role}_{}", uuid::Uuid::new_v4().simple());
                let (subject, body) = consumer(stream, &name, filter, deliver, *group);
                refused(&mut forger, role, &subject, &body).await;
                assert_eq!(code_of(&mut controller, &format!("CONSUMER.INFO.{stream}.{name}")).await, 404, "{name}");
            }
        }
        assert!(forger.heard().await.is_empty(), "{role} was answered");
    }
    let list = victim.admin.get("/api/v1/mcp/configurations").await.json();
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1), "nothing was removed: {list}");
}

pub(crate) async fn only_the_controller_administers_streams(system: Arc<System>) {
    let mut controller = Wire::connect(&system, "controller").await;
    let before = controller.request("$JS.API.STREAM.NAMES", &Value::Null).await;
    assert!(before["streams"].as_array().is_some_and(|names| names.len() > 20), "{before}");
    for role in ROLES.into_iter().filter(|role| *role != "controller") {
        let mut wire = Wire::connect(&system, role).await;
        let spy = format!("SPY_{}", role.to_uppercase());
        // A stream over the commands would keep every secret that passes.
        let create = json!({ "name": spy, "subjects": ["cmd.token.>"], "storage": "memory" });
        refused(&mut wire, role, &format!("$JS.API.STREAM.CREATE.{spy}"), &create).await;
        for stream in ["AUDIT", "CALLS_0", "KV_ACCESS"] {
            refused(&mut wire, role, &format!("$JS.API.STREAM.DELETE.{stream}"), &json!({})).await;
            refused(&mut wire, role, &format!("$JS.API.STREAM.PURGE.{stream}"), &json!({})).await;
            let update = json!({ "name": stream, "subjects": ["elsewhere"] });
            refused(&mut wire, role, &format!("$JS.API.STREAM.UPDATE.{stream}"), &update).await;
        }
        refused(&mut wire, role, "$JS.API.CONSUMER.DELETE.AUDIT.writer", &json!({})).await;
        if role != "audit" {
            let read = json!({ "seq": 1 });
            refused(&mut wire, role, "$JS.API.STREAM.MSG.GET.AUDIT", &read).await;
            refused(&mut wire, role, "$JS.API.DIRECT.GET.AUDIT", &read).await;
            refused(&mut wire, role, "$JS.API.CONSUMER.MSG.NEXT.AUDIT.writer", &json!({ "batch": 1 })).await;
        }
        assert!(wire.heard().await.is_empty(), "{role} was answered");
    }
    // Not even the controller takes anything out of the audit trail.
    for (act, body) in [("PURGE", json!({})), ("MSG.DELETE", json!({ "seq": 1 }))] {
        let answer = controller.request(&format!("$JS.API.STREAM.{act}.AUDIT"), &body).await;
        assert!(answer["error"]["code"].is_number(), "{act}: {answer}");
    }
    let after = controller.request("$JS.API.STREAM.NAMES", &Value::Null).await;
    assert_eq!(before["streams"], after["streams"]);
}

pub(crate) async fn a_heartbeat_cannot_wipe_those_of_others(system: Arc<System>) {
    for role in ROLES {
        let mut wire = Wire::connect(&system, role).await;
        let gone = br#"{"beat_at_ms":0,"version":"0","healthy":false,"running":0}"#;
        let subject = format!("$KV.INSTANCES.{role}.permissions-test");
        let reply = wire.inbox.clone();
        for rollup in ["all", "sub"] {
            let headers = [("Nats-Rollup", rollup), ("Nats-TTL", "1")];
            assert_eq!(wire.publish_with(&subject, Some(&reply), &headers, gone).await, None);
            let answer = wire.next("the stream's word").await.json();
            assert!(answer["error"]["code"].is_number(), "{role} rolled the bucket up ({rollup}): {answer}");
        }
        assert_eq!(wire.publish_with(&subject, Some(&reply), &[("Nats-TTL", "1")], gone).await, None);
        let answer = wire.next("the stream's word").await.json();
        assert_eq!(answer["stream"], "KV_INSTANCES", "{role} keeps its own entry: {answer}");
    }
}
