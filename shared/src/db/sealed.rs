//! Sealed values, in whatever table they lie, as the rotation of keys sees them: what another key than
//! the organization's active one sealed is found and replaced.

use super::{Transaction, fault};
use crate::{
    fault::Fault,
    id::{ConfigurationId, OrganizationId},
};

/// A configuration whose secret lags behind its organization's active key.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Lagging {
    /// Whose.
    pub organization_id: OrganizationId,
    /// Which.
    pub id: ConfigurationId,
    /// The member who alone sees it, if it is a member's own.
    pub user_subject: Option<String>,
}

/// Up to 500 of them after `after`, over all organizations.
pub async fn lagging(transaction: &mut Transaction, after: Option<&Lagging>) -> Result<Vec<Lagging>, Fault> {
    sqlx::query_as("SELECT organization_id, id, user_subject FROM app.configurations_to_reseal($1, $2, 500)")
        .bind(after.map(|last| last.organization_id))
        .bind(after.map(|last| last.id))
        .fetch_all(transaction.connection())
        .await
        .map_err(fault)
}

/// A configuration's secret and the generation that its seal is bound to, held until the transaction
/// ends. `None` where there is none any more, or where somebody else holds the row: this never waits,
/// since its caller holds the organization's key already, and a command may take the two the other way.
pub async fn hold(transaction: &mut Transaction, id: ConfigurationId) -> Result<Option<(Vec<u8>, i64)>, Fault> {
    sqlx::query_as(
        "SELECT secret, secret_generation FROM mcp_configurations \
         WHERE organization_id = $1 AND id = $2 AND secret IS NOT NULL FOR UPDATE SKIP LOCKED",
    )
    .bind(transaction.organization())
    .bind(id)
    .fetch_optional(transaction.connection())
    .await
    .map_err(fault)
}

/// Puts another seal around the same secret of a configuration that is held.
pub async fn reseal(transaction: &mut Transaction, id: ConfigurationId, secret: &[u8]) -> Result<(), Fault> {
    sqlx::query("UPDATE mcp_configurations SET secret = $3 WHERE organization_id = $1 AND id = $2")
        .bind(transaction.organization())
        .bind(id)
        .bind(secret)
        .execute(transaction.connection())
        .await
        .map(drop)
        .map_err(fault)
}
