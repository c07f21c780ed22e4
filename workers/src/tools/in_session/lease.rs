//! The turn at a session's workspace: among this worker's calls first, which wait without asking, then
//! among all workers', by the lease on the session's row.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use shared::{
    Code, Context, Deadline, Fault,
    db::{self, Database, workspaces::LEASE},
    id::SessionId,
};
use tokio::{sync::MutexGuard, time::Instant};
use uuid::Uuid;

use super::super::sessions::InUse;
use crate::{pools::Tool, scope::Scope};

/// How long a caller waits before it asks for the lease again: at first, and at most.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
/// How much earlier than its end a lease that cannot be renewed counts as lost: clocks differ.
const MARGIN: Duration = Duration::from_secs(2);

/// Waits until no other call of this worker has the workspace.
pub(super) async fn own_turn(session: &Arc<InUse>, deadline: Deadline) -> Result<MutexGuard<'_, ()>, Fault> {
    tokio::time::timeout(deadline.remaining(), session.turn.lock()).await.map_err(|_| busy())
}

/// A lease, given back when it is released or dropped, unless that was done in a transaction.
#[derive(Debug)]
pub(super) struct Lease {
    database: Database,
    context: Context,
    session: SessionId,
    holder: Uuid,
    is_over: AtomicBool,
}

impl Lease {
    /// Waits for the lease, at most until the deadline.
    pub(super) async fn take(scope: &Scope<'_, Tool>, session: SessionId, deadline: Deadline) -> Result<Self, Fault> {
        let holder = Uuid::new_v4();
        let (database, context) = (scope.parts.database.clone(), scope.context.clone());
        // From here on it may be ours, whatever becomes of the answer.
        let lease = Self { database, context, session, holder, is_over: AtomicBool::new(false) };
        let mut pause = ASK_AGAIN.0;
        while !lease.try_take().await? {
            if deadline.remaining() <= pause {
                tokio::time::sleep(deadline.remaining()).await;
                return Err(busy());
            }
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..=1.0))).await;
            pause = (pause * 2).min(ASK_AGAIN.1);
        }
        Ok(lease)
    }

    async fn try_take(&self) -> Result<bool, Fault> {
        let mut transaction = self.database.tenant(&self.context).await?;
        if db::workspaces::take(&mut transaction, self.session, self.holder).await? {
            return transaction.commit().await.map(|()| true);
        }
        // Somebody has it, unless the session is over, which must not be waited for.
        let subject = &self.context.actor.subject;
        db::sessions::usable(&mut transaction, self.session, subject).await.map(|_| false)
    }

    /// Names this turn.
    pub(super) const fn holder(&self) -> Uuid {
        self.holder
    }

    /// Keeps the lease; returns once it is lost.
    pub(super) async fn lost(&self) -> Fault {
        let mut sure_until = Instant::now() + LEASE - MARGIN;
        loop {
            tokio::time::sleep((LEASE / 3).min(sure_until - Instant::now())).await;
            let asked_at = Instant::now();
            match tokio::time::timeout_at(sure_until, self.renew()).await {
                Ok(Ok(true)) => sure_until = asked_at + LEASE - MARGIN,
                Ok(Ok(false)) => break,
                Ok(Err(_)) if Instant::now() < sure_until => {}
                _ => break,
            }
        }
        tracing::warn!(session = %self.session, "a lease on a workspace was lost");
        let message = "The session's workspace was lost during the call; whether the tool ran is not known.";
        Fault::new(Code::OutcomeUnknown, message)
    }

    async fn renew(&self) -> Result<bool, Fault> {
        let mut transaction = self.database.tenant(&self.context).await?;
        let is_ours = db::workspaces::renew(&mut transaction, self.session, self.holder).await?;
        transaction.commit().await?;
        Ok(is_ours)
    }

    /// It was given back in a transaction that is about to be kept. Where that fails after all, it runs out.
    pub(super) fn is_given_back(&self) {
        self.is_over.store(true, Relaxed);
    }

    /// Gives it back. Not while a transaction of the same call is open that has changed the row: it would
    /// wait for itself.
    pub(super) async fn release(self) {
        self.is_over.store(true, Relaxed);
        give_back(self.database.clone(), self.context.clone(), self.session, self.holder).await;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // A call that was given up; nobody waits for this.
        if !self.is_over.load(Relaxed)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(give_back(self.database.clone(), self.context.clone(), self.session, self.holder));
        }
    }
}

async fn give_back(database: Database, context: Context, session: SessionId, holder: Uuid) {
    let given = async {
        let mut transaction = database.tenant(&context).await?;
        db::workspaces::release(&mut transaction, session, holder).await?;
        transaction.commit().await
    };
    if let Err(fault) = given.await {
        tracing::warn!(%fault, %session, "a lease on a workspace was not given back; it runs out");
    }
}

fn busy() -> Fault {
    Fault::timeout("The deadline passed while another call of the session had its workspace.")
}
