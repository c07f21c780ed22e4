//! Members.

use chrono::{DateTime, Utc};
use sqlx::FromRow;

use super::{Transaction, broken_constraint, fault, page};
use crate::{
    command::{
        Expected, MAX_PAGE, Page,
        users::{Add, Admitted, Change, List, MAX_MEMBERS, Member, Membership, Remove, State},
    },
    context::{Context, Role},
    fault::{Code, Fault},
    id::{OrganizationId, UserId},
};

#[derive(FromRow)]
struct Row {
    id: UserId,
    subject: String,
    email: Option<String>,
    role: String,
    state: String,
    generation: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

/// The columns of a [`Row`].
macro_rules! columns {
    ($head:literal, $tail:literal) => {
        concat!($head, " id, subject, email, role, state, generation, created_at, updated_at ", $tail)
    };
}

impl Row {
    fn read(self) -> Result<Member, Fault> {
        Ok(Member {
            id: self.id,
            subject: self.subject,
            email: self.email,
            role: Role::parse(&self.role).ok_or_else(|| Fault::internal("a role the code does not know"))?,
            state: State::parse(&self.state).ok_or_else(|| Fault::internal("a state the code does not know"))?,
            generation: self.generation,
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }
}

fn one(row: Option<Row>) -> Result<Member, Fault> {
    row.ok_or_else(|| Fault::unknown("user"))?.read()
}

/// Makes the caller's row if there is none, with the role their token claims; answers what stands.
/// A removed member stays removed.
pub async fn admit(transaction: &mut Transaction, context: &Context, email: Option<&str>) -> Result<Admitted, Fault> {
    sqlx::query(
        "INSERT INTO users (organization_id, id, subject, email, role) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (organization_id, subject) DO NOTHING",
    )
    .bind(transaction.organization())
    .bind(UserId::new())
    .bind(&context.actor.subject)
    .bind(email)
    .bind(context.actor.role.name())
    .execute(transaction.connection())
    .await
    .map_err(fault)?;
    Ok(by_subject(transaction, &context.actor.subject).await?.standing())
}

/// Refuses a transaction that made one member too many.
pub async fn fits(transaction: &mut Transaction) -> Result<(), Fault> {
    let members: i64 = sqlx::query_scalar("SELECT count(*) FROM users WHERE organization_id = $1")
        .bind(transaction.organization())
        .fetch_one(transaction.connection())
        .await
        .map_err(fault)?;
    if members <= MAX_MEMBERS {
        return Ok(());
    }
    Err(Fault::new(
        Code::Throttled,
        format!("An organization has at most {MAX_MEMBERS} members, removed ones included."),
    ))
}

/// The member with a subject, in whatever state.
pub async fn by_subject(transaction: &mut Transaction, subject: &str) -> Result<Member, Fault> {
    let row: Option<Row> = sqlx::query_as(columns!("SELECT", "FROM users WHERE organization_id = $1 AND subject = $2"))
        .bind(transaction.organization())
        .bind(subject)
        .fetch_optional(transaction.connection())
        .await
        .map_err(fault)?;
    one(row)
}

/// Where the transaction's actor is an active member, in every organization.
pub async fn memberships(transaction: &mut Transaction) -> Result<Vec<Membership>, Fault> {
    let rows: Vec<(OrganizationId, String)> = sqlx::query_as("SELECT id, slug FROM app.memberships()")
        .fetch_all(transaction.connection())
        .await
        .map_err(fault)?;
    Ok(rows.into_iter().map(|(id, slug)| Membership { id, slug }).collect())
}

/// Adds a member, or puts a removed one back under the same id.
pub async fn add(transaction: &mut Transaction, command: &Add) -> Result<Member, Fault> {
    // The row of a member who was not removed is left alone and not answered.
    let row: Option<Row> = sqlx::query_as(columns!(
        "INSERT INTO users AS u (organization_id, id, subject, email, role) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (organization_id, subject) DO UPDATE \
             SET role = excluded.role, email = coalesce(excluded.email, u.email), state = 'active' \
             WHERE u.state = 'removed' \
         RETURNING",
        ""
    ))
    .bind(transaction.organization())
    .bind(UserId::new())
    .bind(&command.subject)
    .bind(&command.email)
    .bind(command.role.name())
    .fetch_optional(transaction.connection())
    .await
    .map_err(|cause| match broken_constraint(&cause) {
        Some("users_email_check") => Fault::invalid("email", "Use 1 to 320 characters."),
        _ => fault(cause),
    })?;
    let taken = || Fault {
        field: Some("subject".to_owned()),
        ..Fault::new(Code::Conflict, "A member with this subject exists already.")
    };
    row.ok_or_else(taken)?.read()
}

/// Those who were not removed, by subject.
pub async fn list(transaction: &mut Transaction, command: &List) -> Result<Page<Member>, Fault> {
    let limit = command.limit.clamp(1, MAX_PAGE);
    // By bytes: the order must not depend on the database's language.
    let rows: Vec<Row> = sqlx::query_as(columns!(
        "SELECT",
        "FROM users WHERE organization_id = $1 AND state <> 'removed' \
             AND ($2::text IS NULL OR subject COLLATE \"C\" > $2) ORDER BY subject COLLATE \"C\" LIMIT $3"
    ))
    .bind(transaction.organization())
    .bind(&command.cursor)
    .bind(i64::from(limit) + 1)
    .fetch_all(transaction.connection())
    .await
    .map_err(fault)?;
    let members = rows.into_iter().map(Row::read).collect::<Result<Vec<_>, _>>()?;
    Ok(page(members, limit, |member: &Member| member.subject.clone()))
}

/// One who was not removed.
pub async fn get(transaction: &mut Transaction, id: UserId) -> Result<Member, Fault> {
    let row: Option<Row> =
        sqlx::query_as(columns!("SELECT", "FROM users WHERE organization_id = $1 AND id = $2 AND state <> 'removed'"))
            .bind(transaction.organization())
            .bind(id)
            .fetch_optional(transaction.connection())
            .await
            .map_err(fault)?;
    one(row)
}

/// Changes one.
pub async fn change(transaction: &mut Transaction, command: &Change) -> Result<Member, Fault> {
    let stays =
        command.role.is_none_or(|role| role == Role::Admin) && command.state.is_none_or(|state| state == State::Active);
    lock(transaction, command.id, &command.expected, stays).await?;
    let row: Option<Row> = sqlx::query_as(columns!(
        "UPDATE users SET role = coalesce($3, role), state = coalesce($4, state), email = coalesce($5, email) \
         WHERE organization_id = $1 AND id = $2 RETURNING",
        ""
    ))
    .bind(transaction.organization())
    .bind(command.id)
    .bind(command.role.map(Role::name))
    .bind(command.state.map(State::name))
    .bind(&command.email)
    .fetch_optional(transaction.connection())
    .await
    .map_err(fault)?;
    one(row)
}

/// Leaves the tombstone of one; answers it.
pub async fn remove(transaction: &mut Transaction, command: &Remove) -> Result<Member, Fault> {
    lock(transaction, command.id, &command.expected, false).await?;
    let row: Option<Row> = sqlx::query_as(columns!(
        "UPDATE users SET state = 'removed' WHERE organization_id = $1 AND id = $2 RETURNING",
        ""
    ))
    .bind(transaction.organization())
    .bind(command.id)
    .fetch_optional(transaction.connection())
    .await
    .map_err(fault)?;
    one(row)
}

/// Locks one that is about to be changed, if it is of the generation that was read. Unless an active
/// admin `stays` one, there must be another: all of them are locked first, and in one order, so that two
/// who demote each other at the same moment do not both succeed.
async fn lock(transaction: &mut Transaction, id: UserId, expected: &Expected, stays: bool) -> Result<(), Fault> {
    let mut admins: Vec<UserId> = Vec::new();
    if !stays {
        admins = sqlx::query_scalar(
            "SELECT id FROM users WHERE organization_id = $1 AND role = 'admin' AND state = 'active' \
             ORDER BY id FOR NO KEY UPDATE",
        )
        .bind(transaction.organization())
        .fetch_all(transaction.connection())
        .await
        .map_err(fault)?;
    }
    let generation: Option<i64> = sqlx::query_scalar(
        "SELECT generation FROM users WHERE organization_id = $1 AND id = $2 AND state <> 'removed' FOR NO KEY UPDATE",
    )
    .bind(transaction.organization())
    .bind(id)
    .fetch_optional(transaction.connection())
    .await
    .map_err(fault)?;
    expected.check(generation.ok_or_else(|| Fault::unknown("user"))?)?;
    if admins == [id] {
        return Err(Fault::new(
            Code::Conflict,
            "The organization's last active admin stays one; appoint another first.",
        ));
    }
    Ok(())
}

/// Every member's standing, by subject, for the reconciler of `ACCESS`.
pub async fn all(transaction: &mut Transaction) -> Result<Vec<(String, Admitted)>, Fault> {
    let rows: Vec<Row> = sqlx::query_as(columns!("SELECT", "FROM users WHERE organization_id = $1"))
        .bind(transaction.organization())
        .fetch_all(transaction.connection())
        .await
        .map_err(fault)?;
    rows.into_iter()
        .map(|row| {
            let member = row.read()?;
            let standing = member.standing();
            Ok((member.subject, standing))
        })
        .collect()
}
