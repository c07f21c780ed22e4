//! The tools that templates speak of.

use super::super::{Transaction, fault};
use crate::{
    command::{configurations::ToolFilter, tools::ToolPolicy},
    fault::Fault,
    id::ConfigurationId,
};

/// A pinned tool that a template may speak of.
#[derive(Clone, Debug)]
pub struct Offered {
    /// The configuration.
    pub id: ConfigurationId,
    /// The configuration's name.
    pub configuration: String,
    /// Which tools of it are offered.
    pub filter: ToolFilter,
    /// The tool's name.
    pub name: String,
}

/// The most pinned tools of one member that are looked at: without their definitions they are small.
const MAX_SEEN_TOOLS: i64 = 20_000;

/// The pinned tools of the enabled servers that a member sees, by configuration and name; which of them a
/// filter lets through is for the caller to say. Tools that changed are left out where they are held back.
pub async fn offered_tools(
    transaction: &mut Transaction,
    subject: &str,
    policy: ToolPolicy,
) -> Result<Vec<Offered>, Fault> {
    type Found = (String, ConfigurationId, Vec<String>, Vec<String>, String);
    let rows: Vec<Found> = sqlx::query_as(
        "SELECT c.name, c.id, c.tools_allow, c.tools_deny, t.name FROM mcp_configurations c \
         JOIN mcp_tools t ON t.organization_id = c.organization_id AND t.configuration_id = c.id \
         WHERE c.organization_id = $1 AND (c.scope = 'organization' OR c.user_subject = $2) AND c.enabled \
         AND ($3 OR t.state <> 'changed') ORDER BY c.name COLLATE \"C\", c.id, t.name COLLATE \"C\" LIMIT $4",
    )
    .bind(transaction.organization())
    .bind(subject)
    .bind(policy == ToolPolicy::Warn)
    .bind(MAX_SEEN_TOOLS)
    .fetch_all(transaction.connection())
    .await
    .map_err(fault)?;
    let read = |(configuration, id, allow, deny, name): Found| Offered {
        id,
        configuration,
        filter: ToolFilter { allow, deny },
        name,
    };
    Ok(rows.into_iter().map(read).collect())
}

/// The pinned definitions of these, as their servers sent them, in the order of the tools.
pub async fn definitions(transaction: &mut Transaction, tools: &[Offered]) -> Result<Vec<Vec<u8>>, Fault> {
    let ids: Vec<ConfigurationId> = tools.iter().map(|tool| tool.id).collect();
    let names: Vec<&str> = tools.iter().map(|tool| tool.name.as_str()).collect();
    sqlx::query_scalar(
        "SELECT t.definition FROM unnest($2::uuid[], $3::text[]) WITH ORDINALITY AS asked (id, name, place) \
         JOIN mcp_tools t ON t.organization_id = $1 AND t.configuration_id = asked.id AND t.name = asked.name \
         ORDER BY asked.place",
    )
    .bind(transaction.organization())
    .bind(ids)
    .bind(names)
    .fetch_all(transaction.connection())
    .await
    .map_err(fault)
}
