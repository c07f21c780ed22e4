//! A session's files on their way to its workspace and back. Rows are the truth: the directory is
//! brought to them, and what a program changed becomes contents first and files then, all of it in the
//! transaction of the call, or nothing.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use shared::{
    Code, Context, Fault,
    bus::files::Object,
    command::{
        files::{Conditions, File, FilePath, MAX_FILE_BYTES, MAX_FILES, PART_BYTES, Tags, parts_of},
        tools::FileChanges,
    },
    db::{
        self,
        files::{Author, Placing},
    },
    id::{ObjectId, SessionId},
};

use super::lease::Lease;
use crate::{
    files::store::Store,
    pools::Tool,
    scope::Scope,
    upstream::{Collected, Known, Most, Turn},
};

/// Files under way at once.
const AT_ONCE: usize = 4;
/// Of those that the program changed, each of which is whole in memory.
const TAKEN_AT_ONCE: usize = 2;
/// How often a directory is brought anew because files changed meanwhile.
const ATTEMPTS: usize = 3;
/// The most names of skipped things that are told.
const MAX_SKIPPED: usize = 100;

/// One call's exchange of files.
#[derive(Debug)]
pub(super) struct Exchange<'a> {
    parts: &'a Tool,
    context: &'a Context,
    session: SessionId,
    holder: uuid::Uuid,
    turn: Turn,
}

/// What the directory was brought to.
#[derive(Debug)]
pub(super) struct Before {
    /// Contents by path: object and SHA-256.
    files: HashMap<String, String>,
    quota_bytes: u64,
}

/// What a call did to the files, not yet kept.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Contents that lie in the store and are no files yet.
    written: Vec<(FilePath, ObjectId, Known)>,
    /// Paths, and what was there before.
    removed: Vec<(FilePath, String)>,
    skipped: Vec<String>,
}

impl<'a> Exchange<'a> {
    pub(super) fn new(scope: &Scope<'a, Tool>, session: SessionId, lease: &Lease, turn: Turn) -> Self {
        Self { parts: scope.parts, context: scope.context, session, holder: lease.holder(), turn }
    }

    /// Brings the directory to what the session's files are now.
    pub(super) async fn bring(&self) -> Result<Before, Fault> {
        for _ in 0..ATTEMPTS {
            match self.try_bring().await {
                Ok(Some(before)) => return Ok(before),
                Ok(None) => {}
                // The host was started anew since the connection to it was last used.
                Err(fault) if fault.code == Code::UpstreamFailed => tracing::info!(%fault, "brought once more"),
                Err(fault) => return Err(fault),
            }
        }
        Err(Fault::unavailable("The session's workspace", "its files change all the time"))
    }

    /// `None` where a file went while it was read.
    async fn try_bring(&self) -> Result<Option<Before>, Fault> {
        let mut transaction = self.parts.database.tenant(self.context).await?;
        let usable = db::sessions::usable(&mut transaction, self.session, &self.context.actor.subject).await?;
        let files = db::files::manifest(&mut transaction, self.session).await?;
        drop(transaction);
        let known: Vec<Known> = files.iter().map(|(_, file)| known(file)).collect();
        let missing = self.turn.bring(&known).await?;
        let mut by_path: HashMap<&str, &(ObjectId, File)> =
            files.iter().map(|row| (row.1.path.as_str(), row)).collect();
        let wanted = missing.iter().map(|path| by_path.remove(path.as_str()).cloned());
        let wanted: Option<Vec<(ObjectId, File)>> = wanted.collect();
        let wanted = wanted.ok_or_else(|| Fault::internal("the host misses what it was not told of"))?;
        let puts = wanted.into_iter().map(|(object, file)| async move { self.put(object, &file).await });
        let put: Vec<bool> = stream::iter(puts).buffer_unordered(AT_ONCE).try_collect().await?;
        let quota_bytes = u64::try_from(usable.files_quota_bytes).unwrap_or_default();
        let files = known.into_iter().map(|file| (file.path, file.sha256)).collect();
        Ok(put.iter().all(|is_whole| *is_whole).then_some(Before { files, quota_bytes }))
    }

    async fn put(&self, id: ObjectId, file: &File) -> Result<bool, Fault> {
        let path = file.path.as_str();
        let object = Object { organization: self.context.organization, session: self.session, id };
        if file.size_bytes == 0 {
            return self.turn.put(path, 0, &Bytes::new()).await.map(|()| true);
        }
        let mut offset = 0;
        for part in 0..parts_of(file.size_bytes) {
            let Some(bytes) = self.parts.bus.part(&object, part).await? else { return Ok(false) };
            self.turn.put(path, offset, &bytes).await?;
            offset += bytes.len() as u64;
        }
        Ok(offset == file.size_bytes)
    }

    /// Takes what the program changed into the store.
    pub(super) async fn take(self, before: Before) -> Result<Changes, Fault> {
        let files = MAX_FILES.unsigned_abs();
        let most = Most { files, bytes: before.quota_bytes, file_bytes: MAX_FILE_BYTES };
        let (changed, removed, skipped) = match self.turn.collect(most).await.map_err(not_kept)? {
            Collected::Changes { changed, removed, skipped } => (changed, removed, skipped),
            Collected::Excess { excess, path } => return Err(excessive(&excess, path.as_deref(), most)),
        };
        let mut changes = Changes { skipped, ..Changes::default() };
        for path in removed {
            if let (Ok(parsed), Some(sha256)) = (FilePath::parse(&path), before.files.get(&path)) {
                changes.removed.push((parsed, sha256.clone()));
            }
        }
        let mut to_keep = Vec::new();
        for file in changed {
            match FilePath::parse(&file.path) {
                Ok(path) => to_keep.push((path, file)),
                Err(_) => changes.skipped.push(file.path),
            }
        }
        let exchange = &self;
        let keeping = to_keep.into_iter().map(|(path, file)| async move {
            let id = exchange.keep(&file).await?;
            Ok((path, id, file))
        });
        // All of them end: what was kept of those beside one that failed is given up.
        let ended: Vec<Result<_, Fault>> = stream::iter(keeping).buffer_unordered(TAKEN_AT_ONCE).collect().await;
        let mut failed = None;
        for one in ended {
            match one {
                Ok(kept) => changes.written.push(kept),
                Err(fault) => failed = failed.or(Some(fault)),
            }
        }
        let Some(fault) = failed else { return Ok(changes) };
        for (_, id, _) in changes.written {
            self.store().discard(id).await;
        }
        Err(not_kept(fault))
    }

    async fn keep(&self, file: &Known) -> Result<ObjectId, Fault> {
        let mut content = BytesMut::new();
        while (content.len() as u64) < file.size {
            let left = usize::try_from(file.size - content.len() as u64).unwrap_or(usize::MAX);
            let piece = self.turn.get(&file.path, content.len() as u64, left.min(PART_BYTES)).await?;
            content.extend_from_slice(&piece);
        }
        self.store().keep(content.freeze()).await
    }

    const fn store(&self) -> Store<'_> {
        Store {
            database: &self.parts.database,
            bus: &self.parts.bus,
            context: self.context,
            session: self.session,
            holder: Some(self.holder),
        }
    }
}

/// Makes the session's files what the program left, in the call's transaction, and gives the lease back
/// in it.
pub(super) async fn keep(
    scope: &mut Scope<'_, Tool>,
    session: SessionId,
    lease: &Lease,
    changes: Changes,
) -> Result<FileChanges, Fault> {
    let mut told = FileChanges { skipped: changes.skipped, ..FileChanges::default() };
    told.skipped.truncate(MAX_SKIPPED);
    if !told.skipped.is_empty() {
        scope.notes.detail("files_skipped", told.skipped.len());
    }
    if changes.written.is_empty() && changes.removed.is_empty() {
        return Ok(told);
    }
    let objects: Vec<ObjectId> = changes.written.iter().map(|(_, id, _)| *id).collect();
    match make_so(scope, session, lease, changes.written, changes.removed).await {
        Ok((written, removed)) => {
            (told.written, told.removed) = (written, removed);
            scope.notes.detail("files_written", written);
            scope.notes.detail("files_removed", removed);
            Ok(told)
        }
        Err(fault) => {
            give_up(scope, session, lease, objects);
            Err(not_kept(fault))
        }
    }
}

async fn make_so(
    scope: &mut Scope<'_, Tool>,
    session: SessionId,
    lease: &Lease,
    written: Vec<(FilePath, ObjectId, Known)>,
    removed: Vec<(FilePath, String)>,
) -> Result<(u32, u32), Fault> {
    let author = Author { subject: &scope.context.actor.subject, holder: Some(lease.holder()) };
    let transaction = scope.write().await?;
    let mut counts = (0, 0);
    // First, since a file may have become a directory.
    for (path, sha256) in removed {
        let as_it_was = Conditions { if_match: Some(Tags::OneOf(vec![sha256])), if_none_match: None };
        match db::files::remove(transaction, session, author, &path, &as_it_was).await {
            Ok(()) => counts.1 += 1,
            // Its member replaced or removed it meanwhile, which is later than what the program saw.
            Err(fault) if matches!(fault.code, Code::Stale | Code::Unknown) => {}
            Err(fault) => return Err(fault),
        }
    }
    for (path, id, file) in written {
        let conditions = &Conditions::default();
        let parts = parts_of(file.size);
        let placing = Placing { id, path: &path, parts, sha256: &file.sha256, conditions };
        db::files::place(transaction, session, author, placing).await?;
        counts.0 += 1;
    }
    lease.release_within(transaction).await?;
    Ok(counts)
}

/// Gives contents up that did not become files, once the transaction that was to make them so is gone.
fn give_up(scope: &Scope<'_, Tool>, session: SessionId, lease: &Lease, objects: Vec<ObjectId>) {
    let (database, bus, context) = (scope.parts.database.clone(), scope.parts.bus.clone(), scope.context.clone());
    let holder = Some(lease.holder());
    tokio::spawn(async move {
        let store = Store { database: &database, bus: &bus, context: &context, session, holder };
        for object in objects {
            store.discard(object).await;
        }
    });
}

fn known(file: &File) -> Known {
    Known { path: file.path.as_str().to_owned(), size: file.size_bytes, sha256: file.sha256.clone() }
}

/// What a call ends with whose files could not be kept. The tool ran and said what it did, so nothing
/// may be promised of a repetition. Where the files themselves do not fit, that is the program's failure
/// (502, as with a result that is too large), and told why; where host, store or database failed, nobody
/// can say what will be found.
fn not_kept(fault: Fault) -> Fault {
    match fault.code {
        Code::Throttled | Code::Conflict => does_not_fit(&fault.message),
        Code::Timeout => fault,
        _ => {
            tracing::warn!(%fault, "what a program changed was not kept");
            let message = "The tool ran, but what it did to the session's files could not be kept.";
            Fault::new(Code::OutcomeUnknown, message)
        }
    }
}

fn does_not_fit(why: &str) -> Fault {
    let message = format!("The tool ran, but nothing of what it did to the session's files was kept. {why}");
    Fault::new(Code::UpstreamFailed, message)
}

fn excessive(what: &str, path: Option<&str>, most: Most) -> Fault {
    let Most { files, bytes, file_bytes } = most;
    does_not_fit(&match (what, path) {
        ("file", Some(path)) => {
            let path = crate::upstream::printable(path);
            format!("`{path}` is larger than {file_bytes} bytes.")
        }
        ("bytes", _) => format!("They take more than the session's {bytes} bytes."),
        _ => format!("They are more than {files}."),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_do_not_fit_are_the_programs_failure_and_others_nobodys() {
        let most = Most { files: 1_000, bytes: 64, file_bytes: 16 };
        for (excess, path, why) in [
            ("file", Some("a\u{1b}b"), "`a b` is larger than 16 bytes."),
            ("bytes", None, "more than the session's 64 bytes."),
            ("files", None, "more than 1000."),
        ] {
            let fault = excessive(excess, path, most);
            assert_eq!(fault.code, Code::UpstreamFailed);
            assert!(fault.message.ends_with(why), "{fault}");
        }
        assert_eq!(not_kept(Fault::new(Code::Throttled, "No room.")).code, Code::UpstreamFailed);
        for code in [Code::Unavailable, Code::Internal, Code::Unknown, Code::UpstreamFailed] {
            assert_eq!(not_kept(Fault::new(code, "x")).code, Code::OutcomeUnknown, "{code:?}");
        }
    }
}
