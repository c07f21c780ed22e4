//! Members: first use, "who am I", and what admins do about them.

use shared::{
    Fault,
    command::{
        Page,
        users::{Add, Admit, Admitted, Change, Get, List, MAX_EMAIL_CHARS, Me, Member, Myself, Remove, State},
    },
    context::is_valid_subject,
    db,
};

use crate::{announce::Announcement, organizations::limits, pools::Session, run::Run, scope::Scope, sessions};

impl Run for Admit {
    type Parts = Session;

    async fn run(self, scope: &mut Scope<'_, Session>) -> Result<Admitted, Fault> {
        let context = scope.context;
        scope.notes.resource("user", &context.actor.subject);
        // A tenant claim for an organization that does not exist admits nobody.
        let organization = db::organizations::own(scope.read().await?).await?;
        let admitted = db::users::admit(scope.write().await?, context, self.email.as_deref()).await?;
        db::users::fits(scope.write().await?).await?;
        // A gateway asks also where it has heard nothing of the organization.
        scope.announce(Announcement::Limits(context.organization, limits(&organization)));
        scope.announce(Announcement::Access(context.organization, context.actor.subject.clone(), admitted.clone()));
        Ok(admitted)
    }
}

impl Run for Me {
    type Parts = Session;

    async fn run(self, scope: &mut Scope<'_, Session>) -> Result<Myself, Fault> {
        let context = scope.context;
        let organization = db::organizations::own(scope.read().await?).await?;
        let member = db::users::by_subject(scope.read().await?, &context.actor.subject).await?;
        let memberships = db::users::memberships(scope.read().await?).await?;
        Ok(Myself {
            organization,
            role: context.actor.role.min(member.role),
            subject: member.subject,
            email: member.email,
            state: member.state,
            memberships,
        })
    }
}

impl Run for Add {
    type Parts = Session;

    async fn run(self, scope: &mut Scope<'_, Session>) -> Result<Member, Fault> {
        if !is_valid_subject(&self.subject) {
            return Err(Fault::invalid(
                "subject",
                "Use 1 to 255 visible ASCII characters, as in the `sub` of a token.",
            ));
        }
        check_email(self.email.as_deref())?;
        scope.notes.resource("user", &self.subject);
        let member = db::users::add(scope.write().await?, &self).await?;
        db::users::fits(scope.write().await?).await?;
        told(scope, &member);
        Ok(member)
    }
}

impl Run for List {
    type Parts = Session;

    async fn run(self, scope: &mut Scope<'_, Session>) -> Result<Page<Member>, Fault> {
        db::users::list(scope.read().await?, &self).await
    }
}

impl Run for Get {
    type Parts = Session;

    async fn run(self, scope: &mut Scope<'_, Session>) -> Result<Member, Fault> {
        scope.notes.resource("user", &self.id);
        db::users::get(scope.read().await?, self.id).await
    }
}

impl Run for Change {
    type Parts = Session;

    async fn run(self, scope: &mut Scope<'_, Session>) -> Result<Member, Fault> {
        scope.notes.resource("user", &self.id);
        if self.state == Some(State::Removed) {
            return Err(Fault::invalid("state", "Use `active` or `disabled`; DELETE removes."));
        }
        check_email(self.email.as_deref())?;
        let member = db::users::change(scope.write().await?, &self).await?;
        if self.state == Some(State::Disabled) {
            sessions::end_of_member(scope, member.id).await?;
        }
        told(scope, &member);
        Ok(member)
    }
}

impl Run for Remove {
    type Parts = Session;

    async fn run(self, scope: &mut Scope<'_, Session>) -> Result<(), Fault> {
        scope.notes.resource("user", &self.id);
        let member = db::users::remove(scope.write().await?, &self).await?;
        sessions::end_of_member(scope, member.id).await?;
        told(scope, &member);
        Ok(())
    }
}

/// What the trail and everybody else are told of a member that changed.
fn told(scope: &mut Scope<'_, Session>, member: &Member) {
    scope.notes.resource("user", &member.subject);
    scope.notes.detail("role", member.role.name());
    scope.notes.detail("state", member.state.name());
    scope.announce(Announcement::Access(scope.context.organization, member.subject.clone(), member.standing()));
}

/// Good enough to show: it is never used to decide anything.
fn check_email(email: Option<&str>) -> Result<(), Fault> {
    let fits = |email: &str| {
        let is_odd = |character: char| character.is_whitespace() || character.is_control();
        (1..=MAX_EMAIL_CHARS).contains(&email.chars().count()) && email.contains('@') && !email.contains(is_odd)
    };
    if email.is_none_or(fits) {
        return Ok(());
    }
    Err(Fault::invalid("email", format!("Use an address of at most {MAX_EMAIL_CHARS} characters.")))
}
