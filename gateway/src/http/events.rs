//! `GET /api/v1/events`: what happens in an organization, as it happens, as server-sent events (HTML
//! standard, section 9.2). A member hears their own, an admin the organization's. A stream ends with its
//! token, its member and this gateway; whoever comes back with `Last-Event-ID` goes on where they were.

mod places;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use poem::{
    Body, FromRequest, Request, RequestBody, Response, Result, handler,
    http::{HeaderValue, StatusCode, header},
    web::Data,
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use shared::{
    Fault,
    bus::events::{Heard, Listening, Position, TenantEvent},
    context::{Role, now_unix_ms},
};
use tokio::sync::mpsc;

pub use self::places::Places;
use super::{
    Gateway,
    answer::Answer,
    identity::Bearer,
    operation::{self, Operation, get},
    problem::Problem,
};
use crate::auth::Verified;

pub(super) fn operations() -> Vec<Operation> {
    operation::of(
        "Events",
        [get(
            "/api/v1/events",
            listen,
            "Hears what happens, as server-sent events: admins everything, others their own.",
        )
        .for_members("events.listen")
        .may_bring::<LastEventId>("Last-Event-ID", "The `id` of the last event you heard: goes on after it.")
        .answers_other("text/event-stream")],
    )
}

/// How often a stream shows that it lives.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(15);
/// Pieces that wait for a reader.
const WAITING: usize = 64;
/// How long a full row of them waits before the reader is cut.
const READER_PATIENCE: Duration = Duration::from_secs(10);

/// Where a stream goes on.
#[derive(Clone, Debug)]
pub struct LastEventId(Option<Position>);

impl<'a> FromRequest<'a> for LastEventId {
    async fn from_request(request: &'a Request, _body: &mut RequestBody) -> Result<Self> {
        let Some(value) = request.headers().get("last-event-id") else { return Ok(Self(None)) };
        let position = value.to_str().ok().and_then(|text| text.trim().parse().ok());
        let refused = || Fault::invalid("Last-Event-ID", "Give back the `id` of an event as it was.");
        Ok(Self(Some(position.ok_or_else(|| Problem::from(refused()))?)))
    }
}

impl JsonSchema for LastEventId {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "LastEventId".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9a-f]{8}-[0-9]+$" })
    }
}

/// Hears what happens.
#[handler]
pub(crate) async fn listen(gateway: Data<&Arc<Gateway>>, bearer: Bearer, LastEventId(after): LastEventId) -> Answer {
    let Bearer { verified, context } = bearer;
    let place = gateway.places.take(verified.organization, &verified.subject)?;
    let listening = gateway.bus.listen(verified.organization, after).await?;
    let (pieces, mut waiting) = mpsc::channel(WAITING);
    let role = context.actor.role;
    let stream = Stream { gateway: Arc::clone(gateway.0), verified, role, listening, pieces };
    tokio::spawn(stream.run());
    let body = futures::stream::poll_fn(move |context| {
        // Held as long as the connection, whatever became of what fills it.
        let _held = &place;
        waiting.poll_recv(context).map(|piece| piece.map(Ok::<Bytes, std::io::Error>))
    });
    Ok(Response::builder()
        .status(StatusCode::OK)
        .header(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"))
        .header(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))
        // Proxies that collect answers would keep events back.
        .header("x-accel-buffering", HeaderValue::from_static("no"))
        .body(Body::from_bytes_stream(body)))
}

/// One client's stream.
struct Stream {
    gateway: Arc<Gateway>,
    verified: Arc<Verified>,
    /// As it was last known.
    role: Role,
    listening: Listening,
    pieces: mpsc::Sender<Bytes>,
}

impl Stream {
    /// Runs until the client, the token, the member, the gateway or the bus is gone.
    async fn run(mut self) {
        let why = self.serve().await;
        metrics::counter!("switchboard_event_streams_ended_total", "why" => why).increment(1);
    }

    async fn serve(&mut self) -> &'static str {
        let first = format!("retry: 1000\n:\nid: {}\n\n", self.listening.position());
        if !self.send(first).await {
            return self.lost();
        }
        let expiry = tokio::time::sleep(until(self.verified.expires_at_unix_s));
        tokio::pin!(expiry);
        let mut changes = self.gateway.access.changes();
        // Not from one turn to the next: members change all the time.
        let mut beat = Instant::now() + HEARTBEAT_EVERY;
        loop {
            if !self.may_still() {
                return "standing";
            }
            let heard = tokio::select! {
                biased;
                () = self.gateway.stop.cancelled() => return "drained",
                () = self.pieces.closed() => return "left",
                () = &mut expiry => return "token",
                () = changes.changed() => continue,
                heard = self.listening.next(beat) => heard,
            };
            // What was heard may be older than what is known by now of who is to hear it.
            if !self.may_still() {
                return "standing";
            }
            let piece = match heard {
                Ok(Some(heard)) => self.shown(&heard),
                Ok(None) => Some(format!(":\nid: {}\n\n", self.listening.position())),
                Err(fault) => {
                    tracing::info!(%fault, "a stream of events ends");
                    return "bus";
                }
            };
            let Some(piece) = piece else { continue };
            if !self.send(piece).await {
                return self.lost();
            }
            beat = Instant::now() + HEARTBEAT_EVERY;
        }
    }

    /// False where the member may not hear any more, or it is not known; else keeps to their role by now.
    fn may_still(&mut self) -> bool {
        let access = &self.gateway.access;
        match access.role(&self.verified, self.role) {
            Ok(role) if access.is_fresh() => self.role = role,
            _ => return false,
        }
        true
    }

    /// Why nothing could be sent.
    fn lost(&self) -> &'static str {
        if self.pieces.is_closed() { "left" } else { "slow" }
    }

    /// False where the reader does not keep up: what it has not read it finds in the stream again.
    async fn send(&self, piece: String) -> bool {
        matches!(tokio::time::timeout(READER_PATIENCE, self.pieces.send(piece.into())).await, Ok(Ok(())))
    }

    /// What of it this member is told.
    fn shown(&self, heard: &Heard) -> Option<String> {
        match heard {
            Heard::Event(position, event) => {
                let is_theirs = self.role >= Role::Admin || event.subject == self.verified.subject;
                is_theirs.then(|| block(position, event)).flatten()
            }
            Heard::Gap(position) => block(position, &TenantEvent::missed(&self.verified.subject)),
        }
    }
}

/// An event as it is sent. Its JSON is one line.
fn block(position: &Position, event: &TenantEvent) -> Option<String> {
    let data = serde_json::to_string(event).inspect_err(|cause| tracing::error!(%cause, "an event")).ok()?;
    Some(format!("id: {position}\nevent: {}\ndata: {data}\n\n", event.event))
}

fn until(unix_s: u64) -> Duration {
    Duration::from_millis(unix_s.saturating_mul(1_000).saturating_sub(now_unix_ms()))
}
