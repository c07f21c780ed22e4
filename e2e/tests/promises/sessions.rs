//! Sessions on a system that loses workers: a session worker that is killed at any step of opening or
//! ending one leaves nothing half-done once the reconcilers have run.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures::future::join_all;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection, PgPool};
use stack::Pool;
use tokio::task::JoinHandle;

use super::{accidents::until, full};
use crate::{
    sessions::{SESSIONS, Stream, item, news, open, settled, settled_hooks},
    world::{Answer, Client, System, Tenant},
};

const WORKERS: [&str; 2] = ["session-1", "session-2"];

/// Sessions of which something must still happen.
const LEFT: &str = "SELECT id::text FROM sessions WHERE organization_id = $1 AND pending_hooks <> '{}'";
const STATE: &str = "SELECT state FROM sessions WHERE id::text = $1";
const EXPIRIES: &str = "SELECT count(*) FROM audit_logs WHERE organization_id = $1 AND action = 'session.expired'";

/// The steps that a session worker takes to open or to end one, each seen from outside: where it is
/// when it is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It waits for its turn to count and add (opening), or for the row (ending). Nothing is written.
    Turn,
    /// Everything is written and nothing kept: the last statement before the commit waits.
    BeforeCommit,
    /// It is kept; what must follow cannot be done.
    BeforeHooks,
    /// What must follow is done; that it is cannot be noted.
    BeforeNoting,
}

/// A superuser's transaction that holds a lock until it is dropped.
struct Lock {
    database: PgPool,
    held: PgConnection,
}

impl Lock {
    async fn take(system: &System, statement: String) -> Self {
        use sqlx::Connection;
        let mut held =
            PgConnection::connect(system.database_url("superuser")).await.expect("PostgreSQL lets the superuser in");
        sqlx::raw_sql(AssertSqlSafe(format!("BEGIN; {statement}"))).execute(&mut held).await.expect("the lock");
        Self { database: system.database("superuser").await, held }
    }

    /// Waits until a session worker waits for it.
    async fn until_awaited(&self) {
        const WAITING: &str = "SELECT count(*) FROM pg_stat_activity \
            WHERE usename = 'switchboard_session' AND wait_event_type = 'Lock' AND state = 'active'";
        until("a session worker waits for the lock", async || {
            sqlx::query_scalar::<_, i64>(WAITING).fetch_one(&self.database).await.expect("the query runs") > 0
        })
        .await;
    }

    async fn release(self) {
        use sqlx::Connection;
        self.held.close().await.expect("it ends");
        self.database.close().await;
    }
}

/// What a member asks for while a worker is killed.
#[derive(Clone, Debug)]
enum Act {
    Opening,
    Ending(Value),
}

fn sent(client: &Client, act: &Act) -> JoinHandle<Answer> {
    let (client, act) = (client.clone(), act.clone());
    tokio::spawn(async move {
        match act {
            Act::Opening => client.post(SESSIONS, &json!({ "agent_type": "tester" })).await,
            Act::Ending(session) => client.delete(&item(&session)).await,
        }
    })
}

/// Brings both session workers to a step of an act and kills them there. What the member is told comes
/// at the command's deadline.
async fn killed_at(system: &System, tenant: &Tenant, act: &Act, step: Step) -> JoinHandle<Answer> {
    let stack = system.stack().await;
    let turn = match act {
        Act::Opening => {
            format!("SELECT pg_advisory_xact_lock(hashtextextended('sessions of {}', 0))", tenant.id)
        }
        Act::Ending(session) => {
            format!("SELECT 1 FROM sessions WHERE id = '{}' FOR UPDATE", session["id"].as_str().expect("an id"))
        }
    };
    let outbox = "LOCK TABLE audit_outbox IN EXCLUSIVE MODE".to_owned();
    let lock = Lock::take(system, if step == Step::Turn { turn } else { outbox }).await;
    let asked = sent(&tenant.user, act);
    lock.until_awaited().await;
    if matches!(step, Step::Turn | Step::BeforeCommit) {
        kill_all(system).await;
        lock.release().await;
        revive(system).await;
        return asked;
    }
    // The commit needs no NATS, and everything after it does.
    stack.freeze("nats").expect("it runs");
    lock.release().await;
    let database = system.database("superuser").await;
    let mut kept: Option<String> = None;
    until("it is kept", async || {
        kept = sqlx::query_scalar(LEFT).bind(tenant.id).fetch_optional(&database).await.expect("the query runs");
        kept.is_some()
    })
    .await;
    let kept = kept.expect("a session");
    if step == Step::BeforeNoting {
        let lock = Lock::take(system, format!("SELECT 1 FROM sessions WHERE id = '{kept}' FOR UPDATE")).await;
        stack.thaw("nats").expect("it is frozen");
        lock.until_awaited().await;
        kill_all(system).await;
        lock.release().await;
    } else {
        kill_all(system).await;
        stack.thaw("nats").expect("it is frozen");
    }
    database.close().await;
    revive(system).await;
    asked
}

async fn kill_all(system: &System) {
    let stack = system.stack().await;
    for worker in WORKERS {
        stack.kill(worker).await.expect("it runs");
    }
}

async fn revive(system: &System) {
    let stack = system.stack().await;
    for worker in WORKERS {
        stack.restart(worker).await.expect("it starts");
    }
}

/// The sessions of an organization once nothing of them is left to do.
async fn at_rest(system: &System, tenant: &Tenant) -> Vec<Value> {
    let database = system.database("superuser").await;
    until("no hook is pending", async || {
        let left: Option<String> =
            sqlx::query_scalar(LEFT).bind(tenant.id).fetch_optional(&database).await.expect("the query runs");
        left.is_none()
    })
    .await;
    let rows = sqlx::query_scalar("SELECT to_jsonb(s) FROM sessions s WHERE organization_id = $1 ORDER BY id")
        .bind(tenant.id)
        .fetch_all(&database)
        .await
        .expect("the query runs");
    database.close().await;
    rows
}

/// Checks that a session at rest is whole: active with its prompt, or over and everybody told.
async fn is_whole(system: &System, tenant: &Tenant, row: &Value) {
    assert!(row["prompt"]["sha256"].is_string(), "{row}");
    let told = news(system, tenant.id, row).await;
    if row["state"] == "active" {
        assert_eq!((&row["ended_at"], told), (&Value::Null, None), "{row}");
    } else {
        assert!(row["ended_at"].is_string(), "{row}");
        assert_eq!(told.expect("told")["generation"], row["generation"]);
    }
}

/// The events that the stream holds of an organization, by session.
async fn events(client: &Client, last: &Value) -> BTreeMap<String, Vec<String>> {
    let mut heard = BTreeMap::<String, Vec<String>>::new();
    let mut stream = Stream::open(client, Some("00000000-0")).await;
    loop {
        let event = stream.event().await;
        let Some(session) = event["session"].as_str() else { continue };
        let name = event["event"].as_str().expect("a name").to_owned();
        heard.entry(session.to_owned()).or_default().push(name);
        if event["session"] == last["id"] {
            return heard;
        }
    }
}

pub(crate) async fn a_session_worker_killed_at_any_step_leaves_nothing_half_done(system: Arc<System>) {
    let mut answers = Vec::new();
    for step in [Step::Turn, Step::BeforeCommit, Step::BeforeHooks, Step::BeforeNoting] {
        for is_ending in [false, true] {
            let tenant = system.organization().await;
            // Their first use is another command, and not the one to be killed.
            assert_eq!(tenant.user.get("/api/v1/me").await.status, 200);
            let act = if is_ending {
                let session = open(&tenant.user, json!({})).await;
                settled_hooks(&system, &session).await;
                Act::Ending(session)
            } else {
                Act::Opening
            };
            let asked = killed_at(&system, &tenant, &act, step).await;
            let is_kept = matches!(step, Step::BeforeHooks | Step::BeforeNoting);
            let rows = at_rest(&system, &tenant).await;
            let states: Vec<&str> = rows.iter().filter_map(|row| row["state"].as_str()).collect();
            let expected: &[&str] = match (is_ending, is_kept) {
                (false, false) => &[],
                (true, true) => &["ended"],
                (false, true) | (true, false) => &["active"],
            };
            assert_eq!(states, expected, "{act:?} killed at {step:?}");
            for row in &rows {
                is_whole(&system, &tenant, row).await;
            }
            // The limit counts what is there, and each event was told once, in order.
            let last = open(&tenant.user, json!({})).await;
            settled_hooks(&system, &last).await;
            let heard = events(&tenant.user, &last).await;
            for row in &rows {
                let expected: &[&str] = match row["state"].as_str() {
                    Some("active") => &["session.opened"],
                    _ => &["session.opened", "session.ended"],
                };
                assert_eq!(heard[row["id"].as_str().expect("an id")], expected, "{act:?} at {step:?}");
            }
            answers.push((asked, is_kept));
        }
    }
    for (asked, is_kept) in answers {
        let told = asked.await.expect("an answer");
        if told.status.is_success() {
            assert!(is_kept, "told {} and not kept", told.status);
        } else {
            let code = told.json()["code"].as_str().expect("a code").to_owned();
            assert!(["outcome_unknown", "timeout", "unavailable"].contains(&code.as_str()), "{}", told.text);
        }
    }
}

pub(crate) async fn sessions_under_load_survive_many_killed_workers(system: Arc<System>) {
    let tenant = system.organization().await;
    let stop = AtomicBool::new(false);
    let rounds = if full() { 30 } else { 5 };
    let member = async |number: usize| {
        let mut known = Vec::new();
        let mut turn = number;
        while !stop.load(Ordering::Relaxed) {
            turn += 1;
            let opened = tenant.user.post(SESSIONS, &json!({ "agent_type": "tester" })).await;
            if opened.status == 201 {
                let session = opened.json();
                let ends = !turn.is_multiple_of(3);
                let ended = ends && tenant.user.delete(&item(&session)).await.status == 204;
                known.push((session, ends, ended));
            } else {
                assert!([429, 502, 503, 504].contains(&opened.status.as_u16()), "{}", opened.text);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        known
    };
    let kills = async {
        let stack = system.stack().await;
        for round in 0..rounds {
            tokio::time::sleep(Duration::from_millis(150 + 37 * (round % 11))).await;
            let worker = WORKERS[usize::try_from(round % 2).expect("small")];
            stack.kill(worker).await.expect("it runs");
            tokio::time::sleep(Duration::from_millis(11 * (round % 7))).await;
            stack.restart(worker).await.expect("it starts");
        }
        stop.store(true, Ordering::Relaxed);
    };
    let (known, ()) = tokio::join!(join_all((0..4).map(member)), kills);
    let rows = at_rest(&system, &tenant).await;
    let by_id: BTreeMap<&str, &Value> = rows.iter().map(|row| (row["id"].as_str().expect("an id"), row)).collect();
    let mut ended_in_all = 0;
    for (session, ends, ended) in known.iter().flatten() {
        let row = by_id.get(session["id"].as_str().expect("an id")).expect("what was opened is there");
        match (ends, ended) {
            (_, true) => assert_eq!(row["state"], "ended", "{row}"),
            (false, false) => assert_eq!(row["state"], "active", "{row}"),
            // Whoever was told nothing does not know.
            (true, false) => {}
        }
        ended_in_all += usize::from(*ended);
    }
    assert!(ended_in_all > 0, "nobody got anything done: this shows nothing");
    for row in &rows {
        is_whole(&system, &tenant, row).await;
    }
    let active = rows.iter().filter(|row| row["state"] == "active").count();
    assert!(active <= 10, "{active} active, the limit is 10");
    eprintln!("sessions: {} opened, {ended_in_all} ended by their members, through {rounds} kills", rows.len());
}

pub(crate) async fn sessions_expire_for_their_members_without_a_controller_and_once_with_two(system: Arc<System>) {
    let tenant = system.organization().await;
    let session = open(&tenant.user, json!({ "idle_seconds": 2 })).await;
    let stack = system.stack().await;
    stack.kill("controller-1").await.expect("it runs");
    until("its time is over", async || tenant.user.get(&item(&session)).await.json()["state"] == "expired").await;
    let database = system.database("superuser").await;
    let id = session["id"].as_str().expect("an id");
    let kept: String = sqlx::query_scalar(STATE).bind(id).fetch_one(&database).await.expect("the row");
    assert_eq!(kept, "active", "nobody has swept");
    let mut more = Vec::new();
    for _ in 0..9 {
        more.push(open(&tenant.user, json!({ "idle_seconds": 1 })).await);
    }
    open(&tenant.user, json!({})).await;
    let second = stack.add_worker(Pool::Controller).await.expect("it starts");
    stack.restart("controller-1").await.expect("it starts");
    for session in more.iter().chain([&session]) {
        assert_eq!(settled(&system, session).await["state"], "expired");
    }
    // Told to the trail once, whichever of the two swept.
    until("all are in the trail", async || {
        sqlx::query_scalar::<_, i64>(EXPIRIES).bind(tenant.id).fetch_one(&database).await.expect("the query runs") >= 10
    })
    .await;
    let told: i64 = sqlx::query_scalar(EXPIRIES).bind(tenant.id).fetch_one(&database).await.expect("the query runs");
    assert_eq!(told, 10);
    database.close().await;
    stack.stop_one(&second).await.expect("it stops");
}

pub(crate) async fn without_postgresql_or_nats_sessions_are_refused_and_then_go_on(system: Arc<System>) {
    let tenant = system.organization().await;
    let session = open(&tenant.user, json!({})).await;
    let stack = system.stack().await;
    stack.stop_one("postgres").await.expect("it runs");
    tenant.user.post(SESSIONS, &json!({ "agent_type": "tester" })).await.problem(503, "unavailable");
    tenant.user.delete(&item(&session)).await.problem(503, "unavailable");
    stack.restart("postgres").await.expect("it starts");
    until("sessions are there again", async || tenant.user.get(&item(&session)).await.status == 200).await;
    let mut stream = Stream::open(&tenant.user, None).await;
    let heard = stream.last_id.clone().expect("where it begins");
    stack.kill("nats").await.expect("it runs");
    until("nothing is accepted", async || tenant.user.delete(&item(&session)).await.status == 503).await;
    stack.restart("nats").await.expect("it starts");
    until("it is ended", async || tenant.user.delete(&item(&session)).await.status == 204).await;
    settled(&system, &session).await;
    // The old stream may have ended with the connection: whoever comes back misses nothing.
    drop(stream);
    let mut back = None;
    until("events are heard again", async || {
        let answer = tenant.user.request(reqwest::Method::GET, "/api/v1/events").send().await;
        back = answer.ok().filter(|answer| answer.status() == 200);
        back.is_some()
    })
    .await;
    drop(back);
    stream = Stream::open(&tenant.user, Some(&heard)).await;
    loop {
        let event = stream.event().await;
        assert_ne!(event["event"], "events.missed", "the stream outlives NATS");
        if event["event"] == "session.ended" {
            assert_eq!(event["session"], session["id"]);
            return;
        }
    }
}

pub(crate) async fn a_gateway_that_is_told_to_stop_ends_its_streams_at_once(system: Arc<System>) {
    let tenant = system.organization().await;
    let stack = system.stack().await;
    let client = tenant.user.at(&stack.gateways()[1]);
    let stream = Stream::open(&client, None).await;
    let told = Instant::now();
    let ended = tokio::spawn(async move {
        stream.end().await;
        told.elapsed()
    });
    stack.stop_one("gateway-2").await.expect("it stops");
    let ended = ended.await.expect("the stream");
    assert!(ended < Duration::from_secs(5), "the stream ended only after {ended:?}");
}
