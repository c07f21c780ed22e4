//! The session pool's reconciler: what the database holds about limits, members and prompts, everybody
//! shall believe. Puts right what an announcement missed, and fills the buckets of a new NATS: each
//! minute, and soon after a reconnect or a piece of news that could not be written.

use std::{sync::Arc, time::Duration};

use shared::{
    Fault,
    bus::state::{Limits, PromptsState},
    db,
    id::OrganizationId,
};
use tokio_util::sync::CancellationToken;

use crate::{announce::Announcement, organizations::limits, pools::Session};

const EVERY: Duration = Duration::from_mins(1);
/// How soon a pass that failed is tried again, and what was missed is looked for: what keeps one piece
/// of news from being written keeps the next one too.
const SOON: Duration = Duration::from_secs(1);

/// Reconciles until told to stop.
pub async fn serve(parts: Arc<Session>, stop: CancellationToken) {
    let mut connections = parts.bus.connections();
    loop {
        connections.borrow_and_update();
        let passed = pass(&parts).await;
        let pause = if passed.is_ok() { EVERY } else { SOON };
        if let Err(fault) = passed {
            tracing::warn!(%fault, "reconciling failed; the next pass tries again");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
            () = parts.announcer.missed.notified() => tokio::time::sleep(SOON).await,
            Ok(()) = connections.changed() => {}
        }
    }
}

async fn pass(parts: &Session) -> Result<(), Fault> {
    parts.announcer.limits.ready().await;
    parts.announcer.access.ready().await;
    let mut prompts = Vec::new();
    let mut after = None;
    loop {
        let mut transaction = parts.database.on_behalf_of(OrganizationId::PLATFORM).await?;
        let ids = db::organizations::ids(&mut transaction, after).await?;
        drop(transaction);
        let Some(last) = ids.last().copied() else { break };
        for id in ids {
            prompts.extend(organization(parts, id).await?.map(|generation| (id, generation)));
        }
        after = Some(last);
    }
    // Last, and not for long: who may act waits for no prompt.
    tokio::time::timeout(SOON, parts.announcer.prompts.ready())
        .await
        .map_err(|_| Fault::internal("the copy of PROMPTS is not there yet"))?;
    for (id, generation) in prompts {
        parts.announcer.spread(&Announcement::Prompts(id, PromptsState { generation })).await;
    }
    Ok(())
}

/// Reads in one transaction, then spreads what the buckets do not hold; the generation of its prompts, if it
/// ever had any.
async fn organization(parts: &Session, id: OrganizationId) -> Result<Option<i64>, Fault> {
    let mut transaction = parts.database.on_behalf_of(id).await?;
    let (organization, is_deleted) = db::organizations::own_in_any_state(&mut transaction).await?;
    let limits = Limits { deleted: is_deleted, ..limits(&organization) };
    let members = db::users::all(&mut transaction).await?;
    let generation = db::prompts::generations(&mut transaction).await?.organization;
    drop(transaction);
    // Nothing is written for what is known already.
    parts.announcer.spread(&Announcement::Limits(id, limits)).await;
    for (subject, admitted) in members {
        parts.announcer.spread(&Announcement::Access(id, subject, admitted)).await;
    }
    Ok((generation > 0).then_some(generation))
}
