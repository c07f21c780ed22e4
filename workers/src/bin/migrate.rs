//! Brings the database schema up to date and, if asked, sets the pool roles' passwords. Safe to
//! repeat. Needs a direct connection as a role that may create roles.

use clap::Parser;
use shared::{
    command::Pool,
    config::{self, Reader},
    db::migrate,
    secret::Secret,
};

/// Applies the migrations to `DATABASE_URL`. Sets the password of role `switchboard_<pool>` for every
/// variable `ROLE_PASSWORD_<POOL>` that is set.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Arguments::parse();
    let mut reader = Reader::default();
    let database: Option<config::Database> = reader.read("database");
    reader.finish()?;
    let url = database.ok_or_else(|| anyhow::anyhow!("DATABASE_URL is missing"))?.url;
    shared::telemetry::start_logs(&shared::telemetry::Log::default())?;
    let known = migrate::run(&url).await?;
    for pool in Pool::ALL {
        let variable = format!("ROLE_PASSWORD_{}", pool.name().to_ascii_uppercase());
        if let Ok(password) = std::env::var(&variable) {
            migrate::set_password(&url, pool, &Secret::new(password)).await?;
        }
    }
    tracing::info!(migrations = known, "the schema is up to date");
    Ok(())
}
