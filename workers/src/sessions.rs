//! Sessions: opening, listing, reading and ending them. What follows from each of these is one list, in
//! `hooks`.

pub mod hooks;
pub mod sweep;
pub mod upkeep;

use serde::Deserialize;
use shared::{
    Code, Fault,
    command::{
        Page,
        sessions::{DEFAULT_IDLE_SECONDS, DEFAULT_TTL_SECONDS, End, EndReason, Get, List, Open, Session, State},
    },
    config,
    context::{Context, Role},
    db::{self, Transaction, sessions::Opening},
    id::SessionId,
};

use self::hooks::{By, Event};
use crate::{
    announce::Announcement,
    pools,
    prompts::{self, Asked, Given},
    run::Run,
    scope::Scope,
};

/// `SESSIONS_*`: what a deployment may choose about sessions.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct SessionsConfig {
    /// Bytes that the files of one session may take.
    #[serde(default = "default_quota", deserialize_with = "config::number")]
    pub files_quota_bytes: u32,
    /// Days after which a session that is over is forgotten.
    #[serde(default = "default_days", deserialize_with = "config::number")]
    pub kept_days: u16,
}

const fn default_quota() -> u32 {
    64 * 1024 * 1024
}

const fn default_days() -> u16 {
    7
}

impl Run for Open {
    type Parts = pools::Session;

    async fn run(self, scope: &mut Scope<'_, pools::Session>) -> Result<Session, Fault> {
        self.check()?;
        let (context, parts, id) = (scope.context, scope.parts, SessionId::new());
        scope.notes.resource("session", &id);
        scope.notes.detail("agent_type", self.agent_type.as_str());
        let transaction = scope.write().await?;
        let organization = db::organizations::own(transaction).await?;
        let member = db::users::by_subject(transaction, &context.actor.subject).await?;
        // Before anything is composed: whoever is over a limit shall cost little.
        db::sessions::check_room(transaction, member.id, &organization).await?;
        let named = id.to_string();
        let asked = Asked {
            subject: &context.actor.subject,
            session: &named,
            agent_type: &self.agent_type,
            text: self.prompt.as_deref().map(|text| Given { field: "prompt", text }),
        };
        let composed = prompts::compose(parts, transaction, &asked).await?;
        // From here to the commit one at a time: nobody else counts, or adds one.
        db::sessions::take_turn(transaction).await?;
        db::sessions::check_room(transaction, member.id, &organization).await?;
        let opening = Opening {
            id,
            user: member.id,
            subject: &context.actor.subject,
            agent_type: &self.agent_type,
            prompt: &composed,
            metadata: &self.metadata.unwrap_or_default(),
            ttl_seconds: self.ttl_seconds.unwrap_or(DEFAULT_TTL_SECONDS),
            idle_seconds: self.idle_seconds.unwrap_or(DEFAULT_IDLE_SECONDS),
            files_quota_bytes: i64::from(parts.sessions.files_quota_bytes),
            pending: &hooks::pending(Event::Opened),
        };
        let session = db::sessions::open(transaction, &opening).await?;
        hooks::within(Event::Opened, By::Command, &session, transaction).await?;
        scope.notes.detail("prompt_sha256", composed.sha256.as_str());
        scope.notes.detail("prompt_parts", serde_json::to_value(&composed.parts).map_err(Fault::internal)?);
        scope.notes.detail("prompt_flags", serde_json::to_value(&composed.flags).map_err(Fault::internal)?);
        scope.announce(Announcement::Sessions);
        Ok(session)
    }
}

impl Run for List {
    type Parts = pools::Session;

    async fn run(self, scope: &mut Scope<'_, pools::Session>) -> Result<Page<Session>, Fault> {
        let context = scope.context;
        let of_others = self.all || self.user.is_some();
        if of_others && context.actor.role < Role::Admin {
            return Err(Fault::new(Code::Forbidden, "Only admins list the sessions of others."));
        }
        let viewer = (!of_others).then_some(context.actor.subject.as_str());
        db::sessions::list(scope.read().await?, &self, viewer).await
    }
}

impl Run for Get {
    type Parts = pools::Session;

    async fn run(self, scope: &mut Scope<'_, pools::Session>) -> Result<Session, Fault> {
        let context = scope.context;
        scope.notes.resource("session", &self.id);
        db::sessions::get(scope.read().await?, self.id, viewer(context)).await
    }
}

impl Run for End {
    type Parts = pools::Session;

    async fn run(self, scope: &mut Scope<'_, pools::Session>) -> Result<(), Fault> {
        let context = scope.context;
        scope.notes.resource("session", &self.id);
        let session = db::sessions::get(scope.read().await?, self.id, viewer(context)).await?;
        // One whose time is over is the sweep's.
        if session.state != State::Active {
            return Ok(());
        }
        let is_own = session.subject == context.actor.subject;
        let reason = if is_own { EndReason::Asked } else { EndReason::Admin };
        scope.notes.detail("subject", session.subject.as_str());
        let transaction = scope.write().await?;
        if end(transaction, self.id, reason, By::Command).await?.is_some() {
            scope.announce(Announcement::Sessions);
        }
        Ok(())
    }
}

/// Who alone sees a session: admins see everybody's.
fn viewer(context: &Context) -> Option<&str> {
    (context.actor.role < Role::Admin).then_some(context.actor.subject.as_str())
}

/// Ends a session that is active, with what must follow in the same transaction. `None` where it is not.
async fn end(
    transaction: &mut Transaction,
    id: SessionId,
    reason: EndReason,
    by: By,
) -> Result<Option<Session>, Fault> {
    let event = Event::of(reason);
    let pending = hooks::pending(event);
    let ending = db::sessions::Ending { reason, pending: &pending };
    let Some(session) = db::sessions::end(transaction, id, ending).await? else { return Ok(None) };
    hooks::within(event, by, &session, transaction).await?;
    Ok(Some(session))
}

/// Notes that a session is used, by whatever uses it; a moment after it was noted it is not noted again.
pub async fn touch(transaction: &mut Transaction, id: SessionId) -> Result<(), Fault> {
    db::sessions::touch(transaction, id, &hooks::pending(Event::Touched)).await.map(drop)
}
