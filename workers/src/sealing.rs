//! Sealing and opening what the database keeps: the vault's cryptography joined with the
//! organization's wrapped keys.

use std::sync::Arc;

use shared::{
    Fault,
    db::{
        Transaction,
        tenant_keys::{self, WrappedKey},
    },
    id::{ConfigurationId, OrganizationId},
    secret::Secret,
};

use crate::vault::{DataKey, DekId, Place, Vault, sealed_with};

/// What the data keys are for, as kept beside them.
const ALGORITHM: &str = "AES-256-GCM";

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
    let key = match tenant_keys::active(transaction).await? {
        Some(key) => key,
        None => first_key(transaction, vault).await?,
    };
    let sealed = at_hand(vault, transaction.organization(), &key)?.seal(place, plain)?;
    tenant_keys::count_write(transaction, key.id).await?;
    Ok(sealed)
}

/// Opens a sealed text.
pub async fn open_text(
    transaction: &mut Transaction,
    vault: &Vault,
    place: &Place<'_>,
    sealed: &[u8],
) -> Result<Secret<String>, Fault> {
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
    let plain = key.open(place, sealed)?;
    let text = std::str::from_utf8(plain.reveal()).map_err(|_| Fault::internal("a sealed text is not UTF-8"))?;
    Ok(Secret::new(text.to_owned()))
}

async fn first_key(transaction: &mut Transaction, vault: &Vault) -> Result<WrappedKey, Fault> {
    let new = vault.new_tenant_key(transaction.organization())?;
    let key = WrappedKey { id: new.dek_id.0, kek_id: new.kek_id, wrapped: new.wrapped };
    tenant_keys::keep_first(transaction, &key, ALGORITHM).await
}

fn at_hand(vault: &Vault, organization: OrganizationId, key: &WrappedKey) -> Result<Arc<DataKey>, Fault> {
    let id = DekId(key.id);
    if let Some(known) = vault.at_hand.get(organization, id) {
        return Ok(known);
    }
    let opened = vault.unwrap_tenant_key(organization, id, &key.kek_id, &key.wrapped)?;
    Ok(vault.at_hand.keep(organization, opened))
}
