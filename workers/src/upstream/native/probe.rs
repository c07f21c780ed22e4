//! What rmcp negotiates with: its own HTTP transport over the guarded client, watched. rmcp tells
//! its user neither the session id nor why a connection failed, so this notes both in passing.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Instant,
};

use http::{HeaderName, HeaderValue, StatusCode};
use rmcp::{
    model::ClientJsonRpcMessage,
    transport::{
        common::client_side_sse::BoxedSseResponse,
        streamable_http_client::{
            StreamableHttpClient, StreamableHttpError, StreamableHttpPostResponse, StreamableHttpResponseLimits,
        },
    },
};
use shared::{Fault, command::configurations::Stage};
use tokio_util::sync::CancellationToken;

use crate::upstream::failure;

type Outcome<T> = Result<T, StreamableHttpError<reqwest::Error>>;
type Headers = HashMap<HeaderName, HeaderValue>;

/// The guarded client in the form that rmcp asks for.
#[derive(Clone, Debug)]
pub(super) struct Probe {
    http: reqwest::Client,
    seen: Arc<Seen>,
    // rmcp posts in a task of its own, which outlives whoever stops waiting for it.
    given_up: CancellationToken,
}

/// What passed by.
#[derive(Debug, Default)]
pub(super) struct Seen {
    session: Mutex<Option<Arc<str>>>,
    failure: Mutex<Option<Failed>>,
    answered_at: OnceLock<Instant>,
}

/// The last failure, and whether asking in the other era could end differently.
#[derive(Clone, Debug)]
pub(super) struct Failed {
    /// What the caller is told.
    pub(super) fault: Fault,
    /// True when the server was not reached or refused the credential, whatever the era.
    pub(super) is_final: bool,
    /// Where on its way the connection ended.
    pub(super) stage: Stage,
}

impl Seen {
    /// The session that the server opened, if it opens sessions.
    pub(super) fn session(&self) -> Option<Arc<str>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The last failure.
    pub(super) fn failure(&self) -> Option<Failed> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// When the server first answered anything.
    pub(super) fn answered_at(&self) -> Option<Instant> {
        self.answered_at.get().copied()
    }

    fn answered(&self, answer: &StreamableHttpPostResponse) {
        self.answered_at.get_or_init(Instant::now);
        if let StreamableHttpPostResponse::Json(_, Some(id)) | StreamableHttpPostResponse::Sse(_, Some(id)) = answer {
            *self.session.lock().unwrap_or_else(PoisonError::into_inner) = Some(id.as_str().into());
        }
    }

    fn failed(&self, error: &StreamableHttpError<reqwest::Error>) {
        if !matches!(error, StreamableHttpError::Client(_)) {
            self.answered_at.get_or_init(Instant::now);
        }
        let (fault, is_final, stage) = classified(error);
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(Failed { fault, is_final, stage });
    }
}

/// What an error of the transport means. Its text may quote the server, so it goes nowhere.
fn classified(error: &StreamableHttpError<reqwest::Error>) -> (Fault, bool, Stage) {
    match error {
        StreamableHttpError::Client(error) => (failure::transport(error), true, Stage::Http),
        StreamableHttpError::AuthRequired(_) => (failure::credential_refused(), true, Stage::Auth),
        StreamableHttpError::InsufficientScope(_) => (failure::status(StatusCode::FORBIDDEN), true, Stage::Auth),
        StreamableHttpError::HttpStatus(error) => {
            let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_GATEWAY);
            (failure::status(status), false, refused_at(status))
        }
        StreamableHttpError::ResponseBodyTooLarge { .. } => (failure::too_large(), false, Stage::Protocol),
        StreamableHttpError::UnexpectedServerResponse(text) => {
            match text.strip_prefix("HTTP ").and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok()) {
                Some(status) => (failure::status(status), refused_at(status) == Stage::Auth, refused_at(status)),
                None => (failure::garbage("is not MCP"), false, Stage::Protocol),
            }
        }
        _ => (failure::garbage("is not MCP"), false, Stage::Protocol),
    }
}

const fn refused_at(status: StatusCode) -> Stage {
    if matches!(status.as_u16(), 401 | 403) { Stage::Auth } else { Stage::Http }
}

impl Probe {
    /// A probe and the place where its observations are kept. Cancelling `given_up` closes the
    /// request that waits for an answer.
    pub(super) fn new(http: reqwest::Client, given_up: CancellationToken) -> (Self, Arc<Seen>) {
        let seen = Arc::<Seen>::default();
        (Self { http, seen: Arc::clone(&seen), given_up }, seen)
    }
}

impl StreamableHttpClient for Probe {
    type Error = reqwest::Error;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        auth_header: Option<String>,
        custom_headers: Headers,
    ) -> Outcome<StreamableHttpPostResponse> {
        let limits = StreamableHttpResponseLimits::default();
        self.post_message_with_response_limits(uri, message, session_id, auth_header, custom_headers, limits).await
    }

    async fn post_message_with_response_limits(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        auth_header: Option<String>,
        custom_headers: Headers,
        limits: StreamableHttpResponseLimits,
    ) -> Outcome<StreamableHttpPostResponse> {
        let posting =
            self.http.post_message_with_response_limits(uri, message, session_id, auth_header, custom_headers, limits);
        let answer = tokio::select! {
            answer = posting => answer,
            () = self.given_up.cancelled() => return Err(StreamableHttpError::TransportChannelClosed),
        };
        match &answer {
            Ok(answer) => self.seen.answered(answer),
            Err(error) => self.seen.failed(error),
        }
        answer
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session_id: Arc<str>,
        auth_header: Option<String>,
        custom_headers: Headers,
    ) -> Outcome<()> {
        self.http.delete_session(uri, session_id, auth_header, custom_headers).await
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        auth_header: Option<String>,
        custom_headers: Headers,
    ) -> Outcome<BoxedSseResponse> {
        self.http.get_stream(uri, session_id, last_event_id, auth_header, custom_headers).await
    }

    async fn get_stream_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        auth_header: Option<String>,
        custom_headers: Headers,
        max_sse_event_size: usize,
    ) -> Outcome<BoxedSseResponse> {
        self.http
            .get_stream_with_max_sse_event_size(
                uri,
                session_id,
                last_event_id,
                auth_header,
                custom_headers,
                max_sse_event_size,
            )
            .await
    }
}
