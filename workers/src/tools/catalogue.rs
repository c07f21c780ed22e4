//! Configurations and their pinned tools, kept at hand so that a call needs no database. An entry
//! is dropped as soon as the shared state tells of a newer one, and after a minute in any case.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use moka::future::Cache;
use serde_json::Value;
use shared::{
    Code, Context, Deadline, Fault,
    bus::state::configuration_key,
    command::{
        configurations::{Authentication, Configuration, Credential},
        tools::Definitions,
    },
    db::{self, configurations::Stored, tools::Pinned},
    id::{ConfigurationId, OrganizationId},
    json::Raw,
};

use super::{pinning, schema::ArgumentSchema};
use crate::{
    configurations::endpoint,
    pools::Tool,
    scope::Scope,
    sealing,
    upstream::{HeaderParameter, Specification},
};

/// How long an entry is believed without news. While the database is away it is believed longer:
/// news come through the shared state, not through the database.
const BELIEVED_FOR: Duration = Duration::from_secs(60);
/// How long an entry that nobody asks for is kept.
const KEPT_FOR: Duration = Duration::from_secs(600);
/// How often a server is asked again because a caller names a tool it did not offer.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(30);

/// Whose eyes, and what was asked for: a name means different things to different people.
type Key = (OrganizationId, String, String);

/// The tool pool's memory of configurations.
#[derive(Clone, Debug)]
pub struct Catalogue {
    entries: Cache<Key, Arc<Entry>>,
}

impl Default for Catalogue {
    fn default() -> Self {
        Self { entries: Cache::builder().max_capacity(20_000).time_to_idle(KEPT_FOR).build() }
    }
}

/// A configuration ready for calls.
#[derive(Debug)]
pub(super) struct Entry {
    configuration: Configuration,
    specification: Specification,
    tools: HashMap<String, PinnedTool>,
    listed_at: Option<Instant>,
    loaded_at: Instant,
}

/// A pinned tool ready for calls.
#[derive(Debug)]
pub(super) struct PinnedTool {
    pinned: Pinned,
    arguments: ArgumentSchema,
    header_parameters: Vec<HeaderParameter>,
}

impl Entry {
    /// The pinned tool, unless the server offers something else under its name by now.
    pub(super) fn tool(&self, name: &str) -> Result<&PinnedTool, Fault> {
        let tool = self.tools.get(name).ok_or_else(|| Fault::unknown("tool"))?;
        if tool.pinned.changed {
            return Err(Fault::new(
                Code::Conflict,
                "The server changed this tool's definition after it was pinned. Review it; registering the server anew pins the new one.",
            ));
        }
        Ok(tool)
    }

    pub(super) const fn specification(&self) -> &Specification {
        &self.specification
    }

    pub(super) fn timeout(&self) -> Duration {
        Duration::from_millis(self.configuration.timeout_ms.into())
    }
}

impl PinnedTool {
    fn new(pinned: Pinned) -> Self {
        let definition: Value = serde_json::from_slice(&pinned.definition).unwrap_or_default();
        let schema = definition.get("inputSchema").cloned().unwrap_or_else(|| Value::Object(serde_json::Map::new()));
        Self {
            // Tools with annotations that cannot be obeyed were not pinned.
            header_parameters: HeaderParameter::in_schema(&schema).unwrap_or_default(),
            arguments: ArgumentSchema::compile(&schema),
            pinned,
        }
    }

    pub(super) fn is_repeatable(&self) -> bool {
        self.pinned.is_repeatable()
    }

    pub(super) fn check(&self, arguments: &Raw) -> Result<(), Fault> {
        self.arguments.check(arguments)
    }

    pub(super) fn header_parameters(&self) -> &[HeaderParameter] {
        &self.header_parameters
    }
}

/// The configuration by name or id, having asked its server once if the tool is not pinned.
pub(super) async fn with_tool(scope: &Scope<'_, Tool>, configuration: &str, tool: &str) -> Result<Arc<Entry>, Fault> {
    let entry = entry(scope, configuration).await?;
    if !entry.configuration.enabled {
        return Err(Fault::new(Code::Conflict, "The configuration is disabled."));
    }
    let asked_lately = entry.listed_at.is_some_and(|at| at.elapsed() < ASK_AGAIN_AFTER);
    if entry.tools.contains_key(tool) || asked_lately {
        return Ok(entry);
    }
    ask(scope, &entry).await?;
    let key = key(scope.context, configuration);
    let entry = load(scope.parts, scope.context, configuration, Some(Instant::now())).await?;
    scope.parts.catalogue.entries.insert(key, Arc::clone(&entry)).await;
    Ok(entry)
}

/// The tools as the server offers them now, new ones pinned.
pub(super) async fn refreshed(scope: &Scope<'_, Tool>, id: ConfigurationId) -> Result<Definitions, Fault> {
    let id = id.to_string();
    let entry = entry(scope, &id).await?;
    let definitions = ask(scope, &entry).await?;
    // Other names of the same configuration find the new pins when their entries are reloaded.
    scope.parts.catalogue.entries.invalidate(&key(scope.context, &id)).await;
    scope.parts.catalogue.entries.invalidate(&key(scope.context, &entry.configuration.name)).await;
    Ok(definitions)
}

fn key(context: &Context, configuration: &str) -> Key {
    (context.organization, context.actor.subject.clone(), configuration.to_owned())
}

async fn entry(scope: &Scope<'_, Tool>, configuration: &str) -> Result<Arc<Entry>, Fault> {
    let key = key(scope.context, configuration);
    let entries = &scope.parts.catalogue.entries;
    let known = entries.get(&key).await;
    if let Some(known) = &known {
        let current = is_current(scope.parts, scope.context.organization, known);
        if current && known.loaded_at.elapsed() < BELIEVED_FOR {
            return Ok(Arc::clone(known));
        }
        entries.invalidate(&key).await;
        if !current {
            scope.parts.upstreams.forget(scope.context.organization, known.configuration.id).await;
        }
    }
    let listed_at = known.as_ref().and_then(|known| known.listed_at);
    let loaded = entries.try_get_with(key.clone(), load(scope.parts, scope.context, configuration, listed_at)).await;
    match (loaded, known) {
        (Err(fault), Some(known))
            if fault.code == Code::Unavailable && is_current(scope.parts, scope.context.organization, &known) =>
        {
            entries.insert(key, Arc::clone(&known)).await;
            Ok(known)
        }
        (loaded, _) => loaded.map_err(|fault| Fault::clone(&fault)),
    }
}

fn is_current(parts: &Tool, organization: OrganizationId, entry: &Entry) -> bool {
    let state = parts.configurations.get(&configuration_key(organization, entry.configuration.id));
    state.is_none_or(|state| !state.removed && state.generation <= entry.configuration.generation)
}

async fn load(parts: &Tool, context: &Context, configuration: &str, listed_at: Option<Instant>) -> Result<Arc<Entry>, Fault> {
    let mut transaction = parts.database.tenant(context).await?;
    let stored = match configuration.parse::<ConfigurationId>() {
        Ok(id) => db::configurations::get(&mut transaction, id).await?,
        Err(_) => db::configurations::by_name(&mut transaction, configuration).await?,
    };
    let pinned = db::tools::pinned(&mut transaction, stored.configuration.id).await?;
    let credential = credential(&mut transaction, parts, &stored).await?;
    let specification = Specification {
        organization: context.organization,
        configuration: stored.configuration.id,
        generation: stored.configuration.generation,
        endpoint: endpoint(&stored.configuration.endpoint)?,
        transport: stored.configuration.transport,
        via: stored.configuration.via,
        credential,
    };
    let tools = pinned.into_iter().map(|pinned| (pinned.name.clone(), PinnedTool::new(pinned))).collect();
    Ok(Arc::new(Entry { configuration: stored.configuration, specification, tools, listed_at, loaded_at: Instant::now() }))
}

async fn credential(transaction: &mut db::Transaction, parts: &Tool, stored: &Stored) -> Result<Credential, Fault> {
    let Authentication::Bearer { .. } = stored.configuration.auth else { return Ok(Credential::None) };
    let secret = stored.secret.as_deref().ok_or_else(|| Fault::internal("a bearer configuration without a secret"))?;
    let place = sealing::configuration_secret(transaction.organization(), stored.configuration.id, stored.secret_generation);
    sealing::open_text(transaction, &parts.vault, &place, secret).await.map(Credential::Bearer)
}

/// Asks the server for its tools, pins new ones and notes changed ones.
async fn ask(scope: &Scope<'_, Tool>, entry: &Entry) -> Result<Definitions, Fault> {
    let context = scope.context;
    let client = scope.parts.upstreams.client(&entry.specification).await?;
    let deadline = context.deadline.min(Deadline::after(entry.timeout()));
    let items = client.list_tools(deadline, &context.request_id).await?;
    let id = entry.configuration.id;
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
