//! What a program did to the files of its session, all of it at once: a thousand files are a handful of
//! statements, while the session's row is held.

use std::collections::HashSet;

use super::{Author, Placing, lock};
use crate::{
    command::files::{FilePath, MAX_FILES},
    db::{Transaction, fault},
    fault::{Code, Fault},
    id::{ObjectId, SessionId},
};

/// Removes files that are still what the program saw, makes contents files in the place of whatever is
/// there, and gives the author's lease back. Answers how many were removed.
pub async fn exchange(
    transaction: &mut Transaction,
    session: SessionId,
    author: Author<'_>,
    removed: &[(FilePath, String)],
    written: &[Placing<'_>],
) -> Result<u64, Fault> {
    lock(transaction, session, author).await?;
    // First, since a file may have become a directory.
    let (paths, hashes): (Vec<&str>, Vec<&str>) =
        removed.iter().map(|(path, sha256)| (path.as_str(), sha256.as_str())).unzip();
    let gone = sqlx::query(
        "WITH doomed AS (UPDATE session_files f SET state = 'doomed', path = NULL \
             FROM unnest($3::text[], $4::text[]) AS gone (path, sha256) \
             WHERE f.organization_id = $1 AND f.session_id = $2 AND f.path = gone.path \
                 AND f.sha256 = decode(gone.sha256, 'hex') RETURNING f.id) \
         SELECT FROM doomed",
    )
    .bind(transaction.organization())
    .bind(session)
    .bind(paths)
    .bind(hashes)
    .execute(transaction.connection())
    .await
    .map_err(fault)?
    .rows_affected();
    let paths: Vec<&str> = written.iter().map(|placing| placing.path.as_str()).collect();
    sqlx::query(
        "UPDATE session_files SET state = 'doomed', path = NULL \
         WHERE organization_id = $1 AND session_id = $2 AND path = ANY ($3)",
    )
    .bind(transaction.organization())
    .bind(session)
    .bind(&paths)
    .execute(transaction.connection())
    .await
    .map_err(fault)?;
    let others: Vec<String> = sqlx::query_scalar(
        "SELECT path FROM session_files WHERE organization_id = $1 AND session_id = $2 AND path IS NOT NULL",
    )
    .bind(transaction.organization())
    .bind(session)
    .fetch_all(transaction.connection())
    .await
    .map_err(fault)?;
    check_places(&others, written)?;
    place(transaction, session, written).await?;
    conclude(transaction, session, author).await?;
    Ok(gone)
}

/// Refuses a file where a directory is, one within a file, and one too many.
fn check_places(others: &[String], written: &[Placing<'_>]) -> Result<(), Fault> {
    if i64::try_from(others.len() + written.len()).unwrap_or(i64::MAX) > MAX_FILES {
        return Err(Fault::new(Code::Throttled, format!("A session has at most {MAX_FILES} files.")));
    }
    let files: HashSet<&str> =
        others.iter().map(String::as_str).chain(written.iter().map(|placing| placing.path.as_str())).collect();
    let is_within =
        |path: &str| path.match_indices('/').find(|(end, _)| files.contains(&path[..*end])).map(|found| found.0);
    for path in &files {
        if let Some(end) = is_within(path) {
            let message = format!("`{}` is a file, so that nothing can stand in it.", &path[..end]);
            return Err(Fault::new(Code::Conflict, message));
        }
    }
    Ok(())
}

async fn place(transaction: &mut Transaction, session: SessionId, written: &[Placing<'_>]) -> Result<(), Fault> {
    let ids: Vec<ObjectId> = written.iter().map(|placing| placing.id).collect();
    let paths: Vec<&str> = written.iter().map(|placing| placing.path.as_str()).collect();
    let hashes: Vec<&str> = written.iter().map(|placing| placing.sha256).collect();
    let parts: Vec<i32> = written.iter().map(|placing| placing.parts.cast_signed()).collect();
    let placed = sqlx::query(
        "UPDATE session_files f SET state = 'file', path = new.path, sha256 = decode(new.sha256, 'hex'), \
             touched_at = clock_timestamp() \
         FROM unnest($3::uuid[], $4::text[], $5::text[], $6::int[]) AS new (id, path, sha256, parts) \
         WHERE f.organization_id = $1 AND f.session_id = $2 AND f.id = new.id AND f.state = 'writing' \
             AND f.parts = new.parts",
    )
    .bind(transaction.organization())
    .bind(session)
    .bind(ids.iter().map(|id| id.0).collect::<Vec<_>>())
    .bind(paths)
    .bind(hashes)
    .bind(parts)
    .execute(transaction.connection())
    .await
    .map_err(fault)?
    .rows_affected();
    if placed == written.len() as u64 { Ok(()) } else { Err(Fault::unknown("upload")) }
}

/// The room of what is left, another version, and the end of the lease. The session's row is locked.
async fn conclude(transaction: &mut Transaction, session: SessionId, author: Author<'_>) -> Result<(), Fault> {
    sqlx::query(
        "UPDATE sessions SET workspace_version = workspace_version + 1, files_bytes = ( \
                 SELECT coalesce(sum(size_bytes), 0)::bigint FROM session_files \
                 WHERE organization_id = $1 AND session_id = $2 AND state <> 'doomed'), \
             workspace_holder = CASE WHEN workspace_holder = $3 THEN NULL ELSE workspace_holder END, \
             workspace_held_until = CASE WHEN workspace_holder = $3 THEN NULL ELSE workspace_held_until END \
         WHERE organization_id = $1 AND id = $2",
    )
    .bind(transaction.organization())
    .bind(session)
    .bind(author.holder)
    .execute(transaction.connection())
    .await
    .map(drop)
    .map_err(fault)
}

/// Gives up those contents that did not become files, and their room.
pub async fn discard_all(
    transaction: &mut Transaction,
    session: SessionId,
    author: Author<'_>,
    ids: &[ObjectId],
) -> Result<(), Fault> {
    lock(transaction, session, author).await?;
    sqlx::query(
        "WITH doomed AS (UPDATE session_files SET state = 'doomed', path = NULL \
             WHERE organization_id = $1 AND session_id = $2 AND id = ANY ($3) AND state = 'writing' \
             RETURNING size_bytes) \
         UPDATE sessions SET files_bytes = files_bytes - (SELECT coalesce(sum(size_bytes), 0) FROM doomed)::bigint \
         WHERE organization_id = $1 AND id = $2",
    )
    .bind(transaction.organization())
    .bind(session)
    .bind(ids.iter().map(|id| id.0).collect::<Vec<_>>())
    .execute(transaction.connection())
    .await
    .map(drop)
    .map_err(fault)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::files::Conditions;

    #[test]
    fn nothing_stands_in_a_file_and_nothing_is_one_too_many() {
        let check = |others: &[&str], written: &[&str]| {
            let others: Vec<String> = others.iter().map(|path| (*path).to_owned()).collect();
            let paths: Vec<FilePath> = written.iter().map(|path| FilePath::parse(path).unwrap()).collect();
            let conditions = Conditions::default();
            let placing = |path| Placing { id: ObjectId::new(), path, parts: 0, sha256: "", conditions: &conditions };
            let written: Vec<Placing<'_>> = paths.iter().map(placing).collect();
            check_places(&others, &written).map_err(|fault| fault.code)
        };
        assert_eq!(check(&["a", "b/c"], &["b/d", "ab/c"]), Ok(()));
        assert_eq!(check(&["a"], &["a/b"]), Err(Code::Conflict));
        assert_eq!(check(&["a/b/c"], &["a"]), Err(Code::Conflict));
        assert_eq!(check(&[], &["a/b", "a"]), Err(Code::Conflict));
        let many: Vec<String> = (0..1_000).map(|number| format!("f{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(check(&[], &many), Ok(()));
        assert_eq!(check(&["one"], &many), Err(Code::Throttled));
    }
}
