//! What members hear of it: `GET /api/v1/events`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use stack::issuer::{Role, TokenRequest};

use super::{id, item, open};
use crate::{
    users::{newcomer, path},
    world::{Client, PATIENCE, System},
};

const EVENTS: &str = "/api/v1/events";

/// One block of a stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Block {
    pub(crate) id: Option<String>,
    event: Option<String>,
    data: Option<Value>,
}

/// A stream that is read block by block.
pub(crate) struct Stream {
    response: reqwest::Response,
    rest: String,
    /// As a browser keeps it.
    pub(crate) last_id: Option<String>,
}

impl Stream {
    pub(crate) async fn open(client: &Client, last_id: Option<&str>) -> Self {
        let mut request = client.request(Method::GET, EVENTS);
        if let Some(last_id) = last_id {
            request = request.header("Last-Event-ID", last_id);
        }
        let response = request.send().await.expect("the gateway answers");
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut stream = Self { response, rest: String::new(), last_id: None };
        let first = stream.block().await.expect("a first block");
        assert!(first.id.is_some() && first.event.is_none(), "it says where it begins: {first:?}");
        stream
    }

    /// The next block; `None` at the stream's end.
    async fn block(&mut self) -> Option<Block> {
        loop {
            if let Some((block, rest)) = self.rest.split_once("\n\n") {
                let mut read = Block::default();
                for line in block.lines() {
                    match line.split_once(':') {
                        Some(("id", id)) => read.id = Some(id.trim().to_owned()),
                        Some(("event", event)) => read.event = Some(event.trim().to_owned()),
                        Some(("data", data)) => read.data = Some(serde_json::from_str(data).expect("json")),
                        Some(("" | "retry", _)) => {}
                        _ => panic!("what is this: {line:?}"),
                    }
                }
                self.rest = rest.into();
                self.last_id = read.id.clone().or_else(|| self.last_id.take());
                return Some(read);
            }
            let more = tokio::time::timeout(PATIENCE, self.response.chunk()).await.expect("in time").ok()??;
            self.rest.push_str(std::str::from_utf8(&more).expect("text"));
        }
    }

    /// The next event, heartbeats left out.
    pub(crate) async fn event(&mut self) -> Value {
        loop {
            let block = self.block().await.expect("the stream goes on");
            if let Some(data) = block.data {
                assert_eq!(data["event"].as_str(), block.event.as_deref());
                return data;
            }
        }
    }

    /// Waits for the stream's end; answers what came until then.
    pub(crate) async fn end(mut self) -> Vec<Block> {
        let mut blocks = Vec::new();
        while let Some(block) = self.block().await {
            blocks.push(block);
        }
        blocks
    }
}

fn about(event: &Value) -> (&str, &str) {
    (event["event"].as_str().expect("a name"), event["session"].as_str().expect("a session"))
}

pub(crate) async fn a_member_hears_their_own_sessions_and_an_admin_everybodys(system: Arc<System>) {
    let (tenant, elsewhere) = (system.organization().await, system.organization().await);
    let mut own = Stream::open(&tenant.user, None).await;
    let mut all = Stream::open(&tenant.admin, None).await;
    open(&elsewhere.user, json!({})).await;
    let of_admin = open(&tenant.admin, json!({})).await;
    let event = all.event().await;
    assert_eq!(about(&event), ("session.opened", id(&of_admin)), "and nothing of another organization");
    let of_user = open(&tenant.user, json!({})).await;
    assert_eq!(tenant.user.delete(&item(&of_user)).await.status, 204);
    for stream in [&mut own, &mut all] {
        let (opened, ended) = (stream.event().await, stream.event().await);
        assert_eq!(about(&opened), ("session.opened", id(&of_user)), "and nothing of another member");
        assert_eq!(about(&ended), ("session.ended", id(&of_user)));
        assert_eq!((&ended["reason"], &ended["subject"]), (&json!("asked"), &of_user["subject"]));
        assert_eq!(opened["at"], of_user["created_at"]);
        assert!(ended["id"].as_str().is_some_and(|id| id.parse::<uuid::Uuid>().is_ok()));
    }
}

pub(crate) async fn a_touch_and_an_expiry_are_heard(system: Arc<System>) {
    let tenant = system.organization().await;
    let mut stream = Stream::open(&tenant.user, None).await;
    let session = open(&tenant.user, json!({ "ttl_seconds": 2 })).await;
    assert_eq!(about(&stream.event().await), ("session.opened", id(&session)));
    let touched = "UPDATE sessions SET pending_hooks = pending_hooks || '{session.touched/tell}' WHERE id = $1";
    super::in_the_database(&system, touched, &session).await;
    assert_eq!(about(&stream.event().await), ("session.touched", id(&session)));
    let expired = stream.event().await;
    assert_eq!((about(&expired), &expired["reason"]), (("session.expired", id(&session)), &json!("age")));
}

pub(crate) async fn who_comes_back_goes_on_after_the_last_event_they_heard(system: Arc<System>) {
    let tenant = system.organization().await;
    let mut stream = Stream::open(&tenant.user, None).await;
    let begin = stream.last_id.clone().expect("where it began");
    let mut sessions = Vec::new();
    for _ in 0..4 {
        let session = open(&tenant.user, json!({})).await;
        // What follows from several at once may follow in any order.
        super::settled_hooks(&system, &session).await;
        sessions.push(session);
    }
    assert_eq!(about(&stream.event().await).1, id(&sessions[0]));
    let heard = stream.last_id.clone().expect("an id");
    drop(stream);
    // Others' events lie between and are nobody's business here.
    open(&tenant.admin, json!({})).await;
    let mut stream = Stream::open(&tenant.user, Some(&heard)).await;
    for session in &sessions[1..] {
        assert_eq!(about(&stream.event().await).1, id(session));
    }
    let later = open(&tenant.user, json!({})).await;
    assert_eq!(about(&stream.event().await).1, id(&later), "and then what is new");
    let mut stream = Stream::open(&tenant.user, Some(&begin)).await;
    for session in sessions.iter().chain([&later]) {
        assert_eq!(about(&stream.event().await).1, id(session), "the whole of it again");
    }
}

pub(crate) async fn what_the_stream_has_forgotten_is_told_as_a_gap(system: Arc<System>) {
    let tenant = system.organization().await;
    let session = open(&tenant.user, json!({})).await;
    super::settled_hooks(&system, &session).await;
    // Of a stream that was lost, and of one that has not come so far.
    let known = Stream::open(&tenant.user, None).await.last_id.expect("where it began");
    let (mark, _) = known.split_once('-').expect("a position");
    for unknown in ["00000000-1".to_owned(), format!("{mark}-999999999999")] {
        let mut stream = Stream::open(&tenant.user, Some(&unknown)).await;
        assert_eq!(stream.event().await["event"], "events.missed");
        assert_eq!(about(&stream.event().await), ("session.opened", id(&session)), "what is still there is told");
    }
    for malformed in ["", "x", "1", "00000000-", "00000000-x", "zzzzzzzz-1"] {
        let refused =
            tenant.user.send(tenant.user.request(Method::GET, EVENTS).header("Last-Event-ID", malformed)).await;
        assert_eq!(refused.problem(400, "invalid")["field"], "Last-Event-ID");
    }
}

pub(crate) async fn a_stream_ends_with_its_token(system: Arc<System>) {
    let tenant = system.organization().await;
    let lifetime = Duration::from_secs(3);
    let request = TokenRequest {
        organization: Some(tenant.id),
        subject: format!("brief-{}", tenant.id),
        role: Some(Role::User),
        lifetime,
        ..TokenRequest::default()
    };
    let client = system.client(&system.issuer().mint(&request).expect("a token"));
    let stream = Stream::open(&client, None).await;
    let opened = Instant::now();
    stream.end().await;
    assert!(opened.elapsed() < Duration::from_secs(10), "{:?}", opened.elapsed());
}

pub(crate) async fn a_stream_ends_with_its_membership(system: Arc<System>) {
    let tenant = system.organization().await;
    let (leaver, seen) = newcomer(&system, &tenant, "leaver", Role::User).await;
    let (demoted, admin) = newcomer(&system, &tenant, "demoted", Role::Admin).await;
    let stream = Stream::open(&leaver, None).await;
    let mut all = Stream::open(&demoted, None).await;
    let removed = Instant::now();
    assert_eq!(tenant.admin.delete(&path(&seen)).await.status, 204);
    stream.end().await;
    assert!(removed.elapsed() < Duration::from_secs(10), "{:?}", removed.elapsed());
    leaver.get(EVENTS).await.problem(403, "forbidden");
    // Who is no admin any more goes on hearing, their own alone.
    let session = open(&tenant.user, json!({})).await;
    assert_eq!(about(&all.event().await).1, id(&session));
    assert_eq!(tenant.admin.put(&path(&admin), "*", &json!({ "role": "user" })).await.status, 200);
    super::until("the demotion is obeyed", async || demoted.get("/api/v1/me").await.json()["role"] == "user").await;
    open(&tenant.user, json!({})).await;
    let own = open(&demoted, json!({})).await;
    assert_eq!(about(&all.event().await).1, id(&own));
}

pub(crate) async fn a_member_has_so_many_streams_and_gets_one_back(system: Arc<System>) {
    let tenant = system.organization().await;
    let mut streams = Vec::new();
    for _ in 0..8 {
        streams.push(Stream::open(&tenant.user, None).await);
    }
    let refused = tenant.user.get(EVENTS).await;
    assert!(refused.problem(429, "throttled")["detail"].as_str().is_some_and(|words| words.contains('8')));
    Stream::open(&tenant.admin, None).await;
    streams.pop();
    let left = Instant::now();
    super::until("a place is free", async || {
        let answer = tenant.user.request(Method::GET, EVENTS).send().await.expect("an answer");
        answer.status() == StatusCode::OK
    })
    .await;
    // Not only once a heartbeat could not be written.
    assert!(left.elapsed() < Duration::from_secs(10), "{:?}", left.elapsed());
}

/// More than a connection's buffers hold.
const FLOOD: usize = 24_000;

pub(crate) async fn a_reader_that_does_not_keep_up_is_cut_and_goes_on_later(system: Arc<System>) {
    let tenant = system.organization().await;
    let (slow, _) = newcomer(&system, &tenant, "slow", Role::User).await;
    let me = slow.get("/api/v1/me").await.json();
    let stream = Stream::open(&slow, None).await;
    let begin = stream.last_id.clone().expect("where it began");
    let cut = "switchboard_event_streams_ended_total{why=\"slow\"}";
    let count = async || {
        let metrics = tenant.user.get("/metrics").await.text;
        metrics.lines().find_map(|line| line.strip_prefix(cut)?.trim().parse::<f64>().ok()).unwrap_or_default()
    };
    let before = count().await;
    let nats = system.nats("session").await;
    for number in 0..FLOOD {
        let event = json!({
            "id": uuid::Uuid::now_v7(), "event": "session.touched", "at": "2026-01-01T00:00:00Z",
            "subject": me["subject"], "session": null, "reason": format!("{number} {}", "x".repeat(1_000)),
        });
        nats.publish(format!("events.{}", tenant.id), event.to_string().into()).await.expect("it leaves");
    }
    nats.flush().await.expect("all left");
    super::until("the reader is cut", async || count().await > before).await;
    let blocks = stream.end().await;
    let read = blocks.iter().filter(|block| block.data.is_some()).count();
    assert!(read < FLOOD, "all {read} came through: nothing was cut");
    // What the stream does not hold any more is a gap, the rest is there: the last is heard.
    let last_id = blocks.iter().rev().find_map(|block| block.id.clone()).unwrap_or(begin);
    let mut again = Stream::open(&slow, Some(&last_id)).await;
    let (mut missed, mut last) = (0, String::new());
    while !last.starts_with(&format!("{} ", FLOOD - 1)) {
        let event = again.event().await;
        if event["event"] == "events.missed" {
            missed += 1;
        } else {
            last = event["reason"].as_str().expect("a reason").into();
        }
    }
    assert_eq!(missed, 1, "of {FLOOD} events the stream keeps 2,000");
}
