//! What goes: with its session, with what replaces it, and when nobody goes on with it.

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

const GONE: &str = "SELECT to_jsonb(true) WHERE NOT EXISTS \
    (SELECT FROM session_files WHERE session_id::text = $1 AND state <> 'file')";

const REMOVED: &str =
    "SELECT to_jsonb(removed_at) FROM session_files WHERE session_id::text = $1 AND removed_at IS NOT NULL";

/// Three parts of an upload, as a gateway that died leaves them.
async fn left_behind(system: &Shared, workspace: &Workspace) {
    workspace.write("left", &content(2, 3 * PART)).await;
    let back = "UPDATE session_files SET state = 'writing', path = NULL, sha256 = NULL WHERE session_id = $1 AND path = 'left'";
    assert_eq!(run(system, back, workspace.id()).await, 1);
}

/// Makes what is in this state as old as that.
async fn aged(system: &Shared, workspace: &Workspace, state: &str, seconds: u32) {
    let sql = format!(
        "UPDATE session_files SET touched_at = now() - interval '{seconds} seconds' WHERE session_id = $1 AND state = '{state}'"
    );
    assert_eq!(run(system, &sql, workspace.id()).await, 1);
}

pub(crate) async fn an_upload_that_nobody_goes_on_with_is_given_up(system: Shared) {
    let tenant = system.organization().await;
    let (young, old) = (Workspace::open(&tenant).await, Workspace::open(&tenant).await);
    for workspace in [&young, &old] {
        workspace.write("kept", &content(1, PART)).await;
        left_behind(&system, workspace).await;
    }
    aged(&system, &young, "writing", 540).await;
    aged(&system, &old, "writing", 601).await;
    system.eventually("no row is left of the old one", GONE, old.id()).await;
    // Whoever looked for the old one has looked at the young one too.
    let of_the_young = |subjects: std::collections::BTreeSet<String>| {
        subjects.into_iter().filter(|subject| subject.contains(young.id())).count()
    };
    assert_eq!(of_the_young(in_stream(&system, tenant.id).await), 4);
    let (all, kept) = (4 * i64::try_from(PART).expect("small"), i64::try_from(PART).expect("small"));
    assert_eq!((young.bytes_in_use().await, old.bytes_in_use().await), (all, kept), "what is young counts");
    aged(&system, &young, "writing", 601).await;
    system.eventually("no row is left of it either", GONE, young.id()).await;
    assert_eq!(settled(&system, tenant.id).await, 2);
    assert_eq!(young.bytes_in_use().await, kept);
}

pub(crate) async fn a_row_stays_until_no_part_of_it_can_be_on_its_way(system: Shared) {
    let tenant = system.organization().await;
    let (fresh, old) = (Workspace::open(&tenant).await, Workspace::open(&tenant).await);
    for workspace in [&fresh, &old] {
        left_behind(&system, workspace).await;
        let doomed = "UPDATE session_files SET state = 'doomed' WHERE session_id = $1";
        assert_eq!(run(&system, doomed, workspace.id()).await, 1);
    }
    aged(&system, &old, "doomed", 61).await;
    system.eventually("no row is left of the old one", GONE, old.id()).await;
    assert_eq!(settled(&system, tenant.id).await, 0, "the parts go at once");
    assert_eq!(
        run(&system, "SELECT FROM session_files WHERE session_id = $1", fresh.id()).await,
        1,
        "the row does not"
    );
    // Who looks again meanwhile finds it done.
    aged(&system, &fresh, "doomed", 0).await;
    let removed = system.eventually("its parts were removed", REMOVED, fresh.id()).await;
    let other = Workspace::open(&tenant).await;
    left_behind(&system, &other).await;
    aged(&system, &other, "writing", 601).await;
    system.eventually("no row is left of another one", GONE, other.id()).await;
    assert_eq!(system.eventually("the mark", REMOVED, fresh.id()).await, removed);
    aged(&system, &fresh, "doomed", 61).await;
    system.eventually("no row is left of it either", GONE, fresh.id()).await;
}
