//! Organizations: for platform operators, and what their own admins choose.

use shared::{
    Fault,
    bus::state::Limits,
    command::{
        Page,
        organizations::{Change, ChangeOwn, Changes, Create, Get, List, Organization, ReadOwn, Remove},
    },
    db,
};

use crate::{announce::Announcement, pools::Session, run::Run, scope::Scope};

impl Run for Create {
    type Parts = Session;

    async fn run(self, scope: &mut Scope<'_, Session>) -> Result<Organization, Fault> {
        // What the database would refuse in its own words, or store as no person could read it.
        if self.slug.contains(char::is_control) {
            return Err(Fault::invalid("slug", "Use lower case letters, digits and hyphens."));
        }
        Changes { name: Some(self.name.clone()), ..self.settings.clone() }.check()?;
        let organization = db::organizations::create(scope.write().await?, &self).await?;
        scope.notes.resource("organization", &organization.id);
        scope.notes.detail("slug", self.slug.as_str());
        scope.announce(Announcement::Limits(organization.id, limits(&organization)));
        Ok(organization)
    }
}

impl Run for Get {
    type Parts = Session;

    async fn run(self, scope: &mut Scope<'_, Session>) -> Result<Organization, Fault> {
        scope.notes.resource("organization", &self.id);
        db::organizations::get(scope.read().await?, self.id).await
    }
}

impl Run for Change {
    type Parts = Session;

    async fn run(self, scope: &mut Scope<'_, Session>) -> Result<Organization, Fault> {
        scope.notes.resource("organization", &self.id);
        self.changes.check()?;
        scope.notes.detail("changes", serde_json::to_value(&self.changes).map_err(Fault::internal)?);
        let organization = db::organizations::change(scope.write().await?, &self).await?;
        scope.announce(Announcement::Limits(self.id, limits(&organization)));
        Ok(organization)
    }
}

impl Run for Remove {
    type Parts = Session;

    async fn run(self, scope: &mut Scope<'_, Session>) -> Result<(), Fault> {
        scope.notes.resource("organization", &self.id);
        let organization = db::organizations::remove(scope.write().await?, &self).await?;
        scope.notes.detail("slug", organization.slug.as_str());
        scope.announce(Announcement::Limits(self.id, Limits { deleted: true, ..limits(&organization) }));
        Ok(())
    }
}

impl Run for List {
    type Parts = Session;

    async fn run(self, scope: &mut Scope<'_, Session>) -> Result<Page<Organization>, Fault> {
        db::organizations::list(scope.read().await?, &self).await
    }
}

impl Run for ReadOwn {
    type Parts = Session;

    async fn run(self, scope: &mut Scope<'_, Session>) -> Result<Organization, Fault> {
        scope.notes.resource("organization", &scope.context.organization);
        db::organizations::own(scope.read().await?).await
    }
}

impl Run for ChangeOwn {
    type Parts = Session;

    async fn run(self, scope: &mut Scope<'_, Session>) -> Result<Organization, Fault> {
        let id = scope.context.organization;
        scope.notes.resource("organization", &id);
        self.choices.check()?;
        scope.notes.detail("changes", serde_json::to_value(&self.choices).map_err(Fault::internal)?);
        let organization = db::organizations::change_own(scope.write().await?, &self.expected, &self.choices).await?;
        scope.announce(Announcement::Limits(id, limits(&organization)));
        Ok(organization)
    }
}

/// What everybody shall believe about an organization.
pub fn limits(organization: &Organization) -> Limits {
    Limits {
        concurrency_limit: organization.concurrency_limit,
        paused: organization.paused,
        calls_per_minute: Some(organization.calls_per_minute),
        queue_limit: organization.queue_limit,
        allowed_origins: organization.allowed_origins.clone(),
        deleted: false,
        generation: organization.generation,
    }
}
