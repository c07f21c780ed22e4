//! Where a server's answer goes is the asker's choice, and NATS does not hold that choice against the
//! asker's permissions. An answer without a payload is a valid request to delete; one with a payload
//! of the asker's making is a valid request for anything. So no answer that a role can provoke may
//! reach a subject that means something: JetStream's own, another pool's commands, the audit trail.
//! What keeps it from there: JetStream stands in another account, and answers go back to the asker's; in the queue's,
//! where calls are published, worked off and released without being asked for across, its API is closed.
//!
//! Streams of this test's own are attacked: should an attack work, nothing else is harmed.

use std::sync::Arc;

use serde_json::{Value, json};
use shared::{
    bus::{kv::Bucket, lanes::lane_name},
    id::OrganizationId,
};
use uuid::Uuid;

use super::{CALLER, LISTENER, ROLES, wire::Wire};
use crate::world::{PATIENCE, System};

/// A request whose answer a role may provoke; it is answered by JetStream, not by our code.
struct Request {
    subject: String,
    body: String,
}

impl Request {
    fn json(subject: impl Into<String>, body: &Value) -> Self {
        Self { subject: subject.into(), body: body.to_string() }
    }
}

/// All of them, for every role: the server refuses what the role may not ask.
fn requests(role: &str, tag: &str, lane: &str) -> Vec<Request> {
    let mut requests = vec![Request::json(
        format!("$KV.INSTANCES.{role}.reply-{tag}"),
        &json!({ "beat_at_ms": 0, "version": "0", "healthy": false, "running": 0 }),
    )];
    for bucket in Bucket::ALL {
        let missing = json!({ "last_by_subj": format!("{}reply-{tag}", bucket.subject_prefix()) });
        for prefix in ["js", "$JS.API"] {
            for read in ["DIRECT.GET", "STREAM.MSG.GET", "STREAM.INFO"] {
                requests.push(Request::json(format!("{prefix}.{read}.{}", bucket.stream()), &missing));
            }
        }
    }
    requests.push(Request::json("js.CONSUMER.INFO.AUDIT.writer", &json!({})));
    // Nothing waits: the answer says so, without a payload. One that waits comes again.
    requests.push(Request::json("js.CONSUMER.MSG.NEXT.AUDIT.writer", &json!({ "batch": 0, "no_wait": true })));
    // A confirmed acknowledgement is answered without a payload, however old the delivery.
    for word in ["+ACK", "+WPI"] {
        requests.push(Request { subject: lane.to_owned(), body: word.to_owned() });
    }
    // The server says of a call that it is kept. It is nobody's: no lane holds it.
    let nobody = OrganizationId::new();
    requests.push(Request { subject: format!("calls.{}.audit.{nobody}", nobody.partition()), body: "{}".to_owned() });
    requests
}

/// Where a delivery of an organization's lane is acknowledged.
async fn acknowledgement(system: &System) -> String {
    let tenant = system.organization().await;
    assert_eq!(tenant.call("demo", "echo", json!({ "text": "x" })).await.status, 200);
    let organization = OrganizationId(tenant.id);
    format!("$JS.ACK.CALLS_{}.{}.1.1.1.1.0", organization.partition(), lane_name(organization))
}

struct Target {
    api: &'static str,
    stream: String,
    consumer: String,
}

impl Target {
    /// A stream with a consumer, nobody's but this test's.
    async fn new(administrator: &mut Wire, api: &'static str, tag: &str) -> Self {
        let target = Self { api, stream: format!("SCRATCH_{tag}"), consumer: "reader".to_owned() };
        let stream = json!({ "name": target.stream, "subjects": [format!("scratch.{tag}.*")], "storage": "memory" });
        let made = administrator.request(&format!("{api}.STREAM.CREATE.{}", target.stream), &stream).await;
        assert!(made["error"].is_null(), "{made}");
        let consumer = json!({ "stream_name": target.stream, "config": { "durable_name": target.consumer, "ack_policy": "explicit" } });
        let path = format!("{api}.CONSUMER.DURABLE.CREATE.{}.{}", target.stream, target.consumer);
        let made = administrator.request(&path, &consumer).await;
        assert!(made["error"].is_null(), "{made}");
        target
    }

    /// What must not be reachable by an answer.
    fn attacks(&self, tag: &str) -> Vec<String> {
        let Self { stream, consumer, .. } = self;
        let acts = [
            format!("CONSUMER.DELETE.{stream}.{consumer}"),
            format!("STREAM.DELETE.{stream}"),
            format!("STREAM.CREATE.LOOT_{tag}"),
        ];
        let apis = ["$JS.API", "js", "queue", "nowhere"].into_iter();
        apis.flat_map(|api| acts.iter().map(move |act| format!("{api}.{act}"))).collect()
    }

    async fn exists(&self, administrator: &mut Wire, what: &str) -> bool {
        administrator.request(&format!("{}.{what}", self.api), &Value::Null).await["error"].is_null()
    }
}

pub(crate) async fn an_answer_carries_no_role_past_its_permissions(system: Arc<System>) {
    let mut administrator = Wire::connect(&system, "jetstream").await;
    let lane = acknowledgement(&system).await;
    let mut broken = Vec::new();
    for role in ROLES.into_iter().chain([CALLER, LISTENER]) {
        let tag = Uuid::new_v4().simple().to_string();
        let targets = [
            Target::new(&mut administrator, "$JS.API", &tag).await,
            Target::new(&mut administrator, "queue", &tag).await,
        ];
        let mut attacker = Wire::connect(&system, role).await;
        // A stream over whatever the attacker likes, as the value of the one entry that it may write.
        let loot = json!({ "name": format!("LOOT_{tag}"), "subjects": [format!("loot.{tag}.>")], "storage": "memory" });
        let key = format!("$KV.INSTANCES.{role}.loot-{tag}");
        let ttl = [("Nats-TTL", "30")];
        let refusal = attacker.publish_with(&key, None, &ttl, loot.to_string().as_bytes()).await;
        assert_eq!(refusal.is_none(), ROLES.contains(&role), "{role}: {refusal:?}");
        // The two have the same names, each in its account.
        for attack in targets[0].attacks(&tag) {
            for Request { subject, body } in requests(role, &tag, &lane) {
                // Refused or not: what counts is what happens over there.
                let _ = attacker.publish_with(&subject, Some(&attack), &ttl, body.as_bytes()).await;
            }
            let own = json!({ "last_by_subj": key }).to_string();
            for get in ["js.DIRECT.GET", "js.STREAM.MSG.GET", "$JS.API.DIRECT.GET", "$JS.API.STREAM.MSG.GET"] {
                let get = format!("{get}.KV_INSTANCES");
                let _ = attacker.publish_with(&get, Some(&attack), &[], own.as_bytes()).await;
            }
        }
        // The administrator asks after everything else: its own requests wait behind the attacker's.
        for target in &targets {
            for (what, wanted) in [
                (format!("CONSUMER.INFO.{}.{}", target.stream, target.consumer), true),
                (format!("STREAM.INFO.{}", target.stream), true),
                (format!("STREAM.INFO.LOOT_{tag}"), false),
            ] {
                if target.exists(&mut administrator, &what).await != wanted {
                    let act = if wanted { "deleted" } else { "created" };
                    broken.push(format!("{role} {act} {}.{what}", target.api));
                }
            }
        }
        broken.extend(forged_messages(&mut attacker, &mut administrator, role, &tag, &lane).await);
        for target in &targets {
            for stream in [&target.stream, &format!("LOOT_{tag}")] {
                administrator.request(&format!("{}.STREAM.DELETE.{stream}", target.api), &Value::Null).await;
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// Messages that the role may not send, by way of an answer whose content it chose.
async fn forged_messages(
    attacker: &mut Wire,
    administrator: &mut Wire,
    role: &str,
    tag: &str,
    lane: &str,
) -> Vec<String> {
    let nobody = OrganizationId::new();
    let mut targets =
        vec![(format!("calls.{}.tool.{nobody}", nobody.partition()), format!("CALLS_{}", nobody.partition()), CALLER)];
    targets.push((format!("audit.{nobody}"), "AUDIT".to_owned(), "every pool"));
    targets.push((format!("$KV.LIMITS.{tag}"), "KV_LIMITS".to_owned(), "session"));
    let mut forged = Vec::new();
    for (subject, stream, holder) in targets {
        let is_pool = !["gateway", CALLER, LISTENER].contains(&role);
        if role == holder || (holder == "every pool" && is_pool) {
            continue;
        }
        for Request { subject: request, body } in requests(role, tag, lane) {
            let _ = attacker.publish_with(&request, Some(&subject), &[("Nats-TTL", "30")], body.as_bytes()).await;
        }
        // The server's own words may arrive: they say nothing that the role chose, and nobody can read
        // them as a command, an event or a limit. Who works calls off may have nothing said there: no command either.
        let last = json!({ "last_by_subj": subject });
        let api = if stream.starts_with("CALLS_") { "queue" } else { "$JS.API" };
        let found = administrator.request(&format!("{api}.STREAM.MSG.GET.{stream}"), &last).await;
        let Some(data) =
            found["message"]["seq"].as_u64().map(|_| found["message"]["data"].as_str().unwrap_or_default())
        else {
            continue;
        };
        let text = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, data).unwrap_or_default();
        let confirms = ["tool", LISTENER].contains(&role) && stream.starts_with("CALLS_");
        let word: Value = serde_json::from_slice(&text).unwrap_or_default();
        let says_nothing = confirms && text.is_empty() && found["message"]["hdrs"].is_null();
        if word["stream"].is_null() && word["type"].is_null() && !says_nothing {
            forged.push(format!("{role} sent to {subject}: {}", String::from_utf8_lossy(&text)));
        }
        if stream != "AUDIT" {
            administrator.request(&format!("{api}.STREAM.PURGE.{stream}"), &json!({ "filter": subject })).await;
        }
    }
    forged
}

/// News led to watchers from another stream, with headers that name the bucket and a revision that no
/// genuine news would ever reach.
pub(crate) async fn forged_news_are_not_believed_and_hide_no_genuine_ones(system: Arc<System>) {
    let tenant = system.organization().await;
    let organization = OrganizationId(tenant.id);
    // Opens the lane.
    assert_eq!(tenant.call("demo", "echo", json!({ "text": "x" })).await.status, 200);
    let mut forger = Wire::connect(&system, "gateway").await;
    let entry = format!("$KV.INSTANCES.gateway.news-{}", tenant.id.simple());
    let named = format!("$KV.LIMITS.{organization}");
    let headers = [
        ("Nats-Stream", "KV_LIMITS"),
        ("Nats-Subject", named.as_str()),
        ("Nats-Sequence", "9007199254740991"),
        ("Nats-TTL", "30"),
    ];
    let news = br#"{"concurrency_limit":200,"paused":true,"generation":9007199254740991}"#;
    assert_eq!(forger.publish_with(&entry, None, &headers, news).await, None);
    let get = json!({ "last_by_subj": entry }).to_string();
    for bucket in ["LIMITS", "ACCESS", "CONFIGS"] {
        let _ = forger
            .publish_with(
                "js.STREAM.MSG.GET.KV_INSTANCES",
                Some(&format!("kv.{bucket}.{organization}")),
                &[],
                get.as_bytes(),
            )
            .await;
    }
    let operator = system.client(&system.seeded.operator_token);
    let change = operator.request(reqwest::Method::PUT, &format!("/api/v1/organizations/{organization}"));
    let changed = operator.send(change.header("if-match", "*").json(&json!({ "concurrency_limit": 3 }))).await;
    assert_eq!(changed.status, 200, "{}", changed.text);
    let mut administrator = Wire::connect(&system, "jetstream").await;
    let lane = format!("queue.CONSUMER.INFO.CALLS_{}.t_{}", organization.partition(), tenant.id.simple());
    let applied = async {
        loop {
            let limit = administrator.request(&lane, &Value::Null).await["config"]["max_ack_pending"].clone();
            assert_ne!(limit, 200, "the controller believed forged news");
            if limit == 3 {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, applied).await.expect("genuine news are believed");
    assert_eq!(tenant.call("demo", "echo", json!({ "text": "x" })).await.status, 200, "the lane is not paused");
}
