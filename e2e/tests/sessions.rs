//! Sessions: opened within limits, frozen, used until their time is over, ended with everything that
//! must follow; and what members and admins hear of it.

use std::{sync::Arc, time::Instant};

use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::world::{Answer, Client, PATIENCE, System};

mod ending;
mod events;
mod limits;
mod opening;

pub(crate) use self::{ending::*, events::*, limits::*, opening::*};

pub(crate) const SESSIONS: &str = "/api/v1/sessions";

/// Opens one; `more` adds to the body. Answers it.
pub(crate) async fn open(client: &Client, more: Value) -> Value {
    let answer = try_to_open(client, more).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    answer.json()
}

async fn try_to_open(client: &Client, more: Value) -> Answer {
    let mut body = json!({ "agent_type": "tester" });
    if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
        body.extend(more);
    }
    client.post(SESSIONS, &body).await
}

/// Where one is.
pub(crate) fn item(session: &Value) -> String {
    format!("{SESSIONS}/{}", id(session))
}

fn id(session: &Value) -> &str {
    session["id"].as_str().expect("an id")
}

/// Changes rows as nobody could but time itself, or an operator by hand.
async fn in_the_database(system: &System, sql: &str, session: &Value) {
    let database = system.database("superuser").await;
    let changed = sqlx::query(AssertSqlSafe(sql.to_owned()))
        .bind(id(session).parse::<Uuid>().expect("a uuid"))
        .execute(&database)
        .await
        .expect("the statement runs");
    assert_eq!(changed.rows_affected(), 1, "{sql}");
    database.close().await;
}

/// Waits until a session is over and nothing of it is left to do; answers its row.
pub(crate) async fn settled(system: &System, session: &Value) -> Value {
    const SETTLED: &str =
        "SELECT to_jsonb(s) FROM sessions s WHERE id::text = $1 AND state <> 'active' AND pending_hooks = '{}'";
    system.eventually("a session that is over, its hooks run", SETTLED, id(session)).await
}

/// Waits until nothing of a session is left to do, whatever its state.
pub(crate) async fn settled_hooks(system: &System, session: &Value) {
    const SETTLED: &str = "SELECT to_jsonb(s) FROM sessions s WHERE id::text = $1 AND pending_hooks = '{}'";
    system.eventually("the hooks of a session have run", SETTLED, id(session)).await;
}

/// What tool workers are told of a session.
pub(crate) async fn news(system: &System, organization: Uuid, session: &Value) -> Option<Value> {
    let nats = system.nats("tool").await;
    let question = json!({ "last_by_subj": format!("$KV.SESSIONS.{organization}.{}", id(session)) });
    let answer = nats.request("js.STREAM.MSG.GET.KV_SESSIONS", question.to_string().into()).await.expect("an answer");
    let answer: Value = serde_json::from_slice(&answer.payload).expect("json");
    let data = answer["message"]["data"].as_str()?;
    let bytes = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, data).expect("base64");
    Some(serde_json::from_slice(&bytes).expect("json"))
}

/// Waits for what nothing announces.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// The state of a session as its member reads it.
async fn state(client: &Client, session: &Value) -> String {
    let seen = client.get(&item(session)).await;
    assert_eq!(seen.status, 200, "{}", seen.text);
    seen.json()["state"].as_str().expect("a state").to_owned()
}

/// The pool of workers that a database connection stands for.
async fn as_pool(system: &Arc<System>, role: &str) -> shared::db::Database {
    let config = shared::config::Database {
        url: shared::secret::Secret::new(system.database_url(role).to_owned()),
        pool_mode: shared::config::PoolMode::Session,
        connections: 2,
    };
    shared::db::Database::open(&config, "switchboard-test").expect("an address")
}
