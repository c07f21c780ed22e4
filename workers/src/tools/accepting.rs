//! What people decide about tools: a changed definition is accepted, a server's hints are overruled.
//! Runs in the token pool, with the configurations: a tool worker, which meets the servers, cannot
//! put another definition in the place of a pinned one.

use shared::{
    Code, Fault,
    command::tools::{Accept, Overrule, Pin},
    db::{self, tools::Kept},
    hex,
    id::ConfigurationId,
    json::Raw,
};

use super::pinning;
use crate::{
    configurations::{announce, may_write},
    pools::Token,
    run::Run,
    scope::Scope,
};

impl Run for Accept {
    type Parts = Token;

    async fn run(self, scope: &mut Scope<'_, Token>) -> Result<Pin, Fault> {
        let kept = kept(scope, self.configuration, &self.tool).await?;
        scope.notes.detail("offered_sha256", self.offered_sha256.as_str());
        let Some(changed) = kept.tool.changed_definition.clone() else {
            // Accepted before, perhaps by the same request: nothing is left to do.
            let is_pinned = hex(&kept.tool.definition_hash) == self.offered_sha256;
            return if is_pinned { Ok(pin(kept)) } else { Err(stale()) };
        };
        let offered = Raw::parse(changed.into()).ok().and_then(|definition| pinning::read(&definition));
        let offered = offered.ok_or_else(|| Fault::internal("a changed definition cannot be read"))?;
        // Only what was seen: the server may offer yet another one by now.
        if hex(&offered.definition_hash) != self.offered_sha256 {
            return Err(stale());
        }
        let subject = &scope.context.actor.subject;
        db::tools::accept(scope.write().await?, self.configuration, &offered, subject).await?;
        told(scope, self.configuration, &self.tool).await
    }
}

impl Run for Overrule {
    type Parts = Token;

    async fn run(self, scope: &mut Scope<'_, Token>) -> Result<Pin, Fault> {
        let kept = kept(scope, self.configuration, &self.tool).await?;
        scope.notes.detail("repeatable", self.repeatable);
        if kept.tool.override_repeatable == self.repeatable {
            return Ok(pin(kept));
        }
        db::tools::overrule(scope.write().await?, self.configuration, &self.tool, self.repeatable).await?;
        told(scope, self.configuration, &self.tool).await
    }
}

/// The tool of a configuration that the caller may write, kept from others until the end.
async fn kept(scope: &mut Scope<'_, Token>, id: ConfigurationId, tool: &str) -> Result<Kept, Fault> {
    scope.notes.resource("tool", &format!("{id}/{tool}"));
    let configuration = db::configurations::lock(scope.write().await?, id).await?.configuration;
    may_write(scope, configuration.scope)?;
    db::tools::lock(scope.write().await?, id, tool).await
}

/// Tells every tool worker, and the caller.
async fn told(scope: &mut Scope<'_, Token>, id: ConfigurationId, tool: &str) -> Result<Pin, Fault> {
    let subject = &scope.context.actor.subject;
    let transaction = scope.write().await?;
    let generation = db::configurations::touch(transaction, id, subject).await?;
    let kept = db::tools::lock(transaction, id, tool).await?;
    announce(scope, id, generation);
    Ok(pin(kept))
}

fn pin(Kept { tool, pinned_by, pinned_at }: Kept) -> Pin {
    Pin {
        definition_sha256: hex(&tool.definition_hash),
        name: tool.name,
        changed: tool.changed,
        repeatable: tool.override_repeatable,
        pinned_by,
        pinned_at,
    }
}

fn stale() -> Fault {
    Fault::new(Code::Stale, "The server offers another definition than the one you saw; list its tools again.")
}
