//! MCP configurations.

use chrono::{DateTime, Utc};
use sqlx::FromRow;

use super::{Transaction, broken_constraint, fault, page};
use crate::{
    command::{
        MAX_PAGE, Page,
        configurations::{Authentication, Configuration, List, Register, Scope, Transport, Via},
    },
    fault::{Code, Fault},
    id::ConfigurationId,
};

/// A secret as it is kept.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// The sealed bytes.
    pub secret: Vec<u8>,
    /// The last four characters.
    pub hint: String,
    /// What the seal is bound to.
    pub generation: i64,
}

/// A configuration with its sealed secret, for the pools that use it.
#[derive(Clone, Debug)]
pub struct Stored {
    /// As people see it.
    pub configuration: Configuration,
    /// The sealed secret, if it has one.
    pub secret: Option<Vec<u8>>,
    /// What the seal is bound to.
    pub secret_generation: i64,
}

#[derive(FromRow)]
struct Row {
    id: ConfigurationId,
    name: String,
    description: String,
    scope: String,
    endpoint: String,
    transport: String,
    via: String,
    auth_type: String,
    secret: Option<Vec<u8>>,
    secret_hint: Option<String>,
    secret_set_at: Option<DateTime<Utc>>,
    secret_generation: i64,
    timeout_ms: i32,
    enabled: bool,
    generation: i64,
    created_by: String,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl Row {
    fn read(self) -> Result<Stored, Fault> {
        let foreign =
            |column: &str| Fault::internal(format!("mcp_configurations.{column} holds a name the code does not know"));
        let auth = match self.auth_type.as_str() {
            "none" => Authentication::None,
            "bearer" => Authentication::Bearer { hint: self.secret_hint, set_at: self.secret_set_at },
            _ => return Err(foreign("auth_type")),
        };
        Ok(Stored {
            configuration: Configuration {
                id: self.id,
                name: self.name,
                description: Some(self.description).filter(|text| !text.is_empty()),
                scope: Scope::parse(&self.scope).ok_or_else(|| foreign("scope"))?,
                endpoint: self.endpoint,
                transport: Transport::parse(&self.transport).ok_or_else(|| foreign("transport"))?,
                via: Via::parse(&self.via).ok_or_else(|| foreign("via"))?,
                auth,
                timeout_ms: u32::try_from(self.timeout_ms).unwrap_or_default(),
                enabled: self.enabled,
                generation: self.generation,
                created_by: self.created_by,
                created_at: self.created_at,
                updated_at: self.updated_at,
            },
            secret: self.secret,
            secret_generation: self.secret_generation,
        })
    }
}

/// Everything but the `WHERE`.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, name, description, scope, endpoint, transport, via, auth_type, secret, secret_hint, \
             secret_set_at, secret_generation, timeout_ms, enabled, generation, created_by, created_at, updated_at \
             FROM mcp_configurations WHERE organization_id = $1 ",
            $rest
        )
    };
}

/// Keeps a new one.
pub async fn insert(
    transaction: &mut Transaction,
    id: ConfigurationId,
    subject: &str,
    command: &Register,
    sealed: Option<&Sealed>,
) -> Result<Configuration, Fault> {
    let owner = (command.scope == Scope::User).then_some(subject);
    sqlx::query(
        "INSERT INTO mcp_configurations (organization_id, id, scope, user_subject, name, description, endpoint, transport, \
         via, auth_type, secret, secret_hint, secret_set_at, secret_generation, timeout_ms, created_by, updated_by) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, CASE WHEN $11 IS NULL THEN NULL ELSE now() END, $13, $14, $15, $15)",
    )
    .bind(transaction.organization())
    .bind(id)
    .bind(command.scope.name())
    .bind(owner)
    .bind(&command.name)
    .bind(command.description.as_deref().unwrap_or_default())
    .bind(&command.endpoint)
    .bind(command.transport.name())
    .bind(command.via.name())
    .bind(if sealed.is_some() { "bearer" } else { "none" })
    .bind(sealed.map(|sealed| &sealed.secret))
    .bind(sealed.map(|sealed| &sealed.hint))
    .bind(sealed.map_or(0, |sealed| sealed.generation))
    .bind(command.timeout_ms.cast_signed())
    .bind(subject)
    .execute(transaction.connection())
    .await
    .map_err(|cause| match broken_constraint(&cause) {
        Some("mcp_configurations_name_key") => Fault {
            field: Some("name".to_owned()),
            ..Fault::new(Code::Conflict, "A configuration with this name exists already in this scope.")
        },
        _ => fault(cause),
    })?;
    Ok(get(transaction, id).await?.configuration)
}

/// Those the caller sees, by name and id.
pub async fn list(transaction: &mut Transaction, command: &List) -> Result<Page<Configuration>, Fault> {
    let limit = command.limit.clamp(1, MAX_PAGE);
    let (after_name, after_id) = match &command.cursor {
        Some(cursor) => {
            let (id, name) =
                cursor.split_once('.').ok_or_else(|| Fault::invalid("cursor", "Give back `next` as it was."))?;
            let id: ConfigurationId =
                id.parse().map_err(|_| Fault::invalid("cursor", "Give back `next` as it was."))?;
            (Some(name), Some(id))
        }
        None => (None, None),
    };
    let rows: Vec<Row> =
        sqlx::query_as(select!("AND ($2::text IS NULL OR (name, id) > ($2, $3)) ORDER BY name, id LIMIT $4"))
            .bind(transaction.organization())
            .bind(after_name)
            .bind(after_id)
            .bind(i64::from(limit) + 1)
            .fetch_all(transaction.connection())
            .await
            .map_err(fault)?;
    let configurations =
        rows.into_iter().map(|row| Ok(row.read()?.configuration)).collect::<Result<Vec<_>, Fault>>()?;
    Ok(page(configurations, limit, |configuration: &Configuration| {
        format!("{}.{}", configuration.id, configuration.name)
    }))
}

/// One by id.
pub async fn get(transaction: &mut Transaction, id: ConfigurationId) -> Result<Stored, Fault> {
    sqlx::query_as::<_, Row>(select!("AND id = $2"))
        .bind(transaction.organization())
        .bind(id)
        .fetch_optional(transaction.connection())
        .await
        .map_err(fault)?
        .ok_or_else(|| Fault::unknown("configuration"))?
        .read()
}

/// One by name: the caller's own before the organization's.
pub async fn by_name(transaction: &mut Transaction, name: &str) -> Result<Stored, Fault> {
    sqlx::query_as::<_, Row>(select!("AND name = $2 ORDER BY scope = 'user' DESC LIMIT 1"))
        .bind(transaction.organization())
        .bind(name)
        .fetch_optional(transaction.connection())
        .await
        .map_err(fault)?
        .ok_or_else(|| Fault::unknown("configuration"))?
        .read()
}

/// Removes one, its tools with it.
pub async fn remove(transaction: &mut Transaction, id: ConfigurationId) -> Result<(), Fault> {
    sqlx::query("DELETE FROM mcp_configurations WHERE organization_id = $1 AND id = $2")
        .bind(transaction.organization())
        .bind(id)
        .execute(transaction.connection())
        .await
        .map(drop)
        .map_err(fault)
}
