//! Organizations, for platform operators.

use shared::{
    Fault,
    bus::state::Limits,
    command::{Page, organizations::{Create, List, Organization}},
    db,
};

use crate::{announce::Announcement, pools::Session, run::Run, scope::Scope};

impl Run for Create {
    type Parts = Session;

    async fn run(self, scope: &mut Scope<'_, Session>) -> Result<Organization, Fault> {
        let id = db::organizations::create(scope.write().await?, &self).await?;
        scope.notes.resource("organization", id);
        scope.notes.detail("slug", self.slug.as_str());
        // The operator's transaction may not read the new tenant's row: a transaction of its own does,
        // once this one is kept. What was asked for is known.
        let organization = Organization {
            id,
            slug: self.slug,
            name: self.name,
            concurrency_limit: self.concurrency_limit.unwrap_or(shared::command::organizations::DEFAULT_CONCURRENCY),
            created_at: chrono::Utc::now(),
        };
        scope.announce(Announcement::Limits(id, Limits { concurrency_limit: organization.concurrency_limit }));
        Ok(organization)
    }
}

impl Run for List {
    type Parts = Session;

    async fn run(self, scope: &mut Scope<'_, Session>) -> Result<Page<Organization>, Fault> {
        db::organizations::list(scope.read().await?, &self).await
    }
}
