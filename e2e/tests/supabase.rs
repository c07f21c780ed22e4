//! Supabase: its claim helpers where they are missing and only there, and the hook that says in each
//! token whose member its bearer is.

use std::sync::Arc;

use serde_json::{Value, json};
use sqlx::{Executor, PgPool};
use stack::issuer::{Role, TokenRequest};
use uuid::Uuid;

use crate::{
    earlier_mistakes::empty_database,
    users::newcomer,
    world::{System, Tenant},
};

pub(crate) async fn plain_postgresql_gets_the_claim_helpers(system: Arc<System>) {
    let database = system.database("superuser").await;
    let subject = Uuid::new_v4();
    let claims = json!({ "sub": subject, "role": "authenticated", "app_metadata": { "org_id": Uuid::nil() } });
    let mut transaction = database.begin_with("BEGIN").await.expect("a transaction");
    transaction.execute("SET LOCAL ROLE authenticated").await.expect("the role exists");
    let asked = "SELECT auth.uid(), auth.role(), auth.jwt()";
    let nobody: (Option<Uuid>, Option<String>, Option<Value>) =
        sqlx::query_as(asked).fetch_one(&mut *transaction).await.expect("they answer");
    assert_eq!(nobody, (None, None, None));
    sqlx::query("SELECT set_config('request.jwt.claims', $1, true)")
        .bind(claims.to_string())
        .execute(&mut *transaction)
        .await
        .expect("a setting");
    let somebody: (Option<Uuid>, Option<String>, Option<Value>) =
        sqlx::query_as(asked).fetch_one(&mut *transaction).await.expect("they answer");
    assert_eq!(somebody, (Some(subject), Some("authenticated".to_owned()), Some(claims)));
    transaction.rollback().await.expect("nothing to keep");
    database.close().await;
}

/// A database as Supabase hands it out, as far as the migrations can tell: a schema `auth` that is not
/// ours, and the role that calls hooks.
async fn like_supabase(system: &System) -> PgPool {
    let (database, url) = empty_database(system).await;
    // Roles are the whole server's; this one stays, so that nobody who lists roles finds it gone.
    database
        .execute(
            "DO $$ BEGIN CREATE ROLE supabase_auth_admin NOLOGIN NOINHERIT; \
             EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$; \
             CREATE SCHEMA auth; \
             CREATE FUNCTION auth.jwt() RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT '{\"whose\": \"supabase\"}'::jsonb $$; \
             CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS $$ SELECT NULL::uuid $$; \
             CREATE FUNCTION auth.role() RETURNS text LANGUAGE sql STABLE AS $$ SELECT 'supabase'::text $$",
        )
        .await
        .expect("Supabase's part");
    shared::db::migrate::run(&url).await.expect("the migrations run");
    database
}

pub(crate) async fn an_auth_schema_that_is_there_is_left_alone(system: Arc<System>) {
    let database = like_supabase(&system).await;
    let theirs: (Value, Option<Uuid>, String) =
        sqlx::query_as("SELECT auth.jwt(), auth.uid(), auth.role()").fetch_one(&database).await.expect("they answer");
    assert_eq!(theirs, (json!({ "whose": "supabase" }), None, "supabase".to_owned()));
    let ours: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM pg_proc WHERE pronamespace = 'auth'::regnamespace AND proname NOT IN ('jwt', 'uid', 'role')",
    )
    .fetch_one(&database)
    .await
    .expect("a count");
    let grants: Option<String> = sqlx::query_scalar("SELECT nspacl::text FROM pg_namespace WHERE nspname = 'auth'")
        .fetch_one(&database)
        .await
        .expect("its grants");
    assert_eq!((ours, grants), (0, None), "something of ours is in their schema");
    database.close().await;
}

pub(crate) async fn only_supabases_own_role_calls_the_hook(system: Arc<System>) {
    let database = like_supabase(&system).await;
    let mut transaction = database.begin_with("BEGIN").await.expect("a transaction");
    transaction.execute("SET LOCAL ROLE supabase_auth_admin").await.expect("the role exists");
    let event = json!({ "user_id": Uuid::new_v4(), "claims": { "app_metadata": { "provider": "email" } } });
    assert_eq!(hook(&mut transaction, &event).await, event, "nobody's member, nothing to say");
    let tables: Result<_, sqlx::Error> = transaction.execute("SELECT FROM users").await;
    assert!(tables.is_err(), "the hook's caller reads no table itself");
    transaction.rollback().await.expect("nothing to keep");
    for role in ["anon", "authenticated", "service_role", "switchboard_session", "switchboard_tool"] {
        let mut transaction = database.begin_with("BEGIN").await.expect("a transaction");
        transaction.execute(sqlx::AssertSqlSafe(format!("SET LOCAL ROLE {role}"))).await.expect("the role exists");
        let refused = sqlx::query("SELECT app.custom_access_token('{}')").execute(&mut *transaction).await;
        let refused = refused.expect_err(role);
        assert_eq!(
            refused.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref(),
            Some("42501"),
            "{role}"
        );
        transaction.rollback().await.expect("nothing to keep");
    }
    database.close().await;
}

async fn hook(connection: &mut sqlx::PgConnection, event: &Value) -> Value {
    sqlx::query_scalar("SELECT app.custom_access_token($1)")
        .bind(event)
        .fetch_one(connection)
        .await
        .expect("the hook answers")
}

/// What the hook makes of a person who signs in with this `app_metadata`.
async fn metadata(system: &System, subject: &str, metadata: Value) -> Value {
    let database = system.database("superuser").await;
    let mut connection = database.begin_with("BEGIN").await.expect("a connection");
    let claims = json!({ "sub": subject, "role": "authenticated", "app_metadata": metadata, "user_metadata": { "org_id": "x" } });
    let answer = hook(&mut connection, &json!({ "user_id": subject, "claims": claims })).await;
    assert_eq!(answer["claims"]["user_metadata"], json!({ "org_id": "x" }), "what users edit is passed on");
    assert_eq!(answer["claims"]["sub"], subject);
    answer["claims"]["app_metadata"].clone()
}

pub(crate) async fn the_hook_names_an_organization_that_the_person_is_an_active_member_of(system: Arc<System>) {
    let (one, two): (Tenant, Tenant) = (system.organization().await, system.organization().await);
    let subject = Uuid::new_v4().to_string();
    let named = |tenant: &Tenant, role: &str| json!({ "provider": "email", "org_id": tenant.id, "org_role": role });
    let plain = || json!({ "provider": "email" });
    // Never seen anywhere: a first admin's token goes through as the operator set it.
    assert_eq!(metadata(&system, &subject, plain()).await, plain());
    assert_eq!(metadata(&system, &subject, named(&one, "admin")).await, named(&one, "admin"));

    let join = async |tenant: &Tenant, role: &str| {
        let added = tenant.admin.post("/api/v1/users", &json!({ "subject": subject, "role": role })).await;
        assert_eq!(added.status, 201, "{}", added.text);
        format!("/api/v1/users/{}", added.json()["id"].as_str().expect("an id"))
    };
    let in_one = join(&one, "user").await;
    join(&two, "admin").await;
    // The one they joined first, unless another of theirs is named; the role is the stored one.
    assert_eq!(metadata(&system, &subject, plain()).await, named(&one, "user"));
    assert_eq!(metadata(&system, &subject, named(&two, "user")).await, named(&two, "admin"));
    assert_eq!(metadata(&system, &subject, named(&one, "admin")).await, named(&one, "user"));
    let operator = json!({ "org_id": two.id, "platform_role": "operator" });
    assert_eq!(metadata(&system, &subject, operator).await["platform_role"], "operator", "passed on, never made");

    // Not where they were removed, nor where nothing is any more.
    assert_eq!(one.admin.delete(&in_one).await.status, 204);
    assert_eq!(metadata(&system, &subject, named(&one, "admin")).await, named(&two, "admin"));
    let operator = system.client(&system.seeded.operator_token);
    assert_eq!(operator.delete(&format!("/api/v1/organizations/{}", two.id)).await.status, 204);
    assert_eq!(metadata(&system, &subject, named(&two, "admin")).await, plain());
    assert_eq!(metadata(&system, &subject, json!("odd")).await, json!({}));
}

pub(crate) async fn a_token_with_the_hooks_claims_is_let_in(system: Arc<System>) {
    let tenant = system.organization().await;
    let (_, member) = newcomer(&system, &tenant, "hooked", Role::Admin).await;
    let subject = member["subject"].as_str().expect("a subject").to_owned();
    let request = TokenRequest { subject: subject.clone(), ..TokenRequest::default() };
    let mut claims = system.issuer().claims(&request);
    claims["app_metadata"] = metadata(&system, &subject, json!({})).await;
    let token = system.issuer().mint_with(&system.issuer().header(), &claims).expect("a token");
    let me = system.client(&token).get("/api/v1/me").await;
    assert_eq!(me.status, 200, "{}", me.text);
    assert_eq!((&me.json()["role"], &me.json()["organization"]["id"]), (&json!("admin"), &json!(tenant.id)));
}
