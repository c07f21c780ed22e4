//! Streams and consumers belong to JetStream's administrator. A consumer's deliver subject is checked
//! by nobody, so that whoever may create one reads and writes everywhere in its account: both attacks
//! are tried, and the first also by the one who may, to show that the account is the wall.

use std::sync::Arc;

use serde_json::{Value, json};
use shared::id::OrganizationId;

use super::{ADMINISTRATOR, CALLER, LISTENER, ROLES, wire::Wire};
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
    (api(&format!("CONSUMER.CREATE.{stream}.{name}.{filter}")), body)
}

/// A request of the administrator, in the account that holds its stream.
fn api(request: &str) -> String {
    let prefix = if request.contains(".CALLS_") { "queue" } else { "$JS.API" };
    format!("{prefix}.{request}")
}

async fn refused(wire: &mut Wire, role: &str, subject: &str, body: &Value) {
    let refusal = wire.publish(subject, body.to_string().as_bytes()).await;
    assert!(
        refusal.as_ref().is_some_and(|text| text.contains("Permissions Violation")),
        "{role}, {subject}: {refusal:?}"
    );
}

/// The error code of a consumer's or stream's information; 404 when it does not exist.
async fn code_of(administrator: &mut Wire, what: &str) -> Value {
    administrator.request(&api(what), &Value::Null).await["error"]["code"].clone()
}

pub(crate) async fn a_consumer_into_the_gateways_inbox_steals_no_work(system: Arc<System>) {
    let tenant = system.organization().await;
    let organization = OrganizationId(tenant.id);
    let stream = format!("CALLS_{}", organization.partition());
    let mut administrator = Wire::connect(&system, "jetstream").await;
    for role in ROLES.into_iter().chain([CALLER, LISTENER]) {
        let mut thief = Wire::connect(&system, role).await;
        let name = format!("thief_{role}_{}", tenant.id.simple());
        let filter = format!("calls.{}.tool.{organization}", organization.partition());
        let inbox = thief.inbox.clone();
        let (subject, body) = consumer(&stream, &name, &filter, &inbox, None);
        for subject in [
            subject,
            format!("queue.CONSUMER.CREATE.{stream}.{name}"),
            format!("$JS.API.CONSUMER.CREATE.{stream}.{name}"),
            format!("$JS.API.CONSUMER.DURABLE.CREATE.{stream}.{name}"),
            format!("$JS.API.CONSUMER.CREATE.{stream}"),
        ] {
            refused(&mut thief, role, &subject, &body).await;
        }
        let answer = tenant.call("demo", "echo", json!({ "text": "not for thieves" })).await;
        assert_eq!(answer.status, 200, "the call was taken by {role}: {}", answer.text);
        assert!(thief.heard().await.is_empty(), "{role} heard work");
        assert_eq!(code_of(&mut administrator, &format!("CONSUMER.INFO.{stream}.{name}")).await, 404, "{name} exists");
    }
    the_roles_account_is_out_of_reach(&system, &mut administrator, &stream, organization).await;
}

/// Not even the administrator leads a stream into the roles' account: a deliver subject means its own
/// account's. The same consumer delivers to the caller there, so the silence means something. Subjects of a
/// pool without lanes are used, so that no call is touched.
async fn the_roles_account_is_out_of_reach(
    system: &System,
    administrator: &mut Wire,
    stream: &str,
    organization: OrganizationId,
) {
    let (mut gateway, mut caller) = (Wire::connect(system, "gateway").await, Wire::connect(system, CALLER).await);
    let name = format!("granted_{}", organization.0.simple());
    let lane = format!("calls.{}.audit.{organization}", organization.partition());
    assert_eq!(caller.publish_with(&lane, None, &[("Org", "x")], b"loot").await, None);
    let (subject, body) = consumer(stream, &name, &lane, &gateway.inbox, None);
    let made = administrator.request(&subject, &body).await;
    assert!(made["error"].is_null(), "{made}");
    let info = administrator.request(&api(&format!("CONSUMER.INFO.{stream}.{name}")), &Value::Null).await;
    assert_eq!((&info["num_pending"], &info["num_ack_pending"]), (&json!(1), &json!(0)), "{info}");
    assert!(gateway.heard().await.is_empty(), "the gateway heard what a stream holds");
    let gone = administrator.request(&api(&format!("CONSUMER.DELETE.{stream}.{name}")), &Value::Null).await;
    assert_eq!(gone["success"], true, "{gone}");
    let (subject, body) = consumer(stream, &name, &lane, &caller.inbox, None);
    let made = administrator.request(&subject, &body).await;
    assert!(made["error"].is_null(), "{made}");
    let taken = caller.next("the message by way of the consumer").await;
    assert_eq!((taken.subject.as_str(), taken.payload.as_slice()), (lane.as_str(), b"loot".as_slice()));
    // Who works calls off may acknowledge in these streams, and clears the message away.
    let acknowledgement = taken.reply.expect("a delivery of a stream");
    let mut worker = Wire::connect(system, LISTENER).await;
    assert_eq!(worker.publish(&acknowledgement, b"+ACK").await, None);
    worker.next("the confirmation").await;
    let gone = administrator.request(&api(&format!("CONSUMER.DELETE.{stream}.{name}")), &Value::Null).await;
    assert_eq!(gone["success"], true, "{gone}");
}

/// JetStream's own words, sent to its API where calls wait, ask nobody: a message without a payload is a valid request
/// to delete. The administrator alone can have one sent there, as the server itself would send an answer; sent to a
/// worker's inbox it is heard, so that the silence means something.
pub(crate) async fn the_api_is_closed_where_calls_wait(system: Arc<System>) {
    let (mut administrator, mut worker) =
        (Wire::connect(&system, ADMINISTRATOR).await, Wire::connect(&system, LISTENER).await);
    // What workers ask to hear that the server is there; while this lasts the stream answers.
    let question = format!("_INBOX_{LISTENER}.nobody");
    let inbox = worker.inbox.clone();
    for to_the_api in [false, true] {
        let target = format!("TARGET_{}", uuid::Uuid::new_v4().simple());
        let goal = if to_the_api { format!("$JS.API.STREAM.DELETE.{target}") } else { inbox.clone() };
        let config = json!({
            "name": target, "subjects": [question], "storage": "memory", "max_msgs": 100, "max_age": 60_000_000_000_u64,
            "republish": { "src": question, "dest": goal },
        });
        let made = administrator.request(&format!("queue.STREAM.CREATE.{target}"), &config).await;
        assert!(made["error"].is_null(), "{made}");
        assert_eq!(worker.publish(&question, b"").await, None);
        let (mut is_kept, mut is_heard) = (false, to_the_api);
        while !(is_kept && is_heard) {
            let word = worker.next("the stream's word, and the message where it was sent").await;
            if word.payload.is_empty() {
                is_heard = true;
            } else {
                assert_eq!(word.json()["stream"], target.as_str());
                is_kept = true;
            }
        }
        let there = administrator.request(&format!("queue.STREAM.INFO.{target}"), &Value::Null).await;
        assert!(there["error"].is_null(), "a message of the queue's account deleted a stream: {there}");
        let gone = administrator.request(&format!("queue.STREAM.DELETE.{target}"), &Value::Null).await;
        assert_eq!(gone["success"], true, "{gone}");
    }
}

/// The streams of the product, as an account of theirs names them; tests that run beside this one make others.
async fn names(administrator: &mut Wire, api: &str) -> Vec<String> {
    let answer = administrator.request(&format!("{api}.STREAM.NAMES"), &Value::Null).await;
    let all = answer["streams"].as_array().expect("names").iter().filter_map(Value::as_str);
    all.filter(|name| !["SCRATCH_", "TARGET_"].iter().any(|test| name.starts_with(test))).map(str::to_owned).collect()
}

pub(crate) async fn a_consumer_into_a_command_subject_forges_no_command(system: Arc<System>) {
    let (attacker, victim) = (system.organization().await, system.organization().await);
    let mine = OrganizationId(attacker.id);
    let calls = format!("CALLS_{}", mine.partition());
    let mut administrator = Wire::connect(&system, "jetstream").await;
    let targets = [
        (format!("cmd.token.configurations.list.{}", victim.id), Some("token")),
        (format!("cmd.token.configurations.remove.{}", victim.id), Some("token")),
        ("work.tool".to_owned(), Some("w")),
    ];
    for role in ROLES.into_iter().chain([CALLER, LISTENER]) {
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
                assert_eq!(code_of(&mut administrator, &format!("CONSUMER.INFO.{stream}.{name}")).await, 404, "{name}");
            }
        }
        assert!(forger.heard().await.is_empty(), "{role} was answered");
    }
    let list = victim.admin.get("/api/v1/mcp/configurations").await.json();
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1), "nothing was removed: {list}");
}

pub(crate) async fn only_the_administrator_administers_streams(system: Arc<System>) {
    let mut administrator = Wire::connect(&system, "jetstream").await;
    let before = (names(&mut administrator, "$JS.API").await, names(&mut administrator, "queue").await);
    assert_eq!((before.0.len(), before.1.len()), (9, 16), "{before:?}");
    for role in ROLES.into_iter().chain([CALLER, LISTENER]) {
        let mut wire = Wire::connect(&system, role).await;
        let spy = format!("SPY_{}", role.to_uppercase());
        // A stream over the commands would keep every secret that passes.
        let create = json!({ "name": spy, "subjects": ["cmd.token.>"], "storage": "memory" });
        refused(&mut wire, role, &format!("$JS.API.STREAM.CREATE.{spy}"), &create).await;
        for (api, stream) in
            [("$JS.API", "AUDIT"), ("$JS.API", "CALLS_0"), ("queue", "CALLS_0"), ("$JS.API", "KV_ACCESS")]
        {
            refused(&mut wire, role, &format!("{api}.STREAM.DELETE.{stream}"), &json!({})).await;
            refused(&mut wire, role, &format!("{api}.STREAM.PURGE.{stream}"), &json!({})).await;
            let update = json!({ "name": stream, "subjects": ["elsewhere"] });
            refused(&mut wire, role, &format!("{api}.STREAM.UPDATE.{stream}"), &update).await;
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
    // Not even the administrator takes anything out of the audit trail.
    for (act, body) in [("PURGE", json!({})), ("MSG.DELETE", json!({ "seq": 1 }))] {
        let answer = administrator.request(&format!("$JS.API.STREAM.{act}.AUDIT"), &body).await;
        assert!(answer["error"]["code"].is_number(), "{act}: {answer}");
    }
    assert_eq!(before, (names(&mut administrator, "$JS.API").await, names(&mut administrator, "queue").await));
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
