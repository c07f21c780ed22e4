//! A session's files on their way to its workspace and back. Rows are the truth: the directory is
//! brought to them, and what a program changed becomes contents first and files then, all of it in the
//! transaction of the call, or nothing.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use sha2::{Digest as _, Sha256};
use shared::{
    Code, Context, Fault,
    bus::files::Object,
    command::{
        files::{Conditions, File, FilePath, MAX_FILE_BYTES, MAX_FILES, PART_BYTES, parts_of},
        tools::FileChanges,
    },
    db::{
        self, Database,
        files::{Author, Placing},
    },
    hex,
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
/// And of the characters of one.
const MAX_SKIPPED_CHARS: usize = 200;

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
#[derive(Debug)]
pub(super) struct Changes {
    /// Contents that lie in the store and are no files yet.
    written: Vec<(FilePath, ObjectId, Known)>,
    contents: Contents,
    /// Paths, and what was there before.
    removed: Vec<(FilePath, String)>,
    skipped: Vec<String>,
}

impl Changes {
    pub(super) const fn is_nothing(&self) -> bool {
        self.written.is_empty() && self.removed.is_empty()
    }
}

/// Contents of a call. Those that are no files when it is over are given up, however it ended: looked at
/// once its transaction is, for which the row's lock waits.
#[derive(Debug)]
struct Contents {
    database: Database,
    context: Context,
    session: SessionId,
    ids: Mutex<Vec<ObjectId>>,
}

impl Contents {
    fn add(&self, id: ObjectId) {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).push(id);
    }
}

impl Drop for Contents {
    fn drop(&mut self) {
        let ids = std::mem::take(&mut *self.ids.lock().unwrap_or_else(PoisonError::into_inner));
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if ids.is_empty() {
            return;
        }
        let (database, context, session) = (self.database.clone(), self.context.clone(), self.session);
        runtime.spawn(async move {
            let given_up = async {
                // The lease may be another's by now, and this is still ours to clear.
                let author = Author { subject: &context.actor.subject, holder: None };
                let mut transaction = database.tenant(&context).await?;
                db::files::discard_all(&mut transaction, session, author, &ids).await?;
                transaction.commit().await
            };
            match given_up.await {
                Ok(()) => {}
                // Its end takes all contents along.
                Err(fault) if matches!(fault.code, Code::Conflict | Code::Unknown) => {}
                Err(fault) => tracing::warn!(%fault, %session, "contents were not given up; they will be"),
            }
        });
    }
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
        let (differing, removed, skipped) = match self.turn.collect(most).await.map_err(not_kept)? {
            Collected::Changes { changed, removed, skipped } => (changed, removed, skipped),
            Collected::Excess { excess, path } => return Err(excessive(&excess, path.as_deref(), most)),
        };
        let (database, context) = (self.parts.database.clone(), self.context.clone());
        let contents = Contents { database, context, session: self.session, ids: Mutex::default() };
        let mut changes = Changes { written: Vec::new(), contents, removed: Vec::new(), skipped };
        for path in removed {
            if let (Ok(parsed), Some(sha256)) = (FilePath::parse(&path), before.files.get(&path)) {
                changes.removed.push((parsed, sha256.clone()));
            }
        }
        let mut to_keep = Vec::new();
        for file in differing {
            match FilePath::parse(&file.path) {
                Ok(path) => to_keep.push((path, file)),
                Err(_) => changes.skipped.push(file.path),
            }
        }
        let (exchange, contents) = (&self, &changes.contents);
        let keeping = to_keep.into_iter().map(|(path, file)| async move {
            let id = exchange.keep(&file).await?;
            contents.add(id);
            Ok((path, id, file))
        });
        changes.written =
            stream::iter(keeping).buffer_unordered(TAKEN_AT_ONCE).try_collect().await.map_err(not_kept)?;
        Ok(changes)
    }

    async fn keep(&self, file: &Known) -> Result<ObjectId, Fault> {
        let mut content = BytesMut::new();
        while (content.len() as u64) < file.size {
            let left = usize::try_from(file.size - content.len() as u64).unwrap_or(usize::MAX);
            let piece = self.turn.get(&file.path, content.len() as u64, left.min(PART_BYTES)).await?;
            content.extend_from_slice(&piece);
        }
        if hex(&Sha256::digest(&content)) != file.sha256 {
            return Err(Fault::internal("a collected file is not what was told"));
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
    let skipped = changes.skipped.iter().take(MAX_SKIPPED).map(|name| name.chars().take(MAX_SKIPPED_CHARS).collect());
    let mut told = FileChanges { skipped: skipped.collect(), ..FileChanges::default() };
    if !told.skipped.is_empty() {
        scope.notes.detail("files_skipped", told.skipped.len());
    }
    if changes.is_nothing() {
        return Ok(told);
    }
    let author = Author { subject: &scope.context.actor.subject, holder: Some(lease.holder()) };
    let conditions = Conditions::default();
    let placing: Vec<Placing<'_>> = changes
        .written
        .iter()
        .map(|(path, id, Known { size, sha256, .. })| Placing {
            id: *id,
            path,
            parts: parts_of(*size),
            sha256,
            conditions: &conditions,
        })
        .collect();
    let transaction = scope.write().await.map_err(not_kept)?;
    let removed =
        db::files::exchange(transaction, session, author, &changes.removed, &placing).await.map_err(not_kept)?;
    lease.is_given_back();
    told.written = u32::try_from(placing.len()).unwrap_or(u32::MAX);
    told.removed = u32::try_from(removed).unwrap_or(u32::MAX);
    scope.notes.detail("files_written", told.written);
    scope.notes.detail("files_removed", told.removed);
    Ok(told)
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
