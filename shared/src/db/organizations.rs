//! Organizations.

use sqlx::FromRow;

use super::{Transaction, broken_constraint, fault, page};
use crate::{
    command::{
        MAX_PAGE, Page,
        organizations::{Create, Limit, List, Organization},
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
    generation: i64,
    created_at: chrono::DateTime<chrono::Utc>,
}

impl From<Row> for Organization {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            slug: row.slug,
            name: row.name,
            concurrency_limit: u16::try_from(row.concurrency_limit).unwrap_or(1),
            paused: row.paused,
            generation: row.generation,
            created_at: row.created_at,
        }
    }
}

/// Creates one; the database refuses anyone but an operator.
pub async fn create(transaction: &mut Transaction, command: &Create) -> Result<OrganizationId, Fault> {
    let limit = command.concurrency_limit.map(i32::from);
    sqlx::query_scalar("SELECT id FROM app.create_organization($1, $2, NULL, $3)")
        .bind(&command.slug)
        .bind(&command.name)
        .bind(limit)
        .fetch_one(transaction.connection())
        .await
        .map_err(|cause| match broken_constraint(&cause) {
            Some("organizations_slug_key") => Fault {
                field: Some("slug".to_owned()),
                ..Fault::new(Code::Conflict, "An organization with this slug exists already.")
            },
            Some("organizations_slug_check") => Fault::invalid(
                "slug",
                "Use 1 to 63 lower case letters, digits and hyphens, starting and ending with a letter or digit.",
            ),
            Some("organizations_name_check") => Fault::invalid("name", "Use 1 to 200 characters."),
            Some("organizations_concurrency_limit_check") => Fault::invalid("concurrency_limit", "Use 1 to 256."),
            _ => fault(cause),
        })
}

/// Changes one's limits; the database refuses anyone but an operator.
pub async fn limit(transaction: &mut Transaction, command: &Limit) -> Result<Organization, Fault> {
    sqlx::query_as::<_, Row>("SELECT * FROM app.limit_organization($1, $2, $3)")
        .bind(command.id)
        .bind(command.concurrency_limit.map(i32::from))
        .bind(command.paused)
        .fetch_optional(transaction.connection())
        .await
        .map_err(|cause| match broken_constraint(&cause) {
            Some("organizations_concurrency_limit_check") => Fault::invalid("concurrency_limit", "Use 1 to 256."),
            _ => fault(cause),
        })?
        .map(Organization::from)
        .ok_or_else(|| Fault::unknown("organization"))
}

/// Lists all, by slug; the database refuses anyone but an operator.
pub async fn list(transaction: &mut Transaction, command: &List) -> Result<Page<Organization>, Fault> {
    let limit = command.limit.min(MAX_PAGE - 1);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT id, slug, name, concurrency_limit, paused, generation, created_at FROM app.list_organizations($1, $2)",
    )
    .bind(&command.cursor)
    .bind(limit.cast_signed() + 1)
    .fetch_all(transaction.connection())
    .await
    .map_err(fault)?;
    let organizations = rows.into_iter().map(Organization::from).collect();
    Ok(page(organizations, limit, |organization: &Organization| organization.slug.clone()))
}

/// The transaction's own organization, unless it was deleted.
pub async fn own(transaction: &mut Transaction) -> Result<Organization, Fault> {
    let id = transaction.organization();
    sqlx::query_as::<_, Row>(
        "SELECT id, slug, name, concurrency_limit, paused, generation, created_at FROM organizations WHERE id = $1 AND deleted_at IS NULL",
    )
    .bind(id)
    .fetch_optional(transaction.connection())
    .await
    .map_err(fault)?
    .map(Organization::from)
    .ok_or_else(|| Fault::unknown("organization"))
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
