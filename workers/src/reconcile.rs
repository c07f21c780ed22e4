//! The session pool's reconciler: what the database holds about limits and members, everybody
//! shall believe. Puts right what an announcement missed, and fills the buckets of a new NATS.

use std::{sync::Arc, time::Duration};

use shared::{
    Fault,
    bus::state::{Limits, access_key, limits_key},
    db,
    id::OrganizationId,
};
use tokio_util::sync::CancellationToken;

use crate::{announce::Announcement, pools::Session};

const EVERY: Duration = Duration::from_secs(60);

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
    parts.limits.ready().await;
    parts.access.ready().await;
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

async fn organization(parts: &Session, id: OrganizationId) -> Result<(), Fault> {
    let mut transaction = parts.database.on_behalf_of(id).await?;
    let limits = match db::organizations::own(&mut transaction).await {
        Ok(organization) => Limits { concurrency_limit: organization.concurrency_limit },
        // Deleted: nothing to believe.
        Err(fault) if fault.code == shared::Code::Unknown => return Ok(()),
        Err(fault) => return Err(fault),
    };
    if parts.limits.get(&limits_key(id)).as_ref() != Some(&limits) {
        Announcement::Limits(id, limits).spread(&parts.bus).await;
    }
    for (subject, admitted) in db::users::all(&mut transaction).await? {
        let known = parts.access.get(&access_key(id, &subject));
        if known.is_none_or(|known| known.generation < admitted.generation) {
            Announcement::Access(id, subject, admitted).spread(&parts.bus).await;
        }
    }
    Ok(())
}
