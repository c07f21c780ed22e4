//! Event streams as a server sends them, held to a size: what one call may pour over us is bounded
//! even where the server never ends an event.

use std::{pin::Pin, time::Duration};

use bytes::Bytes;
use futures::{FutureExt as _, Stream, StreamExt as _};
use http_body_util::BodyDataStream;
use hyper::body::Incoming;
use sse_stream::SseByteStream;

/// The most that one stream may bring, progress and answer together, in bytes.
pub(super) const MAX_STREAM_BYTES: usize = 16 * 1024 * 1024;
/// How long the rest of a stream is waited for after the answer, so that its connection can be
/// used again.
const REST: Duration = Duration::from_millis(100);

type Chunks = Pin<Box<dyn Stream<Item = Result<Bytes, Ended>> + Send>>;

/// Why a stream gave no further event.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    /// The connection broke, or the bytes are no event stream.
    #[error("the event stream broke")]
    Broken,
    /// More than [`MAX_STREAM_BYTES`].
    #[error("the event stream is too large")]
    TooLarge,
    /// It ended without having brought the answer.
    #[error("the event stream ended without an answer")]
    Early,
}

/// The events of one response that hold a message.
pub(super) struct Events {
    stream: SseByteStream<Chunks>,
    /// Where the server can take the stream up again (`Last-Event-ID`).
    pub(super) last_id: Option<String>,
    /// How long the server asks to wait before that.
    pub(super) retry: Option<Duration>,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl Events {
    /// Reads the body of a response of type `text/event-stream`.
    pub(super) fn of(body: Incoming) -> Self {
        let mut room = MAX_STREAM_BYTES;
        let chunks = BodyDataStream::new(body).map(move |chunk| {
            let chunk = chunk.map_err(|_| Ended::Broken)?;
            room = room.checked_sub(chunk.len()).ok_or(Ended::TooLarge)?;
            Ok(chunk)
        });
        Self { stream: SseByteStream::new(Box::pin(chunks)), last_id: None, retry: None }
    }

    /// The data of the next message.
    pub(super) async fn next(&mut self) -> Result<Bytes, Ended> {
        loop {
            let event = match self.stream.next().await {
                None => return Err(Ended::Early),
                Some(Ok(event)) => event,
                Some(Err(sse_stream::Error::Body(cause))) => {
                    return Err(cause.downcast::<Ended>().map_or(Ended::Broken, |ended| *ended));
                }
                Some(Err(_)) => return Err(Ended::Broken),
            };
            if let Some(id) = event.id.filter(|id| !id.is_empty()) {
                self.last_id = Some(id);
            }
            self.retry = event.retry.map(Duration::from_millis).or(self.retry);
            // Without a name, or named `message`, an event is a message (HTML, server-sent events).
            let is_message = event.event.as_deref().is_none_or(|name| name.is_empty() || name == "message");
            if let Some(data) = event.data.filter(|data| is_message && !data.is_empty()) {
                return Ok(Bytes::from(data));
            }
        }
    }

    /// Lets the stream run out: an unfinished response would cost its connection.
    pub(super) fn finish(mut self) {
        if let Some(None) = self.stream.next().now_or_never() {
            return;
        }
        tokio::spawn(async move {
            let rest = async { while let Some(Ok(_)) = self.stream.next().await {} };
            let _ = tokio::time::timeout(REST, rest).await;
        });
    }
}
