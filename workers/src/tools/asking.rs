//! Asking a server what it offers: new tools are pinned, changed ones noted.

use std::collections::HashMap;

use serde_json::Value;
use shared::{
    Deadline, Fault,
    command::tools::Definitions,
    db::{self, tools::Pinned},
    json::Raw,
};

use super::{catalogue::Entry, pinning};
use crate::{pools::Tool, scope::Scope, upstream::HeaderParameter};

/// Asks the server for its tools, pins new ones and notes changed ones.
pub(super) async fn ask(scope: &Scope<'_, Tool>, entry: &Entry) -> Result<Definitions, Fault> {
    let context = scope.context;
    let deadline = context.deadline.min(Deadline::after(entry.timeout()));
    let client = scope.parts.upstreams.client_within(entry.specification(), deadline).await?;
    let items = client.list_tools(deadline, &context.request_id).await?;
    let id = entry.id();
    let mut transaction = scope.parts.database.tenant(context).await?;
    let pinned: HashMap<String, Pinned> =
        db::tools::pinned(&mut transaction, id).await?.into_iter().map(|tool| (tool.name.clone(), tool)).collect();
    let mut changed = Vec::new();
    for offered in items.iter().filter_map(acceptable) {
        match pinned.get(&offered.name) {
            None => db::tools::pin(&mut transaction, id, &offered, &context.actor.subject).await?,
            Some(known) if known.definition_hash == offered.definition_hash => {
                if known.changed {
                    db::tools::note_change(&mut transaction, id, &offered.name, None).await?;
                }
            }
            Some(_) => {
                db::tools::note_change(&mut transaction, id, &offered.name, Some(&offered.definition)).await?;
                changed.push(offered.name);
            }
        }
    }
    transaction.commit().await?;
    Ok(Definitions { items, changed })
}

/// A tool whose headers cannot be obeyed must not be offered (MCP 2026-07-28, `x-mcp-header`).
fn acceptable(definition: &Raw) -> Option<Pinned> {
    let pinned = pinning::read(definition);
    let value: Value = definition.read().ok()?;
    let headers = HeaderParameter::in_schema(value.get("inputSchema").unwrap_or(&Value::Null));
    if pinned.is_none() || headers.is_err() {
        tracing::warn!("a server offers a tool that cannot be kept");
        return None;
    }
    pinned
}
