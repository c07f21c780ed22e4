//! A file on its way out: one part after the other, as the client reads. All of them are of the content
//! that was opened: if it goes meanwhile, or is not what its row says, the body breaks off rather than
//! end as if it were whole.

use std::{io, sync::Arc};

use bytes::Bytes;
use futures::stream;
use poem::{
    Body, Response,
    http::{HeaderValue, StatusCode, header},
};
use sha2::{Digest, Sha256};
use shared::{
    Context, Fault,
    command::{
        Command,
        files::{File, Opened, Read, parts_of},
    },
    hex,
    id::{ObjectId, SessionId},
};

use crate::http::{Gateway, answer::Answer};

/// Adds the tag of the content.
pub(super) fn tagged(file: &File, answer: Answer) -> Answer {
    let mut response = answer?;
    let tag = HeaderValue::from_str(&format!("\"{}\"", file.sha256)).map_err(Fault::internal)?;
    response.headers_mut().insert(header::ETAG, tag);
    Ok(response)
}

/// It is what the client has.
pub(super) fn unchanged(file: &File) -> Answer {
    tagged(
        file,
        Ok(Response::builder().status(StatusCode::NOT_MODIFIED).header(header::CACHE_CONTROL, CACHING).finish()),
    )
}

/// Kept by the client alone, and asked about each time.
const CACHING: HeaderValue = HeaderValue::from_static("private, no-cache");

/// Bytes of somebody's making, which no browser shall show or run as anything.
pub(super) fn described(file: &File, body: impl Into<Body>) -> Answer {
    let response = Response::builder()
        .header(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))
        .header(header::CONTENT_LENGTH, HeaderValue::from(file.size_bytes))
        .header(header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment"))
        .header(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"))
        .header(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox"))
        .header(header::CACHE_CONTROL, CACHING)
        .body(body);
    tagged(file, Ok(response))
}

/// The content, read as it is sent.
pub(super) fn body(gateway: Arc<Gateway>, context: &Context, session: SessionId, opened: Opened) -> Body {
    let Opened { file, object, first } = opened;
    let parts = parts_of(file.size_bytes);
    if parts <= 1 {
        return first.into();
    }
    let (first, digest) = (Some(first), Sha256::new());
    let context = context.clone();
    let reading = Reading { gateway, context, session, object, first, part: 0, parts, digest, sha256: file.sha256 };
    Body::from_bytes_stream(stream::try_unfold(reading, Reading::next))
}

/// A content that is being read.
struct Reading {
    gateway: Arc<Gateway>,
    context: Context,
    session: SessionId,
    object: ObjectId,
    /// Came with the opening.
    first: Option<Bytes>,
    /// Which comes next, of how many.
    part: u32,
    parts: u32,
    /// Of what was read so far, and what it must be in the end.
    digest: Sha256,
    sha256: String,
}

impl Reading {
    async fn next(mut self) -> io::Result<Option<(Bytes, Self)>> {
        if self.part == self.parts {
            return Ok(None);
        }
        let bytes = match self.first.take() {
            Some(first) => first,
            None => self.read().await.map_err(|fault| self.broken(&fault))?,
        };
        self.digest.update(&bytes);
        self.part += 1;
        if self.part == self.parts && hex(&self.digest.clone().finalize()) != self.sha256 {
            return Err(self.broken(&Fault::internal("a file's parts are not what its row says")));
        }
        Ok(Some((bytes, self)))
    }

    async fn read(&self) -> Result<Bytes, Fault> {
        // The client decides how long the whole takes: each part has its own time.
        let context = self.context.again(Read::DEADLINE);
        let command = Read { session: self.session, object: self.object, part: self.part };
        Ok(self.gateway.caller.call(&context, &command).await?.bytes)
    }

    /// Ends the body in the middle; the client sees that it is not whole.
    fn broken(&self, fault: &Fault) -> io::Error {
        metrics::counter!("switchboard_files_broken_off_total").increment(1);
        tracing::warn!(%fault, request_id = self.context.request_id, session = %self.session, "a file broke off");
        io::Error::other(fault.to_string())
    }
}
