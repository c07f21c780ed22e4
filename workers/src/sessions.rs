//! Sessions: opening, listing, reading and ending them. What follows from each of these is one list, in
//! `hooks`.

pub mod hooks;
pub mod sweep;
pub mod upkeep;

use std::{sync::Arc, time::Duration};

use moka::sync::Cache;
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
    id::{OrganizationId, SessionId, UserId},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

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

/// Openings of one organization that a worker runs at once.
const AT_ONCE: usize = 2;
/// How long one waits for those before it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who is opening sessions: each organization a few at once.
#[derive(Clone, Debug)]
pub struct Openings(Cache<OrganizationId, Arc<Semaphore>>);

impl Default for Openings {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(10_000).time_to_idle(Duration::from_mins(10)).build())
    }
}

impl Openings {
    async fn enter(&self, organization: OrganizationId) -> Result<OwnedSemaphorePermit, Fault> {
        let places = self.0.get_with(organization, || Arc::new(Semaphore::new(AT_ONCE)));
        let entered = tokio::time::timeout(PATIENCE, places.acquire_owned()).await;
        entered.map_err(|_| db::sessions::busy())?.map_err(Fault::internal)
    }
}

impl Run for Open {
    type Parts = pools::Session;

    async fn run(self, scope: &mut Scope<'_, pools::Session>) -> Result<Session, Fault> {
        self.check()?;
        let (context, parts, id) = (scope.context, scope.parts, SessionId::new());
        scope.notes.resource("session", &id);
        scope.notes.detail("agent_type", self.agent_type.as_str());
        // Before a connection is taken: one organization's openings must not take all of them.
        let _opening = parts.openings.enter(context.organization).await?;
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
        let is_own = session.subject == context.actor.subject;
        let (reason, by) = match session.state {
            State::Active if is_own => (EndReason::Asked, By::Command),
            State::Active => (EndReason::Admin, By::Command),
            // Its time is over and the sweep may not have come by.
            State::Expired => (session.end_reason.unwrap_or(EndReason::Age), By::Sweep),
            State::Ended => return Ok(()),
        };
        scope.notes.detail("subject", session.subject.as_str());
        let transaction = scope.write().await?;
        if let Some(session) = end(transaction, self.id, reason, by).await? {
            if by == By::Sweep {
                tell_the_trail(scope, reason, &session);
            }
            scope.announce(Announcement::Sessions);
        }
        Ok(())
    }
}

/// Who alone sees a session: admins see everybody's.
fn viewer(context: &Context) -> Option<&str> {
    (context.actor.role < Role::Admin).then_some(context.actor.subject.as_str())
}

/// Ends the sessions of a member who is gone. One that somebody holds at this moment is left to the sweep.
pub async fn end_of_member(scope: &mut Scope<'_, pools::Session>, user: UserId) -> Result<(), Fault> {
    let transaction = scope.write().await?;
    let mut ended = Vec::new();
    for id in db::sessions::lock_of_member(transaction, user).await? {
        ended.extend(end(transaction, id, EndReason::MemberGone, By::Sweep).await?);
    }
    for session in ended {
        tell_the_trail(scope, EndReason::MemberGone, &session);
    }
    scope.announce(Announcement::Sessions);
    Ok(())
}

/// Publishes the event that lies in the outbox of an end that is not the command's own.
fn tell_the_trail(scope: &mut Scope<'_, pools::Session>, reason: EndReason, session: &Session) {
    let event = hooks::trail(Event::of(reason), scope.context.organization, session);
    scope.announce(Announcement::Trail(Box::new(event)));
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
