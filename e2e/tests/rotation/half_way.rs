//! Rotations that are killed half way, at a moment that a lock holds still; and what hangs on which key.

use std::process::Stdio;

use sqlx::PgPool;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Child,
};
use uuid::Uuid;

use super::{command, number};
use crate::world::System;

/// Data keys that a key-encryption key wraps.
pub(super) async fn wrapped_with(superuser: &PgPool, kek: &str) -> usize {
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM tenant_keys WHERE kek_id = $1")
        .bind(kek)
        .fetch_one(superuser)
        .await
        .expect("a count");
    usize::try_from(count).expect("a count")
}

/// Sealed secrets.
pub(super) async fn sealed(superuser: &PgPool) -> usize {
    number(superuser, "SELECT count(*) FROM mcp_configurations WHERE secret IS NOT NULL").await
}

/// Secrets under another key than their organization's active one.
pub(super) async fn lagging(superuser: &PgPool) -> usize {
    number(
        superuser,
        "SELECT count(*) FROM mcp_configurations c WHERE secret IS NOT NULL AND NOT EXISTS (SELECT FROM tenant_keys k \
         WHERE k.organization_id = c.organization_id AND state = 'active' AND substr(c.secret, 3, 16) = uuid_send(k.id))",
    )
    .await
}

/// Answers a row once no secret of an organization is under another key than its active one.
pub(super) const NONE_LAGS: &str = "SELECT to_jsonb(true) WHERE NOT EXISTS (SELECT FROM mcp_configurations c \
    JOIN tenant_keys k USING (organization_id) WHERE organization_id::text = $1 AND k.state = 'active' \
    AND c.secret IS NOT NULL AND substr(c.secret, 3, 16) <> uuid_send(k.id))";

/// The same, once fewer lag than so many.
const FEWER_LAG: &str = "SELECT to_jsonb(count(*)) FROM mcp_configurations c JOIN tenant_keys k USING (organization_id) \
    WHERE k.state = 'active' AND c.secret IS NOT NULL AND substr(c.secret, 3, 16) <> uuid_send(k.id) \
    HAVING count(*) < $1::bigint";

/// Waits until the rotation stands before a lock.
async fn stands_still(system: &System) {
    const WAITING: &str = "SELECT to_jsonb(pid) FROM pg_stat_activity \
        WHERE application_name = $1 AND wait_event_type = 'Lock'";
    system.eventually("the rotation waits for the lock", WAITING, "switchboard-rotate-keys").await;
}

/// Starts a rotation whose first line is of interest.
fn begin(system: &System, keys: &str, argument: &str) -> Child {
    command(system, keys, &[argument]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts")
}

async fn kill(mut rotation: Child) {
    rotation.kill().await.expect("it is killed while it runs");
}

/// Kills the wrapping when it reaches the organization in the middle.
pub(super) async fn wrapping_is_killed(system: &System, keys: &str, middle: Uuid) {
    let superuser = system.database("superuser").await;
    let all = wrapped_with(&superuser, "old").await;
    let mut lock = superuser.begin_with("BEGIN").await.expect("a transaction");
    hold_key(&mut lock, middle).await;
    let rotation = begin(system, keys, "--kek");
    stands_still(system).await;
    kill(rotation).await;
    lock.rollback().await.expect("nothing is kept");
    let left = wrapped_with(&superuser, "old").await;
    assert!(0 < left && left < all, "{left} of {all}: this was not half way");
    superuser.close().await;
}

/// Kills the sealing when it reaches the organization in the middle; answers the moment to go on from.
pub(super) async fn sealing_is_killed(system: &System, keys: &str, middle: Uuid) -> String {
    let superuser = system.database("superuser").await;
    let all = sealed(&superuser).await;
    // No seal changes until every key is replaced.
    let mut still = superuser.begin_with("BEGIN").await.expect("a transaction");
    let lock = "LOCK TABLE mcp_configurations IN SHARE ROW EXCLUSIVE MODE";
    sqlx::query(lock).execute(&mut *still).await.expect("the lock");
    let mut rotation = begin(system, keys, "--data");
    let mut lines = BufReader::new(rotation.stdout.take().expect("its output")).lines();
    let first = loop {
        // Lines of the log stand between.
        let line = lines.next_line().await.expect("text").expect("a line");
        if line.contains("--made-before") {
            break line;
        }
    };
    stands_still(system).await;
    let mut lock = superuser.begin_with("BEGIN").await.expect("a transaction");
    hold_key(&mut lock, middle).await;
    still.rollback().await.expect("nothing is kept");
    system.eventually("the first seals are renewed", FEWER_LAG, &all.to_string()).await;
    stands_still(system).await;
    kill(rotation).await;
    lock.rollback().await.expect("nothing is kept");
    let left = lagging(&superuser).await;
    assert!(0 < left && left < all, "{left} of {all}: this was not half way");
    superuser.close().await;
    first.rsplit(' ').next().expect("the moment").to_owned()
}

/// Holds an organization's active key, as somebody who seals does.
async fn hold_key(lock: &mut sqlx::Transaction<'_, sqlx::Postgres>, organization: Uuid) {
    sqlx::query("SELECT FROM tenant_keys WHERE organization_id = $1 AND state = 'active' FOR UPDATE")
        .bind(organization)
        .execute(&mut **lock)
        .await
        .expect("the lock");
}
