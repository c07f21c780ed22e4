//! What the gateway's credentials can send, and no gateway of ours would: envelopes that contradict
//! themselves, payloads that are none, replies that would be commands. The worker refuses each, says
//! so, and goes on serving. The gateway's user is used by hand, as whoever took it over would.

use std::{collections::HashMap, sync::Arc, time::Duration};

use serde_json::{Value, json};
use shared::{
    Code, Deadline, Fault,
    bus::{frame::Frame, lanes::lane_name, streams::calls, subject},
    command::{
        Page, Pool,
        configurations::{Configuration, List},
    },
    id::OrganizationId,
};
use tokio::sync::Mutex;

use super::{ADMINISTRATOR, CALLER, LISTENER, wire::Wire};
use crate::world::{PATIENCE, System};

/// Refusals are counted per process: these tests take turns, so that each counts its own.
static TURN: Mutex<()> = Mutex::const_new(());

/// An envelope, each part of which a test may replace or leave out.
struct Envelope {
    headers: HashMap<&'static str, String>,
    context: Value,
}

impl Envelope {
    fn of(organization: OrganizationId) -> Self {
        let context = json!({
            "actor": "forger", "role": "admin", "request": format!("forged-{organization}"),
            "deadline": Deadline::after(Duration::from_secs(20)).unix_ms(),
        });
        Self { headers: HashMap::from([("Org", organization.to_string())]), context }
    }

    fn queued(organization: OrganizationId, command: &str, reply: &str) -> Self {
        Self::of(organization).telling("command", command).telling("reply", reply)
    }

    fn with(mut self, header: &'static str, value: impl Into<String>) -> Self {
        self.headers.insert(header, value.into());
        self
    }

    /// With a part of the context.
    fn telling(mut self, part: &str, value: &str) -> Self {
        self.context[part] = value.into();
        self
    }

    fn without(mut self, part: &str) -> Self {
        self.headers.remove(part);
        self.context.as_object_mut().expect("an object").remove(part);
        self
    }

    async fn send(&self, wire: &mut Wire, subject: &str, reply: Option<&str>, payload: &[u8]) {
        assert_eq!(self.attempt(wire, subject, reply, payload).await, None, "the sender may send this: {subject}");
    }

    /// Answers the server's refusal, if it refused.
    async fn attempt(&self, wire: &mut Wire, subject: &str, reply: Option<&str>, payload: &[u8]) -> Option<String> {
        let context = self.context.to_string();
        let named = self.headers.iter().map(|(name, value)| (*name, value.as_str()));
        let headers: Vec<(&str, &str)> = named.chain([("Context", context.as_str())]).collect();
        wire.publish_with(subject, reply, &headers, payload).await
    }
}

/// How often a pool's workers refused a message for a reason so far.
async fn refusals(system: &System, pool: &str, reason: &str) -> u64 {
    system.measured(pool, &format!("switchboard_messages_refused_total{{reason=\"{reason}\"}}")).await
}

async fn eventually_refused(system: &System, pool: &str, reason: &str, wanted: u64) {
    let counted = async {
        while refusals(system, pool, reason).await < wanted {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, counted)
        .await
        .unwrap_or_else(|_| panic!("the {pool} pool did not count refusal {wanted} for {reason}"));
    assert_eq!(refusals(system, pool, reason).await, wanted, "{pool}, {reason}: counted once");
}

fn list() -> Vec<u8> {
    rmp_serde::to_vec_named(&List { cursor: None, limit: 50, scope: None, transport: None, enabled: None })
        .expect("a command")
}

/// The same message, in order: the worker lists the organization's configurations.
async fn is_served(wire: &mut Wire, organization: OrganizationId) {
    let reply = wire.inbox.clone();
    Envelope::of(organization).send(wire, &subject::direct::<List>(organization), Some(&reply), &list()).await;
    let frame = Frame::<Page<Configuration>>::decode(&answer(wire).await).expect("a frame");
    let Frame::Done(Ok(page)) = frame else { panic!("not a list: {frame:?}") };
    assert_eq!(page.items.iter().map(|item| item.name.as_str()).collect::<Vec<_>>(), ["demo"]);
}

/// The answer to a command. The confirmation of its audit event comes with it, before or after.
async fn answer(wire: &mut Wire) -> Vec<u8> {
    let both = [wire.next("the answer").await.payload, wire.next("the confirmation of its audit event").await.payload];
    let (confirmations, mut answers): (Vec<_>, Vec<_>) = both.into_iter().partition(|one| one.starts_with(b"{"));
    assert_eq!((confirmations.len(), answers.len()), (1, 1), "{confirmations:?} {answers:?}");
    assert!(confirmations[0].starts_with(br#"{"stream":"AUDIT""#), "{confirmations:?}");
    answers.remove(0)
}

fn refused(payload: &[u8]) -> Fault {
    match Frame::<Value>::decode(payload) {
        Ok(Frame::Done(Err(fault))) => fault,
        other => panic!("not a refusal: {other:?}"),
    }
}

/// Waits until nothing of the organization lies in its lane any more.
async fn is_acknowledged(system: &System, lane: &str, partition: u16) {
    let mut administrator = Wire::connect(system, ADMINISTRATOR).await;
    let empty = async {
        let stream = format!("queue.STREAM.INFO.CALLS_{partition}");
        loop {
            let info = administrator.request(&stream, &json!({ "subjects_filter": lane })).await;
            assert!(info["state"].is_object(), "{info}");
            if info["state"]["subjects"].get(lane).is_none() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, empty).await.expect("refused messages are acknowledged");
}

pub(crate) async fn a_direct_command_of_another_organization_is_refused(system: Arc<System>) {
    let (mine, victim) = (system.organization().await, system.organization().await);
    let (mine, victim) = (OrganizationId(mine.id), OrganizationId(victim.id));
    let _turn = TURN.lock().await;
    let mut honest = Wire::connect(&system, "gateway").await;
    is_served(&mut honest, victim).await;

    let mut forger = Wire::connect(&system, "gateway").await;
    let inbox = forger.inbox.clone();
    let to_victim = subject::direct::<List>(victim);
    let attempts = [
        ("organization", Envelope::of(mine), Some(inbox.as_str())),
        ("organization", Envelope::of(victim).with("Org", victim.to_string().to_uppercase()), Some(&inbox)),
        ("organization", Envelope::of(victim).with("Org", ""), Some(&inbox)),
        ("header", Envelope::of(victim).without("Org"), Some(&inbox)),
        ("header", Envelope::of(victim).without("actor"), Some(&inbox)),
        ("header", Envelope::of(victim).telling("actor", "two words"), Some(&inbox)),
        ("header", Envelope::of(victim).telling("role", "operator"), Some(&inbox)),
        ("header", Envelope::of(victim).telling("deadline", "never"), Some(&inbox)),
        ("reply", Envelope::of(victim), None),
        ("reply", Envelope::of(victim), Some("audit.forged")),
        ("reply", Envelope::of(victim), Some("cmd.token.configurations.list.x")),
    ];
    for (reason, envelope, reply) in attempts {
        let before = refusals(&system, "token", reason).await;
        envelope.send(&mut forger, &to_victim, reply, &list()).await;
        eventually_refused(&system, "token", reason, before + 1).await;
    }
    for strange in ["cmd.token.configurations.list.not-a-uuid", "cmd.token.configurations.list", "cmd.token.a.b.c.d"] {
        let before = refusals(&system, "token", "subject").await;
        Envelope::of(victim).send(&mut forger, strange, Some(&inbox), &list()).await;
        eventually_refused(&system, "token", "subject", before + 1).await;
    }
    assert!(forger.heard().await.is_empty(), "nobody answers a forger");
    is_served(&mut honest, victim).await;
}

pub(crate) async fn an_undecodable_or_unknown_command_is_answered_and_harms_nobody(system: Arc<System>) {
    let tenant = system.organization().await;
    let organization = OrganizationId(tenant.id);
    let _turn = TURN.lock().await;
    let mut wire = Wire::connect(&system, "gateway").await;
    let inbox = wire.inbox.clone();
    let payloads: [&[u8]; 5] = [b"", b"{}", b"\xc1\xff\xff", b"\x92\x01\x02", &[0x91; 4_096]];
    for payload in payloads {
        let to = subject::direct::<List>(organization);
        Envelope::of(organization).send(&mut wire, &to, Some(&inbox), payload).await;
        assert_eq!(refused(&answer(&mut wire).await).code, Code::Invalid, "{payload:?}");
    }
    // One that exists nowhere, and one of another pool.
    for name in ["configurations.explode", "users.me", "organizations.create"] {
        let before = refusals(&system, "token", "unknown_command").await;
        let to = format!("cmd.token.{name}.{organization}");
        Envelope::of(organization).send(&mut wire, &to, Some(&inbox), &list()).await;
        assert_eq!(refused(&answer(&mut wire).await).code, Code::Invalid, "{name}");
        assert_eq!(refusals(&system, "token", "unknown_command").await, before + 1);
    }
    is_served(&mut wire, organization).await;
}

pub(crate) async fn a_queued_message_with_a_forged_reply_is_refused_and_acknowledged(system: Arc<System>) {
    let (tenant, other) = (system.organization().await, system.organization().await);
    let organization = OrganizationId(tenant.id);
    // Opens the lane.
    assert_eq!(tenant.call("demo", "echo", json!({ "text": "before" })).await.status, 200);
    let _turn = TURN.lock().await;
    let (mut forger, mut accomplice) = (Wire::connect(&system, CALLER).await, Wire::connect(&system, "gateway").await);
    let inbox = accomplice.inbox.clone();
    let lane = subject::queued(Pool::Tool, organization);
    let envelope = |reply: &str| Envelope::queued(organization, "tools.call", reply);
    let attempts = [
        ("reply", envelope("audit.forged")),
        ("reply", envelope(&subject::direct::<List>(OrganizationId(other.id)))),
        ("reply", envelope("$JS.API.STREAM.DELETE.AUDIT")),
        ("reply", envelope(&inbox).without("reply")),
        ("header", envelope(&inbox).without("command")),
        ("organization", envelope(&inbox).with("Org", other.id.to_string())),
    ];
    for (reason, envelope) in attempts {
        let before = refusals(&system, "tool", reason).await;
        envelope.send(&mut forger, &lane, None, &list()).await;
        eventually_refused(&system, "tool", reason, before + 1).await;
    }
    is_acknowledged(&system, &lane, organization.partition()).await;
    assert!(accomplice.heard().await.is_empty(), "nobody answers a forger");
    assert_eq!(tenant.call("demo", "echo", json!({ "text": "after" })).await.status, 200);
}

pub(crate) async fn undecodable_or_unknown_queued_messages_are_answered_and_acknowledged(system: Arc<System>) {
    let tenant = system.organization().await;
    let organization = OrganizationId(tenant.id);
    assert_eq!(tenant.call("demo", "echo", json!({ "text": "before" })).await.status, 200);
    let _turn = TURN.lock().await;
    let (mut caller, mut gateway) = (Wire::connect(&system, CALLER).await, Wire::connect(&system, "gateway").await);
    let inbox = gateway.inbox.clone();
    let lane = subject::queued(Pool::Tool, organization);
    for (command, payload) in [
        ("tools.call", b"\xc1".as_slice()),
        ("tools.call", b""),
        ("tools.explode", b"\x80"),
        ("configurations.list", b"\x80"),
    ] {
        Envelope::queued(organization, command, &inbox).send(&mut caller, &lane, None, payload).await;
        assert_eq!(refused(&answer(&mut gateway).await).code, Code::Invalid, "{command}");
    }
    is_acknowledged(&system, &lane, organization.partition()).await;
    assert_eq!(tenant.call("demo", "echo", json!({ "text": "after" })).await.status, 200);
}

/// Not even who may create consumers makes a delivery of what it likes: streams of another account deliver in
/// theirs, where no worker hears.
pub(crate) async fn what_another_account_holds_is_no_delivery(system: Arc<System>) {
    let victim = system.organization().await;
    assert_eq!(victim.call("demo", "echo", json!({ "text": "before" })).await.status, 200);
    let mut administrator = Wire::connect(&system, ADMINISTRATOR).await;
    let mut forger = Wire::connect(&system, "gateway").await;
    let inbox = forger.inbox.clone();
    let name = format!("deputy_{}", victim.id.simple());
    let filter = format!("$KV.INSTANCES.gateway.{name}");
    let config = json!({
        "durable_name": name, "name": name, "deliver_subject": "work.tool", "deliver_group": "w", "deliver_policy": "all",
        "ack_policy": "none", "filter_subject": filter, "mem_storage": true,
    });
    let made = administrator
        .request(
            &format!("$JS.API.CONSUMER.CREATE.KV_INSTANCES.{name}.{filter}"),
            &json!({ "stream_name": "KV_INSTANCES", "config": config, "action": "create" }),
        )
        .await;
    assert!(made["error"].is_null(), "{made}");
    Envelope::queued(OrganizationId(victim.id), "tools.call", &inbox)
        .with("Nats-TTL", "30")
        .send(&mut forger, &filter, None, &list())
        .await;
    let info = administrator.request(&format!("$JS.API.CONSUMER.INFO.KV_INSTANCES.{name}"), &Value::Null).await;
    assert_eq!((&info["num_pending"], &info["delivered"]["consumer_seq"]), (&json!(1), &json!(0)), "{info}");
    let gone = administrator.request(&format!("$JS.API.CONSUMER.DELETE.KV_INSTANCES.{name}"), &Value::Null).await;
    assert_eq!(gone["success"], true, "{gone}");
    assert!(forger.heard().await.is_empty(), "nobody answers a forger");
    assert_eq!(victim.call("demo", "echo", json!({ "text": "after" })).await.status, 200);
}

pub(crate) async fn who_hears_lanes_can_make_no_delivery(system: Arc<System>) {
    let victim = system.organization().await;
    assert_eq!(victim.call("demo", "echo", json!({ "text": "before" })).await.status, 200);
    let _turn = TURN.lock().await;
    // Answers come where gateways hear.
    let (mut forger, mut accomplice) =
        (Wire::connect(&system, LISTENER).await, Wire::connect(&system, "gateway").await);
    let (inbox, organization) = (accomplice.inbox.clone(), OrganizationId(victim.id));
    let before = refusals(&system, "tool", "not_from_a_stream").await;
    // A delivery names where it is acknowledged, and the server lets no client do that.
    let acknowledgement = format!("$JS.ACK.{}.{}.1.1.1.1.0", calls(organization.partition()), lane_name(organization));
    let envelope = Envelope::queued(organization, "tools.call", &inbox);
    let refusal = envelope.attempt(&mut forger, "work.tool", Some(&acknowledgement), &list()).await;
    assert!(refusal.is_some_and(|refusal| refusal.contains("Permissions Violation for Publish with Reply")));
    envelope.send(&mut forger, "work.tool", Some(&inbox), &list()).await;
    eventually_refused(&system, "tool", "not_from_a_stream", before + 1).await;
    assert!(accomplice.heard().await.is_empty(), "nobody answers a forger");
    assert_eq!(victim.call("demo", "echo", json!({ "text": "after" })).await.status, 200);
}
