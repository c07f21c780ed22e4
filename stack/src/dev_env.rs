//! The file through which tools and people find a running system: `KEY=value` lines for a shell.
//!
//! It is there exactly while the system is ready: written last at the start, removed first at the stop.

use anyhow::{Context as _, Result};

use crate::nats::NatsUser;
use crate::places::DataDir;
use crate::running::Stack;
use crate::secrets::{lines, write_private};

const FILE: &str = "env";
/// Ids by slug, so that `cargo dev token` needs no running system.
pub(crate) const ORGANIZATIONS: &str = "organizations.json";

/// Writes the file in one step; only its owner reads it, since it holds tokens.
pub(crate) fn write(stack: &Stack) -> Result<()> {
    let seeded = stack.seeded().context("nothing is seeded")?;
    let ids = serde_json::json!({ "acme": seeded.acme.id, "globex": seeded.globex.id });
    write_private(&stack.data().join(ORGANIZATIONS), &ids.to_string())?;
    write_private(&stack.data().join(FILE), &lines(entries(stack)?))
}

/// Removes the file; none is no failure.
pub(crate) fn remove(data: &DataDir) -> Result<()> {
    match std::fs::remove_file(data.join(FILE)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context("the file env cannot be removed")
        }
        _ => Ok(()),
    }
}

/// One value of the file of a running system.
pub(crate) fn value(data: &DataDir, key: &str) -> Option<String> {
    let text = std::fs::read_to_string(data.join(FILE)).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=').map(str::to_owned))
}

/// Every key of the contract in the order in which they are printed.
pub(crate) fn entries(stack: &Stack) -> Result<Vec<(&'static str, String)>> {
    let seeded = stack.seeded().context("nothing is seeded")?;
    // Who looks from outside wants to see streams and consumers.
    let user = NatsUser::Jetstream;
    let nats =
        stack.nats_url().replacen("nats://", &format!("nats://{}:{}@", user.user(), stack.nats_password(user)?), 1);
    Ok(vec![
        ("SWITCHBOARD_URL", stack.url().to_owned()),
        ("ACME_ADMIN_TOKEN", seeded.acme.admin_token.clone()),
        ("ACME_USER_TOKEN", seeded.acme.user_token.clone()),
        ("GLOBEX_ADMIN_TOKEN", seeded.globex.admin_token.clone()),
        ("GLOBEX_USER_TOKEN", seeded.globex.user_token.clone()),
        ("OPERATOR_TOKEN", seeded.operator_token.clone()),
        ("DEMO_MCP_URL", stack.demo_url()),
        ("DEMO_FASTMCP_URL", stack.demo_fastmcp_url()),
        ("FASTMCP_SERVICE_URL", stack.fastmcp_service_url()),
        ("NATS_URL", nats),
        ("DATABASE_URL", stack.superuser_database_url()?),
        ("ISSUER_URL", stack.issuer().url()),
    ])
}
