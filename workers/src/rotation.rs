//! Rotation of keys, without a moment in which something does not open: readers take any key that is
//! known, writers the newest. A new key-encryption key is put around the data keys, one organization
//! after the other; a new data key takes over an organization's secrets, one after the other. Each step
//! is a transaction of its own that can be repeated, so that whoever is killed half way, or runs beside
//! another, does no harm.

pub mod command;
pub mod needed;

use std::{sync::Arc, time::Duration};

use shared::{
    Code, Fault,
    db::{
        self, Database,
        sealed::Lagging,
        tenant_keys::{self, Due, WrappedKey},
    },
    id::OrganizationId,
};
use tokio_util::sync::CancellationToken;

use crate::{
    pools::Token,
    sealing,
    vault::{DekId, Vault},
};

/// How often token workers look for keys that are due, and for secrets that an earlier key sealed.
const EVERY: Duration = Duration::from_mins(10);
/// How often a row that somebody holds is tried again, and how much later.
const ROUNDS: usize = 5;
const NEXT_ROUND_AFTER: Duration = Duration::from_millis(200);

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Keys or secrets that are under the newer key now.
    pub done: u64,
    /// Those that could not be brought there; the log says which and why.
    pub left: u64,
}

/// Keeps keys young in the background, until told to stop. Wrapping anew is not among it: which
/// key-encryption key is known everywhere is the operator's knowledge.
pub async fn serve(parts: Arc<Token>, stop: CancellationToken) {
    loop {
        if let Err(fault) = pass(&parts).await {
            tracing::warn!(%fault, "the rotation of keys waits; the next pass goes on");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

async fn pass(parts: &Token) -> Result<(), Fault> {
    renew_all(&parts.database, &parts.vault, sealing::due()).await?;
    reseal_all(&parts.database, &parts.vault).await?;
    Ok(())
}

/// Wraps every data key with the active key-encryption key.
pub async fn rewrap_all(database: &Database, vault: &Vault) -> Result<Swept, Fault> {
    let (mut swept, mut after) = (Swept::default(), None);
    loop {
        let mut across = database.on_behalf_of(OrganizationId::PLATFORM).await?;
        let ids = tenant_keys::organizations_to_rewrap(&mut across, vault.active(), after).await?;
        drop(across);
        let Some(last) = ids.last().copied() else { return Ok(swept) };
        for id in ids {
            match survive(rewrap(database, vault, id).await, || format!("the data keys of organization {id}"))? {
                Some(keys) => swept.done += keys,
                None => swept.left += 1,
            }
        }
        after = Some(last);
        tracing::info!(data_keys = swept.done, left = swept.left, up_to = %last, "wrapped anew");
    }
}

async fn rewrap(database: &Database, vault: &Vault, organization: OrganizationId) -> Result<u64, Fault> {
    let mut transaction = database.on_behalf_of(organization).await?;
    let keys = tenant_keys::wrapped_otherwise(&mut transaction, vault.active()).await?;
    for key in &keys {
        let new = vault.rewrap_tenant_key(organization, DekId(key.id), &key.kek_id, &key.wrapped)?;
        let key = WrappedKey { id: key.id, kek_id: new.kek_id, wrapped: new.wrapped };
        tenant_keys::rewrap(&mut transaction, &key).await?;
    }
    if let Some(newest) = keys.last() {
        sealing::leave_event(&mut transaction, "keys.rewrap", newest.id, vault.active()).await?;
    }
    transaction.commit().await?;
    Ok(keys.len() as u64)
}

/// Gives every organization whose active data key is due a new one. Organizations without one need none.
pub async fn renew_all(database: &Database, vault: &Vault, due: Due) -> Result<Swept, Fault> {
    let (mut swept, mut after) = (Swept::default(), None);
    loop {
        let mut across = database.on_behalf_of(OrganizationId::PLATFORM).await?;
        let ids = tenant_keys::organizations_to_renew(&mut across, due, after).await?;
        drop(across);
        let Some(last) = ids.last().copied() else { return Ok(swept) };
        for id in ids {
            match survive(renew(database, vault, id, due).await, || format!("the data key of organization {id}"))? {
                Some(renewed) => swept.done += u64::from(renewed),
                None => swept.left += 1,
            }
        }
        after = Some(last);
        tracing::info!(data_keys = swept.done, left = swept.left, up_to = %last, "data keys replaced");
    }
}

async fn renew(database: &Database, vault: &Vault, organization: OrganizationId, due: Due) -> Result<bool, Fault> {
    let mut transaction = database.on_behalf_of(organization).await?;
    let (_, renewed) = sealing::young_key(&mut transaction, vault, due).await?;
    if renewed {
        transaction.commit().await?;
    }
    Ok(renewed)
}

/// Seals with its organization's active key whatever an earlier one sealed. Rows that somebody else
/// holds are tried again a moment later.
pub async fn reseal_all(database: &Database, vault: &Vault) -> Result<Swept, Fault> {
    let mut swept = Swept::default();
    for round in 1..=ROUNDS {
        let Round { done, held, broken } = reseal_round(database, vault).await?;
        swept = Swept { done: swept.done + done, left: held + broken };
        if held == 0 || round == ROUNDS {
            break;
        }
        tokio::time::sleep(NEXT_ROUND_AFTER).await;
    }
    Ok(swept)
}

#[derive(Clone, Copy, Debug, Default)]
struct Round {
    done: u64,
    held: u64,
    broken: u64,
}

async fn reseal_round(database: &Database, vault: &Vault) -> Result<Round, Fault> {
    let (mut round, mut after) = (Round::default(), None);
    loop {
        let mut across = database.on_behalf_of(OrganizationId::PLATFORM).await?;
        let lagging = db::sealed::lagging(&mut across, after.as_ref()).await?;
        drop(across);
        let Some(last) = lagging.last().cloned() else { return Ok(round) };
        for one in &lagging {
            let what = || format!("the secret of configuration {} of {}", one.id, one.organization_id);
            match survive(reseal(database, vault, one).await, what)? {
                Some(true) => round.done += 1,
                Some(false) => round.held += 1,
                None => round.broken += 1,
            }
        }
        tracing::info!(?round, up_to = %last.organization_id, "secrets sealed anew");
        after = Some(last);
    }
}

/// Says whether it is done; a row that somebody else holds, or that is gone, is not.
async fn reseal(database: &Database, vault: &Vault, lagging: &Lagging) -> Result<bool, Fault> {
    let (organization, id) = (lagging.organization_id, lagging.id);
    let mut transaction = match &lagging.user_subject {
        Some(subject) => database.on_behalf_of_member(organization, subject).await?,
        None => database.on_behalf_of(organization).await?,
    };
    // The key before the row, and the row without waiting: see `db::sealed::hold`.
    let (key, _) = sealing::young_key(&mut transaction, vault, sealing::due()).await?;
    let Some((secret, generation)) = db::sealed::hold(&mut transaction, id).await? else { return Ok(false) };
    let place = sealing::configuration_secret(organization, id, generation);
    let plain = sealing::open(&mut transaction, vault, &place, &secret).await?;
    let sealed = sealing::seal_with(vault, organization, &key, &place, plain.reveal())?;
    db::sealed::reseal(&mut transaction, id, &sealed).await?;
    transaction.commit().await?;
    Ok(true)
}

/// One organization's broken key or secret is named and left; without a database nobody gets further.
fn survive<T>(outcome: Result<T, Fault>, what: impl FnOnce() -> String) -> Result<Option<T>, Fault> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(fault) if matches!(fault.code, Code::Unavailable | Code::OutcomeUnknown) => Err(fault),
        Err(_) => {
            tracing::error!(what = what(), "stays under its old key; the line before says why");
            Ok(None)
        }
    }
}
