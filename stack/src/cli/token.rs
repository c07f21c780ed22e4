//! `cargo dev token`: an access token like those the identity provider would issue.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use uuid::Uuid;

use super::data_folder;
use crate::dev_env::ORGANIZATIONS;
use crate::issuer::{Issuer, Role, TokenRequest};
use crate::places::{DataDir, Places};
use crate::ports::PortBook;

/// What the token is to say.
#[derive(Debug, Clone, clap::Args)]
pub struct Token {
    /// Organization: `acme`, `globex`, or any organization's id
    #[arg(long, required_unless_present = "operator")]
    org: Option<String>,
    /// Subject, such as acme-user
    #[arg(long)]
    user: String,
    /// Role in the organization
    #[arg(long, value_enum, default_value = "user")]
    role: Role,
    /// Claim to be a platform operator
    #[arg(long)]
    operator: bool,
    /// How long it is valid
    #[arg(long, default_value_t = 24, value_name = "HOURS")]
    hours: u32,
    /// Folder of the stack, when not .dev
    #[arg(long)]
    data_dir: Option<PathBuf>,
}

/// Prints a token on standard output, with nothing around it.
///
/// # Errors
/// When the organization is not known.
pub fn token(asked: &Token) -> Result<()> {
    let data = DataDir::open(&data_folder(&Places::find()?, asked.data_dir.as_deref()))?;
    let issuer = Issuer::open(&data.join("issuer"))?;
    let port = PortBook::last(&data.join("ports"), "issuer").context("start the stack once: `cargo dev up`")?;
    issuer.set_url(&format!("http://127.0.0.1:{port}"));
    let organization = asked.org.as_deref().map(|name| organization(&data, name)).transpose()?;
    let token = issuer.mint(&TokenRequest {
        organization,
        subject: asked.user.clone(),
        email: format!("{}@switchboard.example", asked.user),
        role: organization.map(|_| asked.role),
        operator: asked.operator,
        lifetime: std::time::Duration::from_hours(asked.hours.into()),
        ..TokenRequest::default()
    })?;
    writeln!(std::io::stdout().lock(), "{token}").context("standard output is closed")
}

fn organization(data: &DataDir, name: &str) -> Result<Uuid> {
    if let Ok(id) = name.parse() {
        return Ok(id);
    }
    let text = std::fs::read_to_string(data.join(ORGANIZATIONS)).context("start the stack once: `cargo dev up`")?;
    let known: serde_json::Value = serde_json::from_str(&text)?;
    let Some(id) = known[name].as_str() else {
        bail!("no organization `{name}` was seeded: name acme, globex, or an organization's id");
    };
    Ok(id.parse()?)
}
