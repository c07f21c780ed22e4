//! Whether a verified token may act here: the database's word on the member, as everybody watches
//! it. A removed member is refused within seconds, however long their token lives.

use std::{sync::Arc, time::Duration};

use shared::{
    Code, Context, Deadline, Fault,
    bus::{caller::Caller, kv::Watch},
    command::users::{Admit, Admitted, State},
    context::Actor,
};

use crate::auth::Verified;

/// A gateway that has not heard of changes for this long must not decide.
const BLIND_AFTER: Duration = Duration::from_secs(10);
/// The patience of a request that does not say otherwise.
const PATIENCE: Duration = Duration::from_mins(1);

/// Decides who may act.
#[derive(Clone, Debug)]
pub struct AccessControl {
    members: Watch<Admitted>,
    caller: Caller,
}

/// What identifies one HTTP request on its road.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The request id.
    pub request_id: String,
    /// W3C Trace Context, if the caller sent one.
    pub traceparent: Option<String>,
}

impl AccessControl {
    /// Decides by the members as watched; asks the session pool about those it has not seen.
    pub const fn new(members: Watch<Admitted>, caller: Caller) -> Self {
        Self { members, caller }
    }

    /// True while changes of members arrive.
    pub fn is_fresh(&self) -> bool {
        self.members.age().is_some_and(|age| age <= BLIND_AFTER)
    }

    /// The context of a request by the bearer of a verified token. The lower of the claimed and
    /// the stored role applies.
    pub async fn admit(&self, verified: &Arc<Verified>, origin: &Origin) -> Result<Context, Fault> {
        if !self.is_fresh() {
            return Err(Fault::unavailable("The list of members", "the watch is stale"));
        }
        let mut context = Context {
            organization: verified.organization,
            actor: Actor { subject: verified.subject.clone(), role: verified.role, operator: verified.operator },
            request_id: origin.request_id.clone(),
            deadline: Deadline::after(PATIENCE),
            traceparent: origin.traceparent.clone(),
        };
        let stored = match self.members.get(&verified.access_key) {
            Some(stored) => stored,
            None => self.first_use(verified, &context).await?,
        };
        if stored.state != State::Active {
            return Err(Fault::new(Code::Forbidden, "Your membership of this organization is not active."));
        }
        context.actor.role = verified.role.min(stored.role);
        Ok(context)
    }

    async fn first_use(&self, verified: &Verified, context: &Context) -> Result<Admitted, Fault> {
        self.caller.call(context, &Admit { email: verified.email.clone() }).await.map_err(|fault| match fault.code {
            // The token names an organization that does not exist (any more).
            Code::Unknown => Fault::new(Code::Forbidden, "The organization of this token does not exist."),
            _ => fault,
        })
    }
}
