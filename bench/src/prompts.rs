//! What it takes to compose a system prompt with something in each of its four layers: in the worker's own code, from
//! what it keeps and from PostgreSQL, on the stack that the rest is measured on.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::json;
use shared::bus::{Bus, Role, kv::Bucket};
use shared::command::Pool;
use shared::config;
use shared::db::Database;
use shared::id::OrganizationId;
use shared::secret::Secret;
use stack::{NatsUser, Stack};
use workers::announce::Announcer;
use workers::prompts::{Asked, Composer, Given};

use crate::targets::switchboard::{Api, Member};

const PATH: &str = "/api/v1/prompts";
const KEPT: usize = 2_000;
const READ: usize = 200;
const PATIENCE: Duration = Duration::from_secs(20);

/// Medians, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prompts {
    /// From what a worker keeps.
    pub(crate) kept_ms: f64,
    /// From PostgreSQL, its transaction included.
    pub(crate) read_ms: f64,
}

/// Writes prompts, then composes.
///
/// # Errors
/// What could not be written, connected to or composed.
pub(crate) async fn measure(stack: &Stack, member: &Member) -> Result<Prompts> {
    write(stack, member).await?;
    let nats = config::Nats {
        url: stack.nats_url(),
        user: Some("session".to_owned()),
        password: Some(Secret::new(stack.nats_password(NatsUser::Session)?)),
        credentials: None,
        root_certificates: None,
    };
    let bus = Bus::connect(&nats, Role::Pool(Pool::Session), None).await?;
    let url = Secret::new(stack.database_url(stack::Pool::Session)?);
    let database =
        Database::open(&config::Database { url, pool_mode: config::PoolMode::Session, connections: 2 }, "bench")?;
    let announcer = Announcer::new(&bus, &[Bucket::Limits, Bucket::Access, Bucket::Prompts]);
    let ready = async {
        announcer.limits.ready().await;
        announcer.access.ready().await;
        announcer.prompts.ready().await;
    };
    tokio::time::timeout(PATIENCE, ready).await.context("the shared state does not come")?;
    let text = Given { field: "text", text: "Answer in one sentence." };
    // As for a preview: an opening asks the database for the generations besides.
    let asked = Asked { subject: &member.subject, session: "", agent_type: "bench", text: Some(text) };
    let compose = async |composer: &Composer, expected: usize| -> Result<f64> {
        let started = Instant::now();
        let mut transaction =
            database.on_behalf_of_member(OrganizationId(member.organization), &member.subject).await.map_err(failed)?;
        let begun = if expected == 0 { started } else { Instant::now() };
        let composed = composer.compose(&mut transaction, &asked).await.map_err(failed)?;
        let took = begun.elapsed().as_secs_f64() * 1_000.0;
        anyhow::ensure!(composed.parts.len() == 6, "not all layers take part: {:?}", composed.parts);
        Ok(took)
    };
    let mut read = Vec::with_capacity(READ);
    for _ in 0..READ {
        read.push(compose(&Composer::new(&announcer), 0).await?);
    }
    let composer = Composer::new(&announcer);
    compose(&composer, 0).await?;
    let mut kept = Vec::with_capacity(KEPT);
    for _ in 0..KEPT {
        kept.push(compose(&composer, 1).await?);
    }
    database.close().await;
    Ok(Prompts { kept_ms: median(kept), read_ms: median(read) })
}

fn failed(fault: shared::Fault) -> anyhow::Error {
    anyhow::Error::msg(fault)
}

/// Something in each layer but the session's, templates and tools among it.
async fn write(stack: &Stack, member: &Member) -> Result<()> {
    let operator = &stack.seeded().context("the stack was not seeded")?.operator_token;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let tools = "{% for tool in tools %}- {{ tool.name }}: {{ tool.description }}\n{% endfor %}";
    let long = "Be exact, be brief, and say what you do not know. ".repeat(40);
    for (token, scope, name, field, text) in [
        (operator, "global", "safety", "content", long.as_str()),
        (
            operator,
            "global",
            "who",
            "template",
            "You serve {{ user.subject }} of {{ organization.name }} on {{ date }}.",
        ),
        (&member.admin, "organization", "tone", "content", long.as_str()),
        (&member.admin, "organization", "tools", "template", tools),
        (&member.token, "user", "wishes", "content", "In French, please."),
    ] {
        let api = Api { client: &client, url: stack.url(), token };
        api.post(PATH, &json!({ "scope": scope, "name": name, field: text })).await?;
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
