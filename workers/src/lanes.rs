//! Opening lanes on a gateway's first call for an organization.

use shared::{
    Fault,
    command::{lanes::{Lane, Open}, organizations::DEFAULT_CONCURRENCY},
};

use crate::{pools::Controller, run::Run, scope::Scope};

impl Run for Open {
    type Parts = Controller;

    async fn run(self, scope: &mut Scope<'_, Controller>) -> Result<Lane, Fault> {
        let organization = scope.context.organization;
        let concurrency_limit = scope.parts.concurrency_limit(organization);
        scope.notes.resource("lane", organization);
        scope.parts.bus.open_lane(organization, concurrency_limit).await?;
        Ok(Lane { concurrency_limit })
    }
}

impl Controller {
    /// The organization's concurrency; the default for one whose limits have not arrived yet.
    pub fn concurrency_limit(&self, organization: shared::id::OrganizationId) -> u16 {
        self.limits.get(&shared::bus::state::limits_key(organization)).map_or(DEFAULT_CONCURRENCY, |limits| limits.concurrency_limit.max(1))
    }
}
