//! Every function of the schema, times every role. The functions that cross organizations run as
//! the owner: who may call one stands here by hand, and a function that does not stand here fails.

use std::sync::Arc;

use super::{POOLS, database::attempt};
use crate::world::System;

/// Who may call what. The settings' readers are every pool's: policies call them.
const CALLERS: [(&str, &[&str]); 30] = [
    ("org_id", &POOLS),
    ("subject", &POOLS),
    ("role", &POOLS),
    ("require_operator", &[]),
    ("raise_generation", &[]),
    ("create_organization", &["session"]),
    ("list_organizations", &["session"]),
    ("find_organization", &["session"]),
    ("lock_organization", &["session"]),
    ("change_organization", &["session"]),
    ("remove_organization", &["session"]),
    ("memberships", &["session"]),
    // Supabase's own role calls it, where there is one.
    ("custom_access_token", &[]),
    ("organization_ids", &["session"]),
    ("refuse_audit_change", &[]),
    ("create_audit_partition", &[]),
    ("ensure_audit_partitions", &["audit", "controller"]),
    ("append_audit", &["audit"]),
    ("outbox_leftovers", &["audit"]),
    ("keks_in_use", &["token", "tool"]),
    ("organizations_to_rewrap", &["token"]),
    ("organizations_to_renew", &["token"]),
    ("configurations_to_reseal", &["token"]),
    ("raise_configuration_generation", &[]),
    ("keep_session", &[]),
    ("sessions_to_end", &["controller"]),
    ("sessions_with_hooks", &["session"]),
    ("sessions_long_gone", &["session"]),
    ("platform_role", &["session"]),
    ("keep_prompt_version", &[]),
];

pub(crate) async fn every_function_is_its_pools_alone(system: Arc<System>) {
    let superuser = system.database("superuser").await;
    let functions: Vec<(String, String)> = sqlx::query_as(
        "SELECT p.proname::text, coalesce((SELECT string_agg('NULL::' || format_type(t.oid, NULL), ', ' ORDER BY t.n) \
             FROM unnest(p.proargtypes) WITH ORDINALITY AS t (oid, n)), '') \
         FROM pg_proc p WHERE p.pronamespace = 'app'::regnamespace",
    )
    .fetch_all(&superuser)
    .await
    .expect("the functions");
    superuser.close().await;
    for pool in POOLS {
        let database = system.database(pool).await;
        for (name, arguments) in &functions {
            let callers = CALLERS.iter().find(|(known, _)| known == name);
            let (_, callers) = callers.unwrap_or_else(|| panic!("nobody said who may call app.{name}"));
            let call = format!("SELECT app.{name}({arguments})");
            let outcome = attempt(&database, &[("app.platform_role", "operator")], &call).await;
            if callers.contains(&pool) {
                // With NULLs a call may fail for its own reasons, but not for want of the right.
                assert_ne!(outcome, Err("42501".to_owned()), "{pool} is kept from {call}");
            } else {
                assert_eq!(outcome, Err("42501".to_owned()), "{pool}: {call}");
            }
        }
        database.close().await;
    }
    // Its caller's right is not enough: organizations are an operator's.
    let session = system.database("session").await;
    for settings in
        [vec![], vec![("app.platform_role", "admin")], vec![("app.role", "admin"), ("app.platform_role", "")]]
    {
        for call in [
            "SELECT * FROM app.list_organizations(NULL, 1)",
            "SELECT * FROM app.create_organization('x', 'X', '{}')",
            "SELECT * FROM app.find_organization(gen_random_uuid())",
            "SELECT * FROM app.lock_organization(gen_random_uuid())",
            "SELECT * FROM app.change_organization(gen_random_uuid(), '{}')",
            "SELECT * FROM app.remove_organization(gen_random_uuid())",
        ] {
            assert_eq!(attempt(&session, &settings, call).await, Err("42501".to_owned()), "{settings:?}: {call}");
        }
    }
    session.close().await;
}
