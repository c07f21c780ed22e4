//! Files of a session's workspace: for the member whose session it is, and for the calls of programs in
//! it ([`store`]). What was replaced or given up is removed by [`burying`].

use bytes::Bytes;
use sha2::{Digest, Sha256};
use shared::{
    Code, Fault,
    bus::files::Object,
    command::{
        Page,
        files::{
            Append, Appended, Conditions, Content, Discard, File, FilePath, List, MAX_PATH_BYTES, Open, Opened,
            PART_BYTES, Part, Read, Remove, Write, Written, parts_of,
        },
    },
    db::{
        self,
        files::{Author, Placing},
        sessions::Place,
    },
    hex,
    id::{ObjectId, SessionId},
};

use crate::{
    announce::Announcement,
    pools::Session,
    run::Run,
    scope::Scope,
    sessions::hooks::{self, Event},
};

pub mod burying;
pub mod store;

use store::Store;

/// A session's files, as whoever sent the command may write them.
const fn store<'a>(scope: &Scope<'a, Session>, session: SessionId) -> Store<'a> {
    Store { database: &scope.parts.database, bus: &scope.parts.bus, context: scope.context, session, holder: None }
}

const fn author<'a>(scope: &Scope<'a, Session>) -> Author<'a> {
    Author { subject: scope.context.actor.subject.as_str(), holder: None }
}

/// Refuses whoever may not use the session now.
async fn usable(scope: &mut Scope<'_, Session>, session: SessionId) -> Result<(), Fault> {
    scope.notes.resource("session", &session);
    let subject = &scope.context.actor.subject;
    db::sessions::usable(scope.read().await?, session, subject).await.map(drop)
}

/// Notes that the session is used, unless that was noted a moment ago. Last of all: this holds the session's
/// row until the command has ended.
async fn used(scope: &mut Scope<'_, Session>, session: SessionId) -> Result<(), Fault> {
    let pending = hooks::pending(Event::Touched);
    if db::sessions::touch(scope.read().await?, session, &pending).await? {
        scope.write().await?;
        scope.announce(Announcement::Sessions);
    }
    Ok(())
}

/// What is left of a content goes once the command's transaction is kept.
fn leaves_something(scope: &mut Scope<'_, Session>, session: SessionId) {
    let place = Place { organization_id: scope.context.organization, id: session };
    scope.announce(Announcement::Leftovers(place));
}

impl Run for List {
    type Parts = Session;

    async fn run(self, scope: &mut Scope<'_, Session>) -> Result<Page<File>, Fault> {
        let fits = |text: &String| text.len() <= MAX_PATH_BYTES && !text.contains('\0');
        if !self.prefix.as_ref().is_none_or(fits) {
            return Err(Fault::invalid(
                "prefix",
                format!("Use the beginning of a path: at most {MAX_PATH_BYTES} bytes."),
            ));
        }
        usable(scope, self.session).await?;
        let files = db::files::list(scope.read().await?, &self).await?;
        used(scope, self.session).await?;
        Ok(files)
    }
}

impl Run for Open {
    type Parts = Session;

    async fn run(self, scope: &mut Scope<'_, Session>) -> Result<Opened, Fault> {
        usable(scope, self.session).await?;
        scope.notes.detail("path", self.path.as_str());
        let mut missed = None;
        loop {
            let (object, file) = db::files::get(scope.read().await?, self.session, &self.path).await?;
            if missed == Some(object) {
                // Its row is there, and looked at after the part was missed.
                return Err(Fault::internal(format!("a part of {object} is lost")));
            }
            let sha256 = Some(file.sha256.as_str());
            if self.conditions.if_match.as_ref().is_some_and(|tags| !tags.name(sha256)) {
                return Err(Fault::new(Code::Stale, "It is not what you read before."));
            }
            let is_known = self.conditions.if_none_match.as_ref().is_some_and(|tags| tags.name(sha256));
            let is_empty = self.head || is_known || file.size_bytes == 0;
            let first = if is_empty { Some(Bytes::new()) } else { part(scope, self.session, object, 0).await? };
            if let Some(first) = first {
                used(scope, self.session).await?;
                return Ok(Opened { file, object, first });
            }
            // Another content has taken its place a moment ago, or none.
            missed = Some(object);
        }
    }
}

impl Run for Read {
    type Parts = Session;

    async fn run(self, scope: &mut Scope<'_, Session>) -> Result<Part, Fault> {
        usable(scope, self.session).await?;
        let parts = db::files::parts(scope.read().await?, self.session, self.object).await?;
        if self.part >= parts {
            return Err(Fault::invalid("part", format!("This content has {parts} parts.")));
        }
        let bytes = part(scope, self.session, self.object, self.part).await?.ok_or_else(|| Fault::unknown("file"))?;
        used(scope, self.session).await?;
        Ok(Part { bytes })
    }
}

/// One part, unless it has gone with its content.
async fn part(
    scope: &mut Scope<'_, Session>,
    session: SessionId,
    id: ObjectId,
    part: u32,
) -> Result<Option<Bytes>, Fault> {
    scope.give_up().await;
    let object = Object { organization: scope.context.organization, session, id };
    scope.parts.bus.part(&object, part).await
}

impl Run for Append {
    type Parts = Session;

    async fn run(self, scope: &mut Scope<'_, Session>) -> Result<Appended, Fault> {
        scope.notes.resource("session", &self.session);
        if self.bytes.is_empty() || self.bytes.len() > PART_BYTES {
            return Err(Fault::invalid("bytes", format!("A part has 1 to {PART_BYTES} bytes.")));
        }
        let store = store(scope, self.session);
        let upload = match (self.upload, self.part) {
            (None, 0) => store.keep(self.bytes).await?,
            (Some(upload), part @ 1..) => store.append(upload, part, self.bytes).await?,
            _ => return Err(Fault::invalid("upload", "The first part begins an upload, the others belong to one.")),
        };
        if used(scope, self.session).await.is_err() {
            // The part is kept: whoever sent it must learn of what.
            scope.give_up().await;
        }
        Ok(Appended { upload })
    }
}

/// Refuses a write in vain before anything is kept. Whether it holds is decided where the file is placed.
async fn holds(
    scope: &mut Scope<'_, Session>,
    session: SessionId,
    path: &FilePath,
    conditions: &Conditions,
) -> Result<(), Fault> {
    if *conditions == Conditions::default() {
        return Ok(());
    }
    usable(scope, session).await?;
    let there = db::files::get(scope.read().await?, session, path).await;
    scope.give_up().await;
    let sha256 = match there {
        Ok((_, file)) => Some(file.sha256),
        Err(fault) if fault.code == Code::Unknown => None,
        Err(fault) => return Err(fault),
    };
    conditions.check(sha256.as_deref())
}

impl Run for Write {
    type Parts = Session;

    async fn run(self, scope: &mut Scope<'_, Session>) -> Result<Written, Fault> {
        scope.notes.resource("session", &self.session);
        scope.notes.detail("path", self.path.as_str());
        let store = store(scope, self.session);
        let (id, parts, sha256) = match self.content {
            Content::Whole(bytes) if bytes.len() > PART_BYTES => {
                return Err(Fault::invalid(
                    "content",
                    format!("What is larger than {PART_BYTES} bytes comes in parts."),
                ));
            }
            Content::Whole(bytes) => {
                holds(scope, self.session, &self.path, &self.conditions).await?;
                let sha256 = hex(&Sha256::digest(&bytes));
                let parts = parts_of(bytes.len() as u64);
                (store.keep(bytes).await?, parts, sha256)
            }
            Content::Upload { upload, parts, sha256 } => (upload, parts, sha256),
        };
        if sha256.len() != 64 || !sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Fault::invalid("sha256", "Use 64 hexadecimal digits."));
        }
        let placing = Placing { id, path: &self.path, parts, sha256: &sha256, conditions: &self.conditions };
        let author = author(scope);
        let placed = db::files::place(scope.write().await?, self.session, author, placing).await;
        let Ok(written) = &placed else {
            // Its locks would keep the room from being given back.
            scope.give_up().await;
            store.discard(id).await;
            return placed;
        };
        used(scope, self.session).await?;
        scope.notes.detail("sha256", written.file.sha256.as_str());
        scope.notes.detail("bytes", written.file.size_bytes);
        if !written.created {
            leaves_something(scope, self.session);
        }
        placed
    }
}

impl Run for Remove {
    type Parts = Session;

    async fn run(self, scope: &mut Scope<'_, Session>) -> Result<(), Fault> {
        scope.notes.resource("session", &self.session);
        scope.notes.detail("path", self.path.as_str());
        let author = author(scope);
        db::files::remove(scope.write().await?, self.session, author, &self.path, &self.conditions).await?;
        used(scope, self.session).await?;
        leaves_something(scope, self.session);
        Ok(())
    }
}

impl Run for Discard {
    type Parts = Session;

    async fn run(self, scope: &mut Scope<'_, Session>) -> Result<(), Fault> {
        scope.notes.resource("session", &self.session);
        let author = author(scope);
        db::files::discard(scope.write().await?, self.session, author, self.upload).await?;
        leaves_something(scope, self.session);
        Ok(())
    }
}
