//! Files on a system that loses workers, NATS and PostgreSQL: what a member was told is kept, nothing is
//! half written, and the stream holds no part that no file has.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use serde_json::Value;
use sqlx::AssertSqlSafe;
use stack::{Options, Pool};

use super::{
    accidents::{until, until_within},
    full,
    sessions::{Lock, WORKERS, kill_all, revive},
};
use crate::{
    files::{PART, Workspace, content, every_part_has_its_row, settled, tag},
    world::{Answer, System},
};

/// What passes by itself within minutes is made to have passed: uploads that nobody goes on with are old,
/// and nothing of what was given up can still be on its way. Only where whoever wrote is dead or has
/// answered.
async fn age(system: &System, workspace: &Workspace) {
    let database = system.database("superuser").await;
    for (state, seconds) in [("writing", 601), ("doomed", 61)] {
        let sql = format!(
            "UPDATE session_files SET touched_at = now() - interval '{seconds} seconds' \
             WHERE organization_id = $1 AND state = '{state}'"
        );
        let aged = sqlx::query(AssertSqlSafe(sql)).bind(workspace.organization).execute(&database).await;
        aged.expect("the statement runs");
    }
    database.close().await;
}

/// How many rows an organization has of what is no file.
async fn left(system: &System, workspace: &Workspace) -> i64 {
    const LEFT: &str = "SELECT count(*) FROM session_files WHERE organization_id = $1 AND state <> 'file'";
    let database = system.database("superuser").await;
    let left = sqlx::query_scalar(LEFT).bind(workspace.organization).fetch_one(&database).await.expect("a count");
    database.close().await;
    left
}

/// Waits until files are all there is, in rows, in the stream and in what the session says.
async fn at_rest(system: &System, workspace: &Workspace) {
    const SUM: &str = "SELECT coalesce(sum(size_bytes), 0)::bigint FROM session_files WHERE organization_id = $1";
    until("no row is left of what is no file", async || {
        age(system, workspace).await;
        left(system, workspace).await == 0
    })
    .await;
    let database = system.database("superuser").await;
    settled(system, workspace.organization).await;
    let sum: i64 = sqlx::query_scalar(SUM).bind(workspace.organization).fetch_one(&database).await.expect("a sum");
    assert_eq!(workspace.bytes_in_use().await, sum);
    database.close().await;
}

/// How long a content that never was a file may stay behind: the minute in which a part may be on its way,
/// and some passes of whoever looks for it.
const SETTLED_WITHIN: Duration = Duration::from_mins(2);

/// What a session worker is about to do when it is killed over a write, each step seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It waits for the session's row: there is nothing yet.
    Row,
    /// The row is kept; its parts cannot go.
    Parts,
    /// The parts are in the stream; the last statement before the commit waits.
    Commit,
    /// The file is there; what it replaced cannot be removed.
    Removal,
}

fn sent(workspace: &Workspace, bytes: &[u8]) -> tokio::task::JoinHandle<Answer> {
    let (workspace, bytes) = (workspace.clone(), bytes.to_vec());
    tokio::spawn(async move { workspace.put("f", bytes).await })
}

/// Waits until the organization has a row of this kind.
async fn until_there_is(system: &System, workspace: &Workspace, which: &str) {
    let database = system.database("superuser").await;
    let sql = format!("SELECT count(*) FROM session_files WHERE organization_id = $1 AND {which}");
    until(which, async || {
        let count = sqlx::query_scalar::<_, i64>(AssertSqlSafe(sql.clone())).bind(workspace.organization);
        count.fetch_one(&database).await.expect("a count") > 0
    })
    .await;
    database.close().await;
}

/// Brings both session workers to a step of a write and kills them there; answers what the member was told.
async fn killed_at(system: &System, workspace: &Workspace, bytes: &[u8], step: Step) -> Answer {
    let stack = system.stack().await;
    let row = format!("SELECT 1 FROM sessions WHERE id = '{}' FOR UPDATE", workspace.id());
    let outbox = "LOCK TABLE audit_outbox IN EXCLUSIVE MODE".to_owned();
    let is_early = matches!(step, Step::Row | Step::Parts);
    let lock = Lock::take(system, if is_early { row } else { outbox }).await;
    let asked = sent(workspace, bytes);
    lock.until_awaited().await;
    if matches!(step, Step::Row | Step::Commit) {
        kill_all(system).await;
        lock.release().await;
    } else {
        // What is in the database goes on; what needs NATS does not.
        stack.freeze("nats").expect("it runs");
        lock.release().await;
        let shows = if step == Step::Parts { "state = 'writing'" } else { "state = 'doomed'" };
        until_there_is(system, workspace, shows).await;
        kill_all(system).await;
        stack.thaw("nats").expect("it is frozen");
    }
    revive(system).await;
    asked.await.expect("an answer")
}

pub(crate) async fn a_session_worker_killed_at_any_step_of_a_write_leaves_nothing_half_written(system: Arc<System>) {
    for step in [Step::Row, Step::Parts, Step::Commit, Step::Removal] {
        let workspace = Workspace::open(&system.organization().await).await;
        let (before, after) = (content(1, PART + 1), content(2, PART));
        workspace.write("f", &before).await;
        let told = killed_at(&system, &workspace, &after, step).await;
        every_part_has_its_row(&system, workspace.organization).await;
        let is_kept = step == Step::Removal;
        if told.status.is_success() {
            assert!(is_kept, "{step:?}: told {} and not kept", told.status);
        } else {
            let code = told.json()["code"].as_str().expect("a code").to_owned();
            assert!(["outcome_unknown", "timeout", "unavailable"].contains(&code.as_str()), "{step:?}: {}", told.text);
        }
        let expected = if is_kept { &after } else { &before };
        assert!(workspace.read("f").await == *expected, "{step:?}: neither one nor the other");
        at_rest(&system, &workspace).await;
        assert!(workspace.read("f").await == *expected, "{step:?}");
        // Whatever happened before, it goes on.
        workspace.write("f", &content(3, 3)).await;
    }
}

/// The end of a worker's log.
fn last_lines(system: &System, worker: &str) -> String {
    let log = std::fs::read_to_string(system.log_dir.join(format!("{worker}.log"))).expect("its log");
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}

pub(crate) async fn a_frozen_session_worker_leaves_no_part_behind_its_session(system: Arc<System>) {
    const WAITS: &str = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'switchboard_session' \
        AND wait_event_type = 'Lock' AND query LIKE '%session_files%'";
    const HELD: &str = "SELECT (SELECT count(*) FROM session_files WHERE organization_id = $1 AND state = 'writing') = 1 \
        AND NOT EXISTS (SELECT FROM session_files WHERE organization_id = $1 AND state = 'writing' FOR UPDATE SKIP LOCKED)";
    let workspace = Workspace::open(&system.organization().await).await;
    workspace.write("f", b"kept").await;
    let stack = system.stack().await;
    let row = format!("SELECT 1 FROM sessions WHERE id = '{}' FOR UPDATE", workspace.id());
    let lock = Lock::take(&system, row).await;
    let asked = sent(&workspace, &content(1, PART));
    lock.until_awaited().await;
    stack.freeze("nats").expect("it runs");
    lock.release().await;
    until_there_is(&system, &workspace, "state = 'writing'").await;
    let database = system.database("superuser").await;
    let is_held = async || {
        let held = sqlx::query_scalar::<_, bool>(HELD).bind(workspace.organization).fetch_one(&database);
        held.await.expect("an answer")
    };
    until("whoever writes holds its row", is_held).await;
    // One of the two is about to send the part, or has sent it to a server that does not read.
    for worker in WORKERS {
        stack.freeze(worker).expect("it runs");
    }
    assert!(is_held().await, "whoever writes was done before it was frozen");
    stack.thaw("nats").expect("it is frozen");
    let other = stack.add_worker(Pool::Session).await.expect("it starts");
    let ended = sqlx::query(
        "UPDATE sessions SET state = 'ended', end_reason = 'admin', ended_at = now(), \
             pending_hooks = ARRAY['session.ended/remove_workspace'] WHERE id = $1",
    );
    let id: uuid::Uuid = workspace.id().parse().expect("a uuid");
    assert_eq!(ended.bind(id).execute(&database).await.expect("it runs").rows_affected(), 1);
    until("whoever removes the workspace waits for whoever writes", async || {
        assert!(is_held().await, "whoever writes let go of its row: {}", last_lines(&system, &other));
        sqlx::query_scalar::<_, i64>(WAITS).fetch_one(&database).await.expect("a count") > 0
    })
    .await;
    every_part_has_its_row(&system, workspace.organization).await;
    for worker in WORKERS {
        stack.thaw(worker).expect("it is frozen");
    }
    let told = asked.await.expect("an answer");
    assert!(!told.status.is_success(), "written into a session that was over: {}", told.status);
    // What was frozen may have sent its part late: nothing is made older than it is.
    until_within(SETTLED_WITHIN, "no row is left", async || left(&system, &workspace).await == 0).await;
    at_rest(&system, &workspace).await;
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM session_files WHERE session_id = $1")
        .bind(id)
        .fetch_one(&database)
        .await
        .expect("a count");
    assert_eq!(left, 0);
    database.close().await;
    stack.stop_one(&other).await.expect("it stops");
}

/// One member's path: what may stand there, since what was not answered may have happened.
#[derive(Default)]
struct Path {
    may_be: Vec<Option<String>>,
    confirmed: usize,
}

impl Path {
    async fn act(&mut self, workspace: &Workspace, path: &str, turn: u64) {
        let sizes = [10, PART, 2 * PART + 3, 0, PART + 1];
        let size = sizes[usize::try_from(turn).expect("small") % sizes.len()];
        let bytes = content(turn, size);
        let removes = turn % 7 == 6;
        let wanted = (!removes).then(|| tag(&bytes));
        let answer = if removes { workspace.delete(path).await } else { workspace.put(path, bytes).await };
        match answer.status.as_u16() {
            200 | 201 | 204 => {
                self.may_be = vec![wanted];
                self.confirmed += 1;
            }
            // Nothing to remove: that is known now.
            404 => self.may_be = vec![None],
            // Room that a killed worker's upload takes, for a while.
            429 | 503 => {}
            502 | 504 => self.may_be.push(wanted),
            other => panic!("{other}: {}", answer.text),
        }
    }
}

pub(crate) async fn files_survive_many_killed_session_workers(system: Arc<System>) {
    let workspace = Workspace::open(&system.organization().await).await;
    let stop = AtomicBool::new(false);
    let rounds = if full() { 30 } else { 6 };
    let member = async |number: u64| {
        let (path, mut known) = (format!("of/{number}"), Path::default());
        known.may_be.push(None);
        let mut turn = number * 1_000;
        while !stop.load(Ordering::Relaxed) {
            turn += 1;
            known.act(&workspace, &path, turn).await;
        }
        (path, known)
    };
    let kills = async {
        let stack = system.stack().await;
        for round in 0..rounds {
            tokio::time::sleep(Duration::from_millis(120 + 31 * (round % 9))).await;
            let worker = WORKERS[usize::try_from(round % 2).expect("small")];
            stack.kill(worker).await.expect("it runs");
            every_part_has_its_row(&system, workspace.organization).await;
            stack.restart(worker).await.expect("it starts");
        }
        stop.store(true, Ordering::Relaxed);
    };
    let (known, ()) = tokio::join!(join_all((0..4).map(member)), kills);
    let look = async |path: &str| {
        let got = workspace.get(path).await;
        assert!([200, 404].contains(&got.status.as_u16()), "{path}: {}", got.status);
        (got.status == 200).then(|| {
            assert_eq!(got.header("etag"), tag(&got.bytes));
            tag(&got.bytes)
        })
    };
    let mut confirmed = 0;
    for (path, known) in &known {
        let there = look(path).await;
        assert!(known.may_be.contains(&there), "{path}: {there:?} is none of {:?}", known.may_be);
        confirmed += known.confirmed;
    }
    assert!(confirmed > 0, "nobody got anything done: this shows nothing");
    at_rest(&system, &workspace).await;
    for (path, known) in &known {
        assert!(known.may_be.contains(&look(path).await), "{path} at rest");
    }
    eprintln!("files: {confirmed} acts confirmed through {rounds} kills");
}

pub(crate) async fn without_postgresql_or_nats_files_are_refused_and_then_there_again(system: Arc<System>) {
    let workspace = Workspace::open(&system.organization().await).await;
    let (kept, other) = (content(1, 2 * PART), content(2, 2 * PART));
    workspace.write("kept", &kept).await;
    let stack = system.stack().await;
    for (process, other) in [("postgres", &other), ("nats", &other)] {
        stack.stop_one(process).await.expect("it runs");
        let refused = async |answer: Answer| {
            assert!([502, 503, 504].contains(&answer.status.as_u16()), "{process}: {}", answer.text);
        };
        refused(workspace.put("kept", other.clone()).await).await;
        refused(workspace.put("small", "1").await).await;
        refused(workspace.client.get(&workspace.at("kept")).await).await;
        refused(workspace.delete("kept").await).await;
        refused(workspace.client.get(&workspace.files()).await).await;
        stack.restart(process).await.expect("it starts");
        until("files are there again", async || workspace.get("kept").await.status == 200).await;
        assert!(workspace.read("kept").await == kept, "{process}");
        assert_eq!(workspace.paths("").await, ["kept"]);
        workspace.write("new", b"goes on").await;
        assert_eq!(workspace.delete("new").await.status, 204);
    }
    at_rest(&system, &workspace).await;
}

/// Room for so many mebibytes of files in all.
const ROOM_MEBIBYTES: usize = 8;

pub(super) fn with_little_room(options: &mut Options) {
    options.worker_env.push(("QUEUE_FILES_MEBIBYTES".to_owned(), ROOM_MEBIBYTES.to_string()));
}

pub(crate) async fn a_full_store_refuses_and_takes_again_once_something_goes(system: Arc<System>) {
    let tenant = system.organization().await;
    let workspace = Workspace::open(&tenant).await;
    let half = content(1, (ROOM_MEBIBYTES - 1) * 1024 * 1024);
    workspace.write("most", &half).await;
    for size in [4 * PART, ROOM_MEBIBYTES * 1024 * 1024] {
        let refused: Value = workspace.put("more", content(2, size)).await.problem(503, "unavailable");
        let words = refused["detail"].as_str().unwrap_or_default();
        assert!(words.contains("room for files"), "{refused}");
    }
    assert!(workspace.read("most").await == half, "what is there stays");
    assert_eq!(workspace.delete("most").await.status, 204);
    settled(&system, tenant.id).await;
    workspace.write("more", &half).await;
    assert!(workspace.read("more").await == half);
    at_rest(&system, &workspace).await;
}
