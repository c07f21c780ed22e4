//! MCP configurations: registering, listing, reading, replacing and removing them. Runs in the token
//! pool, because registering seals a secret.

use shared::{
    Code, Fault, Role,
    bus::state::ConfigurationState,
    command::{
        Page,
        configurations::{
            Authentication, Configuration, Credential, Get, List, NewCredential, Register, Remove, Replace,
            Scope as Ownership, Settings, Transport, Via,
        },
    },
    db::{
        self,
        configurations::{NewSecret, Sealed, Secured},
    },
    id::ConfigurationId,
    secret::Secret,
};

use crate::{
    announce::Announcement,
    pools::{Parts, Token},
    run::Run,
    scope::Scope,
    sealing,
    vault::Vault,
};

mod checks;

pub(crate) use checks::credential as checked_credential;
pub use checks::{endpoint, target};

/// The generation of a configuration's first secret.
const FIRST: i64 = 1;

impl Run for Register {
    type Parts = Token;

    async fn run(mut self, scope: &mut Scope<'_, Token>) -> Result<Configuration, Fault> {
        may_write(scope, self.scope)?;
        check(scope, &mut self.settings)?;
        offered(scope, &self.settings, None)?;
        checks::credential(self.settings.transport, &self.credential)?;
        let id = ConfigurationId::new();
        scope.notes.resource("configuration", &id);
        scope.notes.detail("name", self.settings.name.as_str());
        let (parts, subject) = (scope.parts, &scope.context.actor.subject);
        let transaction = scope.write().await?;
        let secured = seal(transaction, &parts.vault, id, &self.credential, FIRST).await?;
        let configuration =
            db::configurations::insert(transaction, id, self.scope, subject, &self.settings, &secured).await?;
        db::configurations::fits(transaction, self.scope).await?;
        announce(scope, configuration.id, configuration.generation);
        Ok(configuration)
    }
}

impl Run for Replace {
    type Parts = Token;

    async fn run(mut self, scope: &mut Scope<'_, Token>) -> Result<Configuration, Fault> {
        scope.notes.resource("configuration", &self.id);
        check(scope, &mut self.settings)?;
        match &self.credential {
            NewCredential::Set(credential) => checks::credential(self.settings.transport, credential)?,
            NewCredential::KeepHeader { name } => checks::header(name)?,
            NewCredential::Keep | NewCredential::KeepBearer => {}
        }
        let (parts, context) = (scope.parts, scope.context);
        let stored = db::configurations::lock(scope.write().await?, self.id).await?;
        may_write(scope, stored.configuration.scope)?;
        if self.scope.is_some_and(|wanted| wanted != stored.configuration.scope) {
            return Err(Fault::invalid("scope", "A configuration stays in its scope; register another."));
        }
        self.expected.check(stored.configuration.generation)?;
        offered(scope, &self.settings, Some(&stored.configuration))?;
        scope.notes.detail("name", self.settings.name.as_str());
        let transaction = scope.write().await?;
        let secret = if let NewCredential::Set(given) = &self.credential {
            // Above every seal before it, so that none of them opens again.
            let generation = stored.secret_generation + 1;
            NewSecret::Set(seal(transaction, &parts.vault, self.id, given, generation).await?)
        } else {
            kept(&stored.configuration, &self)?
        };
        let subject = &context.actor.subject;
        let configuration = db::configurations::replace(transaction, self.id, subject, &self.settings, &secret).await?;
        scope.notes.detail("secret", if matches!(secret, NewSecret::Set(_)) { "set" } else { "kept" });
        announce(scope, configuration.id, configuration.generation);
        Ok(configuration)
    }
}

/// Judges what is said, and puts right what follows from it.
fn check(scope: &Scope<'_, Token>, settings: &mut Settings) -> Result<(), Fault> {
    if settings.transport != Transport::Http {
        // Only the FastMCP service speaks the old transport, and to programs.
        settings.via = Via::Fastmcp;
    }
    checks::settings(settings)?;
    let (address, program) = (settings.endpoint.as_deref(), settings.catalogue.as_deref());
    if let Some(url) = target(settings.transport, address, program)? {
        scope.parts.egress.check(&url)?;
    }
    Ok(())
}

/// Refuses a program that is not offered here. One that was named before stays, so that what left
/// the catalogue can still be disabled.
fn offered(scope: &Scope<'_, Token>, settings: &Settings, was: Option<&Configuration>) -> Result<(), Fault> {
    match &settings.catalogue {
        Some(program) if was.is_none_or(|was| was.catalogue.as_ref() != Some(program)) => {
            scope.parts.programs.check(program)
        }
        _ => Ok(()),
    }
}

/// The secret that is there, if it may stay.
fn kept(was: &Configuration, command: &Replace) -> Result<NewSecret, Fault> {
    let header = match (&command.credential, &was.auth) {
        (NewCredential::KeepHeader { name }, Authentication::Header { .. })
        | (NewCredential::Keep, Authentication::Header { name, .. }) => Some(name.clone()),
        (NewCredential::KeepBearer, Authentication::None | Authentication::Header { .. }) => {
            return Err(Fault::invalid("auth.token", "There is no bearer token to keep: give one."));
        }
        (NewCredential::KeepHeader { .. }, _) => {
            return Err(Fault::invalid("auth.value", "There is no header's value to keep: give one."));
        }
        _ => None,
    };
    let read = |address: &Option<String>| address.as_deref().map(endpoint).transpose();
    let (before, after) = (read(&was.endpoint)?, read(&command.settings.endpoint)?);
    let same_origin =
        before.as_ref().zip(after.as_ref()).is_some_and(|(before, after)| before.origin() == after.origin());
    // Whoever may edit an address could else have a secret sent to a server of their own.
    if was.auth != Authentication::None && !same_origin {
        return Err(Fault::invalid("auth", "The secret was given for another server: give it again, or `none`."));
    }
    let same_header = match &was.auth {
        Authentication::Header { name, .. } => Some(name) == header.as_ref(),
        _ => true,
    };
    Ok(NewSecret::Kept { header, is_proven: before == after && same_header })
}

async fn seal(
    transaction: &mut db::Transaction,
    vault: &Vault,
    id: ConfigurationId,
    credential: &Credential,
    generation: i64,
) -> Result<Secured, Fault> {
    let (text, header) = match credential {
        Credential::None => return Ok(Secured::Not),
        Credential::Bearer(token) => (token, None),
        Credential::Header { name, value } => (value, Some(name)),
    };
    let place = sealing::configuration_secret(transaction.organization(), id, generation);
    let secret = sealing::seal(transaction, vault, &place, text.reveal().as_bytes()).await?;
    let sealed = Sealed { secret, hint: hint(text), generation };
    Ok(match header {
        None => Secured::Bearer(sealed),
        Some(name) => Secured::Header(name.clone(), sealed),
    })
}

/// The last four characters; none of a secret so short that four would tell too much.
fn hint(secret: &Secret<String>) -> String {
    let secret = secret.reveal();
    if secret.len() < 12 { String::new() } else { secret[secret.len() - 4..].to_owned() }
}

/// Admins write what is the organization's; a user writes what is their own.
pub(crate) fn may_write<P: Parts>(scope: &Scope<'_, P>, ownership: Ownership) -> Result<(), Fault> {
    if ownership == Ownership::User || scope.context.actor.role >= Role::Admin {
        return Ok(());
    }
    Err(Fault::new(
        Code::Forbidden,
        "Only an admin writes the organization's configurations; use scope `user` for your own.",
    ))
}

/// Tells every tool worker.
pub(crate) fn announce(scope: &mut Scope<'_, Token>, id: ConfigurationId, generation: i64) {
    let state = ConfigurationState { generation, removed: false };
    scope.announce(Announcement::Configuration(scope.context.organization, id, state));
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
        let found = db::configurations::lock(scope.write().await?, self.id).await?.configuration;
        may_write(scope, found.scope)?;
        self.expected.check(found.generation)?;
        scope.notes.detail("name", found.name);
        db::configurations::remove(scope.write().await?, self.id).await?;
        let state = ConfigurationState { generation: found.generation + 1, removed: true };
        scope.announce(Announcement::Configuration(scope.context.organization, self.id, state));
        Ok(())
    }
}
