//! Asking a server what it offers: new tools are pinned, changed ones noted.

use std::{collections::HashMap, sync::Arc};

use serde_json::Value;
use shared::{
    Deadline, Fault,
    command::tools::{Definitions, Overruled},
    db::{self, tools::Pinned},
    json::Raw,
};

use super::{catalogue::Entry, filter, pinning, secret_use};
use crate::{pools::Tool, scope::Scope, upstream::HeaderParameter};

/// Asks the server for its tools, pins new ones and notes changed ones.
pub(super) async fn ask(scope: &Scope<'_, Tool>, entry: &Arc<Entry>) -> Result<Definitions, Fault> {
    let context = scope.context;
    let listed = list(scope, entry).await;
    secret_use::note(scope.parts, context, entry, listed.as_ref());
    keep(scope, entry, filter::sift(entry.filter(), listed?)).await
}

/// Pins what is new of what is offered and notes what changed.
pub(super) async fn keep(scope: &Scope<'_, Tool>, entry: &Entry, items: Vec<Raw>) -> Result<Definitions, Fault> {
    let context = scope.context;
    let id = entry.id();
    let mut transaction = scope.parts.database.tenant(context).await?;
    let pinned: HashMap<String, Pinned> =
        db::tools::pinned(&mut transaction, id).await?.into_iter().map(|tool| (tool.name.clone(), tool)).collect();
    let overruled = pinned.values().filter_map(overruled).collect();
    let mut changed = Vec::new();
    for offered in items.iter().filter_map(acceptable) {
        match pinned.get(&offered.name) {
            None => db::tools::pin(&mut transaction, id, &offered, &context.actor.subject).await?,
            Some(known) if known.definition_hash == offered.definition_hash => {
                if known.changed {
                    db::tools::note_change(&mut transaction, id, known, None).await?;
                }
            }
            Some(known) => {
                changed.push(pinning::difference(known, &offered)?);
                db::tools::note_change(&mut transaction, id, known, Some(&offered.definition)).await?;
            }
        }
    }
    transaction.commit().await?;
    Ok(Definitions { items, changed, overruled })
}

fn overruled(tool: &Pinned) -> Option<Overruled> {
    let repeatable = tool.override_repeatable?;
    Some(Overruled { name: tool.name.clone(), repeatable })
}

async fn list(scope: &Scope<'_, Tool>, entry: &Entry) -> Result<Vec<Raw>, Fault> {
    let deadline = scope.context.deadline.min(Deadline::after(entry.timeout()));
    let client = scope.parts.upstreams.client_within(entry.specification(), deadline).await?;
    client.list_tools(deadline, &scope.context.request_id).await
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
