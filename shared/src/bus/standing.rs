//! Who may act, as everybody watches it: the standing of members and of organizations. Gateways ask
//! before they send, workers before they run: a token outlives a membership, and so does a queued call.

use std::time::Duration;

use tokio::sync::watch;

use super::{
    kv::Watch,
    state::{Limits, access_key, limits_key},
};
use crate::{
    command::users::{Admitted, State},
    context::{Actor, Role},
    fault::{Code, Fault},
    id::OrganizationId,
};

/// Whoever has not heard of changes for this long must not decide.
const BLIND_AFTER: Duration = Duration::from_secs(10);

/// The standing of everybody.
#[derive(Clone, Debug)]
pub struct Standing {
    members: Watch<Admitted>,
    organizations: Watch<Limits>,
}

impl Standing {
    /// As these copies say.
    pub const fn new(members: Watch<Admitted>, organizations: Watch<Limits>) -> Self {
        Self { members, organizations }
    }

    /// True while changes arrive.
    pub fn is_fresh(&self) -> bool {
        self.members.is_fresh(BLIND_AFTER) && self.organizations.is_fresh(BLIND_AFTER)
    }

    /// Waits until changes arrive (again); false if they do not within the patience.
    pub async fn is_fresh_within(&self, patience: Duration) -> bool {
        if self.is_fresh() {
            return true;
        }
        let (mut members, mut organizations) = (self.members.changes(), self.organizations.changes());
        let fresh = async {
            while !self.is_fresh() {
                tokio::select! {
                    Ok(()) = members.changed() => {}
                    Ok(()) = organizations.changed() => {}
                    else => return false,
                }
            }
            true
        };
        tokio::time::timeout(patience, fresh).await.unwrap_or(false)
    }

    /// Follows changes.
    pub fn changes(&self) -> Changes {
        Changes { members: self.members.changes(), organizations: self.organizations.changes() }
    }

    /// False where nothing was ever heard of the organization.
    pub fn knows(&self, organization: OrganizationId) -> bool {
        self.organizations.look(&limits_key(organization), |_| ()).is_some()
    }

    /// Refuses everything of an organization that is gone.
    pub fn check_organization(&self, organization: OrganizationId) -> Result<(), Fault> {
        if self.organizations.look(&limits_key(organization), |limits| limits.deleted) == Some(true) {
            return Err(no_such_organization());
        }
        Ok(())
    }

    /// The role in which the actor may act: the lower of theirs and the stored one. Nothing is stored
    /// of somebody who was never here.
    pub fn role(&self, organization: OrganizationId, actor: &Actor) -> Result<Role, Fault> {
        self.check_organization(organization)?;
        match self.members.get(&access_key(organization, &actor.subject)) {
            Some(stored) => lower(actor.role, &stored),
            None => Ok(actor.role),
        }
    }

    /// What is stored of a member, by the key of their entry.
    pub fn member(&self, access_key: &str) -> Option<Admitted> {
        self.members.get(access_key)
    }
}

/// Tells that something about members or organizations has changed.
#[derive(Clone, Debug)]
pub struct Changes {
    members: watch::Receiver<u64>,
    organizations: watch::Receiver<u64>,
}

impl Changes {
    /// Waits for the next change.
    pub async fn changed(&mut self) {
        tokio::select! {
            Ok(()) = self.members.changed() => {}
            Ok(()) = self.organizations.changed() => {}
            else => std::future::pending().await,
        }
    }
}

/// The lower of the claimed and the stored role, unless the member may not act at all.
pub fn lower(claimed: Role, stored: &Admitted) -> Result<Role, Fault> {
    if stored.state != State::Active {
        return Err(Fault::new(Code::Forbidden, "Your membership of this organization is not active."));
    }
    Ok(claimed.min(stored.role))
}

/// The token names an organization that does not exist (any more).
pub fn no_such_organization() -> Fault {
    Fault::new(Code::Forbidden, "The organization of this token does not exist.")
}
