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
        organizations::Organization,
        prompts::{Scope, Source},
        users::{Admitted, Member},
    },
    db::{
        self, Transaction,
        prompts::{Enabled, Generations},
    },
    id::OrganizationId,
};
use tera::{Context, Tera};

use super::{
    Asked, Seen, checks,
    sanitise::sanitised,
    template::{self, Outline},
    variables::{self, AGENT_TYPE, MAX_TOOLS, Standing, Tool},
};
use crate::{announce::Announcer, tools::admits};

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
    pub(super) prompts: Vec<Ready>,
    /// The templates among them.
    pub(super) templates: Option<Templates>,
    read: Read,
}

/// A prompt that takes part, as far as it is the same for every session.
#[derive(Debug)]
pub(super) struct Ready {
    /// The prompt; what a member wrote is sanitised.
    pub(super) prompt: Enabled,
    /// What looked suspicious in a member's text, or in the values that a template tells.
    pub(super) signs: Vec<Seen>,
    /// Whether it tells the kind of agent, which is the session's.
    pub(super) tells_agent_type: bool,
}

/// Templates, by prompt id, and what every session's are told.
#[derive(Debug)]
pub(super) struct Templates {
    pub(super) compiled: Tera,
    pub(super) base: Context,
}

/// As of when they were read. Each was read before what it counts: that is as new or newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
            let bytes: usize = sources.prompts.iter().map(|ready| ready.prompt.source.text().len() + 512).sum();
            let told = if sources.templates.is_some() { MAX_TOOLS * 512 } else { 0 };
            u32::try_from(bytes + told + 4_096).unwrap_or(u32::MAX)
        };
        Self {
            kept: Cache::builder().time_to_live(BELIEVED_FOR).weigher(weight).max_capacity(CAPACITY_BYTES).build(),
            prompts: announcer.prompts.clone(),
            organizations: announcer.limits.clone(),
            members: announcer.access.clone(),
        }
    }

    /// What the transaction's organization and this member of it have to say, and whether that was kept. A
    /// session keeps what it gets: for one, news that may still be on their way are not enough, and the
    /// database says how old the kept is.
    pub(super) async fn sources(
        &self,
        transaction: &mut Transaction,
        asked: &Asked<'_>,
    ) -> Result<(Arc<Sources>, bool), Fault> {
        let organization = transaction.organization();
        let key = (organization, asked.subject.to_owned());
        let kept = self.kept.get(&key).filter(|kept| self.is_current(organization, asked.subject, &kept.read));
        if let Some(kept) = &kept
            && asked.is_preview()
        {
            return Ok((Arc::clone(kept), true));
        }
        let stored = Stored::read(transaction, asked.subject).await?;
        if let Some(kept) = kept.filter(|kept| kept.read == stored.generations()) {
            return Ok((kept, true));
        }
        let sources = Arc::new(read(transaction, asked.subject, stored).await?);
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

/// What stands in the database about those whose prompts are composed.
struct Stored {
    prompts: Generations,
    organization: Organization,
    member: Member,
}

impl Stored {
    async fn read(transaction: &mut Transaction, subject: &str) -> Result<Self, Fault> {
        Ok(Self {
            prompts: db::prompts::generations(transaction).await?,
            organization: db::organizations::own(transaction).await?,
            member: db::users::by_subject(transaction, subject).await?,
        })
    }

    const fn generations(&self) -> Read {
        Read { prompts: self.prompts, organization: self.organization.generation, member: self.member.generation }
    }
}

async fn read(transaction: &mut Transaction, subject: &str, stored: Stored) -> Result<Sources, Fault> {
    let prompts = db::prompts::enabled(transaction, subject).await?;
    // What a template costs is bounded, but not as little as a thread that serves everybody should bear.
    let looked = tokio::task::spawn_blocking(move || outlined(prompts)).await.map_err(Fault::internal)?;
    let (outlined, compiled) = looked?;
    let mut signs = Vec::new();
    let standing = Standing::new(&stored.organization, &stored.member, &mut signs);
    let speaks_of_tools = outlined.iter().any(|(_, outline)| outline.as_ref().is_some_and(|outline| outline.tools));
    let tools = if speaks_of_tools {
        let mut offered = db::prompts::offered_tools(transaction, subject, stored.organization.tool_policy).await?;
        offered.retain(|tool| admits(&tool.filter, &tool.name));
        offered.truncate(MAX_TOOLS);
        let definitions = db::prompts::definitions(transaction, &offered).await?;
        Tool::all(&offered, &definitions, &mut signs)
    } else {
        Vec::new()
    };
    let base = variables::base(&standing, &tools);
    Ok(Sources {
        prompts: outlined.into_iter().map(|(prompt, outline)| ready(prompt, outline, &signs)).collect(),
        templates: compiled.map(|compiled| Templates { compiled, base }),
        read: stored.generations(),
    })
}

type Outlined = Vec<(Enabled, Option<Outline>)>;

/// What each template uses, and all of them compiled.
fn outlined(prompts: Vec<Enabled>) -> Result<(Outlined, Option<Tera>), Fault> {
    let outline = |prompt: Enabled| {
        let Source::Template(text) = &prompt.source else { return Ok((prompt, None)) };
        let outline = template::check(text).map_err(|refused| not_allowed(&prompt, &refused))?;
        Ok((prompt, Some(outline)))
    };
    let outlined = prompts.into_iter().map(outline).collect::<Result<Outlined, Fault>>()?;
    let templates = || outlined.iter().filter(|(_, outline)| outline.is_some());
    if templates().next().is_none() {
        return Ok((outlined, None));
    }
    let texts = templates().map(|(prompt, _)| (prompt.id.to_string(), prompt.source.text()));
    let compiled = template::compile(texts)?;
    Ok((outlined, Some(compiled)))
}

/// Does what is the same for every session.
fn ready(mut prompt: Enabled, outline: Option<Outline>, signs: &[Seen]) -> Ready {
    if let Some(outline) = outline {
        let tells = |(_, variable): &&Seen| variable.is_some_and(|variable| outline.foreign.contains(&variable));
        return Ready {
            prompt,
            signs: signs.iter().filter(tells).copied().collect(),
            tells_agent_type: outline.foreign.contains(&AGENT_TYPE),
        };
    }
    let mut seen = Vec::new();
    if prompt.scope == Scope::User {
        let text = sanitised(prompt.source.text()).into_owned();
        seen.extend(checks::signs_of(prompt.source.text(), &text).into_iter().map(|sign| (sign, None)));
        prompt.source = Source::Content(text);
    }
    Ready { prompt, signs: seen, tells_agent_type: false }
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
