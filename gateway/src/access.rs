//! Whether a verified token may act here: the database's word on the member, as everybody watches
//! it. A removed member is refused within seconds, however long their token lives.

use std::{sync::Arc, time::Duration};

use shared::{
    Code, Context, Deadline, Fault,
    bus::{
        caller::Caller,
        standing::{Changes, Standing, lower, no_such_organization},
    },
    command::users::{Admit, Admitted},
    context::{Actor, Role},
};

use crate::auth::Verified;

/// The patience of a request that does not say otherwise.
const PATIENCE: Duration = Duration::from_mins(1);

/// Decides who may act.
#[derive(Clone, Debug)]
pub struct AccessControl {
    standing: Standing,
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
    /// Decides by the standing as watched; asks the session pool about those it has not seen.
    pub const fn new(standing: Standing, caller: Caller) -> Self {
        Self { standing, caller }
    }

    /// True while changes of members and organizations arrive.
    pub fn is_fresh(&self) -> bool {
        self.standing.is_fresh()
    }

    /// The context of a request by the bearer of a verified token. The lower of the claimed and
    /// the stored role applies.
    pub async fn admit(&self, verified: &Arc<Verified>, origin: &Origin) -> Result<Context, Fault> {
        if !self.is_fresh() {
            return Err(Fault::unavailable("The list of members", "the watch is stale"));
        }
        self.standing.check_organization(verified.organization)?;
        let mut context = Context {
            organization: verified.organization,
            actor: Actor { subject: verified.subject.clone(), role: verified.role, operator: verified.operator },
            request_id: origin.request_id.clone(),
            deadline: Deadline::after(PATIENCE),
            traceparent: origin.traceparent.clone(),
        };
        let known = self.standing.member(&verified.access_key).filter(|_| self.standing.knows(verified.organization));
        let stored = match known {
            Some(stored) => stored,
            // Rare, and large: kept out of the future of every request.
            None => Box::pin(self.first_use(verified, &context)).await?,
        };
        context.actor.role = lower(verified.role, &stored)?;
        Ok(context)
    }

    /// The role in which the bearer of a token may act now who acted in one before: what was known of them
    /// holds until something else is.
    pub fn role(&self, verified: &Verified, before: Role) -> Result<Role, Fault> {
        self.standing.check_organization(verified.organization)?;
        match self.standing.member(&verified.access_key) {
            Some(stored) => lower(verified.role, &stored),
            None => Ok(before),
        }
    }

    /// Follows changes of members and organizations.
    pub fn changes(&self) -> Changes {
        self.standing.changes()
    }

    async fn first_use(&self, verified: &Verified, context: &Context) -> Result<Admitted, Fault> {
        self.caller.call(context, &Admit { email: verified.email.clone() }).await.map_err(|fault| match fault.code {
            Code::Unknown => no_such_organization(),
            _ => fault,
        })
    }
}
