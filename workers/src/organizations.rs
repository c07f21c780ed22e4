//! Organizations, for platform operators.

use shared::{
    Fault,
    bus::state::Limits,
    command::{
        Page,
        organizations::{Create, Limit, List, Organization},
    },
    db,
};

use crate::{announce::Announcement, pools::Session, run::Run, scope::Scope};

impl Run for Create {
    type Parts = Session;

    async fn run(self, scope: &mut Scope<'_, Session>) -> Result<Organization, Fault> {
        check(&self)?;
        let id = db::organizations::create(scope.write().await?, &self).await?;
        scope.notes.resource("organization", &id);
        scope.notes.detail("slug", self.slug.as_str());
        // The operator's transaction may not read the new tenant's row: a transaction of its own does,
        // once this one is kept. What was asked for is known.
        let organization = Organization {
            id,
            slug: self.slug,
            name: self.name,
            concurrency_limit: self.concurrency_limit.unwrap_or(shared::command::organizations::DEFAULT_CONCURRENCY),
            paused: false,
            generation: 1,
            created_at: chrono::Utc::now(),
        };
        scope.announce(Announcement::Limits(id, limits(&organization)));
        Ok(organization)
    }
}

impl Run for Limit {
    type Parts = Session;

    async fn run(self, scope: &mut Scope<'_, Session>) -> Result<Organization, Fault> {
        scope.notes.resource("organization", &self.id);
        let organization = db::organizations::limit(scope.write().await?, &self).await?;
        scope.notes.detail("concurrency_limit", organization.concurrency_limit);
        scope.notes.detail("paused", organization.paused);
        scope.announce(Announcement::Limits(self.id, limits(&organization)));
        Ok(organization)
    }
}

/// What the database would refuse in its own words, or store as no person could read it.
fn check(command: &Create) -> Result<(), Fault> {
    if command.slug.contains(char::is_control) {
        return Err(Fault::invalid("slug", "Use lower case letters, digits and hyphens."));
    }
    if command.name.contains(char::is_control) {
        return Err(Fault::invalid("name", "Use 1 to 200 characters without control characters."));
    }
    Ok(())
}

/// What everybody shall believe about an organization.
pub fn limits(organization: &Organization) -> Limits {
    Limits {
        concurrency_limit: organization.concurrency_limit,
        paused: organization.paused,
        generation: organization.generation,
    }
}

impl Run for List {
    type Parts = Session;

    async fn run(self, scope: &mut Scope<'_, Session>) -> Result<Page<Organization>, Fault> {
        db::organizations::list(scope.read().await?, &self).await
    }
}
