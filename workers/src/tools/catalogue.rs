//! Configurations and their pinned tools, kept at hand so that a call needs no database. An entry
//! is dropped as soon as the shared state tells of a newer one, and after a minute in any case.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use moka::{future::Cache, ops::compute::Op};
use shared::{
    Code, Context, Fault,
    bus::state::configuration_key,
    command::{
        configurations::{Authentication, Configuration, Credential, Scope as Ownership, ToolFilter},
        tools::{self, ToolPolicy},
    },
    db::{self, configurations::Stored},
    id::{ConfigurationId, OrganizationId},
};

use super::{
    asking,
    definition::{Definitions, PinnedTool},
    filter,
    secret_use::SecretUse,
};
use crate::{
    catalogue::workspace,
    configurations::endpoint,
    pools::Tool,
    scope::Scope,
    sealing,
    upstream::{Specification, Target},
};

/// How long an entry is believed without news. While the database is away it is believed longer:
/// news come through the shared state, not through the database.
const BELIEVED_FOR: Duration = Duration::from_mins(1);
/// How soon the database is asked again for an entry that was due and could not be read.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// How long an entry that nobody asks for is kept.
const KEPT_FOR: Duration = Duration::from_mins(10);
/// How often a server is asked again because a caller names a tool it did not offer.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(30);

/// The most bytes of definitions in entries, as if none were shared.
const KEPT_BYTES: u64 = 512 * 1024 * 1024;
/// What an entry costs besides its tools, in bytes.
const OVERHEAD_BYTES: usize = 2 * 1024;

/// Whose eyes, and what was asked for: a name means different things to different people.
type Key = (OrganizationId, String, String);
type Entries = Cache<Key, Arc<Entry>>;

/// The tool pool's memory of configurations.
#[derive(Clone, Debug)]
pub struct Catalogue {
    entries: Entries,
    definitions: Definitions,
}

impl Default for Catalogue {
    fn default() -> Self {
        let weigh = |_: &Key, entry: &Arc<Entry>| u32::try_from(entry.bytes()).unwrap_or(u32::MAX);
        Self {
            entries: Cache::builder().max_capacity(KEPT_BYTES).weigher(weigh).time_to_idle(KEPT_FOR).build(),
            definitions: Definitions::default(),
        }
    }
}

/// A configuration ready for calls.
#[derive(Debug)]
pub(super) struct Entry {
    configuration: Configuration,
    specification: Specification,
    secret: Option<SecretUse>,
    policy: ToolPolicy,
    tools: HashMap<String, PinnedTool>,
    listed_at: Option<Instant>,
    look_at: Mutex<Instant>,
}

impl Entry {
    /// The pinned tool, unless the server offers something else under its name by now.
    pub(super) fn tool(&self, name: &str) -> Result<&PinnedTool, Fault> {
        let tool = self.tools.get(name).ok_or_else(|| Fault::unknown("tool"))?;
        if tool.changed && self.policy == ToolPolicy::Block {
            return Err(Fault::new(
                Code::Conflict,
                "The server changed this tool's definition after it was pinned. It is called again once the new one is reviewed and accepted.",
            ));
        }
        Ok(tool)
    }

    pub(super) const fn id(&self) -> ConfigurationId {
        self.configuration.id
    }

    pub(super) const fn specification(&self) -> &Specification {
        &self.specification
    }

    /// What is known of its secret, where it has one.
    pub(super) const fn secret(&self) -> Option<&SecretUse> {
        self.secret.as_ref()
    }

    /// Which of the server's tools are offered.
    pub(super) const fn filter(&self) -> &ToolFilter {
        &self.configuration.tools
    }

    /// How often a call is sent again, where that is safe.
    pub(super) const fn retries(&self) -> u8 {
        self.configuration.retries
    }

    /// Whose it is.
    pub(super) const fn scope(&self) -> Ownership {
        self.configuration.scope
    }

    fn enabled(&self) -> Result<(), Fault> {
        if self.configuration.enabled {
            return Ok(());
        }
        Err(Fault::new(Code::Conflict, "The configuration is disabled."))
    }

    pub(super) fn timeout(&self) -> Duration {
        Duration::from_millis(self.configuration.timeout_ms.into())
    }

    fn bytes(&self) -> usize {
        OVERHEAD_BYTES + self.tools.values().map(|tool| tool.definition.bytes()).sum::<usize>()
    }

    /// Whether to look into the database again. Says so to one caller, and to the next one only
    /// after a while: an absent database costs the others nothing.
    fn is_due(&self, now: Instant) -> bool {
        let mut look_at = self.look_at.lock().unwrap_or_else(PoisonError::into_inner);
        let due = now >= *look_at;
        if due {
            *look_at = now + LOOK_AGAIN_AFTER;
        }
        due
    }
}

/// The configuration by name or id, having asked its server once if the tool is not pinned.
pub(super) async fn with_tool(scope: &Scope<'_, Tool>, configuration: &str, tool: &str) -> Result<Arc<Entry>, Fault> {
    let mut entry = entry(scope, configuration).await?;
    if !entry.configuration.enabled || !filter::admits(entry.filter(), tool) {
        // News of a change may be on their way still, by another road than a call's.
        entry = Box::pin(looked_at(scope, key(scope.context, configuration), configuration, entry)).await?;
    }
    entry.enabled()?;
    if !filter::admits(entry.filter(), tool) {
        return Err(Fault::unknown("tool"));
    }
    let asked_lately = entry.listed_at.is_some_and(|at| at.elapsed() < ASK_AGAIN_AFTER);
    if entry.tools.contains_key(tool) || asked_lately {
        return Ok(entry);
    }
    // Boxed, as everything below that most calls never do: it would make the future of each of them larger
    // than all the rest of it, and memory that is moved costs the most (docs/performance.md).
    Box::pin(asked_anew(scope, configuration, &entry)).await
}

/// The configuration once its server was asked and its answer pinned.
async fn asked_anew(scope: &Scope<'_, Tool>, configuration: &str, entry: &Arc<Entry>) -> Result<Arc<Entry>, Fault> {
    asking::ask(scope, entry).await?;
    let key = key(scope.context, configuration);
    let entry = load(scope.parts, scope.context, configuration, Some(Instant::now())).await?;
    scope.parts.catalogue.entries.insert(key, Arc::clone(&entry)).await;
    Ok(entry)
}

/// The tools as the server offers them now, new ones pinned.
pub(super) async fn refreshed(scope: &Scope<'_, Tool>, id: ConfigurationId) -> Result<tools::Definitions, Fault> {
    let id = id.to_string();
    let entry = entry(scope, &id).await?;
    entry.enabled()?;
    let definitions = asking::ask(scope, &entry).await?;
    // Other names of the same configuration find the new pins when their entries are reloaded.
    scope.parts.catalogue.entries.invalidate(&key(scope.context, &id)).await;
    scope.parts.catalogue.entries.invalidate(&key(scope.context, &entry.configuration.name)).await;
    if !definitions.changed.is_empty() {
        forget_everywhere(&scope.parts.catalogue.entries, entry.id()).await;
    }
    Ok(definitions)
}

/// Drops a configuration for every member of this process: a tool that changed must not be called
/// by those who were not told. Other workers learn of it when they look again.
async fn forget_everywhere(entries: &Entries, id: ConfigurationId) {
    let keys = entries.iter().filter(|(_, known)| known.id() == id).map(|(key, _)| key);
    for key in keys.collect::<Vec<_>>() {
        entries.invalidate(key.as_ref()).await;
    }
}

fn key(context: &Context, configuration: &str) -> Key {
    (context.organization, context.actor.subject.clone(), configuration.to_owned())
}

/// The configuration by name or id, whatever its state.
pub(super) async fn entry(scope: &Scope<'_, Tool>, configuration: &str) -> Result<Arc<Entry>, Fault> {
    let key = key(scope.context, configuration);
    let entries = &scope.parts.catalogue.entries;
    let Some(known) = entries.get(&key).await else { return Box::pin(first(scope, key, configuration)).await };
    if let Some(generation) = newer(scope.parts, scope.context.organization, &known) {
        return Box::pin(replaced(scope, key, configuration, &known, generation)).await;
    }
    if known.is_due(Instant::now()) { Box::pin(looked_at(scope, key, configuration, known)).await } else { Ok(known) }
}

/// What a configuration is now that was another when it was last looked at.
async fn replaced(
    scope: &Scope<'_, Tool>,
    key: Key,
    configuration: &str,
    known: &Arc<Entry>,
    generation: i64,
) -> Result<Arc<Entry>, Fault> {
    drop_outdated(&scope.parts.catalogue.entries, &key, known).await;
    scope.parts.upstreams.forget(scope.context.organization, known.id(), generation).await;
    // Another generation may be another server: what the one before did not offer says nothing.
    first(scope, key, configuration).await
}

/// What the database says of a configuration; what is known of it, while there is no database.
async fn looked_at(
    scope: &Scope<'_, Tool>,
    key: Key,
    configuration: &str,
    known: Arc<Entry>,
) -> Result<Arc<Entry>, Fault> {
    let entries = &scope.parts.catalogue.entries;
    let loaded = load(scope.parts, scope.context, configuration, known.listed_at).await;
    match &loaded {
        Ok(entry) => entries.insert(key, Arc::clone(entry)).await,
        Err(fault) if fault.code == Code::Unavailable => return Ok(known),
        Err(_) => drop_outdated(entries, &key, &known).await,
    }
    loaded
}

/// Loads what is not known. Concurrent callers load once.
async fn first(scope: &Scope<'_, Tool>, key: Key, configuration: &str) -> Result<Arc<Entry>, Fault> {
    let loading = load(scope.parts, scope.context, configuration, None);
    let loaded = scope.parts.catalogue.entries.try_get_with(key, loading).await;
    loaded.map_err(|fault: Arc<Fault>| Arc::unwrap_or_clone(fault))
}

/// Drops an entry unless another caller replaced it already: of many who find the same entry
/// outdated, one loads.
async fn drop_outdated(entries: &Entries, key: &Key, outdated: &Arc<Entry>) {
    let decide = |found: Option<moka::Entry<Key, Arc<Entry>>>| {
        let is_it = found.is_some_and(|found| Arc::ptr_eq(found.value(), outdated));
        std::future::ready(if is_it { Op::Remove } else { Op::Nop })
    };
    entries.entry_by_ref(key).and_compute_with(decide).await;
}

/// The generation that the shared state tells of, if this entry is older or the configuration gone.
fn newer(parts: &Tool, organization: OrganizationId, entry: &Entry) -> Option<i64> {
    let state = parts.configurations.get(&configuration_key(organization, entry.id()))?;
    if state.removed {
        return Some(i64::MAX);
    }
    (state.generation > entry.configuration.generation).then_some(state.generation)
}

async fn load(
    parts: &Tool,
    context: &Context,
    configuration: &str,
    listed_at: Option<Instant>,
) -> Result<Arc<Entry>, Fault> {
    let mut transaction = parts.database.tenant(context).await?;
    let stored = match configuration.parse::<ConfigurationId>() {
        Ok(id) => db::configurations::get(&mut transaction, id).await?,
        Err(_) => db::configurations::by_name(&mut transaction, configuration).await?,
    };
    let pinned = db::tools::pinned(&mut transaction, stored.configuration.id).await?;
    let policy = db::tools::policy(&mut transaction).await?;
    let credential = credential(&mut transaction, parts, &stored).await?;
    let specification = Specification {
        organization: context.organization,
        configuration: stored.configuration.id,
        generation: stored.configuration.generation,
        session: None,
        target: target(context, &stored.configuration)?,
        transport: stored.configuration.transport,
        via: stored.configuration.via,
        credential,
    };
    let definitions = &parts.catalogue.definitions;
    let tools =
        pinned.into_iter().map(|pinned| (pinned.name.clone(), definitions.tool(context.organization, pinned, policy)));
    Ok(Arc::new(Entry {
        secret: SecretUse::of(&stored.configuration, stored.secret_generation),
        configuration: stored.configuration,
        specification,
        policy,
        tools: tools.collect(),
        listed_at,
        look_at: Mutex::new(Instant::now() + BELIEVED_FOR),
    }))
}

fn target(context: &Context, configuration: &Configuration) -> Result<Target, Fault> {
    match (&configuration.endpoint, &configuration.catalogue) {
        (Some(address), _) => endpoint(address).map(Target::Endpoint),
        (None, Some(program)) => Ok(Target::Program {
            catalogue: program.clone(),
            workspace: workspace(context, configuration.scope, configuration.id, configuration.generation),
            is_kept: false,
        }),
        (None, None) => Err(Fault::internal("a configuration has neither an endpoint nor a program")),
    }
}

async fn credential(transaction: &mut db::Transaction, parts: &Tool, stored: &Stored) -> Result<Credential, Fault> {
    if stored.configuration.auth == Authentication::None {
        return Ok(Credential::None);
    }
    let secret = stored.secret.as_deref().ok_or_else(|| Fault::internal("a configuration lacks its secret"))?;
    let place =
        sealing::configuration_secret(transaction.organization(), stored.configuration.id, stored.secret_generation);
    let value = sealing::open_text(transaction, &parts.vault, &place, secret).await?;
    Ok(match &stored.configuration.auth {
        Authentication::None => Credential::None,
        Authentication::Bearer { .. } => Credential::Bearer(value),
        Authentication::Header { name, .. } => Credential::Header { name: name.clone(), value },
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use shared::command::configurations::{Transport, Via};

    use super::*;

    fn entry(look_at: Instant) -> Arc<Entry> {
        let organization = OrganizationId::new();
        let configuration: Configuration = serde_json::from_value(json!({
            "id": ConfigurationId::new(), "name": "n", "description": null, "scope": "user", "endpoint": "http://x/mcp", "catalogue": null,
            "transport": "http", "via": "native", "auth": { "type": "none" }, "timeout_ms": 1_000, "retries": 0,
            "enabled": true, "tools": {}, "name_prefix": null, "generation": 1, "created_by": "s", "updated_by": "s",
            "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z",
        }))
        .unwrap();
        let specification = Specification {
            organization,
            configuration: configuration.id,
            generation: 1,
            session: None,
            target: Target::Endpoint(endpoint("http://x/mcp").unwrap()),
            transport: Transport::Http,
            via: Via::Native,
            credential: Credential::None,
        };
        let tools = HashMap::new();
        let (secret, policy, look_at) = (None, ToolPolicy::Block, Mutex::new(look_at));
        Arc::new(Entry { configuration, specification, secret, policy, tools, listed_at: None, look_at })
    }

    #[test]
    fn of_many_callers_one_looks_into_the_database_and_the_next_only_after_a_while() {
        let due_at = Instant::now();
        let entry = entry(due_at);
        assert!(!entry.is_due(due_at.checked_sub(Duration::from_secs(1)).unwrap()), "still believed");
        assert!(entry.is_due(due_at));
        assert!(
            (0..100).all(|_| !entry.is_due(due_at + LOOK_AGAIN_AFTER / 2)),
            "the others do not wait for the answer"
        );
        assert!(entry.is_due(due_at + LOOK_AGAIN_AFTER));
    }

    #[tokio::test]
    async fn who_finds_an_entry_outdated_does_not_drop_the_one_that_replaced_it() {
        let entries = Catalogue::default().entries;
        let key: Key = (OrganizationId::new(), "s".to_owned(), "n".to_owned());
        let (outdated, fresh) = (entry(Instant::now()), entry(Instant::now()));
        entries.insert(key.clone(), Arc::clone(&outdated)).await;
        drop_outdated(&entries, &key, &outdated).await;
        assert!(entries.get(&key).await.is_none());
        entries.insert(key.clone(), Arc::clone(&fresh)).await;
        drop_outdated(&entries, &key, &outdated).await;
        assert!(Arc::ptr_eq(&entries.get(&key).await.unwrap(), &fresh));
    }
}
