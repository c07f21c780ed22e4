//! A body on its way in: read part by part, each kept before the next is read.

use std::{pin::Pin, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use poem::{Request, http::header};
use sha2::{Digest, Sha256};
use shared::{
    Context, Fault,
    command::{
        Command,
        files::{Append, Content, Discard, MAX_FILE_BYTES, PART_BYTES, Write, Written},
    },
    hex,
    id::{ObjectId, SessionId},
};

use crate::http::{
    Gateway,
    problem::{EdgeError, Limit, Problem},
};

/// How long one part may take to arrive: a sender that trickles holds a connection for nothing.
const MAX_WAIT: Duration = Duration::from_mins(1);
/// How long the rest of a body that is refused is listened to.
const MAX_SKIP: Duration = Duration::from_secs(5);

/// A body as it comes, cut into parts.
pub(super) struct Incoming {
    chunks: Pin<Box<dyn Stream<Item = Result<Bytes, std::io::Error>> + Send>>,
    held: BytesMut,
    read_bytes: u64,
}

/// The next part of a body.
struct Piece {
    bytes: Bytes,
    is_last: bool,
}

impl Incoming {
    /// Refuses what says of itself that it cannot be kept.
    pub(super) fn new(request: &Request, body: poem::Body) -> Result<Self, poem::Error> {
        let headers = request.headers();
        for name in [header::CONTENT_ENCODING, header::CONTENT_RANGE] {
            if headers.contains_key(&name) {
                let name = if name == header::CONTENT_RANGE { "Content-Range" } else { "Content-Encoding" };
                let fault = Fault::invalid(name, "Send the whole file as it is, without this header.");
                return Err(Problem::from(fault).into());
            }
        }
        let announced =
            headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|bytes| bytes > MAX_FILE_BYTES) {
            return Err(too_large());
        }
        Ok(Self { chunks: Box::pin(body.into_bytes_stream()), held: BytesMut::new(), read_bytes: 0 })
    }

    /// Reads on without keeping anything, within reason: who is still sending when the connection closes
    /// may never see the answer.
    async fn skip(&mut self) {
        let skipping = async {
            while let Some(Ok(chunk)) = self.chunks.next().await {
                self.read_bytes += chunk.len() as u64;
                if self.read_bytes > MAX_FILE_BYTES {
                    return;
                }
            }
        };
        // Cut off when the time is up: nothing depends on it.
        let _ = tokio::time::timeout(MAX_SKIP, skipping).await;
    }

    async fn next(&mut self) -> Result<Piece, poem::Error> {
        let message = || format!("The next {PART_BYTES} bytes did not arrive within {} seconds.", MAX_WAIT.as_secs());
        let piece = tokio::time::timeout(MAX_WAIT, self.fill()).await;
        piece.map_err(|_| Problem::from(Fault::invalid("", message())))?
    }

    /// Reads until there is more than one part, or no more.
    async fn fill(&mut self) -> Result<Piece, poem::Error> {
        while self.held.len() <= PART_BYTES {
            let Some(chunk) = self.chunks.next().await else {
                return Ok(Piece { bytes: self.held.split().freeze(), is_last: true });
            };
            let broken = |_| Problem::from(Fault::invalid("", "The body could not be read to its end."));
            let chunk = chunk.map_err(broken)?;
            self.read_bytes += chunk.len() as u64;
            if self.read_bytes > MAX_FILE_BYTES {
                return Err(too_large());
            }
            self.held.extend_from_slice(&chunk);
        }
        Ok(Piece { bytes: self.held.split_to(PART_BYTES).freeze(), is_last: false })
    }
}

fn too_large() -> poem::Error {
    EdgeError::TooLarge(Limit::File).into()
}

/// What was kept of a body so far. Dropped unfinished, because the sender went away or something failed,
/// it gives the room back.
pub(super) struct Upload {
    gateway: Arc<Gateway>,
    context: Context,
    session: SessionId,
    kept: Option<ObjectId>,
}

impl Upload {
    pub(super) fn new(gateway: Arc<Gateway>, context: &Context, session: SessionId) -> Self {
        Self { gateway, context: context.clone(), session, kept: None }
    }

    /// Keeps all of a body but what one command can bring along.
    pub(super) async fn content(&mut self, mut body: Incoming) -> Result<Content, poem::Error> {
        let mut digest = Sha256::new();
        let mut part = 0;
        loop {
            let Piece { bytes, is_last } = body.next().await?;
            if is_last && part == 0 {
                return Ok(Content::Whole(bytes));
            }
            digest.update(&bytes);
            let upload = match self.keep(part, bytes).await {
                Ok(upload) => upload,
                Err(fault) => {
                    body.skip().await;
                    return Err(Problem::from(fault).into());
                }
            };
            part += 1;
            if is_last {
                return Ok(Content::Upload { upload, parts: part, sha256: hex(&digest.finalize()) });
            }
        }
    }

    async fn keep(&mut self, part: u32, bytes: Bytes) -> Result<ObjectId, Fault> {
        // The sender decides how long the whole takes: each part has its own time.
        let context = self.context.again(Append::DEADLINE);
        let command = Append { session: self.session, upload: self.kept, part, bytes };
        let appended = self.gateway.caller.call(&context, &command).await?;
        self.kept = Some(appended.upload);
        Ok(appended.upload)
    }

    /// Gives the room back before the sender is told that it was for nothing.
    pub(super) async fn give_up(mut self) {
        if let Some(giving_up) = self.giving_up() {
            giving_up.await;
        }
    }

    fn giving_up(&mut self) -> Option<impl Future<Output = ()> + Send + use<>> {
        let upload = self.kept.take()?;
        let (gateway, session) = (Arc::clone(&self.gateway), self.session);
        let context = self.context.again(Discard::DEADLINE);
        Some(async move {
            // Once it is old enough it goes in any case.
            if let Err(fault) = gateway.caller.call(&context, &Discard { session, upload }).await {
                tracing::debug!(%fault, %session, %upload, "an upload was not given up");
            }
        })
    }

    /// Makes it a file.
    pub(super) async fn finish(mut self, command: &Write) -> Result<Written, Fault> {
        let context = self.context.again(Write::DEADLINE);
        let written = self.gateway.caller.call(&context, command).await?;
        self.kept = None;
        Ok(written)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(giving_up) = self.giving_up() {
            tokio::spawn(giving_up);
        }
    }
}
