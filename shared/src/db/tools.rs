//! Pinned tool definitions: what a tool was when it was first approved.

use chrono::{DateTime, Utc};

use super::{Transaction, fault};
use crate::{command::tools::ToolPolicy, fault::Fault, id::ConfigurationId};

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
    /// What it offers instead.
    pub changed_definition: Option<Vec<u8>>,
}

/// A pinned tool with its history.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Kept {
    /// What is pinned.
    #[sqlx(flatten)]
    pub tool: Pinned,
    /// For whom.
    pub pinned_by: String,
    /// When.
    pub pinned_at: DateTime<Utc>,
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
/// Nothing where another has been pinned since: what is offered was compared with the one before.
pub async fn note_change(
    transaction: &mut Transaction,
    configuration: ConfigurationId,
    judged: &Pinned,
    offered: Option<&[u8]>,
) -> Result<(), Fault> {
    sqlx::query(
        "UPDATE mcp_tools SET changed_definition = $4, state = CASE WHEN $4 IS NULL THEN 'pinned' ELSE 'changed' END \
         WHERE organization_id = $1 AND configuration_id = $2 AND name = $3 AND definition_hash = $5",
    )
    .bind(transaction.organization())
    .bind(configuration)
    .bind(&judged.name)
    .bind(offered)
    .bind(&judged.definition_hash)
    .execute(transaction.connection())
    .await
    .map(drop)
    .map_err(fault)
}

/// Everything but the rest of the `WHERE`.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT name, definition, definition_hash, read_only, idempotent, override_repeatable, \
             state = 'changed' AS is_changed, changed_definition, pinned_by, pinned_at \
             FROM mcp_tools WHERE organization_id = $1 AND configuration_id = $2 ",
            $rest
        )
    };
}

/// One pinned tool, kept from others until the transaction ends.
pub async fn lock(transaction: &mut Transaction, configuration: ConfigurationId, name: &str) -> Result<Kept, Fault> {
    sqlx::query_as(select!("AND name = $3 FOR UPDATE"))
        .bind(transaction.organization())
        .bind(configuration)
        .bind(name)
        .fetch_optional(transaction.connection())
        .await
        .map_err(fault)?
        .ok_or_else(|| Fault::unknown("tool"))
}

/// Pins another definition in the place of the one there is.
pub async fn accept(
    transaction: &mut Transaction,
    configuration: ConfigurationId,
    tool: &Pinned,
    by: &str,
) -> Result<(), Fault> {
    sqlx::query(
        "UPDATE mcp_tools SET definition = $4, definition_hash = $5, read_only = $6, idempotent = $7, pinned_by = $8, \
         pinned_at = now(), state = 'pinned', changed_definition = NULL \
         WHERE organization_id = $1 AND configuration_id = $2 AND name = $3",
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
    .map_err(fault)
}

/// Keeps somebody's word on whether a call may be repeated.
pub async fn overrule(
    transaction: &mut Transaction,
    configuration: ConfigurationId,
    name: &str,
    repeatable: Option<bool>,
) -> Result<(), Fault> {
    sqlx::query(
        "UPDATE mcp_tools SET override_repeatable = $4 \
         WHERE organization_id = $1 AND configuration_id = $2 AND name = $3",
    )
    .bind(transaction.organization())
    .bind(configuration)
    .bind(name)
    .bind(repeatable)
    .execute(transaction.connection())
    .await
    .map(drop)
    .map_err(fault)
}

/// What the organization wants done about changed definitions. The safer of the two where it is gone.
pub async fn policy(transaction: &mut Transaction) -> Result<ToolPolicy, Fault> {
    let policy: Option<String> = sqlx::query_scalar("SELECT tool_policy FROM organizations WHERE id = $1")
        .bind(transaction.organization())
        .fetch_optional(transaction.connection())
        .await
        .map_err(fault)?;
    Ok(policy.as_deref().and_then(ToolPolicy::parse).unwrap_or(ToolPolicy::Block))
}

/// All pinned tools of a configuration, by name.
pub async fn pinned(transaction: &mut Transaction, configuration: ConfigurationId) -> Result<Vec<Pinned>, Fault> {
    sqlx::query_as(select!("ORDER BY name"))
        .bind(transaction.organization())
        .bind(configuration)
        .fetch_all(transaction.connection())
        .await
        .map_err(fault)
}
