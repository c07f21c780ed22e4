//! Organizations.

use sqlx::FromRow;

use super::{Transaction, broken_constraint, fault, page};
use crate::{
    command::{
        Expected, MAX_PAGE, Page,
        organizations::{Change, Choices, Create, List, Organization, Remove},
        tools::ToolPolicy,
    },
    fault::{Code, Fault},
    id::OrganizationId,
};

#[derive(FromRow)]
struct Row {
    id: OrganizationId,
    slug: String,
    name: String,
    concurrency_limit: i32,
    paused: bool,
    calls_per_minute: i32,
    queue_limit: Option<i32>,
    session_limit: i32,
    user_session_limit: i32,
    result_retention_seconds: i64,
    allowed_origins: Vec<String>,
    tool_policy: String,
    generation: i64,
    created_at: chrono::DateTime<chrono::Utc>,
    updated_at: chrono::DateTime<chrono::Utc>,
    is_deleted: bool,
}

/// The columns of a [`Row`], whatever they are taken from.
macro_rules! columns {
    ($head:literal, $tail:literal) => {
        concat!(
            $head,
            " id, slug, name, concurrency_limit, paused, calls_per_minute, queue_limit, session_limit, user_session_limit, \
             EXTRACT(EPOCH FROM result_retention)::bigint AS result_retention_seconds, allowed_origins, tool_policy, \
             generation, created_at, updated_at, deleted_at IS NOT NULL AS is_deleted ",
            $tail
        )
    };
}

impl Row {
    fn read(self) -> Result<Organization, Fault> {
        let count = |number: i32| u32::try_from(number).unwrap_or(1);
        Ok(Organization {
            id: self.id,
            slug: self.slug,
            name: self.name,
            concurrency_limit: u16::try_from(self.concurrency_limit).unwrap_or(1),
            paused: self.paused,
            calls_per_minute: count(self.calls_per_minute),
            queue_limit: self.queue_limit.map(count),
            session_limit: count(self.session_limit),
            user_session_limit: count(self.user_session_limit),
            result_retention_seconds: u32::try_from(self.result_retention_seconds).unwrap_or(u32::MAX),
            allowed_origins: self.allowed_origins,
            tool_policy: ToolPolicy::parse(&self.tool_policy)
                .ok_or_else(|| Fault::internal("a tool policy the code does not know"))?,
            generation: self.generation,
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }
}

fn one(row: Option<Row>) -> Result<Organization, Fault> {
    row.ok_or_else(|| Fault::unknown("organization"))?.read()
}

/// Creates one; the database refuses anyone but an operator.
pub async fn create(transaction: &mut Transaction, command: &Create) -> Result<Organization, Fault> {
    let settings = serde_json::to_value(&command.settings).map_err(Fault::internal)?;
    let row: Option<Row> = sqlx::query_as(columns!("SELECT", "FROM app.create_organization($1, $2, $3)"))
        .bind(&command.slug)
        .bind(&command.name)
        .bind(settings)
        .fetch_optional(transaction.connection())
        .await
        .map_err(|cause| match broken_constraint(&cause) {
            Some("organizations_slug_key") => Fault {
                field: Some("slug".to_owned()),
                ..Fault::new(Code::Conflict, "An organization with this slug exists, or existed, already.")
            },
            Some("organizations_slug_check") => Fault::invalid(
                "slug",
                "Use 1 to 63 lower case letters, digits and hyphens, starting and ending with a letter or digit.",
            ),
            _ => fault(cause),
        })?;
    one(row)
}

/// One by id; the database refuses anyone but an operator.
pub async fn get(transaction: &mut Transaction, id: OrganizationId) -> Result<Organization, Fault> {
    let row: Option<Row> = sqlx::query_as(columns!("SELECT", "FROM app.find_organization($1)"))
        .bind(id)
        .fetch_optional(transaction.connection())
        .await
        .map_err(fault)?;
    one(row)
}

/// Locks one that is about to be changed, if it is of the generation that was read.
async fn lock(transaction: &mut Transaction, id: OrganizationId, expected: &Expected) -> Result<(), Fault> {
    let generation: Option<i64> = sqlx::query_scalar("SELECT * FROM app.lock_organization($1)")
        .bind(id)
        .fetch_optional(transaction.connection())
        .await
        .map_err(fault)?;
    expected.check(generation.ok_or_else(|| Fault::unknown("organization"))?)
}

/// Changes one; the database refuses anyone but an operator.
pub async fn change(transaction: &mut Transaction, command: &Change) -> Result<Organization, Fault> {
    lock(transaction, command.id, &command.expected).await?;
    let changes = serde_json::to_value(&command.changes).map_err(Fault::internal)?;
    let row: Option<Row> = sqlx::query_as(columns!("SELECT", "FROM app.change_organization($1, $2)"))
        .bind(command.id)
        .bind(changes)
        .fetch_optional(transaction.connection())
        .await
        .map_err(fault)?;
    one(row)
}

/// Ends one; the database refuses anyone but an operator. Answers its last state.
pub async fn remove(transaction: &mut Transaction, command: &Remove) -> Result<Organization, Fault> {
    lock(transaction, command.id, &command.expected).await?;
    let row: Option<Row> = sqlx::query_as(columns!("SELECT", "FROM app.remove_organization($1)"))
        .bind(command.id)
        .fetch_optional(transaction.connection())
        .await
        .map_err(|cause| match broken_constraint(&cause) {
            Some("organizations_platform_stays_check") => {
                Fault::new(Code::Conflict, "The platform's own organization stays.")
            }
            _ => fault(cause),
        })?;
    one(row)
}

/// Lists all, by slug; the database refuses anyone but an operator.
pub async fn list(transaction: &mut Transaction, command: &List) -> Result<Page<Organization>, Fault> {
    let limit = command.limit.min(MAX_PAGE - 1);
    let rows: Vec<Row> = sqlx::query_as(columns!("SELECT", "FROM app.list_organizations($1, $2)"))
        .bind(&command.cursor)
        .bind(limit.cast_signed() + 1)
        .fetch_all(transaction.connection())
        .await
        .map_err(fault)?;
    let organizations = rows.into_iter().map(Row::read).collect::<Result<Vec<_>, _>>()?;
    Ok(page(organizations, limit, |organization: &Organization| organization.slug.clone()))
}

/// The transaction's own organization, unless it was deleted.
pub async fn own(transaction: &mut Transaction) -> Result<Organization, Fault> {
    match own_in_any_state(transaction).await? {
        (organization, false) => Ok(organization),
        (_, true) => Err(Fault::unknown("organization")),
    }
}

/// The transaction's own organization, and whether it was deleted, for reconcilers.
pub async fn own_in_any_state(transaction: &mut Transaction) -> Result<(Organization, bool), Fault> {
    let id = transaction.organization();
    let row: Option<Row> = sqlx::query_as(columns!("SELECT", "FROM organizations WHERE id = $1"))
        .bind(id)
        .fetch_optional(transaction.connection())
        .await
        .map_err(fault)?;
    let row = row.ok_or_else(|| Fault::unknown("organization"))?;
    let is_deleted = row.is_deleted;
    Ok((row.read()?, is_deleted))
}

/// Changes what an admin chooses of the transaction's own organization.
pub async fn change_own(
    transaction: &mut Transaction,
    expected: &Expected,
    choices: &Choices,
) -> Result<Organization, Fault> {
    let id = transaction.organization();
    let generation: Option<i64> = sqlx::query_scalar(
        "SELECT generation FROM organizations WHERE id = $1 AND deleted_at IS NULL FOR NO KEY UPDATE",
    )
    .bind(id)
    .fetch_optional(transaction.connection())
    .await
    .map_err(fault)?;
    expected.check(generation.ok_or_else(|| Fault::unknown("organization"))?)?;
    let row: Option<Row> = sqlx::query_as(columns!(
        "UPDATE organizations SET name = coalesce($2, name), \
             result_retention = coalesce(make_interval(secs => $3::double precision), result_retention), \
             allowed_origins = coalesce($4, allowed_origins), tool_policy = coalesce($5, tool_policy) \
         WHERE id = $1 RETURNING",
        ""
    ))
    .bind(id)
    .bind(&choices.name)
    .bind(choices.result_retention_seconds.map(f64::from))
    .bind(&choices.allowed_origins)
    .bind(choices.tool_policy.map(ToolPolicy::name))
    .fetch_optional(transaction.connection())
    .await
    .map_err(fault)?;
    one(row)
}

/// The ids of all organizations after `after`, for reconcilers. Ids only: everything else is read
/// in a transaction of its tenant.
pub async fn ids(transaction: &mut Transaction, after: Option<OrganizationId>) -> Result<Vec<OrganizationId>, Fault> {
    sqlx::query_scalar("SELECT * FROM app.organization_ids($1, 1000)")
        .bind(after)
        .fetch_all(transaction.connection())
        .await
        .map_err(fault)
}
