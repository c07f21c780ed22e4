//! Members.

use super::{Transaction, fault};
use crate::{
    command::users::{Admitted, State},
    context::{Context, Role},
    fault::Fault,
    id::UserId,
};

type Row = (String, String, i64);

fn admitted((role, state, generation): Row) -> Result<Admitted, Fault> {
    Ok(Admitted {
        role: Role::parse(&role).ok_or_else(|| Fault::internal("a role the code does not know"))?,
        state: State::parse(&state).ok_or_else(|| Fault::internal("a state the code does not know"))?,
        generation,
    })
}

/// Makes the caller's row if there is none, with the role their token claims; answers what stands.
/// A removed member stays removed.
pub async fn admit(transaction: &mut Transaction, context: &Context, email: Option<&str>) -> Result<Admitted, Fault> {
    let organization = transaction.organization();
    sqlx::query(
        "INSERT INTO users (organization_id, id, subject, email, role) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (organization_id, subject) DO NOTHING",
    )
    .bind(organization)
    .bind(UserId::new())
    .bind(&context.actor.subject)
    .bind(email)
    .bind(context.actor.role.name())
    .execute(transaction.connection())
    .await
    .map_err(fault)?;
    let row: Option<Row> =
        sqlx::query_as("SELECT role, state, generation FROM users WHERE organization_id = $1 AND subject = $2")
            .bind(organization)
            .bind(&context.actor.subject)
            .fetch_optional(transaction.connection())
            .await
            .map_err(fault)?;
    admitted(row.ok_or_else(|| Fault::unknown("user"))?)
}

/// The caller's email and standing.
pub async fn myself(transaction: &mut Transaction, subject: &str) -> Result<(Option<String>, Admitted), Fault> {
    let row: Option<(Option<String>, String, String, i64)> =
        sqlx::query_as("SELECT email, role, state, generation FROM users WHERE organization_id = $1 AND subject = $2")
            .bind(transaction.organization())
            .bind(subject)
            .fetch_optional(transaction.connection())
            .await
            .map_err(fault)?;
    let (email, role, state, generation) = row.ok_or_else(|| Fault::unknown("user"))?;
    Ok((email, admitted((role, state, generation))?))
}

/// Every member's standing, by subject, for the reconciler of `ACCESS`.
pub async fn all(transaction: &mut Transaction) -> Result<Vec<(String, Admitted)>, Fault> {
    let rows: Vec<(String, String, String, i64)> =
        sqlx::query_as("SELECT subject, role, state, generation FROM users WHERE organization_id = $1")
            .bind(transaction.organization())
            .fetch_all(transaction.connection())
            .await
            .map_err(fault)?;
    rows.into_iter()
        .map(|(subject, role, state, generation)| Ok((subject, admitted((role, state, generation))?)))
        .collect()
}
