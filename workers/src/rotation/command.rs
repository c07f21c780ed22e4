//! `workers rotate-keys`: rotation as an operator drives it. Safe to interrupt, to repeat and to run
//! while everything works.

use std::{io::Write as _, process::ExitCode};

use anyhow::Context as _;
use chrono::{DateTime, SecondsFormat, Utc};
use shared::{
    Fault,
    config::{self, Reader},
    db::{self, Database, tenant_keys, tenant_keys::Due},
    id::OrganizationId,
    telemetry::{self, LogFormat},
};

use super::{Swept, needed};
use crate::{
    sealing,
    vault::{Vault, VaultConfig},
};

/// Something is left under an older key; 1 says that the command failed.
const LEFT: u8 = 3;

/// Rotates the keys that protect stored secrets, while everything runs. Reads
/// `DATABASE_URL` (role `switchboard_token`), `DATABASE_POOL_MODE`, `VAULT_KEYS` and `VAULT_ACTIVE`, as
/// token workers do. May be interrupted and repeated at any time. See docs/operations/keys.md.
#[derive(Debug, clap::Args)]
#[group(id = "what", required = true, multiple = true)]
pub struct RotateKeys {
    /// Wrap all data keys with the key-encryption key that writes: the first of `VAULT_KEYS`,
    /// or `VAULT_ACTIVE`. Every token and tool worker must know it before.
    #[arg(long)]
    kek: bool,
    /// Give every organization a new data key and seal all secrets with it.
    #[arg(long)]
    data: bool,
    /// Change nothing; say what depends on which key. Exit code 3: something is under an older key.
    #[arg(long, conflicts_with_all = ["kek", "data"])]
    status: bool,
    /// With --data: replace only data keys made before this moment (RFC 3339), to go on with a rotation
    /// that was interrupted. Its first line names the moment.
    #[arg(long, value_name = "TIME", requires = "data")]
    made_before: Option<DateTime<Utc>>,
}

/// Runs it.
pub async fn run(arguments: &RotateKeys) -> anyhow::Result<ExitCode> {
    let mut reader = Reader::default();
    let log: Option<telemetry::Log> = reader.read("log");
    let database: Option<config::Database> = reader.read("database");
    let vault: Option<VaultConfig> = reader.read("vault");
    reader.finish()?;
    // A person reads along.
    telemetry::start_logs(&telemetry::Log { format: LogFormat::Text, ..log.unwrap_or_default() })?;
    let database = Database::open(&database.context("DATABASE_URL is missing")?, "switchboard-rotate-keys")?;
    let vault = Vault::new(&vault.context("VAULT_KEYS is missing")?)?;
    let ended = if arguments.status {
        status(&database, &vault).await
    } else {
        rotate(arguments, &database, &vault).await.map(|()| ExitCode::SUCCESS)
    };
    database.close().await;
    ended
}

async fn rotate(arguments: &RotateKeys, database: &Database, vault: &Vault) -> anyhow::Result<()> {
    let uses = needed::in_use(database).await.map_err(told)?;
    needed::refuse_without(&vault.known(), &uses)?;
    let mut left = 0;
    if arguments.kek {
        let Swept { done, left: more } = super::rewrap_all(database, vault).await.map_err(told)?;
        say(&format!("{done} data keys are wrapped with `{}` now", vault.active()))?;
        left += more;
    }
    if arguments.data {
        let made_before = arguments.made_before.unwrap_or_else(Utc::now);
        let moment = made_before.to_rfc3339_opts(SecondsFormat::Micros, true);
        say(&format!("replacing data keys made before {moment}; if interrupted, go on with --made-before {moment}"))?;
        let due = Due { made_before, ..sealing::due() };
        let renewed = super::renew_all(database, vault, due).await.map_err(told)?;
        let resealed = super::reseal_all(database, vault).await.map_err(told)?;
        say(&format!("{} data keys replaced, {} secrets sealed anew", renewed.done, resealed.done))?;
        left += renewed.left + resealed.left;
    }
    anyhow::ensure!(left == 0, "{left} stay under an older key: the log says which and why. Repeat the command");
    Ok(())
}

/// What depends on which key, for a person; the exit code for a script.
async fn status(database: &Database, vault: &Vault) -> anyhow::Result<ExitCode> {
    let uses = needed::in_use(database).await.map_err(told)?;
    say("key-encryption keys:")?;
    let mut left = false;
    for used in &uses {
        let role = match used.kek_id.as_str() {
            id if id == vault.active() => "writes",
            id if vault.knows(id) => "reads; rotate-keys --kek frees it",
            _ => "NOT CONFIGURED: workers do not start",
        };
        left |= used.kek_id != vault.active();
        say(&format!(
            "  {}: {} data keys of {} organizations ({role})",
            used.kek_id, used.data_keys, used.organizations
        ))?;
    }
    for id in vault.known().into_iter().filter(|id| !uses.iter().any(|used| used.kek_id == *id)) {
        let role = if id == vault.active() { "writes" } else { "may be removed" };
        say(&format!("  {id}: nothing depends on it ({role})"))?;
    }
    let (due, lagging) = (due(database).await.map_err(told)?, lagging(database).await.map_err(told)?);
    say(&format!("data keys that are due: {due} (token workers replace them)"))?;
    say(&format!(
        "secrets under a retired data key: {lagging} (token workers, or rotate-keys --data, seal them anew)"
    ))?;
    Ok(if left || lagging > 0 { ExitCode::from(LEFT) } else { ExitCode::SUCCESS })
}

async fn due(database: &Database) -> Result<usize, Fault> {
    let mut across = database.on_behalf_of(OrganizationId::PLATFORM).await?;
    let (mut count, mut after) = (0, None);
    loop {
        let ids = tenant_keys::organizations_to_renew(&mut across, sealing::due(), after).await?;
        let Some(last) = ids.last().copied() else { return Ok(count) };
        (count, after) = (count + ids.len(), Some(last));
    }
}

async fn lagging(database: &Database) -> Result<usize, Fault> {
    let mut across = database.on_behalf_of(OrganizationId::PLATFORM).await?;
    let (mut count, mut after) = (0, None);
    loop {
        let page = db::sealed::lagging(&mut across, after.as_ref()).await?;
        let Some(last) = page.last().cloned() else { return Ok(count) };
        (count, after) = (count + page.len(), Some(last));
    }
}

/// A fault's words are for people outside; its cause is in the log.
fn told(fault: Fault) -> anyhow::Error {
    anyhow::Error::new(fault).context("the log says why; the command may be repeated")
}

fn say(line: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout().lock(), "{line}")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        rotate: RotateKeys,
    }

    #[test]
    fn what_is_to_be_done_must_be_said() {
        let parse = |arguments: &[&str]| Line::try_parse_from([&["rotate-keys"], arguments].concat());
        let both = parse(&["--kek", "--data", "--made-before", "2026-11-26T01:02:03.5Z"]).unwrap().rotate;
        assert!(both.kek && both.data && both.made_before.is_some());
        assert!(parse(&["--status"]).unwrap().rotate.status);
        for refused in [
            &[][..],
            &["--status", "--kek"],
            &["--made-before", "2026-11-26T01:02:03Z"],
            &["--data", "--made-before", "x"],
        ] {
            parse(refused).unwrap_err();
        }
    }
}
