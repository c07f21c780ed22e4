//! One request and its answer: a POST of bytes, an answer as JSON or as an event stream, and what
//! has to happen on the way (progress, requests of the server, cancellation).

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header::CONTENT_TYPE};
use hyper::body::Incoming;
use shared::{Fault, json::Raw};

use super::{
    era::Link,
    message::{self, Message},
    sse::{Ended, Events},
};
use crate::{
    egress::{BodyError, Destination, Egress, read_capped},
    upstream::failure::{self, HEADER_MISMATCH, RpcError, UNSUPPORTED_VERSION},
};

pub(super) const METHOD: HeaderName = HeaderName::from_static("mcp-method");
pub(super) const NAME: HeaderName = HeaderName::from_static("mcp-name");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The largest result that is carried, in bytes: with its frame it fits a NATS message.
pub(super) const MAX_RESULT_BYTES: usize = 7 * 1024 * 1024;
/// The most that is read of an error's body, in bytes.
const MAX_ERROR_BYTES: usize = 64 * 1024;
/// How long a message that nobody waits for may take.
const COURTESY: Duration = Duration::from_secs(5);
/// The most requests of a server that are answered during one call.
const MAX_REPLIES: usize = 32;
/// How often a stream that the server broke off is taken up again.
const MAX_RESUMES: usize = 8;
/// The wait before that, where the server names none, and the longest that is granted.
const RESUME_AFTER: Duration = Duration::from_millis(500);
const RESUME_AFTER_MAX: Duration = Duration::from_secs(10);

/// Progress of a call: `progress`, `total`, `message` of `notifications/progress`.
pub(super) type Progress<'a> = Option<&'a (dyn Fn(Raw) + Send + Sync)>;

/// How a request failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server turned it away unread because it does not know us (any more): connecting anew
    /// and sending it once more repeats nothing. The fault is for when that does not help.
    Stranger(Fault),
    /// For good. `code` is the JSON-RPC error's, where there was one.
    Fault {
        /// What the caller is told.
        fault: Fault,
        /// The JSON-RPC error code.
        code: Option<i64>,
    },
}

impl Failure {
    pub(super) fn into_fault(self) -> Fault {
        match self {
            Self::Stranger(fault) | Self::Fault { fault, .. } => fault,
        }
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Fault { fault, code: None }
    }
}

/// Where requests go, and what an answer to them is held to.
pub(super) struct Exchange<'a> {
    pub(super) egress: &'a Egress,
    pub(super) endpoint: &'a Destination,
    pub(super) link: &'a Arc<Link>,
    pub(super) request_id: &'a str,
    pub(super) max_bytes: usize,
}

impl Exchange<'_> {
    /// Sends the request `id` and returns its result, byte for byte. Dropping the future closes
    /// the request; in the handshake era, where that says nothing, the server is told.
    pub(super) async fn ask(
        &self,
        id: u64,
        headers: HeaderMap,
        body: Vec<u8>,
        progress: Progress<'_>,
    ) -> Result<Bytes, Failure> {
        let mut farewell = Farewell { exchange: (!self.link.is_modern).then_some(self), id };
        let outcome = self.answer(id, headers, body, progress).await;
        farewell.exchange = None;
        outcome
    }

    async fn answer(
        &self,
        id: u64,
        headers: HeaderMap,
        body: Vec<u8>,
        progress: Progress<'_>,
    ) -> Result<Bytes, Failure> {
        let response = self.send(Method::POST, headers, body).await?;
        let kind = Kind::of(response.headers());
        let result = match (response.status(), kind) {
            (status, kind) if !status.is_success() => return Err(self.refusal(status, kind, response, id).await),
            (StatusCode::OK, Kind::Json) => self.single(response, id).await?,
            (StatusCode::OK, Kind::Events) => {
                Box::pin(self.streamed(Events::of(response.into_body()), id, progress)).await?
            }
            _ => return Err(failure::garbage("is not MCP").into()),
        };
        if result.len() > self.max_bytes {
            return Err(failure::too_large().into());
        }
        Ok(result)
    }

    async fn send(&self, method: Method, headers: HeaderMap, body: Vec<u8>) -> Result<Response<Incoming>, Fault> {
        let sent = self.egress.send(self.endpoint, method, headers, body.into()).await;
        sent.map_err(|error| failure::sending(&error, self.request_id))
    }

    async fn single(&self, response: Response<Incoming>, id: u64) -> Result<Bytes, Failure> {
        // The envelope around the result is small; the result itself is measured exactly later.
        let body = read_capped(response.into_body(), self.max_bytes + MAX_ERROR_BYTES).await;
        let body = body.map_err(|error| self.body(&error))?;
        match message::read(&body, id) {
            Some(Message::Result(result)) => Ok(result),
            Some(Message::Error(error)) => Err(self.error(StatusCode::OK, error)),
            _ => Err(failure::garbage("is not MCP").into()),
        }
    }

    async fn streamed(&self, mut events: Events, id: u64, progress: Progress<'_>) -> Result<Bytes, Failure> {
        let (mut replies, mut resumes) = (0, 0);
        loop {
            let data = match events.next().await {
                Ok(data) => data,
                Err(Ended::TooLarge) => return Err(failure::too_large().into()),
                Err(Ended::Broken | Ended::Early) => {
                    resumes += 1;
                    events = self.resumed(events, resumes).await?;
                    continue;
                }
            };
            match message::read(&data, id) {
                Some(Message::Result(result)) => {
                    events.finish();
                    return Ok(result);
                }
                Some(Message::Error(error)) => {
                    events.finish();
                    return Err(self.error(StatusCode::OK, error));
                }
                Some(Message::Progress(step)) => {
                    if let Some(progress) = progress {
                        progress(step);
                    }
                }
                Some(Message::Request { id, is_ping }) if !self.link.is_modern && replies < MAX_REPLIES => {
                    replies += 1;
                    self.post_aside(message::reply(id, is_ping));
                }
                // In the modern era servers ask nothing on a stream.
                Some(Message::Request { .. } | Message::Other) => {}
                None => return Err(failure::garbage("is not MCP").into()),
            }
        }
    }

    /// Takes a broken stream up again where the server gave its events ids (handshake era,
    /// revision 2025-11-25: servers may close a stream and be polled). Nothing is sent twice.
    async fn resumed(&self, events: Events, times: usize) -> Result<Events, Fault> {
        let id = events.last_id.as_deref().and_then(|id| HeaderValue::from_str(id).ok());
        let (Some(id), true) = (id, self.link.has_session() && times <= MAX_RESUMES) else {
            return Err(failure::broken());
        };
        tokio::time::sleep(events.retry.unwrap_or(RESUME_AFTER).min(RESUME_AFTER_MAX)).await;
        let mut headers = self.link.headers.clone();
        headers.remove(CONTENT_TYPE);
        headers.insert(LAST_EVENT_ID, id);
        let response = self.send(Method::GET, headers, Vec::new()).await?;
        if response.status() != StatusCode::OK || Kind::of(response.headers()) != Kind::Events {
            return Err(failure::broken());
        }
        let mut again = Events::of(response.into_body());
        (again.last_id, again.retry) = (events.last_id, events.retry);
        Ok(again)
    }

    async fn refusal(&self, status: StatusCode, kind: Kind, response: Response<Incoming>, id: u64) -> Failure {
        tracing::debug!(request_id = self.request_id, status = status.as_u16(), "the upstream refused a request");
        if status == StatusCode::UNAUTHORIZED {
            return failure::credential_refused().into();
        }
        let lost_session = status == StatusCode::NOT_FOUND && self.link.has_session();
        if kind == Kind::Json
            && !lost_session
            && let Ok(body) = read_capped(response.into_body(), MAX_ERROR_BYTES).await
            && let Some(Message::Error(error)) = message::read(&body, id)
        {
            return self.error(status, error);
        }
        let fault = failure::status(status);
        if lost_session { Failure::Stranger(fault) } else { fault.into() }
    }

    /// A JSON-RPC error, and whether it says that the server takes us for somebody else: another
    /// era, or a session it does not know. In all these cases it ran nothing.
    fn error(&self, status: StatusCode, error: RpcError<'_>) -> Failure {
        let code = error.code;
        // The range in which servers of the handshake era keep errors of their own.
        let legacy_refusal = status == StatusCode::BAD_REQUEST && (-32019..=-32000).contains(&code);
        let is_stranger = if self.link.is_modern {
            code == UNSUPPORTED_VERSION || legacy_refusal
        } else {
            (HEADER_MISMATCH - 2..=HEADER_MISMATCH).contains(&code) || (legacy_refusal && self.link.has_session())
        };
        let fault = error.into_fault();
        if is_stranger { Failure::Stranger(fault) } else { Failure::Fault { fault, code: Some(code) } }
    }

    fn body(&self, error: &BodyError) -> Failure {
        tracing::warn!(request_id = self.request_id, cause = %error, "the upstream's answer could not be read");
        match error {
            BodyError::TooLarge { .. } => failure::too_large().into(),
            BodyError::Broken(_) => failure::broken().into(),
        }
    }

    /// Sends a message that nobody waits for.
    fn post_aside(&self, body: Vec<u8>) {
        // Without a runtime the process is ending, and the server notices that by itself.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (egress, endpoint, headers) = (self.egress.clone(), self.endpoint.clone(), self.link.headers.clone());
        runtime.spawn(async move {
            let sent = egress.send(&endpoint, Method::POST, headers, body.into());
            if !matches!(tokio::time::timeout(COURTESY, sent).await, Ok(Ok(_))) {
                tracing::debug!("a message to an upstream was lost");
            }
        });
    }
}

/// Tells a server of the handshake era that nobody waits for a request any more.
struct Farewell<'a> {
    exchange: Option<&'a Exchange<'a>>,
    id: u64,
}

impl Drop for Farewell<'_> {
    fn drop(&mut self) {
        if let Some(exchange) = self.exchange {
            exchange.post_aside(message::cancelled(self.id));
        }
    }
}

/// In which form an answer comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Json,
    Events,
    Foreign,
}

impl Kind {
    fn of(headers: &HeaderMap) -> Self {
        let media_type = headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split(';').next())
            .map_or("", str::trim);
        if media_type.eq_ignore_ascii_case("application/json") {
            Self::Json
        } else if media_type.eq_ignore_ascii_case("text/event-stream") {
            Self::Events
        } else {
            Self::Foreign
        }
    }
}
