//! Rules that every table, index, key, policy, function and role keeps, asked of PostgreSQL's own
//! catalogue: whoever adds one that does not is named here before a tenant's row is in it.

use std::sync::Arc;

use sqlx::{AssertSqlSafe, Executor, PgConnection};

use crate::world::System;

/// Everything outside PostgreSQL itself; `$ours` in the rules. A migration tool's history holds no
/// tenant's row.
const OURS: &str = "(SELECT c.* FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
    WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND c.relname <> '_sqlx_migrations')";
/// The column that says whose a row is; `$key` in the rules, of the table `c`.
const KEY: &str = "CASE c.relname WHEN 'organizations' THEN 'id' ELSE 'organization_id' END";
/// The roles that serve requests; `$served` in the rules.
const SERVED: &str = "('switchboard_session', 'switchboard_token', 'switchboard_tool', 'switchboard_audit', \
    'switchboard_controller', 'anon', 'authenticated', 'service_role')";

/// A rule, and the query that names whatever breaks it.
const RULES: [(&str, &str); 19] = [
    (
        "row-level security is on and forced",
        "SELECT relname::text FROM $ours c WHERE relkind IN ('r', 'p') \
        AND NOT (relrowsecurity AND relforcerowsecurity)",
    ),
    (
        "a table has a policy",
        "SELECT relname::text FROM $ours c WHERE relkind IN ('r', 'p') \
        AND NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid)",
    ),
    (
        "a table says whose its rows are",
        "SELECT relname::text FROM $ours c WHERE relkind IN ('r', 'p') AND NOT EXISTS \
        (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = $key AND a.attnotnull AND a.atttypid = 'uuid'::regtype)",
    ),
    (
        "a table has a primary key",
        "SELECT relname::text FROM $ours c WHERE relkind IN ('r', 'p') AND NOT relispartition \
        AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)",
    ),
    // The slug is the platform's: only an operator's function chooses it. A subject, and sessions whose
    // time is over, are looked for in every organization by functions that run as the owner.
    (
        "an index leads with the organization",
        "SELECT i.indexrelid::regclass::text FROM pg_index i JOIN $ours c ON c.oid = i.indrelid \
        LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0] \
        WHERE a.attname IS DISTINCT FROM $key \
        AND i.indexrelid NOT IN ('organizations_slug_key'::regclass, 'users_by_subject'::regclass, \
            'sessions_due'::regclass, 'sessions_gone'::regclass, \
            'users_inactive'::regclass, 'organizations_deleted'::regclass)",
    ),
    (
        "a foreign key carries the organization",
        "SELECT k.conname::text FROM pg_constraint k JOIN $ours c ON c.oid = k.conrelid \
        WHERE k.contype = 'f' AND NOT EXISTS (SELECT FROM unnest(k.conkey, k.confkey) AS pair (here, there) \
            JOIN pg_attribute h ON h.attrelid = k.conrelid AND h.attnum = pair.here AND h.attname = $key \
            JOIN pg_class f ON f.oid = k.confrelid \
            JOIN pg_attribute t ON t.attrelid = k.confrelid AND t.attnum = pair.there \
                AND t.attname = CASE f.relname WHEN 'organizations' THEN 'id' ELSE 'organization_id' END)",
    ),
    (
        "a policy names its roles and compares with the setting",
        "SELECT c.relname || '.' || p.polname FROM pg_policy p \
        JOIN $ours c ON c.oid = p.polrelid WHERE 0 = ANY (p.polroles) OR (p.polroles <> ARRAY['switchboard_owner'::regrole::oid] \
            AND (coalesce(pg_get_expr(p.polqual, p.polrelid), 'app.org_id()') NOT LIKE '%app.org_id()%' \
                OR coalesce(pg_get_expr(p.polwithcheck, p.polrelid), 'app.org_id()') NOT LIKE '%app.org_id()%'))",
    ),
    (
        "what crosses organizations as the owner is known",
        "SELECT c.relname || '.' || p.polname FROM pg_policy p \
        JOIN $ours c ON c.oid = p.polrelid WHERE 'switchboard_owner'::regrole::oid = ANY (p.polroles) \
        AND c.relname || '.' || p.polname NOT IN ('organizations.owner_reads', 'organizations.owner_inserts', 'organizations.owner_updates', \
            'users.owner_reads', 'audit_outbox.owner_reads', 'audit_outbox.owner_deletes', 'audit_logs.owner_inserts', \
            'tenant_keys.owner_reads', 'mcp_configurations.owner_reads', 'sessions.owner_reads', 'session_files.owner_reads', \
            'prompt_versions.owner_inserts', 'prompt_generations.owner_reads', 'prompt_generations.owner_inserts', \
            'prompt_generations.owner_updates')",
    ),
    (
        "everything is the owner's",
        "SELECT relname::text FROM $ours c WHERE relowner <> 'switchboard_owner'::regrole \
        AND relkind <> 't' AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indexrelid = c.oid AND i.indrelid = to_regclass('public._sqlx_migrations'))",
    ),
    (
        "a function that runs as its owner has no search path",
        "SELECT p.oid::regprocedure::text FROM pg_proc p \
        JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' \
        AND p.prosecdef AND NOT coalesce('search_path=\"\"' = ANY (p.proconfig), false)",
    ),
    // Supabase's claim helpers read a setting, as the caller; no pool may enter their schema.
    (
        "nobody in particular may call a function",
        "SELECT p.oid::regprocedure::text FROM pg_proc p \
        JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' \
        AND (p.proacl IS NULL OR EXISTS (SELECT FROM aclexplode(p.proacl) g WHERE g.grantee = 0)) \
        AND NOT (n.nspname = 'auth' AND p.proname IN ('jwt', 'uid', 'role') AND NOT p.prosecdef)",
    ),
    (
        "a view runs as whoever asks",
        "SELECT relname::text FROM $ours c WHERE relkind IN ('m', 'f') OR (relkind = 'v' \
        AND NOT coalesce('security_invoker=true' = ANY (reloptions) OR 'security_invoker=on' = ANY (reloptions), false))",
    ),
    (
        "a data API is shown nothing",
        "SELECT c.relname || ' to ' || g.grantee::regrole FROM $ours c, aclexplode(c.relacl) g \
        WHERE g.grantee IN (SELECT oid FROM pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role') UNION ALL SELECT 0)",
    ),
    (
        "a pool is granted rows and nothing else",
        "SELECT c.relname || ': ' || g.privilege_type || ' to ' || g.grantee::regrole \
        FROM $ours c, aclexplode(c.relacl) g JOIN pg_roles r ON r.oid = g.grantee WHERE r.rolname IN $served \
        AND (g.privilege_type NOT IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE') OR g.is_grantable)",
    ),
    (
        "a row cannot change hands",
        "SELECT c.relname || ' by ' || r.rolname FROM $ours c JOIN pg_attribute a ON a.attrelid = c.oid \
        AND a.attname = $key CROSS JOIN pg_roles r WHERE c.relkind IN ('r', 'p') AND r.rolname IN $served \
        AND has_column_privilege(r.oid, c.oid, a.attnum, 'UPDATE')",
    ),
    (
        "a pool creates nothing",
        "SELECT n.nspname || ' by ' || r.rolname FROM pg_namespace n CROSS JOIN pg_roles r \
        WHERE r.rolname IN $served AND n.nspname !~ '^pg_(temp|toast)' AND has_schema_privilege(r.oid, n.oid, 'CREATE')",
    ),
    (
        "a role is no more than it seems",
        "SELECT r.rolname::text FROM pg_roles r WHERE (r.rolname ~ '^switchboard_' OR r.rolname IN $served) \
        AND (r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication OR r.rolbypassrls OR r.rolinherit \
            OR (r.rolcanlogin AND r.rolname = 'switchboard_owner') \
            OR EXISTS (SELECT FROM pg_auth_members m WHERE m.member = r.oid))",
    ),
    (
        "no default grants wait for new tables",
        "SELECT d.defaclrole::regrole || ' in ' || coalesce(d.defaclnamespace::regnamespace::text, 'all') \
        FROM pg_default_acl d",
    ),
    (
        "the audit log's guards stand",
        "SELECT c.relname::text FROM $ours c WHERE (c.relname = 'audit_logs' OR c.oid IN \
        (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'public.audit_logs'::regclass)) AND c.relkind IN ('r', 'p') AND 2 > \
        (SELECT count(*) FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgenabled = 'O' AND t.tgname IN ('refuse_change', 'refuse_truncate'))",
    ),
];

/// Whatever breaks a rule, by the rule.
async fn broken(connection: &mut PgConnection) -> Vec<(&'static str, String)> {
    let mut broken = Vec::new();
    for (rule, query) in RULES {
        let query = query.replace("$ours", OURS).replace("$key", KEY).replace("$served", SERVED);
        let named: Vec<String> = sqlx::query_scalar(AssertSqlSafe(query))
            .fetch_all(&mut *connection)
            .await
            .unwrap_or_else(|cause| panic!("{rule}: {cause}"));
        broken.extend(named.into_iter().map(|name| (rule, name)));
    }
    broken
}

pub(crate) async fn the_catalogue_keeps_its_rules(system: Arc<System>) {
    let superuser = system.database("superuser").await;
    let mut transaction = superuser.begin_with("BEGIN").await.expect("a transaction");
    let broken = broken(&mut transaction).await;
    assert!(broken.is_empty(), "{broken:#?}");
    transaction.rollback().await.expect("nothing to keep");
    superuser.close().await;
}

/// What a careless migration might bring, and which rule names it.
const CARELESS: [(&str, &str, &str); 13] = [
    ("a table has a policy", "careless", "CREATE TABLE careless (organization_id uuid PRIMARY KEY)"),
    (
        "row-level security is on and forced",
        "careless",
        "CREATE TABLE careless (organization_id uuid PRIMARY KEY); \
        ALTER TABLE careless ENABLE ROW LEVEL SECURITY",
    ),
    (
        "a table says whose its rows are",
        "careless",
        "CREATE TABLE careless (id uuid PRIMARY KEY, organization_id uuid)",
    ),
    ("a table has a primary key", "careless", "CREATE TABLE careless (organization_id uuid NOT NULL)"),
    (
        "an index leads with the organization",
        "careless_pkey",
        "CREATE TABLE careless (id uuid, organization_id uuid NOT NULL, PRIMARY KEY (id, organization_id))",
    ),
    (
        "a foreign key carries the organization",
        "careless_other_fkey",
        "CREATE TABLE careless (organization_id uuid NOT NULL, \
        id uuid UNIQUE, other uuid REFERENCES careless (id), PRIMARY KEY (organization_id, id))",
    ),
    (
        "a policy names its roles and compares with the setting",
        "careless.all",
        "CREATE TABLE careless (organization_id uuid PRIMARY KEY); CREATE POLICY \"all\" ON careless USING (true)",
    ),
    (
        "a policy names its roles and compares with the setting",
        "careless.open",
        "CREATE TABLE careless (organization_id uuid PRIMARY KEY); \
        CREATE POLICY open ON careless TO switchboard_tool USING (true)",
    ),
    (
        "a function that runs as its owner has no search path",
        "app.careless()",
        "CREATE FUNCTION app.careless() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'",
    ),
    (
        "nobody in particular may call a function",
        "app.careless()",
        "CREATE FUNCTION app.careless() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    ),
    ("a view runs as whoever asks", "careless", "CREATE VIEW careless AS SELECT 1"),
    (
        "a pool is granted rows and nothing else",
        "careless: TRUNCATE to switchboard_tool",
        "CREATE TABLE careless (organization_id uuid PRIMARY KEY); GRANT ALL ON careless TO switchboard_tool",
    ),
    (
        "a data API is shown nothing",
        "careless to anon",
        "CREATE TABLE careless (organization_id uuid PRIMARY KEY); GRANT SELECT ON careless TO anon",
    ),
];

pub(crate) async fn a_table_that_breaks_a_rule_of_the_catalogue_is_named(system: Arc<System>) {
    let superuser = system.database("superuser").await;
    for (rule, name, migration) in CARELESS {
        let mut transaction = superuser.begin_with("BEGIN").await.expect("a transaction");
        transaction.execute(sqlx::raw_sql(migration)).await.unwrap_or_else(|cause| panic!("{migration}: {cause}"));
        let broken = broken(&mut transaction).await;
        assert!(
            broken.iter().any(|(broken, named)| *broken == rule && named == name),
            "{rule}: {name} is not in {broken:#?}"
        );
        transaction.rollback().await.expect("nothing is kept");
    }
    superuser.close().await;
}
