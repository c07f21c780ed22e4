//! Every table, times every role, times every operation, as one organization, as nobody and without
//! having said: rows of another organization are neither seen nor touched. What exists comes from
//! PostgreSQL's catalogue; what is granted stands here by hand, and a table that does not fails.

use std::{fmt::Write as _, sync::Arc};

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};
use uuid::Uuid;

use crate::{
    sessions,
    world::{System, Tenant},
};

/// Table, pool, and what it is granted: `s`elect, `i`nsert, `u`pdate, `d`elete. Nothing else is.
const GRANTED: [(&str, &str, &str); 24] = [
    ("organizations", "session", "su"),
    ("organizations", "tool", "s"),
    ("users", "session", "siu"),
    ("tenant_keys", "token", "siu"),
    ("tenant_keys", "tool", "s"),
    // Some columns of servers and tools, for templates that speak of them.
    ("mcp_configurations", "session", "s"),
    ("mcp_tools", "session", "s"),
    ("system_prompts", "session", "siud"),
    ("prompt_versions", "session", "s"),
    ("prompt_generations", "session", "s"),
    ("mcp_configurations", "token", "siud"),
    ("mcp_configurations", "tool", "su"),
    ("mcp_tools", "token", "su"),
    ("mcp_tools", "tool", "siu"),
    ("sessions", "session", "siud"),
    ("sessions", "tool", "su"),
    ("sessions", "controller", "su"),
    ("session_files", "session", "siud"),
    ("session_files", "tool", "siu"),
    ("audit_outbox", "controller", "i"),
    ("audit_outbox", "session", "i"),
    ("audit_outbox", "token", "i"),
    ("audit_outbox", "tool", "i"),
    ("audit_logs", "audit", "s"),
];

/// Where the platform's own rows are everybody's to read, and nobody's to write but an operator's.
const OF_THE_PLATFORM: [&str; 2] = ["system_prompts", "prompt_generations"];

/// Pools log in; the others are roles that a data API assumes, taken on here by the superuser.
const POOLS: [&str; 5] = ["session", "token", "tool", "audit", "controller"];
const DATA_API: [&str; 3] = ["anon", "authenticated", "service_role"];

/// PostgreSQL: insufficient privilege, also of a row that a policy refuses.
const REFUSED: &str = "42501";
/// PostgreSQL: unique violation.
const DUPLICATE: &str = "23505";

/// A table as the catalogue knows it.
#[derive(Debug, sqlx::FromRow)]
struct Table {
    name: String,
    is_partition: bool,
    /// The column that says whose a row is.
    key: String,
    /// What can be inserted.
    columns: String,
}

impl Table {
    /// A partition is granted to nobody: rows are reached through their parent.
    fn granted(&self, role: &str) -> &'static str {
        let found = GRANTED.iter().find(|(table, pool, _)| *table == self.name && *pool == role);
        found.map_or("", |(_, _, granted)| granted)
    }
}

async fn tables(superuser: &PgPool) -> Vec<Table> {
    let tables: Vec<Table> = sqlx::query_as(
        "SELECT c.relname::text AS name, c.relispartition AS is_partition, \
             CASE c.relname WHEN 'organizations' THEN 'id' ELSE 'organization_id' END AS key, \
             (SELECT string_agg(quote_ident(a.attname), ', ') FROM pg_attribute a \
              WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '') AS columns \
         FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') \
             AND c.relname <> '_sqlx_migrations' ORDER BY c.relname",
    )
    .fetch_all(superuser)
    .await
    .expect("the tables");
    for table in tables.iter().filter(|table| !table.is_partition) {
        let known = GRANTED.iter().any(|(name, ..)| *name == table.name);
        assert!(known, "{} is new: say here what it grants to whom", table.name);
    }
    for (name, ..) in GRANTED {
        assert!(tables.iter().any(|table| table.name == name), "{name} is no table any more");
    }
    assert!(tables.iter().any(|table| table.is_partition), "the partitions are missing");
    tables
}

/// An organization with a row in every table.
async fn filled(system: &System, superuser: &PgPool) -> Tenant {
    let tenant = system.organization().await;
    let secret = json!({ "auth": { "type": "bearer", "token": format!("secret-{}", tenant.id) } });
    tenant.register("sealed", &system.demo_url, secret).await;
    let answer = tenant.call("demo", "echo", json!({ "text": "x" })).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let session = sessions::open(&tenant.user, json!({})).await;
    let path = format!("{}/files/theirs", sessions::item(&session));
    let written = tenant.user.send(tenant.user.request(reqwest::Method::PUT, &path).body("theirs")).await;
    assert_eq!(written.status, 201, "{}", written.text);
    let prompt = json!({ "scope": "organization", "name": "filled", "content": "x" });
    assert_eq!(tenant.admin.post("/api/v1/prompts", &prompt).await.status, 201);
    let id = tenant.id.to_string();
    system
        .eventually("an audit row", "SELECT to_jsonb(l) FROM audit_logs l WHERE organization_id::text = $1", &id)
        .await;
    // Events pass through the outbox too quickly to be met there: this one is from tomorrow.
    sqlx::query("INSERT INTO audit_outbox (organization_id, event_id, event, created_at) VALUES ($1, $1, '\\x00', now() + interval '1 day')")
        .bind(tenant.id)
        .execute(superuser)
        .await
        .expect("an event in the outbox");
    tenant
}

/// Who tries, and as which organization: `None` never said, an empty text is what a pooled
/// connection reads after another transaction.
struct Attempt<'a> {
    database: &'a PgPool,
    assumed: Option<&'a str>,
    organization: Option<&'a str>,
}

impl Attempt<'_> {
    /// Runs one statement in a transaction that is not kept; answers the number it selects.
    async fn run(&self, sql: String, row: Option<&Value>) -> Result<i64, String> {
        let mut begin = String::from("BEGIN");
        if let Some(role) = self.assumed {
            let _ = write!(begin, "; SET LOCAL ROLE {role}");
        }
        if let Some(organization) = self.organization {
            // An admin there: whatever else they could be lets them no further.
            let _ = write!(begin, "; SET LOCAL app.org_id = '{organization}'; SET LOCAL app.role = 'admin'");
        }
        let mut transaction = self.database.begin_with(AssertSqlSafe(begin)).await.expect("a transaction");
        let query = sqlx::query(AssertSqlSafe(sql.clone()));
        let query = match row {
            Some(row) => query.bind(row),
            None => query,
        };
        let outcome = query.fetch_optional(&mut *transaction).await;
        transaction.rollback().await.expect("nothing is kept");
        match outcome {
            Ok(row) => Ok(row.map_or(0, |row| sqlx::Row::try_get(&row, 0).unwrap_or(-1))),
            Err(sqlx::Error::Database(error)) => {
                Err(error.code().map(std::borrow::Cow::into_owned).unwrap_or_default())
            }
            Err(other) => panic!("{sql}: {other}"),
        }
    }
}

pub(crate) async fn every_table_is_closed_to_other_organizations(system: Arc<System>) {
    let superuser = system.database("superuser").await;
    let (a, b) = (filled(&system, &superuser).await, filled(&system, &superuser).await);
    let tables = tables(&superuser).await;
    for (mine, other) in [(a.id, b.id), (b.id, a.id)] {
        let mut targets = Vec::new();
        for table in &tables {
            targets.push((table, row_of(&superuser, table, other).await));
        }
        let roles = POOLS.into_iter().chain(DATA_API);
        futures::future::join_all(roles.map(|role| every_table_as(&system, role, &targets, mine, other))).await;
    }
    sqlx::query("DELETE FROM audit_outbox WHERE organization_id = ANY($1)")
        .bind([a.id, b.id])
        .execute(&superuser)
        .await
        .expect("the outbox is left clean");
    superuser.close().await;
}

async fn every_table_as(system: &System, role: &str, targets: &[(&Table, Value)], mine: Uuid, other: Uuid) {
    let assumed = DATA_API.contains(&role).then_some(role);
    let database = system.database(if assumed.is_some() { "superuser" } else { role }).await;
    let (mine, other) = (mine.to_string(), other.to_string());
    // Never said comes first, while the connection has not.
    for organization in [None, Some(""), Some(mine.as_str())] {
        for (table, row) in targets {
            let column = updatable(&database, table, role).await;
            closed(&Attempt { database: &database, assumed, organization }, table, role, (row, column.as_deref()))
                .await;
        }
    }
    for (table, row) in targets {
        let own = Attempt { database: &database, assumed, organization: Some(&other) };
        let column = updatable(&database, table, role).await;
        open_to_itself(&own, table, role, (row, column.as_deref())).await;
        for sql in [
            format!("TRUNCATE {}", table.name),
            format!("UPDATE {0} SET {1} = {1}", table.name, table.key),
            format!("ALTER TABLE {} DISABLE ROW LEVEL SECURITY", table.name),
            format!("CREATE TRIGGER t BEFORE INSERT ON {} EXECUTE FUNCTION app.raise_generation()", table.name),
        ] {
            assert_eq!(own.run(sql.clone(), None).await, Err(REFUSED.to_owned()), "{role}: {sql}");
        }
    }
    database.close().await;
}

/// A row of the organization, as the superuser sees it. Partitions of other months have none.
async fn row_of(superuser: &PgPool, table: &Table, organization: Uuid) -> Value {
    let Table { name, key, .. } = table;
    // Members' own rows have a test of their own.
    let sql = format!("SELECT to_jsonb(t) FROM {name} t WHERE {key} = $1 LIMIT 1");
    let row: Option<Value> =
        sqlx::query_scalar(AssertSqlSafe(sql)).bind(organization).fetch_optional(superuser).await.expect("a query");
    assert!(row.is_some() || table.is_partition, "the test has no row in {name}: give it one");
    row.unwrap_or_else(|| json!({ key: organization }))
}

/// Nothing of others is read or written.
async fn closed(attempt: &Attempt<'_>, table: &Table, role: &str, (row, column): (&Value, Option<&str>)) {
    let Table { name, key, columns, .. } = table;
    let granted = table.granted(role);
    let foreign = match attempt.organization {
        Some(mine) if !mine.is_empty() => format!("{key} <> '{mine}'"),
        _ => "true".to_owned(),
    };
    let may = |operation: char| granted.contains(operation);
    let what = format!("{role} in {name} as {:?}", attempt.organization);
    let none_if = |granted: bool| if granted { Ok(0) } else { Err(REFUSED.to_owned()) };

    let hidden = match attempt.organization {
        Some(mine) if !mine.is_empty() && OF_THE_PLATFORM.contains(&name.as_str()) => {
            let is_global = if columns.contains("scope") { " AND scope = 'global'" } else { "" };
            format!("{foreign} AND NOT ({key} = '{}'{is_global})", Uuid::nil())
        }
        _ => foreign.clone(),
    };
    let count = attempt.run(format!("SELECT count(*) FROM {name} WHERE {hidden}"), None).await;
    assert_eq!(count, none_if(may('s')), "{what}: select");
    let insert =
        format!("INSERT INTO {name} ({columns}) SELECT {columns} FROM jsonb_populate_record(NULL::{name}, $1)");
    assert_eq!(attempt.run(insert, Some(row)).await, Err(REFUSED.to_owned()), "{what}: insert");
    assert_eq!(column.is_some(), may('u'), "{what}: update is granted on {column:?}");
    let column = column.unwrap_or(key);
    let update =
        format!("WITH t AS (UPDATE {name} SET {column} = {column} WHERE {foreign} RETURNING 1) SELECT count(*) FROM t");
    assert_eq!(attempt.run(update, None).await, none_if(may('u')), "{what}: update");
    let delete = format!("WITH t AS (DELETE FROM {name} WHERE {foreign} RETURNING 1) SELECT count(*) FROM t");
    assert_eq!(attempt.run(delete, None).await, none_if(may('d')), "{what}: delete");
}

/// The same statements reach the rows for whom they are: the refusals above have no other reason.
async fn open_to_itself(attempt: &Attempt<'_>, table: &Table, role: &str, (row, column): (&Value, Option<&str>)) {
    let Table { name, key, columns, .. } = table;
    let granted = table.granted(role);
    let own = format!("{key} = '{}'", attempt.organization.unwrap_or_default());
    let what = format!("{role} in its own {name}");
    if granted.contains('s') {
        let count = attempt.run(format!("SELECT count(*) FROM {name} WHERE {own}"), None).await;
        assert!(count.as_ref().is_ok_and(|count| *count > 0), "{what}: select: {count:?}");
    }
    if granted.contains('i') {
        let insert =
            format!("INSERT INTO {name} ({columns}) SELECT {columns} FROM jsonb_populate_record(NULL::{name}, $1)");
        assert_eq!(attempt.run(insert, Some(row)).await, Err(DUPLICATE.to_owned()), "{what}: insert");
    }
    if let Some(column) = column {
        let update =
            format!("WITH t AS (UPDATE {name} SET {column} = {column} WHERE {own} RETURNING 1) SELECT count(*) FROM t");
        let count = attempt.run(update, None).await;
        assert!(count.as_ref().is_ok_and(|count| *count > 0), "{what}: update: {count:?}");
    }
    if granted.contains('d') {
        let delete = format!("WITH t AS (DELETE FROM {name} WHERE {own} RETURNING 1) SELECT count(*) FROM t");
        let count = attempt.run(delete, None).await;
        // A session that is not over stays, whoever asks.
        let is_held = name == "sessions" && count == Ok(0);
        assert!(is_held || count.as_ref().is_ok_and(|count| *count > 0), "{what}: delete: {count:?}");
    }
}

/// A column that the role may change, by the catalogue.
async fn updatable(database: &PgPool, table: &Table, role: &str) -> Option<String> {
    let role = if DATA_API.contains(&role) { role.to_owned() } else { format!("switchboard_{role}") };
    sqlx::query_scalar(
        "SELECT quote_ident(a.attname) FROM pg_attribute a WHERE a.attrelid = $1::regclass AND a.attnum > 0 \
             AND has_column_privilege($2, a.attrelid, a.attnum, 'UPDATE') LIMIT 1",
    )
    .bind(&table.name)
    .bind(role)
    .fetch_optional(database)
    .await
    .expect("the catalogue")
}

pub(crate) async fn a_row_cannot_point_into_another_organization(system: Arc<System>) {
    let (mine, victim) = (system.organization().await, system.organization().await);
    let theirs = victim.register("theirs", &system.demo_url, json!({})).await;
    let own = mine.register("mine", &system.demo_url, json!({})).await;
    let tool = system.database("tool").await;
    let organization = mine.id.to_string();
    let attempt = Attempt { database: &tool, assumed: None, organization: Some(&organization) };
    let pin = |configuration: &str| {
        format!(
            "INSERT INTO mcp_tools (organization_id, configuration_id, name, definition, definition_hash, pinned_by) \
             VALUES ('{organization}', '{configuration}', 'planted', '{{}}', sha256('x'), 'x')"
        )
    };
    assert_eq!(attempt.run(pin(&own), None).await, Ok(0), "its own configuration takes the row");
    // Foreign key violation: the same as for a configuration that does not exist.
    assert_eq!(attempt.run(pin(&theirs), None).await, Err("23503".to_owned()));
    assert_eq!(attempt.run(pin(&Uuid::now_v7().to_string()), None).await, Err("23503".to_owned()));
    tool.close().await;
}
