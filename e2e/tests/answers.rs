//! Answers that share messages, as a worker sends them and a caller's process hears them, and where their records go.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::{Buf, Bytes};
use futures::{StreamExt, future::join_all};
use serde_json::{Value, json};
use shared::{
    Context, Deadline,
    audit::{Event, Notes},
    bus::{Bus, Role, frame::Frame},
    command::Pool,
    context::{Actor, Role as MemberRole},
    id::{CallId, OrganizationId},
};

use crate::{
    promises::accidents::until,
    world::{PATIENCE, System},
};

const ANSWERS: usize = 200;
const INBOX: &str = "_INBOX_gateway.answers";
const ALL: &str =
    "SELECT to_jsonb(count(DISTINCT event_id)) FROM audit_logs WHERE request_id = $1 HAVING count(*) = 200";

pub(crate) async fn answers_that_come_fast_share_messages_and_each_is_recorded(system: Arc<System>) {
    let tenant = system.organization().await;
    let bus = Bus::connect(&system.nats_config("tool"), Role::Pool(Pool::Tool), None).await;
    let bus = bus.expect("NATS lets the role in");
    let gateway = system.nats("gateway").await;
    let mut heard = gateway.subscribe(format!("{INBOX}.*")).await.expect("a subscription");
    gateway.flush().await.expect("it stands");
    let context = context(tenant.id);
    let answers = (0..ANSWERS).map(|line| {
        let event = Event::of(&context, "tools.call", CallId::new(), 1, Notes::default(), Ok(()));
        let frame = Frame::Done(Ok(line)).encode().expect("it is encoded");
        let (bus, reply) = (&bus, format!("{INBOX}.{line:x}"));
        async move { bus.answer(&reply, frame, &event, None).await }
    });
    assert!(join_all(answers).await.iter().all(Result::is_ok));

    let (mut told, mut recorded, mut messages) = (BTreeMap::new(), BTreeSet::new(), 0);
    while told.len() < ANSWERS || recorded.len() < ANSWERS {
        let message = tokio::time::timeout(PATIENCE, heard.next()).await.expect("in time").expect("a message");
        messages += 1;
        let lines = message.subject.rsplit('.').next().expect("lines").split('+');
        let lines: Vec<usize> = lines.map(|line| usize::from_str_radix(line, 16).expect("a line")).collect();
        if message.payload.starts_with(b"{") {
            let ack: Value = serde_json::from_slice(&message.payload).expect("JSON");
            assert!(ack["stream"] == "AUDIT" && ack["error"].is_null(), "{ack}");
            assert!(lines.into_iter().all(|line| recorded.insert(line)), "acknowledged twice");
        } else {
            told.extend(lines.iter().copied().zip(frames(message.payload, lines.len())));
        }
    }
    assert!(told.iter().all(|(line, told)| line == told), "each line has its own: {told:?}");
    assert!(messages < ANSWERS, "{messages} messages for {ANSWERS} answers");
    let kept = system.eventually("every event", ALL, &context.request_id).await;
    assert_eq!(kept, ANSWERS, "each event is its own");
}

pub(crate) async fn a_record_leaves_its_stream_once_the_table_has_it_and_one_that_cannot_be_kept_stays(
    system: Arc<System>,
) {
    let tenant = system.organization().await;
    let context = context(tenant.id);
    let record = || {
        let event = Event::of(&context, "tools.call", CallId::new(), 1, Notes::default(), Ok(()));
        serde_json::to_value(event).expect("JSON")
    };
    let worker = system.nats("tool").await;
    let subject = format!("audit.{}", tenant.id);
    let messages = [json!([record(), record()]), json!([record(), { "id": "none of ours" }]), json!([record()])];
    for message in &messages {
        let answer = worker.request(subject.clone(), message.to_string().into()).await.expect("the stream answers");
        let ack: Value = serde_json::from_slice(&answer.payload).expect("JSON");
        assert!(ack["stream"] == "AUDIT" && ack["error"].is_null(), "{ack}");
    }
    let four = "SELECT to_jsonb(true) FROM audit_logs WHERE request_id = $1 HAVING count(*) = 4";
    system.eventually("every record that can be kept", four, &context.request_id).await;

    let administrator = system.nats("jetstream").await;
    let left = async |question: Value| -> Value {
        let asked = administrator.request("$JS.API.STREAM.MSG.GET.AUDIT", question.to_string().into()).await;
        serde_json::from_slice(&asked.expect("JetStream answers").payload).expect("JSON")
    };
    let mut alone = Value::Null;
    until("what can be kept is forgotten", async || {
        let last = left(json!({ "last_by_subj": subject })).await;
        let first = left(json!({ "seq": 1, "next_by_subj": subject })).await;
        let is_alone = first["message"]["seq"].is_u64() && first["message"]["seq"] == last["message"]["seq"];
        alone = last;
        is_alone
    })
    .await;
    let data = BASE64_STANDARD.decode(alone["message"]["data"].as_str().expect("data")).expect("base64");
    let unkept: Value = serde_json::from_slice(&data).expect("JSON");
    assert_eq!(unkept, messages[1], "for an operator to look at");
}

/// Of a command of one organization, under a request id of its own.
fn context(organization: uuid::Uuid) -> Context {
    Context {
        organization: OrganizationId(organization),
        actor: Actor { subject: "somebody".to_owned(), role: MemberRole::User, operator: false },
        request_id: format!("answers-{organization}"),
        deadline: Deadline::after(Duration::from_secs(5)),
        traceparent: None,
    }
}

/// The frames of one message, each after its length where there are several.
fn frames(mut message: Bytes, count: usize) -> Vec<usize> {
    let read = |frame: &[u8]| match Frame::<usize>::decode(frame) {
        Ok(Frame::Done(Ok(number))) => number,
        other => panic!("no such frame: {other:?}"),
    };
    if count == 1 {
        return vec![read(&message)];
    }
    let mut frames = Vec::new();
    while message.has_remaining() {
        let length = usize::try_from(message.get_u32()).expect("a length");
        frames.push(read(&message.split_to(length)));
    }
    assert_eq!(frames.len(), count);
    frames
}
