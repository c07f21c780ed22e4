//! MCP configurations: registering, listing, reading and removing them. Runs in the token pool,
//! because registering seals a secret.

use shared::{
    Code, Fault, Role,
    bus::state::ConfigurationState,
    command::{
        Page,
        configurations::{Configuration, Credential, Get, List, Register, Remove, Scope as Ownership, Transport, Via},
    },
    db::{self, configurations::Sealed},
    id::ConfigurationId,
    secret::Secret,
};
use url::Url;

use crate::{announce::Announcement, pools::Token, run::Run, scope::Scope, sealing};

/// The longest bearer token, in bytes.
const MAX_TOKEN_BYTES: usize = 8_192;
/// The longest endpoint, in bytes.
const MAX_ENDPOINT_BYTES: usize = 2_048;
/// The longest description, in characters.
const MAX_DESCRIPTION_CHARS: usize = 1_000;

impl Run for Register {
    type Parts = Token;

    async fn run(mut self, scope: &mut Scope<'_, Token>) -> Result<Configuration, Fault> {
        if self.transport == Transport::Sse {
            // Only the FastMCP service speaks the old transport.
            self.via = Via::Fastmcp;
        }
        check(&self)?;
        may_write(scope, self.scope)?;
        scope.parts.egress.check(&endpoint(&self.endpoint)?)?;
        let id = ConfigurationId::new();
        scope.notes.resource("configuration", &id);
        scope.notes.detail("name", self.name.as_str());
        let parts = scope.parts;
        let context = scope.context;
        let transaction = scope.write().await?;
        let sealed = match &self.credential {
            Credential::None => None,
            Credential::Bearer(token) => Some(seal(transaction, &parts.vault, id, token).await?),
        };
        let configuration =
            db::configurations::insert(transaction, id, &context.actor.subject, &self, sealed.as_ref()).await?;
        let state = ConfigurationState { generation: configuration.generation, removed: false };
        scope.announce(Announcement::Configuration(context.organization, id, state));
        Ok(configuration)
    }
}

async fn seal(
    transaction: &mut db::Transaction,
    vault: &crate::vault::Vault,
    id: ConfigurationId,
    token: &Secret<String>,
) -> Result<Sealed, Fault> {
    const FIRST: i64 = 1;
    let place = sealing::configuration_secret(transaction.organization(), id, FIRST);
    let secret = sealing::seal(transaction, vault, &place, token.reveal().as_bytes()).await?;
    Ok(Sealed { secret, hint: hint(token), generation: FIRST })
}

/// The last four characters; none of a token so short that four would tell too much.
fn hint(token: &Secret<String>) -> String {
    let token = token.reveal();
    if token.len() < 12 { String::new() } else { token[token.len() - 4..].to_owned() }
}

/// Admins write what is the organization's; a user writes what is their own.
fn may_write(scope: &Scope<'_, Token>, ownership: Ownership) -> Result<(), Fault> {
    if ownership == Ownership::User || scope.context.actor.role >= Role::Admin {
        return Ok(());
    }
    Err(Fault::new(
        Code::Forbidden,
        "Only an admin writes the organization's configurations; use scope `user` for your own.",
    ))
}

/// The endpoint as a URL without credentials or fragment.
pub fn endpoint(text: &str) -> Result<Url, Fault> {
    let refused = |message: &str| Fault::invalid("endpoint", message);
    if text.len() > MAX_ENDPOINT_BYTES {
        return Err(refused("The endpoint is longer than 2,048 bytes."));
    }
    // The parser would drop or escape them, and what is kept would not be what is used.
    if text.contains(|character: char| character.is_control() || character.is_whitespace()) {
        return Err(refused("The endpoint must not contain spaces or control characters."));
    }
    let url = Url::parse(text).map_err(|_| refused("Give an absolute URL such as https://mcp.example.com/mcp."))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(refused("The endpoint must be an http or https URL."));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refused("The endpoint must not hold credentials; give them under `auth`."));
    }
    if url.fragment().is_some() {
        return Err(refused("The endpoint must not have a fragment."));
    }
    Ok(url)
}

fn check(command: &Register) -> Result<(), Fault> {
    let name_is_valid = (1..=64).contains(&command.name.len())
        && command.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
        // An id and a name must not be taken for each other.
        && command.name.parse::<ConfigurationId>().is_err();
    if !name_is_valid {
        return Err(Fault::invalid(
            "name",
            "Use 1 to 64 of the characters A-Z a-z 0-9 . _ - (and not the form of an id).",
        ));
    }
    if command
        .description
        .as_ref()
        .is_some_and(|text| text.chars().count() > MAX_DESCRIPTION_CHARS || text.contains('\0'))
    {
        return Err(Fault::invalid("description", "Use at most 1,000 characters."));
    }
    if !(1_000..=300_000).contains(&command.timeout_ms) {
        return Err(Fault::invalid("timeout_ms", "Use 1,000 to 300,000 milliseconds."));
    }
    if let Credential::Bearer(token) = &command.credential {
        let token = token.reveal();
        if !(1..=MAX_TOKEN_BYTES).contains(&token.len()) || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Fault::invalid(
                "auth.token",
                "A bearer token is 1 to 8,192 visible ASCII characters without spaces.",
            ));
        }
    }
    Ok(())
}

impl Run for List {
    type Parts = Token;

    async fn run(self, scope: &mut Scope<'_, Token>) -> Result<Page<Configuration>, Fault> {
        db::configurations::list(scope.read().await?, &self).await
    }
}

impl Run for Get {
    type Parts = Token;

    async fn run(self, scope: &mut Scope<'_, Token>) -> Result<Configuration, Fault> {
        scope.notes.resource("configuration", &self.id);
        Ok(db::configurations::get(scope.read().await?, self.id).await?.configuration)
    }
}

impl Run for Remove {
    type Parts = Token;

    async fn run(self, scope: &mut Scope<'_, Token>) -> Result<(), Fault> {
        scope.notes.resource("configuration", &self.id);
        // Row-level security hides what is not the caller's: unknown, not forbidden.
        let found = db::configurations::get(scope.read().await?, self.id).await?.configuration;
        may_write(scope, found.scope)?;
        scope.notes.detail("name", found.name);
        db::configurations::remove(scope.write().await?, self.id).await?;
        let state = ConfigurationState { generation: found.generation + 1, removed: true };
        scope.announce(Announcement::Configuration(scope.context.organization, self.id, state));
        Ok(())
    }
}
