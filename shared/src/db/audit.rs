//! The audit trail: the outbox of a transaction, and the log that only grows.

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use sqlx::postgres::types::PgInterval;
use uuid::Uuid;

use super::{Database, Transaction, fault};
use crate::{
    audit::Event,
    fault::Fault,
    id::{EventId, OrganizationId},
};

/// Leaves an event in the transaction: it is published after the commit, by the worker or, should
/// that die, by the relay.
pub async fn leave(transaction: &mut Transaction, event: &Event) -> Result<(), Fault> {
    let bytes = serde_json::to_vec(event).map_err(Fault::internal)?;
    sqlx::query(
        "INSERT INTO audit_outbox (organization_id, event_id, event) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
    )
    .bind(transaction.organization())
    .bind(event.id)
    .bind(bytes)
    .execute(transaction.connection())
    .await
    .map(drop)
    .map_err(fault)
}

/// Why a batch is not in the log.
#[derive(Debug)]
pub enum NotAppended {
    /// The database refuses what stands in one of its events: another try ends the same.
    Refused,
    /// It takes nothing now.
    Failed(Fault),
}

impl From<Fault> for NotAppended {
    fn from(fault: Fault) -> Self {
        Self::Failed(fault)
    }
}

impl From<sqlx::Error> for NotAppended {
    fn from(cause: sqlx::Error) -> Self {
        // Class 22: data exception; 23: integrity constraint violation. Everything else, such as a database that was
        // set to read only, is about no event.
        let code = cause.as_database_error().and_then(sqlx::error::DatabaseError::code);
        let is_about_content = code.is_some_and(|code| code.starts_with("22") || code.starts_with("23"));
        if is_about_content { Self::Refused } else { Self::Failed(fault(cause)) }
    }
}

/// Appends a batch, each event with its exact bytes, and clears them from the outbox. Answers how
/// many were new: events recorded before are skipped.
pub async fn append(database: &Database, events: &[(Event, Bytes)]) -> Result<i64, NotAppended> {
    let column = |read: fn(&Event) -> String| -> Vec<String> { events.iter().map(|(event, _)| read(event)).collect() };
    let maybe = |read: fn(&Event) -> Option<String>| -> Vec<Option<String>> {
        events.iter().map(|(event, _)| read(event)).collect()
    };
    let organizations: Vec<Uuid> = events.iter().map(|(event, _)| event.organization.0).collect();
    let ids: Vec<Uuid> = events.iter().map(|(event, _)| event.id.0).collect();
    let times: Vec<DateTime<Utc>> = events.iter().map(|(event, _)| occurred_at(event)).collect();
    let details: Vec<serde_json::Value> = events.iter().map(|(event, _)| event.details.clone().into()).collect();
    let bytes: Vec<&[u8]> = events.iter().map(|(_, bytes)| bytes.as_ref()).collect();
    let mut transaction = database.on_behalf_of(OrganizationId::PLATFORM).await?;
    let new = sqlx::query_scalar("SELECT app.append_audit($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)")
        .bind(organizations)
        .bind(ids)
        .bind(times)
        .bind(column(|event| event.actor.clone()))
        .bind(column(|event| event.action.clone()))
        .bind(column(resource_type))
        .bind(maybe(|event| event.resource.as_ref().map(|resource| resource.id.clone())))
        .bind(column(|event| event.outcome.name().to_owned()))
        .bind(maybe(|event| event.code.map(|code| code.face().name.to_owned())))
        .bind(maybe(|event| Some(event.request_id.clone())))
        .bind(details)
        .bind(bytes)
        .fetch_one(transaction.connection())
        .await?;
    transaction.commit().await?;
    Ok(new)
}

fn occurred_at(event: &Event) -> DateTime<Utc> {
    i64::try_from(event.occurred_at_ms).ok().and_then(DateTime::from_timestamp_millis).unwrap_or_default()
}

/// The noun of the resource; of the command, while the resource is not known.
fn resource_type(event: &Event) -> String {
    match &event.resource {
        Some(resource) => resource.kind.clone(),
        None => event.action.split('.').next().unwrap_or_default().to_owned(),
    }
}

/// An event that was committed but, it seems, never published.
#[derive(Debug, sqlx::FromRow)]
pub struct Leftover {
    /// The tenant.
    pub organization_id: OrganizationId,
    /// The event.
    pub event_id: EventId,
    /// Its bytes.
    pub event: Vec<u8>,
}

/// Up to 100 events that have lain in the outbox for longer than `age`.
pub async fn leftovers(database: &Database, age: Duration) -> Result<Vec<Leftover>, Fault> {
    let age = PgInterval::try_from(age).map_err(Fault::internal)?;
    let mut transaction = database.on_behalf_of(OrganizationId::PLATFORM).await?;
    sqlx::query_as("SELECT * FROM app.outbox_leftovers($1, 100)")
        .bind(age)
        .fetch_all(transaction.connection())
        .await
        .map_err(fault)
}

/// Makes the partitions of this month and the next two.
pub async fn ensure_partitions(database: &Database) -> Result<(), Fault> {
    let mut transaction = database.on_behalf_of(OrganizationId::PLATFORM).await?;
    let blocked: Vec<String> =
        sqlx::query_scalar("SELECT partition_name FROM app.ensure_audit_partitions(2) WHERE state = 'blocked'")
            .fetch_all(transaction.connection())
            .await
            .map_err(fault)?;
    transaction.commit().await?;
    for partition in blocked {
        // Its events lie in the default partition already and stay there: moving would be deleting.
        tracing::warn!(partition, "a month's partition cannot be made");
    }
    Ok(())
}
