//! Pinned tools ready for calls. A configuration may hold hundreds of them and a call needs one, so
//! a definition is read and its schema compiled when the tool is first called, once for everybody
//! in the organization.

use std::sync::Arc;

use moka::sync::Cache;
use serde_json::Value;
use shared::{Fault, command::tools::ToolPolicy, db::tools::Pinned, id::OrganizationId, json::Raw};
use tokio::sync::OnceCell;

use super::{
    pinning,
    schema::{ArgumentSchema, heavily},
};
use crate::upstream::HeaderParameter;

/// The largest definition that is compiled on the thread that serves everybody, in bytes.
const INLINE_BYTES: usize = 16 * 1024;
/// The most bytes of definitions that are kept for the next who asks.
const KEPT_BYTES: u64 = 128 * 1024 * 1024;
/// What a definition costs besides its text, in bytes.
const OVERHEAD_BYTES: usize = 512;

/// A tool as pinned.
#[derive(Debug)]
pub(super) struct PinnedTool {
    /// The server offers something else under its name by now.
    pub(super) changed: bool,
    /// A call may be made again after a worker was lost.
    pub(super) repeatable: bool,
    /// What was pinned.
    pub(super) definition: Arc<Definition>,
}

/// A pinned definition, compiled at the first use.
#[derive(Debug)]
pub(super) struct Definition {
    text: Arc<[u8]>,
    compiled: OnceCell<Compiled>,
}

/// What a call needs to know of a definition.
#[derive(Clone, Debug)]
pub(super) struct Compiled {
    arguments: ArgumentSchema,
    header_parameters: Vec<HeaderParameter>,
}

impl Definition {
    fn new(text: Vec<u8>) -> Self {
        Self { text: text.into(), compiled: OnceCell::new() }
    }

    /// What it weighs in a cache.
    pub(super) fn bytes(&self) -> usize {
        self.text.len() + OVERHEAD_BYTES
    }

    /// The compiled form. Concurrent first uses compile once.
    pub(super) async fn compiled(&self) -> Result<&Compiled, Fault> {
        self.compiled
            .get_or_try_init(async || {
                let text = Arc::clone(&self.text);
                if text.len() <= INLINE_BYTES {
                    Ok(Compiled::of(&text))
                } else {
                    heavily(move || Compiled::of(&text)).await
                }
            })
            .await
    }
}

impl Compiled {
    fn of(definition: &[u8]) -> Self {
        let definition: Value = serde_json::from_slice(definition).unwrap_or_default();
        let schema = definition.get("inputSchema").cloned().unwrap_or_else(|| Value::Object(serde_json::Map::new()));
        Self {
            // Tools with annotations that cannot be obeyed were not pinned.
            header_parameters: HeaderParameter::in_schema(&schema).unwrap_or_default(),
            arguments: ArgumentSchema::compile(&schema),
        }
    }

    pub(super) async fn check(&self, arguments: &Raw) -> Result<(), Fault> {
        self.arguments.check(arguments).await
    }

    pub(super) fn header_parameters(&self) -> &[HeaderParameter] {
        &self.header_parameters
    }
}

/// The definitions of this process, by organization and hash: members of an organization see the
/// same tools under keys of their own and share what is compiled.
#[derive(Clone, Debug)]
pub(super) struct Definitions(Cache<(OrganizationId, Vec<u8>), Arc<Definition>>);

impl Default for Definitions {
    fn default() -> Self {
        let weigh = |_: &(OrganizationId, Vec<u8>), definition: &Arc<Definition>| {
            u32::try_from(definition.bytes()).unwrap_or(u32::MAX)
        };
        Self(Cache::builder().max_capacity(KEPT_BYTES).weigher(weigh).build())
    }
}

impl Definitions {
    /// The tool as read from the database; nothing is compiled yet. Where changed definitions are
    /// called all the same, it is by what the server offers: the pinned schema says nothing of it, and
    /// it is repeated only if both allow that, or an admin does.
    pub(super) fn tool(&self, organization: OrganizationId, pinned: Pinned, policy: ToolPolicy) -> PinnedTool {
        let (changed, mut repeatable) = (pinned.changed, pinned.is_repeatable());
        let offered = pinned.changed_definition.as_ref().filter(|_| policy == ToolPolicy::Warn);
        let offered = offered.and_then(|text| pinning::read(&Raw::parse(text.clone().into()).ok()?));
        if let Some(offered) = &offered {
            repeatable = pinned.override_repeatable.unwrap_or(repeatable && offered.is_repeatable());
        }
        let pinned = offered.unwrap_or(pinned);
        let key = (organization, pinned.definition_hash);
        let definition = self.0.get_with(key, || Arc::new(Definition::new(pinned.definition)));
        PinnedTool { changed, repeatable, definition }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pinned(definition: &str) -> Pinned {
        pinning::read(&Raw::parse(definition.to_owned().into()).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn nothing_is_compiled_before_the_first_use_and_nothing_twice_in_an_organization() {
        let definitions = Definitions::default();
        let (organization, another) = (OrganizationId::new(), OrganizationId::new());
        let text = r#"{"name":"a","inputSchema":{"properties":{"n":{"type":"integer"}}}}"#;
        let one = definitions.tool(organization, pinned(text), ToolPolicy::Block).definition;
        assert!(!one.compiled.initialized());
        let arguments = Raw::parse(r#"{"n":"x"}"#.into()).unwrap();
        assert!(one.compiled().await.unwrap().check(&arguments).await.is_err());
        let again = definitions.tool(organization, pinned(text), ToolPolicy::Block).definition;
        assert!(Arc::ptr_eq(&one, &again) && again.compiled.initialized());
        let theirs = definitions.tool(another, pinned(text), ToolPolicy::Block).definition;
        assert!(!Arc::ptr_eq(&one, &theirs), "organizations share nothing");
        let other = pinned(r#"{"name":"a","inputSchema":{"properties":{}}}"#);
        let other = definitions.tool(organization, other, ToolPolicy::Block);
        assert!(other.definition.compiled().await.unwrap().check(&arguments).await.is_ok());
    }

    #[tokio::test]
    async fn a_large_definition_is_compiled_elsewhere_alike() {
        let text = format!(
            r#"{{"name":"a","description":"{}","inputSchema":{{"required":["n"]}}}}"#,
            "x".repeat(2 * INLINE_BYTES)
        );
        let tool = Definitions::default().tool(OrganizationId::new(), pinned(&text), ToolPolicy::Block);
        let compiled = tool.definition.compiled().await.unwrap();
        assert!(compiled.check(&Raw::empty_object()).await.is_err());
    }

    #[tokio::test]
    async fn a_changed_definition_is_called_by_what_is_offered_only_where_that_is_wanted() {
        let changed = || Pinned {
            changed: true,
            changed_definition: Some(br#"{"name":"a","inputSchema":{"required":["new"]}}"#.to_vec()),
            ..pinned(r#"{"name":"a","inputSchema":{"required":["old"]},"annotations":{"readOnlyHint":true}}"#)
        };
        let (definitions, organization) = (Definitions::default(), OrganizationId::new());
        for (policy, argument) in [(ToolPolicy::Block, "old"), (ToolPolicy::Warn, "new")] {
            let tool = definitions.tool(organization, changed(), policy);
            assert!(tool.changed);
            assert_eq!(tool.repeatable, policy == ToolPolicy::Block, "what is offered takes the promise back");
            let arguments = Raw::parse(format!(r#"{{"{argument}":1}}"#).into()).unwrap();
            assert!(tool.definition.compiled().await.unwrap().check(&arguments).await.is_ok(), "{policy:?}");
        }
    }
}
