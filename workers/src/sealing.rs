//! Sealing and opening what the database keeps: the vault's cryptography joined with the
//! organization's wrapped keys.

use std::sync::Arc;

use chrono::{TimeDelta, Utc};
use shared::{
    Fault,
    audit::{Event, Outcome, Resource},
    context::now_unix_ms,
    db::{
        self, Transaction,
        tenant_keys::{self, ActiveKey, Due, WrappedKey},
    },
    id::{CallId, ConfigurationId, EventId, OrganizationId},
    secret::Secret,
};
use uuid::Uuid;

use crate::vault::{DataKey, DekId, Place, Vault, sealed_with};

/// What the data keys are for, as kept beside them.
const ALGORITHM: &str = "AES-256-GCM";
/// Random nonces are sound for 2^32 values under one key; far below, the key is replaced.
const MOST_VALUES: i64 = 1 << 28;
/// The oldest that an active key becomes.
const MOST_DAYS: i64 = 90;
/// How often a key may be retired under the eyes of one who waits for it.
const TRIES: usize = 4;

/// Where a configuration's secret lives; the seal is bound to it.
pub fn configuration_secret(organization: OrganizationId, id: ConfigurationId, generation: i64) -> Place<'static> {
    Place { table: "mcp_configurations", column: "secret", organization, row: id.0, generation }
}

/// Seals a value with the organization's active key, made on first use.
pub async fn seal(
    transaction: &mut Transaction,
    vault: &Vault,
    place: &Place<'_>,
    plain: &[u8],
) -> Result<Vec<u8>, Fault> {
    let key = young_key(transaction, vault, due()).await?.0;
    seal_with(vault, transaction.organization(), &key, place, plain)
}

/// Seals with a key that the transaction holds.
pub fn seal_with(
    vault: &Vault,
    organization: OrganizationId,
    key: &WrappedKey,
    place: &Place<'_>,
    plain: &[u8],
) -> Result<Vec<u8>, Fault> {
    Ok(at_hand(vault, organization, key)?.seal(place, plain)?)
}

/// When an active key is replaced without anybody asking for it.
pub fn due() -> Due {
    Due { made_before: Utc::now() - TimeDelta::days(MOST_DAYS), sealed: MOST_VALUES }
}

/// The organization's active key, replaced if it is due; says whether it was. Held until the
/// transaction ends: nothing is sealed with a key that somebody else retires meanwhile.
pub async fn young_key(transaction: &mut Transaction, vault: &Vault, due: Due) -> Result<(WrappedKey, bool), Fault> {
    let active = active_key(transaction, vault).await?;
    if !due.covers(&active) {
        return Ok((active.key, false));
    }
    tenant_keys::retire(transaction, active.key.id).await?;
    let new = active_key(transaction, vault).await?.key;
    leave_event(transaction, "keys.renew", new.id, &new.kek_id).await?;
    Ok((new, true))
}

/// Opens a sealed text.
pub async fn open_text(
    transaction: &mut Transaction,
    vault: &Vault,
    place: &Place<'_>,
    sealed: &[u8],
) -> Result<Secret<String>, Fault> {
    let plain = open(transaction, vault, place, sealed).await?;
    let text = std::str::from_utf8(plain.reveal()).map_err(|_| Fault::internal("a sealed text is not UTF-8"))?;
    Ok(Secret::new(text.to_owned()))
}

/// Opens a sealed value, whichever of the organization's keys sealed it.
pub async fn open(
    transaction: &mut Transaction,
    vault: &Vault,
    place: &Place<'_>,
    sealed: &[u8],
) -> Result<Secret<Vec<u8>>, Fault> {
    let id = sealed_with(sealed)?;
    let key = if let Some(key) = vault.at_hand.get(transaction.organization(), id) {
        key
    } else {
        let stored = tenant_keys::by_id(transaction, id.0).await?;
        at_hand(
            vault,
            transaction.organization(),
            &stored.ok_or_else(|| Fault::internal("a secret's data key is missing"))?,
        )?
    };
    Ok(key.open(place, sealed)?)
}

/// The active key, made where there is none.
async fn active_key(transaction: &mut Transaction, vault: &Vault) -> Result<ActiveKey, Fault> {
    for _ in 0..TRIES {
        if let Some(key) = tenant_keys::take(transaction).await? {
            return Ok(key);
        }
        let new = vault.new_tenant_key(transaction.organization())?;
        let key = WrappedKey { id: new.dek_id.0, kek_id: new.kek_id, wrapped: new.wrapped };
        tenant_keys::keep_first(transaction, &key, ALGORITHM).await?;
    }
    Err(Fault::internal("the active key was retired again and again"))
}

fn at_hand(vault: &Vault, organization: OrganizationId, key: &WrappedKey) -> Result<Arc<DataKey>, Fault> {
    let id = DekId(key.id);
    if let Some(known) = vault.at_hand.get(organization, id) {
        return Ok(known);
    }
    let opened = vault.unwrap_tenant_key(organization, id, &key.kek_id, &key.wrapped)?;
    Ok(vault.at_hand.keep(organization, opened))
}

/// The organization's trail says when its keys changed. Nobody sends these commands: the relay of the
/// outbox publishes the event.
pub async fn leave_event(transaction: &mut Transaction, action: &str, key: Uuid, kek_id: &str) -> Result<(), Fault> {
    let call = CallId::new();
    let details = serde_json::json!({ "wrapped_with": kek_id });
    let event = Event {
        id: EventId::of_attempt(call, 1),
        organization: transaction.organization(),
        occurred_at_ms: now_unix_ms(),
        actor: "switchboard".to_owned(),
        role: "operator".to_owned(),
        action: action.to_owned(),
        resource: Some(Resource { kind: "data_key".to_owned(), id: key.to_string() }),
        outcome: Outcome::Succeeded,
        code: None,
        request_id: call.to_string(),
        call,
        attempt: 1,
        details: details.as_object().cloned().unwrap_or_default(),
    };
    db::audit::leave(transaction, &event).await
}
