//! The session pool's reconciler: what the database holds about limits and members, everybody
//! shall believe. Puts right what an announcement missed, and fills the buckets of a new NATS.

use std::{sync::Arc, time::Duration};

use shared::{Code, Fault, db, id::OrganizationId};
use tokio_util::sync::CancellationToken;

use crate::{announce::Announcement, organizations::limits, pools::Session};

const EVERY: Duration = Duration::from_mins(1);

/// Reconciles every minute until told to stop.
pub async fn serve(parts: Arc<Session>, stop: CancellationToken) {
    loop {
        if let Err(fault) = pass(&parts).await {
            tracing::warn!(%fault, "reconciling failed; the next pass tries again");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

async fn pass(parts: &Session) -> Result<(), Fault> {
    parts.announcer.limits.ready().await;
    parts.announcer.access.ready().await;
    let mut after = None;
    loop {
        let mut transaction = parts.database.on_behalf_of(OrganizationId::PLATFORM).await?;
        let ids = db::organizations::ids(&mut transaction, after).await?;
        drop(transaction);
        let Some(last) = ids.last().copied() else { return Ok(()) };
        for id in ids {
            organization(parts, id).await?;
        }
        after = Some(last);
    }
}

/// Reads in one transaction, then spreads what the buckets do not hold.
async fn organization(parts: &Session, id: OrganizationId) -> Result<(), Fault> {
    let mut transaction = parts.database.on_behalf_of(id).await?;
    let organization = match db::organizations::own(&mut transaction).await {
        Ok(organization) => organization,
        // Deleted: nothing to believe.
        Err(fault) if fault.code == Code::Unknown => return Ok(()),
        Err(fault) => return Err(fault),
    };
    let members = db::users::all(&mut transaction).await?;
    drop(transaction);
    // Nothing is written for what is known already.
    parts.announcer.spread(&Announcement::Limits(id, limits(&organization))).await;
    for (subject, admitted) in members {
        parts.announcer.spread(&Announcement::Access(id, subject, admitted)).await;
    }
    Ok(())
}
