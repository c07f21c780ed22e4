//! What a member's prompts are composed of, read once and kept: valid while everybody's shared state
//! tells of nothing newer than what was read, and for a minute at most, since tools change without news.

use std::{sync::Arc, time::Duration};

use moka::sync::Cache;
use shared::{
    Code, Fault,
    bus::{
        kv::Watch,
        state::{Limits, PromptsState, access_key, limits_key, prompts_key},
    },
    command::{
        prompts::{Scope, Source},
        users::Admitted,
    },
    db::{
        self, Transaction,
        prompts::{Enabled, Generations},
    },
    id::OrganizationId,
};
use tera::Tera;

use super::{
    template,
    variables::{MAX_TOOLS, Standing, Tool},
};
use crate::announce::Announcer;

/// The longest that anything is believed without asking the database.
const BELIEVED_FOR: Duration = Duration::from_mins(1);
/// Shared state that was not compared for this long says nothing about what is newer.
const BLIND_AFTER: Duration = Duration::from_secs(10);
/// How much text a worker keeps, in bytes.
const CAPACITY_BYTES: u64 = 64 * 1024 * 1024;

/// Everything but the session: what one member's prompts are composed of.
#[derive(Debug)]
pub(super) struct Sources {
    /// What takes part.
    pub(super) prompts: Vec<Enabled>,
    /// The templates among them, compiled, by prompt id.
    pub(super) templates: Option<Tera>,
    /// What templates are told of organization and member.
    pub(super) standing: Standing,
    /// What they are told of tools; read only if one speaks of them.
    pub(super) tools: Vec<Tool>,
    read: Read,
}

/// As of when they were read. Each was read before what it counts: that is as new or newer.
#[derive(Clone, Copy, Debug)]
struct Read {
    prompts: Generations,
    organization: i64,
    member: i64,
}

/// What this worker keeps, and how it learns that it is old.
#[derive(Debug)]
pub struct Composer {
    kept: Cache<(OrganizationId, String), Arc<Sources>>,
    prompts: Watch<PromptsState>,
    organizations: Watch<Limits>,
    members: Watch<Admitted>,
}

impl Composer {
    /// Follows what the announcer follows.
    pub fn new(announcer: &Announcer) -> Self {
        let weight = |_: &(OrganizationId, String), sources: &Arc<Sources>| {
            let bytes: usize = sources.prompts.iter().map(|prompt| prompt.source.text().len() + 512).sum();
            u32::try_from(bytes + sources.tools.len() * 512 + 4_096).unwrap_or(u32::MAX)
        };
        Self {
            kept: Cache::builder().time_to_live(BELIEVED_FOR).weigher(weight).max_capacity(CAPACITY_BYTES).build(),
            prompts: announcer.prompts.clone(),
            organizations: announcer.limits.clone(),
            members: announcer.access.clone(),
        }
    }

    /// What the transaction's organization and this member of it have to say, and whether that was kept.
    pub(super) async fn sources(
        &self,
        transaction: &mut Transaction,
        subject: &str,
    ) -> Result<(Arc<Sources>, bool), Fault> {
        let organization = transaction.organization();
        let key = (organization, subject.to_owned());
        if let Some(sources) = self.kept.get(&key)
            && self.is_current(organization, subject, &sources.read)
        {
            return Ok((sources, true));
        }
        let sources = Arc::new(read(transaction, subject).await?);
        self.kept.insert(key, Arc::clone(&sources));
        Ok((sources, false))
    }

    /// Whether everybody's news are in and tell of nothing newer.
    fn is_current(&self, organization: OrganizationId, subject: &str, read: &Read) -> bool {
        let prompts = |owner| self.prompts.look(&prompts_key(owner), |state| state.generation).unwrap_or_default();
        let named = self.organizations.look(&limits_key(organization), |limits| limits.generation);
        let member = self.members.look(&access_key(organization, subject), |admitted| admitted.generation);
        let hears = self.prompts.is_fresh(BLIND_AFTER)
            && self.organizations.is_fresh(BLIND_AFTER)
            && self.members.is_fresh(BLIND_AFTER);
        hears
            && prompts(OrganizationId::PLATFORM) <= read.prompts.global
            && prompts(organization) <= read.prompts.organization
            && named.unwrap_or_default() <= read.organization
            && member.unwrap_or_default() <= read.member
    }
}

async fn read(transaction: &mut Transaction, subject: &str) -> Result<Sources, Fault> {
    let generations = db::prompts::generations(transaction).await?;
    let organization = db::organizations::own(transaction).await?;
    let member = db::users::by_subject(transaction, subject).await?;
    let prompts = db::prompts::enabled(transaction, subject).await?;
    let mut templates = Vec::new();
    let mut speaks_of_tools = false;
    for prompt in &prompts {
        let Source::Template(text) = &prompt.source else { continue };
        let outline = template::check(text).map_err(|refused| not_allowed(prompt, &refused))?;
        speaks_of_tools |= outline.tools;
        templates.push((prompt.id.to_string(), text.as_str()));
    }
    let templates = if templates.is_empty() { None } else { Some(template::compile(templates.into_iter())?) };
    let tools = if speaks_of_tools {
        Tool::all(db::prompts::offered_tools(transaction, subject, MAX_TOOLS).await?)
    } else {
        Vec::new()
    };
    Ok(Sources {
        standing: Standing::new(&organization, &member),
        read: Read { prompts: generations, organization: organization.generation, member: member.generation },
        templates,
        tools,
        prompts,
    })
}

/// A template that was stored under other rules: nothing is composed without it.
fn not_allowed(prompt: &Enabled, refused: &template::Refused) -> Fault {
    let whose = if prompt.scope == Scope::Global { "platform" } else { "organization" };
    Fault::new(
        Code::Conflict,
        format!(
            "The {whose}'s prompt `{}` has a template that is not allowed, in line {}: {}",
            prompt.name, refused.line, refused.why
        ),
    )
}
