//! Bringing contents into a session and reading them. The row comes first, in a transaction of its own:
//! whatever a lost worker leaves behind is found by it. Then the parts, while the row is held, so that
//! nobody removes them from under the writer. Only a [`db::files::place`] makes the content a file.

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use shared::{
    Context, Fault,
    bus::{Bus, files::Object},
    command::files::PART_BYTES,
    db::{
        self, Database,
        files::{Author, Reserved},
    },
    id::{ObjectId, SessionId},
};
use uuid::Uuid;

/// How much longer than their session parts are kept if nobody removes them: rows are what removes
/// them, this is for rows that are lost.
const NET: Duration = Duration::from_hours(24);

/// One session's files, for whoever acts in it.
#[derive(Clone, Copy, Debug)]
pub struct Store<'a> {
    /// Where rows are.
    pub database: &'a Database,
    /// Where parts are.
    pub bus: &'a Bus,
    /// Whose, and who acts.
    pub context: &'a Context,
    /// In which session.
    pub session: SessionId,
    /// The lease on the workspace that is written under, if one is.
    pub holder: Option<Uuid>,
}

impl Store<'_> {
    const fn author(&self) -> Author<'_> {
        Author { subject: self.context.actor.subject.as_str(), holder: self.holder }
    }

    /// Keeps a whole content, of any size that a file may have.
    pub async fn keep(&self, content: Bytes) -> Result<ObjectId, Fault> {
        let mut transaction = self.database.tenant(self.context).await?;
        let size_bytes = content.len() as u64;
        let reserved = db::files::reserve(&mut transaction, self.session, self.author(), size_bytes).await?;
        transaction.commit().await?;
        self.send_or_discard(&reserved, 0, content).await
    }

    /// Keeps the next part of an upload.
    pub async fn append(&self, upload: ObjectId, part: u32, bytes: Bytes) -> Result<ObjectId, Fault> {
        let mut transaction = self.database.tenant(self.context).await?;
        let place = (upload, part);
        let size_bytes = bytes.len() as u64;
        let reserved = db::files::extend(&mut transaction, self.session, self.author(), place, size_bytes).await?;
        transaction.commit().await?;
        self.send_or_discard(&reserved, part, bytes).await
    }

    /// Reads a whole content; `None` where it went meanwhile.
    pub async fn read(&self, id: ObjectId, parts: u32) -> Result<Option<Bytes>, Fault> {
        self.bus.object(&self.object(id), parts).await
    }

    /// Gives a content up that did not become a file, and its room back. What fails here is done once the
    /// content is old enough.
    pub async fn discard(&self, id: ObjectId) {
        let discarded = async {
            let mut transaction = self.database.tenant(self.context).await?;
            db::files::discard(&mut transaction, self.session, self.author(), id).await?;
            transaction.commit().await
        };
        if let Err(fault) = discarded.await {
            tracing::warn!(%fault, session = %self.session, object = %id, "a content was not given up; it will be");
        }
    }

    const fn object(&self, id: ObjectId) -> Object {
        Object { organization: self.context.organization, session: self.session, id }
    }

    async fn send_or_discard(&self, reserved: &Reserved, first: u32, bytes: Bytes) -> Result<ObjectId, Fault> {
        match self.send(reserved, first, bytes).await {
            Ok(()) => Ok(reserved.id),
            Err(fault) => {
                self.discard(reserved.id).await;
                Err(fault)
            }
        }
    }

    /// Sends parts, from the `first` on.
    async fn send(&self, reserved: &Reserved, first: u32, mut bytes: Bytes) -> Result<(), Fault> {
        let keep = remaining(reserved.until) + NET;
        let object = self.object(reserved.id);
        if bytes.is_empty() {
            return Ok(());
        }
        let mut transaction = self.database.tenant(self.context).await?;
        db::files::hold(&mut transaction, self.session, reserved.id).await?;
        for part in first.. {
            let next = bytes.split_to(bytes.len().min(PART_BYTES));
            self.bus.put_part(&object, part, next, keep).await?;
            if bytes.is_empty() {
                break;
            }
        }
        transaction.give_up().await
    }
}

fn remaining(until: DateTime<Utc>) -> Duration {
    (until - Utc::now()).to_std().unwrap_or_default()
}
