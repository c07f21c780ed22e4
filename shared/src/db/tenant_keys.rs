//! An organization's data keys, wrapped. Nothing here can open one.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Transaction, fault};
use crate::{fault::Fault, id::OrganizationId};

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

/// The key that new values are sealed with.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct ActiveKey {
    /// The key.
    #[sqlx(flatten)]
    pub key: WrappedKey,
    /// Values sealed so far, the one that it was just taken for included.
    pub writes: i64,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

/// When a data key is to be replaced.
#[derive(Clone, Copy, Debug)]
pub struct Due {
    /// Made before this.
    pub made_before: DateTime<Utc>,
    /// Or used for so many values.
    pub sealed: i64,
}

impl Due {
    /// Whether it is.
    pub fn covers(&self, key: &ActiveKey) -> bool {
        key.created_at < self.made_before || key.writes >= self.sealed
    }
}

/// Takes the active key to seal one value, if there is one, and holds it until the transaction ends:
/// whoever retires it waits for that, and finds the value. `None` also if it was retired while this
/// waited; the next one is there by then.
pub async fn take(transaction: &mut Transaction) -> Result<Option<ActiveKey>, Fault> {
    sqlx::query_as(
        "UPDATE tenant_keys SET writes = writes + 1 WHERE organization_id = $1 AND state = 'active' \
         RETURNING id, kek_id, wrapped, writes, created_at",
    )
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

/// Keeps a new active key, unless there is one.
pub async fn keep_first(transaction: &mut Transaction, key: &WrappedKey, algorithm: &str) -> Result<(), Fault> {
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
    .map(drop)
    .map_err(fault)
}

/// Retires the active key: it seals nothing more, and opens what it sealed.
pub async fn retire(transaction: &mut Transaction, id: Uuid) -> Result<(), Fault> {
    sqlx::query(
        "UPDATE tenant_keys SET state = 'retired', retired_at = now() \
         WHERE organization_id = $1 AND id = $2 AND state = 'active'",
    )
    .bind(transaction.organization())
    .bind(id)
    .execute(transaction.connection())
    .await
    .map(drop)
    .map_err(fault)
}

/// Every key that another key-encryption key than this one wraps, held until the transaction ends.
pub async fn wrapped_otherwise(transaction: &mut Transaction, kek_id: &str) -> Result<Vec<WrappedKey>, Fault> {
    sqlx::query_as(
        "SELECT id, kek_id, wrapped FROM tenant_keys WHERE organization_id = $1 AND kek_id <> $2 ORDER BY id FOR UPDATE",
    )
    .bind(transaction.organization())
    .bind(kek_id)
    .fetch_all(transaction.connection())
    .await
    .map_err(fault)
}

/// Puts another wrapping around the same key.
pub async fn rewrap(transaction: &mut Transaction, key: &WrappedKey) -> Result<(), Fault> {
    sqlx::query("UPDATE tenant_keys SET kek_id = $3, wrapped = $4 WHERE organization_id = $1 AND id = $2")
        .bind(transaction.organization())
        .bind(key.id)
        .bind(&key.kek_id)
        .bind(&key.wrapped)
        .execute(transaction.connection())
        .await
        .map(drop)
        .map_err(fault)
}

/// How much depends on a key-encryption key, over all organizations.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct KekUse {
    /// Which.
    pub kek_id: String,
    /// Data keys that it wraps.
    pub data_keys: i64,
    /// Their organizations.
    pub organizations: i64,
}

/// The key-encryption keys that something depends on, by id.
pub async fn keks_in_use(transaction: &mut Transaction) -> Result<Vec<KekUse>, Fault> {
    sqlx::query_as("SELECT kek_id, data_keys, organizations FROM app.keks_in_use()")
        .fetch_all(transaction.connection())
        .await
        .map_err(fault)
}

/// Up to 1,000 organizations after `after` with a data key that another key-encryption key wraps.
pub async fn organizations_to_rewrap(
    transaction: &mut Transaction,
    kek_id: &str,
    after: Option<OrganizationId>,
) -> Result<Vec<OrganizationId>, Fault> {
    sqlx::query_scalar("SELECT * FROM app.organizations_to_rewrap($1, $2, 1000)")
        .bind(kek_id)
        .bind(after)
        .fetch_all(transaction.connection())
        .await
        .map_err(fault)
}

/// Up to 1,000 organizations after `after` whose active key is due.
pub async fn organizations_to_renew(
    transaction: &mut Transaction,
    due: Due,
    after: Option<OrganizationId>,
) -> Result<Vec<OrganizationId>, Fault> {
    sqlx::query_scalar("SELECT * FROM app.organizations_to_renew($1, $2, $3, 1000)")
        .bind(due.made_before)
        .bind(due.sealed)
        .bind(after)
        .fetch_all(transaction.connection())
        .await
        .map_err(fault)
}
