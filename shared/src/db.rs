//! PostgreSQL: all SQL of the product. The tenant transaction is the only way to a connection, so
//! that no statement runs without the settings that row-level security reads.

use std::{str::FromStr, time::Duration};

use sqlx::{
    AssertSqlSafe, PgPool, Postgres,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::{
    config::{self, PoolMode},
    context::{Context, Role},
    fault::{Code, Fault},
    id::OrganizationId,
};

use connection::Connection;

pub mod audit;
pub mod configurations;
mod connection;
pub mod migrate;
pub mod organizations;
pub mod prompts;
pub mod sealed;
pub mod sessions;
pub mod tenant_keys;
pub mod tools;
pub mod users;

/// A pool's connections to PostgreSQL, in its own role. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Database {
    pool: PgPool,
    mode: PoolMode,
}

/// How long a command waits for a connection.
const ACQUIRE_PATIENCE: Duration = Duration::from_secs(3);

impl Database {
    /// Prepares connections; none is made before the first use, so that a worker starts without
    /// PostgreSQL and heals by itself.
    pub fn open(config: &config::Database, name: &str) -> anyhow::Result<Self> {
        let mut options = PgConnectOptions::from_str(config.url.reveal())
            .map_err(|_| anyhow::anyhow!("DATABASE_URL is no postgres:// address"))?
            .application_name(name);
        if config.pool_mode == PoolMode::Transaction {
            // Nothing may be kept on a connection that is only lent (see `connection`), and PgBouncer turns
            // away clients that bring settings it does not know.
            options = options.statement_cache_capacity(0).extra_float_digits(None);
        }
        let pool = PgPoolOptions::new()
            .max_connections(config.connections)
            .acquire_timeout(ACQUIRE_PATIENCE)
            .idle_timeout(Duration::from_mins(5))
            .connect_lazy_with(options);
        Ok(Self { pool, mode: config.pool_mode })
    }

    /// Begins a transaction as the context's tenant and actor. The settings travel with `BEGIN` in
    /// one round trip and end with the transaction.
    pub async fn tenant(&self, context: &Context) -> Result<Transaction, Fault> {
        let actor = &context.actor;
        self.begin(context.organization, &actor.subject, actor.role, actor.operator).await
    }

    /// Begins a transaction as a tenant on the platform's own behalf (reconcilers).
    pub async fn on_behalf_of(&self, organization: OrganizationId) -> Result<Transaction, Fault> {
        self.begin(organization, "switchboard", Role::Admin, false).await
    }

    /// The same where only one member sees the row concerned.
    pub async fn on_behalf_of_member(&self, organization: OrganizationId, subject: &str) -> Result<Transaction, Fault> {
        self.begin(organization, subject, Role::Admin, false).await
    }

    async fn begin(
        &self,
        organization: OrganizationId,
        subject: &str,
        role: Role,
        operator: bool,
    ) -> Result<Transaction, Fault> {
        let claims = serde_json::json!({
            "sub": subject,
            "role": "authenticated",
            "app_metadata": { "org_id": organization, "org_role": role },
        });
        let begin = format!(
            "BEGIN; SET LOCAL app.org_id = {}; SET LOCAL app.subject = {}; SET LOCAL app.role = {}; \
             SET LOCAL app.platform_role = {}; SET LOCAL request.jwt.claims = {}",
            literal(&organization.to_string()),
            literal(subject),
            literal(role.name()),
            literal(if operator { "operator" } else { "" }),
            literal(&claims.to_string()),
        );
        // Not injectable: every value is quoted by `literal`, and bind parameters do not reach SET.
        let inner = self.pool.begin_with(AssertSqlSafe(begin)).await.map_err(fault)?;
        Ok(Transaction { inner, mode: self.mode, organization })
    }

    /// True when the database answers.
    pub async fn is_reachable(&self) -> bool {
        // One message, outside a transaction: nothing is prepared.
        sqlx::raw_sql("SELECT 1").execute(&self.pool).await.is_ok()
    }

    /// Closes all connections.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// Quotes a string literal (`standard_conforming_strings` is on since PostgreSQL 9.1).
fn literal(text: &str) -> String {
    debug_assert!(!text.contains('\0'), "PostgreSQL has no NUL in text");
    format!("'{}'", text.replace('\'', "''"))
}

/// A transaction as one tenant.
#[derive(Debug)]
pub struct Transaction {
    inner: sqlx::Transaction<'static, Postgres>,
    mode: PoolMode,
    organization: OrganizationId,
}

impl Transaction {
    /// The tenant.
    pub const fn organization(&self) -> OrganizationId {
        self.organization
    }

    /// Makes it so.
    pub async fn commit(self) -> Result<(), Fault> {
        self.inner.commit().await.map_err(|cause| match fault(cause) {
            // Whoever lost the connection here, we or a pooler between: the outcome is open.
            lost if lost.code == Code::Unavailable => {
                Fault::new(Code::OutcomeUnknown, "The database was lost while the change was being kept.")
            }
            other => other,
        })
    }

    fn connection(&mut self) -> Connection<'_> {
        Connection::new(&mut self.inner, self.mode)
    }
}

/// What a database error means outside. Nouns turn the constraint violations they expect into
/// sentences of their own first.
fn fault(cause: sqlx::Error) -> Fault {
    match &cause {
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::Io(_) | sqlx::Error::Tls(_) => {
            Fault::unavailable("The database", cause)
        }
        // Class 57: shut down; 53: out of resources; 08: connection.
        sqlx::Error::Database(error)
            if error.code().is_some_and(|code| ["57", "53", "08"].iter().any(|class| code.starts_with(class))) =>
        {
            Fault::unavailable("The database", cause)
        }
        _ => Fault::internal(cause),
    }
}

/// The constraint that an insert or update broke, if that is what happened.
fn broken_constraint(cause: &sqlx::Error) -> Option<&str> {
    cause.as_database_error().and_then(sqlx::error::DatabaseError::constraint)
}

/// Trims a list that was read one longer than asked, and names where it goes on.
fn page<T>(mut items: Vec<T>, limit: u32, key: impl Fn(&T) -> String) -> crate::command::Page<T> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = items.len() > limit;
    items.truncate(limit);
    let next = if more { items.last().map(key) } else { None };
    crate::command::Page { items, next }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_cannot_be_left() {
        assert_eq!(literal("x'; DROP TABLE users; --"), "'x''; DROP TABLE users; --'");
    }

    #[test]
    fn a_page_names_its_successor_only_when_there_is_one() {
        let full = page(vec![1, 2, 3], 2, ToString::to_string);
        assert_eq!((full.items, full.next), (vec![1, 2], Some("2".to_owned())));
        let last = page(vec![1, 2], 2, ToString::to_string);
        assert_eq!((last.items, last.next), (vec![1, 2], None));
    }
}
