//! An organization's data keys, wrapped. Nothing here can open one.

use uuid::Uuid;

use super::{Transaction, fault};
use crate::fault::Fault;

/// A wrapped data key.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct WrappedKey {
    /// Its id, as it stands in what it sealed.
    pub id: Uuid,
    /// The key-encryption key that wrapped it.
    pub kek_id: String,
    /// The wrapped bytes.
    pub wrapped: Vec<u8>,
}

/// The key new secrets are sealed with, if there is one.
pub async fn active(transaction: &mut Transaction) -> Result<Option<WrappedKey>, Fault> {
    sqlx::query_as("SELECT id, kek_id, wrapped FROM tenant_keys WHERE organization_id = $1 AND state = 'active'")
        .bind(transaction.organization())
        .fetch_optional(transaction.connection())
        .await
        .map_err(fault)
}

/// A key by id, whatever its state.
pub async fn by_id(transaction: &mut Transaction, id: Uuid) -> Result<Option<WrappedKey>, Fault> {
    sqlx::query_as("SELECT id, kek_id, wrapped FROM tenant_keys WHERE organization_id = $1 AND id = $2")
        .bind(transaction.organization())
        .bind(id)
        .fetch_optional(transaction.connection())
        .await
        .map_err(fault)
}

/// Keeps a new active key, unless another worker was faster: then the other's is answered.
pub async fn keep_first(transaction: &mut Transaction, key: &WrappedKey, algorithm: &str) -> Result<WrappedKey, Fault> {
    sqlx::query(
        "INSERT INTO tenant_keys (organization_id, id, kek_id, wrapped, algorithm) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (organization_id) WHERE state = 'active' DO NOTHING",
    )
    .bind(transaction.organization())
    .bind(key.id)
    .bind(&key.kek_id)
    .bind(&key.wrapped)
    .bind(algorithm)
    .execute(transaction.connection())
    .await
    .map_err(fault)?;
    active(transaction).await?.ok_or_else(|| Fault::internal("an active key vanished"))
}

/// Counts one more value sealed: random nonces bound how many a key may seal.
pub async fn count_write(transaction: &mut Transaction, id: Uuid) -> Result<(), Fault> {
    sqlx::query("UPDATE tenant_keys SET writes = writes + 1 WHERE organization_id = $1 AND id = $2")
        .bind(transaction.organization())
        .bind(id)
        .execute(transaction.connection())
        .await
        .map(drop)
        .map_err(fault)
}
