//! System prompts, their versions, and what is read to compose one. The platform's rows are seen from
//! every organization; row-level security lets only an operator write them.

use chrono::{DateTime, Utc};
use sqlx::FromRow;

use super::{Transaction, broken_constraint, fault, page};
use crate::{
    command::{
        MAX_PAGE, Page,
        prompts::{
            List, MAX_OWN_PROMPTS, MAX_PROMPTS, MAX_SCOPE_BYTES, Prompt, Scope, Settings, Source, Version, Versions,
        },
    },
    fault::{Code, Fault},
    id::{OrganizationId, PromptId},
};

mod offered;

pub use offered::{Offered, definitions, offered_tools};

#[derive(FromRow)]
struct Row {
    id: PromptId,
    scope: String,
    name: String,
    content: Option<String>,
    template: Option<String>,
    sha256: String,
    enabled: bool,
    priority: i32,
    generation: i64,
    created_by: String,
    created_at: DateTime<Utc>,
    updated_by: String,
    updated_at: DateTime<Utc>,
}

/// The columns of a [`Row`].
macro_rules! columns {
    ($head:literal, $tail:literal) => {
        concat!(
            $head,
            " id, scope, name, content, template, sha256, enabled, priority, generation, created_by, created_at, \
             updated_by, updated_at ",
            $tail
        )
    };
}

/// What its actor sees by the API: the platform's, the organization's (`$1`), and their own (`$2`).
macro_rules! seen {
    ($rest:literal) => {
        concat!(
            columns!("SELECT", "FROM system_prompts WHERE (organization_id = $1 OR scope = 'global')"),
            " AND (scope <> 'user' OR user_subject = $2) ",
            $rest
        )
    };
}

impl Row {
    fn read(self) -> Result<Prompt, Fault> {
        Ok(Prompt {
            id: self.id,
            scope: scope(&self.scope)?,
            name: self.name,
            content: self.content,
            template: self.template,
            enabled: self.enabled,
            priority: u16::try_from(self.priority).unwrap_or_default(),
            version: self.generation,
            sha256: self.sha256,
            created_by: Some(self.created_by),
            created_at: self.created_at,
            updated_by: Some(self.updated_by),
            updated_at: self.updated_at,
        })
    }
}

fn scope(name: &str) -> Result<Scope, Fault> {
    Scope::parse(name).ok_or_else(|| Fault::internal("a scope the code does not know"))
}

fn one(row: Option<Row>) -> Result<Prompt, Fault> {
    row.ok_or_else(|| Fault::unknown("prompt"))?.read()
}

/// Whose rows of a scope are, as written by the transaction's organization.
fn owner(transaction: &Transaction, scope: Scope) -> OrganizationId {
    if scope == Scope::Global { OrganizationId::PLATFORM } else { transaction.organization() }
}

const fn content(source: &Source) -> Option<&String> {
    if let Source::Content(text) = source { Some(text) } else { None }
}

const fn template(source: &Source) -> Option<&String> {
    if let Source::Template(text) = source { Some(text) } else { None }
}

/// Keeps a new one, the subject's own if that is its scope.
pub async fn insert(
    transaction: &mut Transaction,
    scope: Scope,
    subject: &str,
    settings: &Settings,
    sha256: &str,
) -> Result<Prompt, Fault> {
    let row: Option<Row> = sqlx::query_as(columns!(
        "INSERT INTO system_prompts (organization_id, id, scope, user_subject, name, content, template, sha256, \
         enabled, priority, created_by, updated_by) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11) \
         RETURNING",
        ""
    ))
    .bind(owner(transaction, scope))
    .bind(PromptId::new())
    .bind(scope.name())
    .bind((scope == Scope::User).then_some(subject))
    .bind(&settings.name)
    .bind(content(&settings.source))
    .bind(template(&settings.source))
    .bind(sha256)
    .bind(settings.enabled)
    .bind(i32::from(settings.priority))
    .bind(subject)
    .fetch_optional(transaction.connection())
    .await
    .map_err(duplicate_name)?;
    one(row)
}

/// Replaces what one says; answers its next version.
pub async fn replace(
    transaction: &mut Transaction,
    prompt: &Prompt,
    subject: &str,
    settings: &Settings,
    sha256: &str,
) -> Result<Prompt, Fault> {
    let row: Option<Row> = sqlx::query_as(columns!(
        "UPDATE system_prompts SET name = $3, content = $4, template = $5, sha256 = $6, enabled = $7, priority = $8, \
         updated_by = $9 WHERE organization_id = $1 AND id = $2 RETURNING",
        ""
    ))
    .bind(owner(transaction, prompt.scope))
    .bind(prompt.id)
    .bind(&settings.name)
    .bind(content(&settings.source))
    .bind(template(&settings.source))
    .bind(sha256)
    .bind(settings.enabled)
    .bind(i32::from(settings.priority))
    .bind(subject)
    .fetch_optional(transaction.connection())
    .await
    .map_err(duplicate_name)?;
    one(row)
}

fn duplicate_name(cause: sqlx::Error) -> Fault {
    match broken_constraint(&cause) {
        Some("system_prompts_name_key") => Fault {
            field: Some("name".to_owned()),
            ..Fault::new(Code::Conflict, "A prompt with this name exists already in this scope.")
        },
        _ => fault(cause),
    }
}

/// Removes one; its versions stay.
pub async fn remove(transaction: &mut Transaction, prompt: &Prompt) -> Result<(), Fault> {
    sqlx::query("DELETE FROM system_prompts WHERE organization_id = $1 AND id = $2")
        .bind(owner(transaction, prompt.scope))
        .bind(prompt.id)
        .execute(transaction.connection())
        .await
        .map(drop)
        .map_err(fault)
}

/// Refuses a transaction that gave an owner one prompt too many, or more text than fits, by the field that
/// it stood in. The owner's other writers wait meanwhile.
pub async fn fits(transaction: &mut Transaction, scope: Scope, subject: &str, field: &str) -> Result<(), Fault> {
    let (prompts, bytes): (i64, i64) = sqlx::query_as(
        "SELECT count(*), coalesce(sum(octet_length(coalesce(content, template))) FILTER (WHERE enabled), 0)::bigint \
         FROM system_prompts WHERE organization_id = $1 AND scope = $2 AND (scope <> 'user' OR user_subject = $3)",
    )
    .bind(owner(transaction, scope))
    .bind(scope.name())
    .bind(subject)
    .fetch_one(transaction.connection())
    .await
    .map_err(fault)?;
    let (most, whose) = match scope {
        Scope::Global => (MAX_PROMPTS, "The platform"),
        Scope::Organization => (MAX_PROMPTS, "An organization"),
        Scope::User => (MAX_OWN_PROMPTS, "A member"),
    };
    if prompts > most {
        return Err(Fault::new(Code::Throttled, format!("{whose} has at most {most} prompts.")));
    }
    if usize::try_from(bytes).unwrap_or(usize::MAX) > MAX_SCOPE_BYTES {
        return Err(Fault::invalid(
            field,
            format!("{whose} has at most {MAX_SCOPE_BYTES} bytes in enabled prompts: shorten or disable some."),
        ));
    }
    Ok(())
}

/// Those that the subject sees, by name and id.
pub async fn list(transaction: &mut Transaction, subject: &str, command: &List) -> Result<Page<Prompt>, Fault> {
    let limit = command.limit.clamp(1, MAX_PAGE);
    let bad = || Fault::invalid("cursor", "Give back `next` as it was.");
    let (after_name, after_id) = match &command.cursor {
        Some(cursor) => {
            let (id, name) = cursor.split_once('.').ok_or_else(bad)?;
            (Some(name), Some(id.parse::<PromptId>().map_err(|_| bad())?))
        }
        None => (None, None),
    };
    // By bytes: the order must not depend on the database's language.
    let rows: Vec<Row> = sqlx::query_as(seen!(
        "AND ($3::text IS NULL OR (name COLLATE \"C\", id) > ($3, $4)) AND ($5::text IS NULL OR scope = $5) \
         AND ($6::bool IS NULL OR enabled = $6) ORDER BY name COLLATE \"C\", id LIMIT $7"
    ))
    .bind(transaction.organization())
    .bind(subject)
    .bind(after_name)
    .bind(after_id)
    .bind(command.scope.map(Scope::name))
    .bind(command.enabled)
    .bind(i64::from(limit) + 1)
    .fetch_all(transaction.connection())
    .await
    .map_err(fault)?;
    let prompts = rows.into_iter().map(Row::read).collect::<Result<Vec<_>, _>>()?;
    Ok(page(prompts, limit, |prompt: &Prompt| format!("{}.{}", prompt.id, prompt.name)))
}

/// One that the subject sees.
pub async fn get(transaction: &mut Transaction, subject: &str, id: PromptId) -> Result<Prompt, Fault> {
    let row: Option<Row> = sqlx::query_as(seen!("AND id = $3"))
        .bind(transaction.organization())
        .bind(subject)
        .bind(id)
        .fetch_optional(transaction.connection())
        .await
        .map_err(fault)?;
    one(row)
}

/// One that the subject may write, kept from others until the transaction ends.
pub async fn lock(transaction: &mut Transaction, subject: &str, id: PromptId) -> Result<Prompt, Fault> {
    let row: Option<Row> = sqlx::query_as(seen!("AND id = $3 FOR UPDATE"))
        .bind(transaction.organization())
        .bind(subject)
        .bind(id)
        .fetch_optional(transaction.connection())
        .await
        .map_err(fault)?;
    one(row)
}

#[derive(FromRow)]
struct VersionRow {
    version: i64,
    name: String,
    content: Option<String>,
    template: Option<String>,
    enabled: bool,
    priority: i32,
    removed: bool,
    sha256: String,
    written_by: String,
    written_at: DateTime<Utc>,
}

/// The versions of one, the latest first. Row-level security shows them to those who may write it: to
/// others there are none.
pub async fn versions(transaction: &mut Transaction, command: &Versions) -> Result<Page<Version>, Fault> {
    let limit = command.limit.clamp(1, MAX_PAGE);
    let before = command.cursor.as_deref().map(str::parse::<i64>).transpose();
    let before = before.map_err(|_| Fault::invalid("cursor", "Give back `next` as it was."))?;
    let rows: Vec<VersionRow> = sqlx::query_as(
        "SELECT version, name, content, template, enabled, priority, removed, sha256, written_by, written_at \
         FROM prompt_versions WHERE organization_id IN ($1, $2) AND prompt_id = $3 \
         AND ($4::bigint IS NULL OR version < $4) ORDER BY version DESC LIMIT $5",
    )
    .bind(transaction.organization())
    .bind(OrganizationId::PLATFORM)
    .bind(command.id)
    .bind(before)
    .bind(i64::from(limit) + 1)
    .fetch_all(transaction.connection())
    .await
    .map_err(fault)?;
    let read = |row: VersionRow| Version {
        version: row.version,
        name: row.name,
        content: row.content,
        template: row.template,
        enabled: row.enabled,
        priority: u16::try_from(row.priority).unwrap_or_default(),
        removed: row.removed,
        sha256: row.sha256,
        written_by: row.written_by,
        written_at: row.written_at,
    };
    Ok(page(rows.into_iter().map(read).collect(), limit, |version: &Version| version.version.to_string()))
}

/// How often prompts were written: the platform's, and the transaction's organization's and its
/// members'. Zero where none ever was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generations {
    /// The platform's.
    pub global: i64,
    /// The organization's and its members'.
    pub organization: i64,
}

/// Reads both. What is read afterwards is as new or newer.
pub async fn generations(transaction: &mut Transaction) -> Result<Generations, Fault> {
    let rows: Vec<(OrganizationId, i64)> =
        sqlx::query_as("SELECT organization_id, generation FROM prompt_generations WHERE organization_id IN ($1, $2)")
            .bind(transaction.organization())
            .bind(OrganizationId::PLATFORM)
            .fetch_all(transaction.connection())
            .await
            .map_err(fault)?;
    let of = |id: OrganizationId| rows.iter().find(|(owner, _)| *owner == id).map_or(0, |(_, generation)| *generation);
    Ok(Generations { global: of(OrganizationId::PLATFORM), organization: of(transaction.organization()) })
}

/// A prompt that takes part in a composition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enabled {
    /// Its id.
    pub id: PromptId,
    /// Whose it is.
    pub scope: Scope,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: i64,
    /// SHA-256 of what it says, in hexadecimal.
    pub sha256: String,
    /// What it says.
    pub source: Source,
    /// Its place within the scope.
    pub priority: u16,
}

/// Everything that takes part for a member.
pub async fn enabled(transaction: &mut Transaction, subject: &str) -> Result<Vec<Enabled>, Fault> {
    let rows: Vec<Row> = sqlx::query_as(seen!("AND enabled"))
        .bind(transaction.organization())
        .bind(subject)
        .fetch_all(transaction.connection())
        .await
        .map_err(fault)?;
    let read = |row: Row| {
        let source = match (row.content, row.template) {
            (Some(text), None) => Source::Content(text),
            (None, Some(text)) => Source::Template(text),
            _ => return Err(Fault::internal("a prompt with both content and template, or neither")),
        };
        Ok(Enabled {
            id: row.id,
            scope: scope(&row.scope)?,
            name: row.name,
            version: row.generation,
            sha256: row.sha256,
            source,
            priority: u16::try_from(row.priority).unwrap_or_default(),
        })
    };
    rows.into_iter().map(read).collect()
}
