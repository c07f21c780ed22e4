//! Bringing the schema up to date. Run by the `migrate` binary only, over a direct connection: the
//! migrator takes a session lock.

use std::str::FromStr;

use sqlx::{AssertSqlSafe, Connection, PgConnection, migrate::Migrator, postgres::PgConnectOptions};

use crate::{command::Pool, secret::Secret};

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// Applies what is missing; safe to repeat and to run twice at once.
pub async fn run(url: &Secret<String>) -> anyhow::Result<usize> {
    let mut connection = connect(url).await?;
    MIGRATIONS.run(&mut connection).await?;
    Ok(MIGRATIONS.iter().count())
}

/// Sets the password of a pool's role.
pub async fn set_password(url: &Secret<String>, pool: Pool, password: &Secret<String>) -> anyhow::Result<()> {
    let mut connection = connect(url).await?;
    let statement = format!("ALTER ROLE switchboard_{} PASSWORD {}", pool.name(), super::literal(password.reveal()));
    // The statement holds the password: its error text must not travel.
    sqlx::raw_sql(AssertSqlSafe(statement))
        .execute(&mut connection)
        .await
        .map_err(|_| anyhow::anyhow!("the password of role switchboard_{} could not be set", pool.name()))?;
    Ok(())
}

async fn connect(url: &Secret<String>) -> anyhow::Result<PgConnection> {
    let options = PgConnectOptions::from_str(url.reveal())
        .map_err(|_| anyhow::anyhow!("DATABASE_URL is no postgres:// address"))?;
    Ok(PgConnection::connect_with(&options).await?)
}
