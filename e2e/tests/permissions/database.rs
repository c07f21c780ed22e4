//! A pool's PostgreSQL role by hand: other pools' tables, other roles, and everything that would
//! weaken the walls. Each is refused by PostgreSQL, whatever our code would have done.

use std::{fmt::Write as _, sync::Arc};

use sqlx::{AssertSqlSafe, Executor, PgPool};

use super::POOLS;
use crate::world::{System, Tenant};

/// PostgreSQL: insufficient privilege.
const REFUSED: &str = "42501";

/// Runs a statement as an organization in a transaction that is not kept; answers the rows it
/// touched or the error's code.
pub(crate) async fn attempt(database: &PgPool, settings: &[(&str, &str)], sql: &str) -> Result<u64, String> {
    let mut begin = String::from("BEGIN");
    for (name, value) in settings {
        let _ = write!(begin, "; SET LOCAL {name} = '{value}'");
    }
    let mut transaction = database.begin_with(AssertSqlSafe(begin)).await.expect("a transaction");
    let outcome = transaction.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await;
    transaction.rollback().await.expect("nothing is kept");
    match outcome {
        Ok(done) => Ok(done.rows_affected()),
        Err(sqlx::Error::Database(error)) => Err(error.code().map(std::borrow::Cow::into_owned).unwrap_or_default()),
        Err(other) => panic!("{sql}: {other}"),
    }
}

/// Every statement is refused to a pool that acts for an organization of its own.
async fn all_refused(system: &System, tenant: &Tenant, pool: &str, statements: &[String]) {
    let database = system.database(pool).await;
    let organization = tenant.id.to_string();
    let settings = [("app.org_id", organization.as_str()), ("app.role", "admin"), ("app.platform_role", "operator")];
    assert_eq!(attempt(&database, &settings, "SELECT 1").await, Ok(1), "{pool} is let in");
    for sql in statements {
        let outcome = attempt(&database, &settings, sql).await;
        assert_eq!(outcome, Err(REFUSED.to_owned()), "{pool}: {sql}");
    }
    database.close().await;
}

fn owned(statements: &[&str]) -> Vec<String> {
    statements.iter().map(|sql| (*sql).to_owned()).collect()
}

/// What is shared is shared for reading, or for writing only, or for some columns.
const BEYOND: [(&str, &[&str]); 5] = [
    (
        "controller",
        &[
            "INSERT INTO sessions (organization_id) VALUES (app.org_id())",
            "DELETE FROM sessions",
            "UPDATE sessions SET subject = 'x'",
            "UPDATE sessions SET prompt = '{}'",
            "UPDATE sessions SET touched_at = now()",
            "SELECT FROM audit_outbox",
            "DELETE FROM audit_outbox",
            "UPDATE audit_outbox SET event = ''",
        ],
    ),
    (
        "tool",
        &[
            "UPDATE mcp_configurations SET endpoint = 'http://elsewhere.example'",
            "UPDATE mcp_configurations SET secret = NULL",
            "UPDATE mcp_configurations SET generation = generation + 1",
            "UPDATE mcp_configurations SET enabled = true",
            "UPDATE mcp_tools SET definition = '{}'",
            "UPDATE mcp_tools SET definition_hash = definition_hash",
            "UPDATE mcp_tools SET override_repeatable = true",
            "DELETE FROM mcp_tools",
            "DELETE FROM mcp_configurations",
            "UPDATE tenant_keys SET state = 'retired'",
            "UPDATE organizations SET concurrency_limit = 256",
            "INSERT INTO sessions (organization_id) VALUES (app.org_id())",
            "DELETE FROM sessions",
            "UPDATE sessions SET state = 'ended'",
            "UPDATE sessions SET expires_at = now()",
            "UPDATE sessions SET subject = 'x'",
            "INSERT INTO users (organization_id, subject, role) VALUES (app.org_id(), 'x', 'admin')",
            "SELECT FROM audit_outbox",
            "DELETE FROM audit_outbox",
            "UPDATE audit_outbox SET event = ''",
        ],
    ),
    (
        "session",
        &[
            "SELECT FROM audit_outbox",
            "UPDATE sessions SET subject = 'x'",
            "UPDATE sessions SET prompt = '{}'",
            "UPDATE sessions SET expires_at = now()",
            "UPDATE sessions SET files_quota_bytes = 0",
            "DELETE FROM users",
            "UPDATE users SET subject = 'x'",
            "UPDATE organizations SET id = gen_random_uuid()",
            "UPDATE organizations SET slug = 'x'",
            "UPDATE organizations SET concurrency_limit = 256, calls_per_minute = 1000000, deleted_at = NULL",
            "DELETE FROM organizations",
            "SELECT secret FROM mcp_configurations",
            "SELECT secret_hint FROM mcp_configurations",
            "SELECT endpoint FROM mcp_configurations",
            "SELECT * FROM mcp_configurations",
            "COPY mcp_configurations TO STDOUT",
            "INSERT INTO mcp_configurations DEFAULT VALUES",
            "UPDATE mcp_configurations SET enabled = true",
            "DELETE FROM mcp_configurations",
            "SELECT changed_definition FROM mcp_tools",
            "COPY mcp_tools TO STDOUT",
            "INSERT INTO mcp_tools DEFAULT VALUES",
            "UPDATE mcp_tools SET definition = definition",
            "DELETE FROM mcp_tools",
            "UPDATE system_prompts SET scope = 'global'",
            "UPDATE system_prompts SET user_subject = 'x'",
            "UPDATE system_prompts SET organization_id = gen_random_uuid()",
            "UPDATE prompt_versions SET content = 'x'",
            "DELETE FROM prompt_versions",
            "DELETE FROM prompt_generations",
        ],
    ),
    (
        "token",
        &[
            "DELETE FROM tenant_keys",
            "INSERT INTO mcp_tools (organization_id) VALUES (app.org_id())",
            "UPDATE mcp_tools SET name = 'x'",
            "DELETE FROM mcp_tools",
            "UPDATE mcp_configurations SET scope = 'user'",
            "UPDATE mcp_configurations SET organization_id = gen_random_uuid()",
            "SELECT FROM audit_outbox",
        ],
    ),
    (
        "audit",
        &[
            "INSERT INTO audit_logs (organization_id) VALUES (app.org_id())",
            "UPDATE audit_logs SET actor = 'x'",
            "DELETE FROM audit_logs",
            "TRUNCATE audit_logs",
            "SELECT FROM audit_logs_default",
        ],
    ),
];

/// Tables of which a pool is granted nothing.
const FORBIDDEN: [(&str, &[&str]); 5] = [
    ("session", &["tenant_keys", "audit_logs"]),
    (
        "token",
        &[
            "organizations",
            "users",
            "sessions",
            "audit_logs",
            "system_prompts",
            "prompt_versions",
            "prompt_generations",
        ],
    ),
    ("tool", &["users", "audit_logs", "system_prompts", "prompt_versions", "prompt_generations"]),
    (
        "audit",
        &[
            "organizations",
            "users",
            "sessions",
            "tenant_keys",
            "mcp_configurations",
            "mcp_tools",
            "audit_outbox",
            "system_prompts",
            "prompt_versions",
            "prompt_generations",
        ],
    ),
    (
        "controller",
        &[
            "organizations",
            "users",
            "tenant_keys",
            "mcp_configurations",
            "mcp_tools",
            "audit_logs",
            "system_prompts",
            "prompt_versions",
            "prompt_generations",
        ],
    ),
];

pub(crate) async fn a_pool_cannot_reach_another_pools_tables(system: Arc<System>) {
    let tenant = system.organization().await;
    for (pool, tables) in FORBIDDEN {
        let mut statements = Vec::new();
        for table in tables {
            statements.push(format!("SELECT FROM {table}"));
            statements.push(format!("SELECT count(*) FROM {table}"));
            statements.push(format!("INSERT INTO {table} DEFAULT VALUES"));
            statements.push(format!("DELETE FROM {table}"));
            statements.push(format!("COPY {table} TO STDOUT"));
            statements.push(format!("LOCK TABLE {table} IN ACCESS SHARE MODE"));
        }
        all_refused(&system, &tenant, pool, &statements).await;
    }
    for (pool, statements) in BEYOND {
        all_refused(&system, &tenant, pool, &owned(statements)).await;
    }
}

pub(crate) async fn a_pool_cannot_become_another_role(system: Arc<System>) {
    let tenant = system.organization().await;
    let superuser = system.database("superuser").await;
    let roles: Vec<String> =
        sqlx::query_scalar("SELECT rolname::text FROM pg_roles").fetch_all(&superuser).await.expect("the roles");
    assert!(roles.len() > 20 && roles.iter().any(|role| role == "switchboard_owner"), "{roles:?}");
    superuser.close().await;
    for pool in POOLS {
        let own = format!("switchboard_{pool}");
        let mut statements = Vec::new();
        for role in roles.iter().filter(|role| **role != own) {
            statements.push(format!("SET ROLE \"{role}\""));
            statements.push(format!("SET SESSION AUTHORIZATION \"{role}\""));
            // It can have no members, whoever asks.
            if role != "pg_database_owner" {
                statements.push(format!("GRANT \"{role}\" TO {own}"));
            }
        }
        for attribute in ["BYPASSRLS", "SUPERUSER", "CREATEROLE", "CREATEDB", "REPLICATION"] {
            statements.push(format!("ALTER ROLE {own} {attribute}"));
        }
        statements.push("CREATE ROLE accomplice LOGIN SUPERUSER".to_owned());
        statements.push("ALTER ROLE switchboard_owner LOGIN PASSWORD 'x'".to_owned());
        statements.push("SELECT rolpassword FROM pg_authid".to_owned());
        all_refused(&system, &tenant, pool, &statements).await;
    }
}

pub(crate) async fn a_pool_cannot_create_or_weaken_anything(system: Arc<System>) {
    let tenant = system.organization().await;
    let statements = owned(&[
        "CREATE TABLE public.mine (a int)",
        "CREATE TABLE app.mine (a int)",
        "CREATE VIEW public.mine AS SELECT 1",
        "CREATE SCHEMA mine",
        "CREATE FOREIGN DATA WRAPPER mine",
        "CREATE PUBLICATION mine FOR ALL TABLES",
        "CREATE FUNCTION public.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE FUNCTION app.org_id() RETURNS uuid LANGUAGE sql AS 'SELECT NULL::uuid'",
        "CREATE OR REPLACE FUNCTION app.org_id() RETURNS uuid LANGUAGE sql STABLE AS 'SELECT NULL::uuid'",
        "DROP FUNCTION app.append_audit",
        "ALTER FUNCTION app.org_id() OWNER TO CURRENT_USER",
        "GRANT EXECUTE ON FUNCTION app.create_audit_partition(text, text) TO CURRENT_USER",
        "ALTER TABLE public.users DISABLE ROW LEVEL SECURITY",
        "ALTER TABLE public.users NO FORCE ROW LEVEL SECURITY",
        "ALTER TABLE public.users OWNER TO CURRENT_USER",
        "ALTER TABLE public.audit_logs DISABLE TRIGGER ALL",
        "ALTER TABLE public.audit_logs DISABLE TRIGGER refuse_change",
        "ALTER TABLE public.audit_logs DETACH PARTITION public.audit_logs_default",
        "DROP TRIGGER refuse_change ON public.audit_logs",
        "DROP TABLE public.audit_logs",
        "CREATE POLICY mine ON public.users USING (true)",
        "ALTER POLICY tenant ON public.users USING (true)",
        "DROP POLICY tenant ON public.users",
        "CREATE TRIGGER mine BEFORE INSERT ON public.users EXECUTE FUNCTION app.raise_generation()",
        "CREATE RULE mine AS ON INSERT TO public.users DO INSTEAD NOTHING",
        "CREATE INDEX mine ON public.users (email)",
        "SET session_replication_role = 'replica'",
        "SET log_statement = 'none'",
        "ALTER ROLE ALL SET app.org_id = 'x'",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "COPY (SELECT 1) TO '/tmp/mine'",
        "SELECT pg_read_file('PG_VERSION')",
        "SELECT pg_ls_dir('.')",
        "SELECT lo_import('PG_VERSION')",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename <> CURRENT_USER AND usename LIKE 'switchboard%'",
    ]);
    for pool in POOLS {
        all_refused(&system, &tenant, pool, &statements).await;
    }
}

pub(crate) async fn a_pool_cannot_turn_row_security_off(system: Arc<System>) {
    let (mine, other) = (system.organization().await, system.organization().await);
    let tables = [
        ("session", "users"),
        ("token", "mcp_configurations"),
        ("tool", "mcp_configurations"),
        ("audit", "audit_logs"),
    ];
    for (pool, table) in tables {
        let database = system.database(pool).await;
        let organization = mine.id.to_string();
        let settings = [("app.org_id", organization.as_str())];
        // Off means: fail rather than filter. It never means: show everything.
        let off = attempt(&database, &settings, &format!("SET LOCAL row_security = off; SELECT FROM {table}")).await;
        assert_eq!(off, Err(REFUSED.to_owned()), "{pool}: {table}");
        let others = format!("SELECT FROM {table} WHERE organization_id = '{}'", other.id);
        assert_eq!(attempt(&database, &settings, &others).await, Ok(0), "{pool}: {table}");
        database.close().await;
    }
}
