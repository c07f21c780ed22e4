//! The bytes of files, in the stream FILES: one message for each part of a content. Whose a part is
//! stands in PostgreSQL: its row is there before the part and goes after it. Not the client library's
//! object store, which needs consumers and purges, and no role may have either
//! (docs/adr/0016-files-are-rows-and-parts.md).

use std::time::Duration;

use async_nats::{HeaderMap, jetstream::context::PublishError};
use base64::{Engine as _, prelude::BASE64_STANDARD as STANDARD};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};

use super::{Bus, streams::FILES, subject};
use crate::{
    command::files::PART_BYTES,
    fault::{Code, Fault},
    id::{ObjectId, OrganizationId, SessionId},
};

/// A content, as its parts are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Object {
    /// Whose.
    pub organization: OrganizationId,
    /// In which session.
    pub session: SessionId,
    /// Which.
    pub id: ObjectId,
}

/// How long a part's tombstone stays: what the server allows at least.
const TOMBSTONE: Duration = Duration::from_secs(1);
/// Tombstones under way at once.
const BURIED_AT_ONCE: usize = 8;
/// JetStream: `maximum bytes exceeded`.
const STREAM_FULL: &str = "maximum bytes exceeded";
/// When to look again whether there is room.
const ROOM_LATER: Duration = Duration::from_mins(1);

impl Bus {
    /// Keeps one part, for at most `keep`: whatever becomes of its row, it goes some day. Nothing was
    /// kept, or may go with its row, where this fails.
    pub async fn put_part(&self, object: &Object, part: u32, bytes: Bytes, keep: Duration) -> Result<(), Fault> {
        if bytes.is_empty() || bytes.len() > PART_BYTES {
            return Err(Fault::internal(format!("a part of {} bytes", bytes.len())));
        }
        self.write_part(object, part, bytes, keep).await
    }

    /// Reads one part; `None` once it is gone.
    pub async fn part(&self, object: &Object, part: u32) -> Result<Option<Bytes>, Fault> {
        self.ensure_connected()?;
        self.read_part(object, part).await.map_err(|cause| Fault::unavailable("The store of files", cause))
    }

    /// Reads a whole content; `None` if any of it is gone.
    pub async fn object(&self, object: &Object, parts: u32) -> Result<Option<Bytes>, Fault> {
        let mut whole = BytesMut::new();
        for part in 0..parts {
            match self.part(object, part).await? {
                Some(bytes) if parts == 1 => return Ok(Some(bytes)),
                Some(bytes) => whole.extend_from_slice(&bytes),
                None => return Ok(None),
            }
        }
        Ok(Some(whole.freeze()))
    }

    /// Removes every part: each is replaced by nothing, which goes by itself within moments. May be
    /// repeated.
    pub async fn remove_parts(&self, object: &Object, parts: u32) -> Result<(), Fault> {
        let mut buried = stream::iter(0..parts)
            .map(|part| self.write_part(object, part, Bytes::new(), TOMBSTONE))
            .buffer_unordered(BURIED_AT_ONCE);
        while let Some(done) = buried.next().await {
            done?;
        }
        Ok(())
    }

    async fn write_part(&self, object: &Object, part: u32, bytes: Bytes, keep: Duration) -> Result<(), Fault> {
        self.ensure_connected()?;
        let mut headers = HeaderMap::new();
        headers.insert("Nats-TTL", keep.as_secs().max(1).to_string().as_str());
        let subject = subject::file_part(object, part);
        let stored = async { self.0.jetstream.publish_with_headers(subject, headers, bytes).await?.await };
        stored.await.map(drop).map_err(|cause| refused(&cause))
    }

    async fn read_part(&self, object: &Object, part: u32) -> anyhow::Result<Option<Bytes>> {
        #[derive(serde::Deserialize)]
        struct Answer {
            message: Option<Stored>,
            error: Option<Refused>,
        }
        #[derive(serde::Deserialize)]
        struct Stored {
            #[serde(default)]
            data: String,
        }
        #[derive(serde::Deserialize)]
        struct Refused {
            code: u16,
            #[serde(default)]
            description: String,
        }
        const NO_SUCH_MESSAGE: u16 = 404;

        let question = serde_json::json!({ "last_by_subj": subject::file_part(object, part) });
        let api = subject::api(&format!("STREAM.MSG.GET.{FILES}"));
        let answer = self.0.client.request(api, serde_json::to_vec(&question)?.into()).await?;
        let data = match serde_json::from_slice(&answer.payload)? {
            Answer { message: Some(stored), .. } => STANDARD.decode(stored.data)?,
            // A stream that does not exist (yet, after a loss) is no missing part.
            Answer { error: Some(Refused { code: NO_SUCH_MESSAGE, description }), .. }
                if description.contains("message") =>
            {
                Vec::new()
            }
            Answer { error: Some(Refused { code, description }), .. } => anyhow::bail!("{code} {description}"),
            Answer { .. } => anyhow::bail!("no answer of JetStream's"),
        };
        // A tombstone is empty; a part never is.
        Ok((!data.is_empty()).then(|| data.into()))
    }
}

fn refused(cause: &PublishError) -> Fault {
    use std::error::Error as _;
    let is_full = cause.source().is_some_and(|source| source.to_string().contains(STREAM_FULL));
    if is_full {
        tracing::error!("the stream of files is full");
        let message = "The deployment's room for files is used up; nothing was kept. Try again later.";
        return Fault::new(Code::Unavailable, message).after(ROOM_LATER);
    }
    Fault::unavailable("The store of files", cause)
}
