//! Sessions in which tools are called: whose they are and that they can be used, kept at hand so that a
//! call needs no database for it, and given up as soon as the shared state tells that one is over.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use chrono::Utc;
use moka::future::Cache;
use shared::{
    Code, Context, Fault,
    bus::state::session_key,
    db::{self, sessions::Usable},
    id::{OrganizationId, SessionId, UserId},
};
use tokio_util::sync::CancellationToken;

use crate::{
    pools::Tool,
    scope::Scope,
    sessions::hooks::{self, Event},
};

/// How long a session is believed to be usable without asking, at most.
const BELIEVED_FOR: Duration = Duration::from_secs(15);
/// And at least, so that one whose time is nearly over is not asked for without end.
const SHORTEST: Duration = Duration::from_millis(100);
/// How soon it is asked again while the database is away.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How long one that nobody uses is kept at hand: longer than any call, which must hear of its end.
const KEPT_FOR: Duration = Duration::from_mins(10);
/// The most that are kept at hand.
const MOST: u64 = 100_000;

type Key = (OrganizationId, SessionId);

/// The tool pool's memory of sessions.
#[derive(Clone, Debug)]
pub struct Sessions(Cache<Key, Arc<InUse>>);

impl Default for Sessions {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(MOST).time_to_idle(KEPT_FOR).build())
    }
}

/// A session in which calls run.
#[derive(Debug)]
pub(super) struct InUse {
    pub(super) id: SessionId,
    pub(super) user: UserId,
    /// Those of this worker's calls that need its workspace, one at a time.
    pub(super) turn: tokio::sync::Mutex<()>,
    subject: String,
    over: CancellationToken,
    believed: Mutex<Believed>,
}

#[derive(Clone, Copy, Debug)]
struct Believed {
    /// When to look again.
    look_at: Instant,
    /// When it is over unless it is used, as far as is known.
    until: Instant,
}

impl Believed {
    fn of(usable: &Usable) -> Self {
        let left = (usable.usable_until - Utc::now()).to_std().unwrap_or_default();
        let now = Instant::now();
        // Soon enough that what is noted of its use keeps it from being idle.
        Self { look_at: now + BELIEVED_FOR.min(left / 4).max(SHORTEST), until: now + left }
    }
}

impl InUse {
    /// Returns when the session is over.
    pub(super) async fn ended(&self) {
        self.over.cancelled().await;
    }

    fn believe(&self, usable: &Usable) {
        *self.believed.lock().unwrap_or_else(PoisonError::into_inner) = Believed::of(usable);
    }

    fn believed(&self) -> Believed {
        *self.believed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sessions {
    /// Lets go of a session that is over: calls that run in it end.
    pub(super) async fn end(&self, organization: OrganizationId, id: SessionId) {
        if let Some(known) = self.0.remove(&(organization, id)).await {
            known.over.cancel();
        }
    }
}

/// The caller's own session, used now. Unknown where it is another's, a conflict where it is over.
pub(super) async fn in_use(scope: &Scope<'_, Tool>, id: SessionId) -> Result<Arc<InUse>, Fault> {
    let key = (scope.context.organization, id);
    let sessions = &scope.parts.sessions.0;
    if is_over(scope.parts, key.0, id) {
        // The row says in which way.
        return Err(look(scope.parts, scope.context, id).await.err().unwrap_or_else(over));
    }
    let known = sessions.get(&key).await;
    let Some(known) = known.filter(|known| known.subject == scope.context.actor.subject) else {
        let usable = look(scope.parts, scope.context, id).await?;
        let fresh = async { Arc::new(in_use_from(scope, &usable)) };
        let known = sessions.get_with(key, fresh).await;
        if is_over(scope.parts, key.0, id) {
            // The news came between the look and the entry, which nothing would end.
            scope.parts.sessions.end(key.0, id).await;
            return Err(over());
        }
        return Ok(known);
    };
    let believed = known.believed();
    let now = Instant::now();
    if now < believed.look_at {
        return Ok(known);
    }
    match look(scope.parts, scope.context, id).await {
        Ok(usable) => {
            known.believe(&usable);
            Ok(known)
        }
        // News of its end come through the shared state, not through the database.
        Err(fault) if fault.code == Code::Unavailable && now < believed.until => Ok(known),
        Err(fault) => {
            if says_over(&fault) {
                scope.parts.sessions.end(key.0, id).await;
            }
            Err(fault)
        }
    }
}

/// Whether everybody was told that it is over.
pub(super) fn is_over(parts: &Tool, organization: OrganizationId, id: SessionId) -> bool {
    parts.session_news.get(&session_key(organization, id)).is_some_and(|news| news.ended)
}

/// Keeps a session in use while a call runs in it; never returns.
pub(super) async fn keep_in_use(parts: &Tool, context: &Context, session: &InUse) {
    loop {
        tokio::time::sleep_until(session.believed().look_at.into()).await;
        match look(parts, context, session.id).await {
            Ok(usable) => session.believe(&usable),
            Err(fault) if says_over(&fault) => {
                parts.sessions.end(context.organization, session.id).await;
                return std::future::pending().await;
            }
            Err(_) => tokio::time::sleep(LOOK_AGAIN_AFTER).await,
        }
    }
}

fn says_over(fault: &Fault) -> bool {
    matches!(fault.code, Code::Conflict | Code::Unknown)
}

/// What the row says, and a note in it that the session is used.
async fn look(parts: &Tool, context: &Context, id: SessionId) -> Result<Usable, Fault> {
    let mut transaction = parts.database.tenant(context).await?;
    let subject = &context.actor.subject;
    let usable = db::sessions::usable(&mut transaction, id, subject).await?;
    if !db::sessions::touch(&mut transaction, id, &hooks::pending(Event::Touched)).await? {
        return Ok(usable);
    }
    let usable = db::sessions::usable(&mut transaction, id, subject).await?;
    transaction.commit().await?;
    Ok(usable)
}

fn in_use_from(scope: &Scope<'_, Tool>, usable: &Usable) -> InUse {
    InUse {
        id: usable.id,
        user: usable.user_id,
        turn: tokio::sync::Mutex::default(),
        subject: scope.context.actor.subject.clone(),
        over: CancellationToken::new(),
        believed: Mutex::new(Believed::of(usable)),
    }
}

fn over() -> Fault {
    Fault::new(Code::Conflict, "The session is over; open another.")
}
