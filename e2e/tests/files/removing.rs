//! What goes: with its session, with what replaces it, and when nobody goes on with it.

use std::time::Duration;

use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::{PART, Shared, Workspace, content, in_stream, settled};
use crate::sessions;

async fn run(system: &Shared, sql: &str, id: &str) -> u64 {
    let database = system.database("superuser").await;
    let query = sqlx::query(AssertSqlSafe(sql.to_owned())).bind(id.parse::<Uuid>().expect("a uuid"));
    let rows = query.execute(&database).await.expect("the statement runs").rows_affected();
    database.close().await;
    rows
}

pub(crate) async fn a_session_that_ends_or_expires_leaves_nothing_in_the_stream(system: Shared) {
    let tenant = system.organization().await;
    let (ended, expired, staying) =
        (Workspace::open(&tenant).await, Workspace::open(&tenant).await, Workspace::open(&tenant).await);
    for (number, workspace) in [&ended, &expired, &staying].into_iter().enumerate() {
        for (name, size) in [("a", 3 * PART), ("b/c", 10), ("d", 0)] {
            workspace.write(name, &content(number as u64, size)).await;
        }
    }
    assert_eq!(settled(&system, tenant.id).await, 3 * 4);
    assert_eq!(tenant.user.delete(&sessions::item(&ended.session)).await.status, 204);
    let past = "UPDATE sessions SET touched_at = now() - make_interval(secs => idle_seconds + 1) WHERE id = $1";
    assert_eq!(run(&system, past, expired.id()).await, 1);
    for workspace in [&ended, &expired] {
        let row = sessions::settled(&system, &workspace.session).await;
        assert_eq!(row["files_bytes"], 0, "{row}");
    }
    assert_eq!(settled(&system, tenant.id).await, 4, "what is another session's stays");
    let left = in_stream(&system, tenant.id).await;
    assert!(left.iter().all(|subject| subject.contains(staying.id())), "{left:?}");
    assert_eq!(staying.read("a").await, content(2, 3 * PART));
    for workspace in [&ended, &expired] {
        assert_eq!(run(&system, "SELECT FROM session_files WHERE session_id = $1", workspace.id()).await, 0);
    }
}

pub(crate) async fn an_upload_that_nobody_goes_on_with_is_given_up(system: Shared) {
    let tenant = system.organization().await;
    let workspace = Workspace::open(&tenant).await;
    workspace.write("kept", &content(1, PART)).await;
    // Three parts of an upload, as a gateway that died leaves them.
    workspace.write("left", &content(2, 3 * PART)).await;
    let back = "UPDATE session_files SET state = 'writing', path = NULL, sha256 = NULL WHERE session_id = $1 AND path = 'left'";
    assert_eq!(run(&system, back, workspace.id()).await, 1);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(in_stream(&system, tenant.id).await.len(), 4, "it is young");
    assert_eq!(workspace.bytes_in_use().await, 4 * i64::try_from(PART).expect("small"), "and counts");
    let aged = "UPDATE session_files SET touched_at = now() - interval '601 seconds' WHERE session_id = $1 AND state = 'writing'";
    assert_eq!(run(&system, aged, workspace.id()).await, 1);
    assert_eq!(settled(&system, tenant.id).await, 1);
    assert_eq!(workspace.bytes_in_use().await, i64::try_from(PART).expect("small"));
    // The row stays until no part of it can be on its way any more.
    let later = "UPDATE session_files SET touched_at = now() - interval '61 seconds' WHERE session_id = $1 AND state = 'doomed'";
    assert_eq!(run(&system, later, workspace.id()).await, 1);
    const GONE: &str = "SELECT to_jsonb(true) WHERE NOT EXISTS \
        (SELECT FROM session_files WHERE session_id::text = $1 AND state <> 'file')";
    system.eventually("no row is left of it", GONE, workspace.id()).await;
}
