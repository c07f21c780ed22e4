//! Pinned tool definitions: what a tool was when it was first approved.

use super::{Transaction, fault};
use crate::{fault::Fault, id::ConfigurationId};

/// A pinned tool.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Pinned {
    /// As the server offers it.
    pub name: String,
    /// The MCP `Tool` object, byte for byte.
    pub definition: Vec<u8>,
    /// SHA-256 of its canonical form.
    pub definition_hash: Vec<u8>,
    /// The server says it changes nothing (`readOnlyHint`).
    pub read_only: bool,
    /// The server says repeating changes nothing more (`idempotentHint`).
    pub idempotent: bool,
    /// An admin's word, which outweighs the server's.
    pub override_repeatable: Option<bool>,
    /// True once the server offers something else under the name.
    #[sqlx(rename = "is_changed")]
    pub changed: bool,
}

impl Pinned {
    /// True when a call may be made again after a worker was lost.
    pub fn is_repeatable(&self) -> bool {
        self.override_repeatable.unwrap_or(self.read_only || self.idempotent)
    }
}

/// Pins a definition unless one is pinned under the name already.
pub async fn pin(
    transaction: &mut Transaction,
    configuration: ConfigurationId,
    tool: &Pinned,
    by: &str,
) -> Result<(), Fault> {
    sqlx::query(
        "INSERT INTO mcp_tools (organization_id, configuration_id, name, definition, definition_hash, read_only, idempotent, pinned_by) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
    )
    .bind(transaction.organization())
    .bind(configuration)
    .bind(&tool.name)
    .bind(&tool.definition)
    .bind(&tool.definition_hash)
    .bind(tool.read_only)
    .bind(tool.idempotent)
    .bind(by)
    .execute(transaction.connection())
    .await
    .map(drop)
    .map_err(|cause| match super::broken_constraint(&cause) {
        // Removed while its server was asked.
        Some("mcp_tools_configuration_fkey") => Fault::unknown("configuration"),
        _ => fault(cause),
    })
}

/// Notes that the server offers another definition than the pinned one, or (`None`) the pinned one again.
pub async fn note_change(
    transaction: &mut Transaction,
    configuration: ConfigurationId,
    name: &str,
    offered: Option<&[u8]>,
) -> Result<(), Fault> {
    sqlx::query(
        "UPDATE mcp_tools SET changed_definition = $4, state = CASE WHEN $4 IS NULL THEN 'pinned' ELSE 'changed' END \
         WHERE organization_id = $1 AND configuration_id = $2 AND name = $3",
    )
    .bind(transaction.organization())
    .bind(configuration)
    .bind(name)
    .bind(offered)
    .execute(transaction.connection())
    .await
    .map(drop)
    .map_err(fault)
}

/// All pinned tools of a configuration, by name.
pub async fn pinned(transaction: &mut Transaction, configuration: ConfigurationId) -> Result<Vec<Pinned>, Fault> {
    sqlx::query_as(
        "SELECT name, definition, definition_hash, read_only, idempotent, override_repeatable, state = 'changed' AS is_changed \
         FROM mcp_tools WHERE organization_id = $1 AND configuration_id = $2 ORDER BY name",
    )
    .bind(transaction.organization())
    .bind(configuration)
    .fetch_all(transaction.connection())
    .await
    .map_err(fault)
}
