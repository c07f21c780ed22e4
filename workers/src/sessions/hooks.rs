//! What follows from what happens to a session: one list. A required hook runs within the act and fails
//! it. The others are kept with the row in the act's transaction (`pending_hooks`) and run after the
//! commit, by whoever finds them first (`upkeep`): each may run twice and must not mind.

use std::time::Duration;

use shared::{
    Fault,
    audit::{self, Outcome, Resource},
    bus::{
        events::TenantEvent,
        kv::Bucket,
        state::{SessionState, session_key},
    },
    command::sessions::{EndReason, Session, State},
    context::now_unix_ms,
    db::{self, Transaction},
    id::{CallId, EventId, OrganizationId},
};
use uuid::Uuid;

use crate::pools;

/// What happens to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It was opened.
    Opened,
    /// It was used.
    Touched,
    /// Its time was over.
    Expired,
    /// Somebody ended it, or its member or organization is gone.
    Ended,
}

impl Event {
    /// What an end is called.
    pub const fn of(reason: EndReason) -> Self {
        match reason.state() {
            State::Expired => Self::Expired,
            State::Active | State::Ended => Self::Ended,
        }
    }

    /// The name that tenants and the trail read.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Opened => "session.opened",
            Self::Touched => "session.touched",
            Self::Expired => "session.expired",
            Self::Ended => "session.ended",
        }
    }
}

/// Through what it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// A command: its wrapper writes it into the trail.
    Command,
    /// The sweep.
    Sweep,
}

/// What a hook does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// Leaves what no command did in the trail.
    Audit,
    /// Tells tool workers, which let go of what they keep open for the session.
    Disconnect,
    /// Removes its files.
    RemoveWorkspace,
    /// Tells its member and the organization's admins.
    Tell,
}

impl Act {
    const fn name(self) -> &'static str {
        match self {
            Self::Audit => "audit",
            Self::Disconnect => "disconnect",
            Self::RemoveWorkspace => "remove_workspace",
            Self::Tell => "tell",
        }
    }
}

/// One line of the list.
#[derive(Clone, Copy, Debug)]
struct Hook {
    on: Event,
    act: Act,
    /// Within the act, which fails with it.
    is_required: bool,
    timeout: Duration,
}

const fn required(on: Event, act: Act) -> Hook {
    Hook { on, act, is_required: true, timeout: Duration::from_secs(5) }
}

const fn after(on: Event, act: Act, seconds: u64) -> Hook {
    Hook { on, act, is_required: false, timeout: Duration::from_secs(seconds) }
}

/// The list. Those of one event run in this order.
const HOOKS: [Hook; 11] = [
    required(Event::Opened, Act::Audit),
    after(Event::Opened, Act::Tell, 5),
    after(Event::Touched, Act::Tell, 5),
    required(Event::Expired, Act::Audit),
    after(Event::Expired, Act::Disconnect, 5),
    after(Event::Expired, Act::RemoveWorkspace, 60),
    after(Event::Expired, Act::Tell, 5),
    required(Event::Ended, Act::Audit),
    after(Event::Ended, Act::Disconnect, 5),
    after(Event::Ended, Act::RemoveWorkspace, 60),
    after(Event::Ended, Act::Tell, 5),
];

impl Hook {
    /// How it stands in `pending_hooks`.
    fn pending(&self) -> String {
        format!("{}/{}", self.on.name(), self.act.name())
    }

    fn count(&self, end: &'static str) {
        let (event, hook) = (self.on.name(), self.act.name());
        metrics::counter!("switchboard_session_hooks_total", "event" => event, "hook" => hook, "end" => end)
            .increment(1);
    }
}

/// What must be kept with the row, because it happens after the commit.
pub fn pending(event: Event) -> Vec<String> {
    HOOKS.iter().filter(|hook| hook.on == event && !hook.is_required).map(Hook::pending).collect()
}

/// Runs what an event requires, in the transaction that makes it so.
pub async fn within(event: Event, by: By, session: &Session, transaction: &mut Transaction) -> Result<(), Fault> {
    for hook in HOOKS.iter().filter(|hook| hook.on == event && hook.is_required) {
        let running = hook.run_within(by, session, transaction);
        let outcome = tokio::time::timeout(hook.timeout, running).await;
        let outcome = outcome.unwrap_or_else(|_| Err(Fault::timeout("What the session requires took too long.")));
        hook.count(if outcome.is_ok() { "done" } else { "failed" });
        outcome?;
    }
    Ok(())
}

/// Runs one that was kept; answers whether it is done. One that no list knows (any more) is.
pub async fn run(parts: &pools::Session, organization: OrganizationId, session: &Session, name: &str) -> bool {
    let Some(hook) = HOOKS.iter().find(|hook| !hook.is_required && hook.pending() == name) else {
        tracing::error!(hook = name, session = %session.id, "a hook that is not in the list");
        return true;
    };
    let outcome = tokio::time::timeout(hook.timeout, hook.run_after(parts, organization, session)).await;
    let end = match outcome {
        Ok(Ok(())) => "done",
        Ok(Err(fault)) => {
            tracing::warn!(%fault, hook = name, session = %session.id, "a hook failed; it runs again");
            "failed"
        }
        Err(_) => {
            tracing::warn!(hook = name, session = %session.id, "a hook took too long; it runs again");
            "timeout"
        }
    };
    hook.count(end);
    end == "done"
}

impl Hook {
    async fn run_within(&self, by: By, session: &Session, transaction: &mut Transaction) -> Result<(), Fault> {
        match (self.act, by) {
            (Act::Audit, By::Sweep) => {
                db::audit::leave(transaction, &trail(self.on, transaction.organization(), session)).await
            }
            // The command's wrapper leaves its event in this very transaction.
            (Act::Audit, By::Command) => Ok(()),
            (Act::Disconnect | Act::RemoveWorkspace | Act::Tell, _) => {
                Err(Fault::internal(format!("{} does not run within an act", self.act.name())))
            }
        }
    }

    async fn run_after(
        &self,
        parts: &pools::Session,
        organization: OrganizationId,
        session: &Session,
    ) -> Result<(), Fault> {
        match self.act {
            Act::Disconnect => {
                let state =
                    SessionState { generation: session.generation, ended: true, subject: session.subject.clone() };
                let key = session_key(organization, session.id);
                parts.bus.put_newer(&parts.announcer.sessions, Bucket::Sessions, &key, &state).await
            }
            Act::RemoveWorkspace => Ok(()),
            Act::Tell => parts.bus.tell(organization, &told(self.on, session)).await,
            Act::Audit => Err(Fault::internal("audit runs within the act")),
        }
    }
}

/// When it happened.
fn moment(event: Event, session: &Session) -> chrono::DateTime<chrono::Utc> {
    match event {
        Event::Opened => session.created_at,
        Event::Touched => session.touched_at,
        Event::Expired | Event::Ended => session.ended_at.unwrap_or(session.touched_at),
    }
}

/// What members are told: the same, down to the id, however often the hook runs.
fn told(event: Event, session: &Session) -> TenantEvent {
    let at = moment(event, session);
    let is_over = matches!(event, Event::Expired | Event::Ended);
    TenantEvent {
        id: Uuid::new_v5(&session.id.0, format!("{} {}", event.name(), at.timestamp_micros()).as_bytes()),
        event: event.name().to_owned(),
        at,
        subject: session.subject.clone(),
        session: Some(session.id),
        reason: session.end_reason.filter(|_| is_over).map(|reason| reason.name().to_owned()),
    }
}

/// What the trail says of an end that no command asked for. Its id is the end's: there is one.
pub fn trail(event: Event, organization: OrganizationId, session: &Session) -> audit::Event {
    let call = CallId(session.id.0);
    let details = serde_json::json!({
        "subject": session.subject,
        "reason": session.end_reason.map(EndReason::name),
    });
    audit::Event {
        id: EventId::of_attempt(call, 1),
        organization,
        occurred_at_ms: session
            .ended_at
            .and_then(|at| u64::try_from(at.timestamp_millis()).ok())
            .unwrap_or_else(now_unix_ms),
        actor: "switchboard".to_owned(),
        role: "operator".to_owned(),
        action: event.name().to_owned(),
        resource: Some(Resource { kind: "session".to_owned(), id: session.id.to_string() }),
        outcome: Outcome::Succeeded,
        code: None,
        request_id: call.to_string(),
        call,
        attempt: 1,
        details: details.as_object().cloned().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_disconnects_removes_and_tells_after_the_commit() {
        for event in [Event::Expired, Event::Ended] {
            let name = event.name();
            assert_eq!(
                pending(event),
                [format!("{name}/disconnect"), format!("{name}/remove_workspace"), format!("{name}/tell")]
            );
        }
        assert_eq!(pending(Event::Opened), ["session.opened/tell"]);
        assert_eq!(pending(Event::Touched), ["session.touched/tell"]);
    }
}
