//! Answers that share messages, as a worker sends them and a caller's process hears them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::{Buf, Bytes};
use futures::{StreamExt, future::join_all};
use serde_json::Value;
use shared::{
    Context, Deadline,
    audit::{Event, Notes},
    bus::{Bus, Role, frame::Frame},
    command::Pool,
    context::{Actor, Role as MemberRole},
    id::{CallId, OrganizationId},
};

use crate::world::{PATIENCE, System};

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
    let context = Context {
        organization: OrganizationId(tenant.id),
        actor: Actor { subject: "somebody".to_owned(), role: MemberRole::User, operator: false },
        request_id: format!("answers-{}", tenant.id),
        deadline: Deadline::after(Duration::from_secs(5)),
        traceparent: None,
    };
    let answers = (0..ANSWERS).map(|line| {
        let event = Event::of(&context, "tools.call", CallId::new(), 1, &Notes::default(), Ok(()));
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
