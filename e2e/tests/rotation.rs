//! Both kinds of key replaced while calls and registrations go on, with processes killed at the worst
//! moments: nothing fails, nothing is left under an old key, and the old key can be taken away.

use std::{
    process::Output,
    sync::{Arc, OnceLock},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures::{StreamExt as _, stream};
use serde_json::{Value, json};
use sqlx::PgPool;
use stack::{Options, Pool};
use uuid::Uuid;

use crate::{
    servers::BEARER,
    world::{System, Tenant},
};

mod going_on;
mod half_way;

use going_on::Load;

/// The key-encryption keys of the system under rotation, `id:base64`.
struct Keks {
    old: String,
    new: String,
}

fn keks() -> &'static Keks {
    static KEKS: OnceLock<Keks> = OnceLock::new();
    KEKS.get_or_init(|| Keks { old: format!("old:{}", random_key()), new: format!("new:{}", random_key()) })
}

fn random_key() -> String {
    BASE64_STANDARD.encode([Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes()].concat())
}

/// A system in which every worker knows both keys and still writes with the old one.
pub(crate) fn two_keys(options: &mut Options) {
    let Keks { old, new } = keks();
    options.worker_env.push(("VAULT_KEYS".to_owned(), format!("{old},{new}")));
}

/// Organizations, and secrets of each: the organization's, and one that a member alone sees.
fn counts() -> (usize, usize) {
    if std::env::var_os("SWITCHBOARD_FULL").is_some() { (100, 10) } else { (8, 5) }
}

/// An organization and the names of its configurations with a secret.
struct Site {
    tenant: Tenant,
    names: Vec<String>,
}

impl Site {
    async fn open(system: &System, secrets: usize) -> Self {
        let tenant = system.organization().await;
        let mut names = Vec::new();
        for number in 1..=secrets {
            let scope = if number == 1 { "user" } else { "organization" };
            names.push(format!("secret-{number}"));
            register(system, &tenant, &names[number - 1], scope).await;
        }
        Self { tenant, names }
    }
}

/// Registers the protected server. The user registers what is theirs alone.
async fn register(system: &System, tenant: &Tenant, name: &str, scope: &str) -> Value {
    let body = json!({
        "name": name, "endpoint": system.servers.protected_url, "scope": scope,
        "auth": { "type": "bearer", "token": BEARER },
    });
    let client = if scope == "user" { &tenant.user } else { &tenant.admin };
    let made = client.post("/api/v1/mcp/configurations", &body).await;
    assert_eq!(made.status, 201, "{}", made.text);
    made.json()
}

pub(crate) async fn keys_rotate_under_load_and_nothing_fails_or_stays_behind(system: Arc<System>) {
    let (organizations, each) = counts();
    let opening = stream::iter(0..organizations).map(|_| Site::open(&system, each)).buffer_unordered(6);
    let mut sites: Vec<Site> = opening.collect().await;
    // Sweeps go by id; what is killed half way is killed in the middle.
    sites.sort_by_key(|site| site.tenant.id);
    let middle = sites[organizations / 2].tenant.id;
    let sites = Arc::new(sites);
    let superuser = system.database("superuser").await;
    let [wrapped, sealed] = [half_way::wrapped_with(&superuser, "old").await, half_way::sealed(&superuser).await];
    assert!(wrapped >= organizations && sealed >= organizations * each, "{wrapped} {sealed}");

    let load = Load::start(&system, &sites, middle);
    let Keks { old, new } = keks();
    let both = format!("{new},{old}");
    let [token, tool] = replace(&system, ["token-1", "tool-1"], &both).await;
    half_way::wrapping_is_killed(&system, &both, middle).await;
    done(&rotate(&system, &both, &["--kek"]).await);
    let other = system.stack().await.add_worker_with(Pool::Tool, &[("VAULT_KEYS", &both)]).await.expect("a worker");
    system.stack().await.kill(&tool).await.expect("it ran");
    let made_before = half_way::sealing_is_killed(&system, &both, middle).await;
    done(&rotate(&system, &both, &["--data", "--made-before", &made_before]).await);

    let status = rotate(&system, &both, &["--status"]).await;
    assert_eq!(status.status.code(), Some(0), "{status:?}");
    assert!(String::from_utf8_lossy(&status.stdout).contains("old: nothing depends on it"), "{status:?}");
    assert_eq!(half_way::wrapped_with(&superuser, "old").await, 0);
    assert_eq!(half_way::lagging(&superuser).await, 0);
    superuser.close().await;

    // Nothing needs the old key: workers that never heard of it serve every secret.
    replace(&system, [&token, &other], new).await;
    let (calls, registrations, failed) = load.end().await;
    assert!(failed.is_empty(), "{failed:#?}");
    // Enough that some of them met every step.
    assert!(calls > 8 && registrations > 0, "{calls} {registrations}");
    eprintln!("rotation: {sealed} secrets, {calls} calls and {registrations} registrations went on");
    let calls = sites.iter().flat_map(|site| site.names.iter().map(move |name| (site, name)));
    let ended: Vec<String> = stream::iter(calls)
        .map(async |(site, name)| site.tenant.call(name, "read_counter", json!({})).await.text)
        .buffer_unordered(8)
        .collect()
        .await;
    assert!(ended.iter().all(|text| text.contains(r#""state":"done""#)), "{ended:#?}");
}

/// Puts workers with these keys in the place of others, as a deployment rolls.
async fn replace(system: &System, names: [&str; 2], keys: &str) -> [String; 2] {
    let stack = system.stack().await;
    let start = async |pool| stack.add_worker_with(pool, &[("VAULT_KEYS", keys)]).await.expect("the worker starts");
    let started = [start(Pool::Token).await, start(Pool::Tool).await];
    for name in names {
        stack.stop_one(name).await.expect("the worker ends");
    }
    started
}

/// `workers rotate-keys`, as an operator runs it.
fn command(system: &System, keys: &str, arguments: &[&str]) -> tokio::process::Command {
    let places = stack::places::Places::find().expect("the checkout");
    let mut command = tokio::process::Command::new(places.binary("workers").expect("the binary"));
    command.arg("rotate-keys").args(arguments).env_clear().kill_on_drop(true);
    command.env("DATABASE_URL", system.database_url("token")).env("VAULT_KEYS", keys);
    command
}

async fn rotate(system: &System, keys: &str, arguments: &[&str]) -> Output {
    command(system, keys, arguments).output().await.expect("it runs")
}

#[track_caller]
fn done(output: &Output) {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

pub(crate) async fn a_worker_without_a_key_that_is_needed_does_not_start(system: Arc<System>) {
    let tenant = system.organization().await;
    register(&system, &tenant, "sealed", "organization").await;
    let foreign = format!("foreign:{}", random_key());
    for pool in [Pool::Token, Pool::Tool] {
        let started = system.stack().await.add_worker_with(pool, &[("VAULT_KEYS", &foreign)]).await;
        let refused = format!("{:#}", started.expect_err("it starts without the key"));
        assert!(refused.contains("VAULT_KEYS lacks the key") && refused.contains("rotate-keys --kek"), "{refused}");
    }
    let status = rotate(&system, &foreign, &["--status"]).await;
    assert_eq!(status.status.code(), Some(3), "{status:?}");
    assert!(String::from_utf8_lossy(&status.stdout).contains("NOT CONFIGURED"), "{status:?}");
    let refused = rotate(&system, &foreign, &["--kek", "--data"]).await;
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("VAULT_KEYS lacks the key"), "{refused:?}");
}

pub(crate) async fn a_key_that_is_due_is_replaced_by_the_next_secret_and_workers_seal_the_rest(system: Arc<System>) {
    let superuser = system.database("superuser").await;
    for due in ["created_at = now() - interval '91 days'", "writes = 268435456"] {
        let tenant = system.organization().await;
        let first = register(&system, &tenant, "first", "organization").await;
        register(&system, &tenant, "own", "user").await;
        let age = sqlx::AssertSqlSafe(format!("UPDATE tenant_keys SET {due} WHERE organization_id = $1"));
        sqlx::query(age).bind(tenant.id).execute(&superuser).await.expect("the key is old");
        register(&system, &tenant, "second", "organization").await;
        let keys: Vec<(String, i64, bool)> = sqlx::query_as(
            "SELECT state, (SELECT count(*) FROM mcp_configurations c WHERE c.organization_id = k.organization_id \
                 AND substr(c.secret, 3, 16) = uuid_send(k.id)), retired_at IS NOT NULL \
             FROM tenant_keys k WHERE organization_id = $1 ORDER BY state DESC",
        )
        .bind(tenant.id)
        .fetch_all(&superuser)
        .await
        .expect("the keys");
        assert_eq!(keys, [("retired".to_owned(), 2, true), ("active".to_owned(), 1, false)], "{due}");

        // A token worker looks once when it starts.
        let stack = system.stack().await;
        let worker = stack.add_worker(Pool::Token).await.expect("the worker starts");
        system.eventually("every seal is renewed", half_way::NONE_LAGS, &tenant.id.to_string()).await;
        stack.stop_one(&worker).await.expect("the worker ends");
        drop(stack);
        let path = format!("/api/v1/mcp/configurations/{}", first["id"].as_str().expect("an id"));
        assert_eq!(tenant.admin.get(&path).await.json(), first, "nobody sees a difference");
        for name in ["first", "own", "second"] {
            let answer = tenant.call(name, "read_counter", json!({})).await;
            assert_eq!(answer.status, 200, "{name}: {}", answer.text);
        }
        system.eventually("the trail tells of it", TOLD, &tenant.id.to_string()).await;
    }
    superuser.close().await;
}

/// An event on its way to the trail, or there.
const TOLD: &str = "SELECT to_jsonb(organization_id) FROM audit_outbox \
        WHERE organization_id::text = $1 AND encode(event, 'escape') LIKE '%keys.renew%' \
    UNION ALL SELECT to_jsonb(organization_id) FROM audit_logs \
        WHERE organization_id::text = $1 AND action = 'keys.renew' LIMIT 1";

/// A number that the superuser asks for.
async fn number(superuser: &PgPool, sql: &'static str) -> usize {
    let count: i64 = sqlx::query_scalar(sql).fetch_one(superuser).await.expect("the query runs");
    usize::try_from(count).expect("a count")
}
