//! Members: first use and "who am I".

use shared::{
    Fault,
    command::users::{Admit, Admitted, Me, Myself},
    db,
};

use crate::{announce::Announcement, pools::Session, run::Run, scope::Scope};

impl Run for Admit {
    type Parts = Session;

    async fn run(self, scope: &mut Scope<'_, Session>) -> Result<Admitted, Fault> {
        let context = scope.context;
        scope.notes.resource("user", &context.actor.subject);
        // A tenant claim for an organization that does not exist admits nobody.
        db::organizations::own(scope.read().await?).await?;
        let admitted = db::users::admit(scope.write().await?, context, self.email.as_deref()).await?;
        scope.announce(Announcement::Access(context.organization, context.actor.subject.clone(), admitted.clone()));
        Ok(admitted)
    }
}

impl Run for Me {
    type Parts = Session;

    async fn run(self, scope: &mut Scope<'_, Session>) -> Result<Myself, Fault> {
        let context = scope.context;
        let organization = db::organizations::own(scope.read().await?).await?;
        let (email, admitted) = db::users::myself(scope.read().await?, &context.actor.subject).await?;
        Ok(Myself {
            organization,
            subject: context.actor.subject.clone(),
            email,
            role: context.actor.role.min(admitted.role),
            state: admitted.state,
        })
    }
}
