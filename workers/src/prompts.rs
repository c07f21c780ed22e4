//! System prompts: what the platform, an organization and its members have to say to every session, and
//! composing it. Whose a prompt is decides who writes it; row-level security holds to the same.

use std::time::Instant;

use sha2::{Digest, Sha256};
use shared::{
    Code, Fault, Role,
    bus::state::PromptsState,
    command::{
        Page,
        prompts::{
            Composed, Create, Get, Layer, List, Preview, Prompt, Remove, Replace, Scope as Owner, Source, Version,
            Versions,
        },
    },
    db::{self, Transaction},
    hex,
    id::OrganizationId,
};

use self::{
    compose::{Nonce, Piece, put_together},
    sources::{Ready, Sources},
};
use crate::{announce::Announcement, pools::Session, run::Run, scope::Scope};

mod checks;
mod compose;
mod sanitise;
mod signs;
mod sources;
mod template;
mod variables;

pub use sources::Composer;

/// For which session a prompt is composed.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The member's subject. The organization is the transaction's.
    pub subject: &'a str,
    /// The session's id; empty in a preview.
    pub session: &'a str,
    /// What kind of agent it is for; may be empty.
    pub agent_type: &'a str,
    /// What the session itself has to say.
    pub text: Option<Given<'a>>,
}

impl Asked<'_> {
    /// Whether nobody keeps what is composed.
    const fn is_preview(&self) -> bool {
        self.session.is_empty()
    }
}

/// Text that came with a request.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    /// Where it stood in the request: a refusal names it.
    pub field: &'a str,
    /// The text.
    pub text: &'a str,
}

/// What looked suspicious, and the variable it came in through.
type Seen = (&'static str, Option<&'static str>);

/// The sign of text that had more in it than is seen.
const HIDDEN: &str = "hidden_characters";

/// See [`Composer::compose`].
pub async fn compose(parts: &Session, transaction: &mut Transaction, asked: &Asked<'_>) -> Result<Composed, Fault> {
    parts.prompts.compose(transaction, asked).await
}

impl Composer {
    /// Composes the prompt of one session, for a member whom the transaction's actor may compose it for. The
    /// lines around what users wrote carry a nonce of this composition: no two texts are the same.
    pub async fn compose(&self, transaction: &mut Transaction, asked: &Asked<'_>) -> Result<Composed, Fault> {
        let started = Instant::now();
        let of_session = asked.text.map(of_session).transpose()?;
        let (sources, was_kept) = self.sources(transaction, asked).await?;
        let mut pieces = if sources.templates.is_some() {
            // What a template costs is bounded, but not as little as one thread of all should bear.
            let (session, agent_type) = (asked.session.to_owned(), asked.agent_type.to_owned());
            let subject = asked.subject.to_owned();
            let render = move || {
                let asked = Asked { subject: &subject, session: &session, agent_type: &agent_type, text: None };
                said(&sources, &asked)
            };
            tokio::task::spawn_blocking(render).await.map_err(Fault::internal)??
        } else {
            said(&sources, asked)?
        };
        pieces.extend(of_session);
        let composed = put_together(pieces, &Nonce::new())?;
        let sources = if was_kept { "kept" } else { "read" };
        metrics::histogram!("switchboard_prompts_compose_seconds", "sources" => sources).record(started.elapsed());
        Ok(composed)
    }
}

/// The session's own text, if it may be one.
fn of_session(given: Given<'_>) -> Result<Piece, Fault> {
    let text = checks::untrusted(given.field, given.text)?;
    let signs = checks::signs_of(given.text, &text);
    Ok(Piece {
        layer: Layer::Session,
        priority: 0,
        prompt: None,
        sha256: hex(&Sha256::digest(&text)),
        signs: signs.into_iter().map(|sign| (sign, None)).collect(),
        text,
    })
}

/// What each prompt says to this session.
fn said(sources: &Sources, asked: &Asked<'_>) -> Result<Vec<Piece>, Fault> {
    let told = sources.templates.as_ref();
    let told = told.map(|templates| (&templates.compiled, variables::of_session(&templates.base, asked)));
    let mut pieces = Vec::with_capacity(sources.prompts.len());
    for Ready { prompt, signs, tells_agent_type } in &sources.prompts {
        let mut signs = signs.clone();
        let text = match (&prompt.source, &told) {
            (Source::Template(_), Some((compiled, variables))) => {
                if *tells_agent_type {
                    signs.extend(variables::signs_of_agent_type(asked));
                }
                template::render(compiled, &prompt.id.to_string(), variables).map_err(|fault| Fault {
                    message: format!("The prompt `{}` cannot be used. {}", prompt.name, fault.message),
                    ..fault
                })?
            }
            (source, _) => source.text().to_owned(),
        };
        // A template may have nothing to say to this session.
        if !text.trim().is_empty() {
            pieces.push(Piece {
                layer: prompt.scope.into(),
                priority: prompt.priority,
                prompt: Some((prompt.id, prompt.name.clone(), prompt.version)),
                sha256: prompt.sha256.clone(),
                text,
                signs,
            });
        }
    }
    Ok(pieces)
}

/// A prompt as its actor is shown it: who writes the platform's is for operators to know.
fn shown(scope: &Scope<'_, Session>, mut prompt: Prompt) -> Prompt {
    if prompt.scope == Owner::Global && !scope.context.actor.operator {
        (prompt.created_by, prompt.updated_by) = (None, None);
    }
    prompt
}

/// Refuses who may not write what is this owner's.
fn may_write(scope: &Scope<'_, Session>, owner: Owner) -> Result<(), Fault> {
    let actor = &scope.context.actor;
    let refused = match owner {
        Owner::Global if !actor.operator => "Only an operator of the platform writes its prompts.",
        Owner::Organization if actor.role < Role::Admin => {
            "Only an admin writes the organization's prompts; use scope `user` for your own."
        }
        _ => return Ok(()),
    };
    Err(Fault::new(Code::Forbidden, refused))
}

/// What the trail is told of a prompt that was written, and everybody else of its owner.
async fn told(scope: &mut Scope<'_, Session>, prompt: &Prompt, version: i64) -> Result<(), Fault> {
    scope.notes.resource("prompt", &prompt.id);
    scope.notes.detail("name", prompt.name.as_str());
    scope.notes.detail("scope", prompt.scope.name());
    scope.notes.detail("version", version);
    scope.notes.detail("sha256", prompt.sha256.as_str());
    let organization = scope.context.organization;
    let generations = db::prompts::generations(scope.write().await?).await?;
    let (owner, generation) = match prompt.scope {
        Owner::Global => (OrganizationId::PLATFORM, generations.global),
        Owner::Organization | Owner::User => (organization, generations.organization),
    };
    scope.announce(Announcement::Prompts(owner, PromptsState { generation }));
    Ok(())
}

impl Run for Create {
    type Parts = Session;

    async fn run(self, scope: &mut Scope<'_, Session>) -> Result<Prompt, Fault> {
        may_write(scope, self.scope)?;
        let settings = checks::settings(scope, self.scope, self.settings).await?;
        let subject = &scope.context.actor.subject;
        let sha256 = hex(&Sha256::digest(settings.source.text()));
        let transaction = scope.write().await?;
        let prompt = db::prompts::insert(transaction, self.scope, subject, &settings, &sha256).await?;
        db::prompts::fits(transaction, self.scope, subject, settings.source.field()).await?;
        told(scope, &prompt, prompt.version).await?;
        Ok(prompt)
    }
}

impl Run for List {
    type Parts = Session;

    async fn run(self, scope: &mut Scope<'_, Session>) -> Result<Page<Prompt>, Fault> {
        let subject = &scope.context.actor.subject;
        let page = db::prompts::list(scope.read().await?, subject, &self).await?;
        Ok(Page { items: page.items.into_iter().map(|prompt| shown(scope, prompt)).collect(), next: page.next })
    }
}

impl Run for Get {
    type Parts = Session;

    async fn run(self, scope: &mut Scope<'_, Session>) -> Result<Prompt, Fault> {
        scope.notes.resource("prompt", &self.id);
        let subject = &scope.context.actor.subject;
        let prompt = db::prompts::get(scope.read().await?, subject, self.id).await?;
        Ok(shown(scope, prompt))
    }
}

impl Run for Replace {
    type Parts = Session;

    async fn run(self, scope: &mut Scope<'_, Session>) -> Result<Prompt, Fault> {
        scope.notes.resource("prompt", &self.id);
        let subject = &scope.context.actor.subject;
        // Row-level security keeps a row that is not the actor's to write from being locked.
        let seen = db::prompts::get(scope.write().await?, subject, self.id).await?;
        may_write(scope, seen.scope)?;
        let settings = checks::settings(scope, seen.scope, self.settings).await?;
        let transaction = scope.write().await?;
        let found = db::prompts::lock(transaction, subject, self.id).await?;
        self.expected.check(found.version)?;
        let sha256 = hex(&Sha256::digest(settings.source.text()));
        let prompt = db::prompts::replace(transaction, &found, subject, &settings, &sha256).await?;
        db::prompts::fits(transaction, found.scope, subject, settings.source.field()).await?;
        told(scope, &prompt, prompt.version).await?;
        Ok(prompt)
    }
}

impl Run for Remove {
    type Parts = Session;

    async fn run(self, scope: &mut Scope<'_, Session>) -> Result<(), Fault> {
        scope.notes.resource("prompt", &self.id);
        let subject = &scope.context.actor.subject;
        let seen = db::prompts::get(scope.write().await?, subject, self.id).await?;
        may_write(scope, seen.scope)?;
        let transaction = scope.write().await?;
        let found = db::prompts::lock(transaction, subject, self.id).await?;
        self.expected.check(found.version)?;
        db::prompts::remove(transaction, &found).await?;
        told(scope, &found, found.version + 1).await
    }
}

impl Run for Versions {
    type Parts = Session;

    async fn run(self, scope: &mut Scope<'_, Session>) -> Result<Page<Version>, Fault> {
        scope.notes.resource("prompt", &self.id);
        let subject = &scope.context.actor.subject;
        let page = db::prompts::versions(scope.read().await?, &self).await?;
        if page.items.is_empty() {
            // Somebody else's to write, or not there at all.
            let seen = db::prompts::get(scope.read().await?, subject, self.id).await?;
            may_write(scope, seen.scope)?;
        }
        Ok(page)
    }
}

impl Run for Preview {
    type Parts = Session;

    async fn run(self, scope: &mut Scope<'_, Session>) -> Result<Composed, Fault> {
        let (parts, context) = (scope.parts, scope.context);
        let mut subject = context.actor.subject.clone();
        if let Some(id) = self.user {
            scope.notes.resource("user", &id);
            let own = db::users::by_subject(scope.read().await?, &subject).await?;
            if own.id != id && context.actor.role < Role::Admin {
                return Err(Fault::new(Code::Forbidden, "Only an admin looks at what another member gets."));
            }
            subject = db::users::get(scope.read().await?, id).await?.subject;
        }
        let text = self.text.as_deref().map(|text| Given { field: "text", text });
        let asked = Asked { subject: &subject, session: "", agent_type: "", text };
        let composed = compose(parts, scope.read().await?, &asked).await?;
        note(scope, &composed);
        Ok(composed)
    }
}

/// What the trail keeps of a composition: which versions, and what looked suspicious. Never the text.
pub fn note(scope: &mut Scope<'_, Session>, composed: &Composed) {
    scope.notes.detail("prompt_sha256", composed.sha256.as_str());
    let version = |part: &shared::command::prompts::Part| serde_json::json!({ "prompt": part.prompt, "version": part.version, "sha256": part.sha256 });
    scope.notes.detail("prompt_parts", composed.parts.iter().map(version).collect::<Vec<_>>());
    if !composed.flags.is_empty() {
        let flags = composed.flags.iter().map(|flag| serde_json::json!({ "part": flag.part, "sign": flag.sign }));
        scope.notes.detail("prompt_flags", flags.collect::<Vec<_>>());
    }
}
