//! MCP configurations.

use chrono::{DateTime, Utc};
use sqlx::FromRow;

use super::{Transaction, broken_constraint, fault, page};
use crate::{
    command::{
        MAX_PAGE, Page,
        configurations::{
            Authentication, Configuration, List, MAX_CONFIGURATIONS, MAX_OWN_CONFIGURATIONS, Scope, SecretState,
            Settings, ToolFilter, Transport, Via,
        },
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

/// How a configuration authenticates, as it is kept.
#[derive(Clone, Debug)]
pub enum Secured {
    /// Not at all: no secret is kept.
    Not,
    /// By a bearer token.
    Bearer(Sealed),
    /// By this header's value.
    Header(String, Sealed),
}

impl Secured {
    const fn kind(&self) -> &'static str {
        match self {
            Self::Not => "none",
            Self::Bearer(_) => "bearer",
            Self::Header(..) => "header",
        }
    }

    fn header(&self) -> Option<&str> {
        if let Self::Header(name, _) = self { Some(name) } else { None }
    }

    const fn sealed(&self) -> Option<&Sealed> {
        match self {
            Self::Not => None,
            Self::Bearer(sealed) | Self::Header(_, sealed) => Some(sealed),
        }
    }
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
    endpoint: Option<String>,
    catalogue: Option<String>,
    transport: String,
    via: String,
    auth_type: String,
    auth_header: Option<String>,
    secret: Option<Vec<u8>>,
    secret_hint: Option<String>,
    secret_set_at: Option<DateTime<Utc>>,
    secret_generation: i64,
    secret_state: String,
    secret_state_at: Option<DateTime<Utc>>,
    timeout_ms: i32,
    retries: i32,
    enabled: bool,
    tools_allow: Vec<String>,
    tools_deny: Vec<String>,
    name_prefix: Option<String>,
    generation: i64,
    created_by: String,
    created_at: DateTime<Utc>,
    updated_by: String,
    updated_at: DateTime<Utc>,
}

impl Row {
    fn read(self) -> Result<Stored, Fault> {
        let foreign =
            |column: &str| Fault::internal(format!("mcp_configurations.{column} holds a name the code does not know"));
        let state = SecretState::parse(&self.secret_state).ok_or_else(|| foreign("secret_state"))?;
        let (hint, set_at, state_at) = (self.secret_hint, self.secret_set_at, self.secret_state_at);
        let auth = match self.auth_type.as_str() {
            "none" => Authentication::None,
            "bearer" => Authentication::Bearer { hint, set_at, state, state_at },
            "header" => {
                let name = self.auth_header.ok_or_else(|| foreign("auth_header"))?;
                Authentication::Header { name, hint, set_at, state, state_at }
            }
            _ => return Err(foreign("auth_type")),
        };
        Ok(Stored {
            configuration: Configuration {
                id: self.id,
                name: self.name,
                description: Some(self.description).filter(|text| !text.is_empty()),
                scope: Scope::parse(&self.scope).ok_or_else(|| foreign("scope"))?,
                endpoint: self.endpoint,
                catalogue: self.catalogue,
                transport: Transport::parse(&self.transport).ok_or_else(|| foreign("transport"))?,
                via: Via::parse(&self.via).ok_or_else(|| foreign("via"))?,
                auth,
                timeout_ms: u32::try_from(self.timeout_ms).unwrap_or_default(),
                retries: u8::try_from(self.retries).unwrap_or_default(),
                enabled: self.enabled,
                tools: ToolFilter { allow: self.tools_allow, deny: self.tools_deny },
                name_prefix: self.name_prefix,
                generation: self.generation,
                created_by: self.created_by,
                created_at: self.created_at,
                updated_by: self.updated_by,
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
            "SELECT id, name, description, scope, endpoint, catalogue, transport, via, auth_type, auth_header, secret, secret_hint, \
             secret_set_at, secret_generation, secret_state, secret_state_at, timeout_ms, retries, enabled, \
             tools_allow, tools_deny, name_prefix, generation, created_by, created_at, updated_by, updated_at \
             FROM mcp_configurations WHERE organization_id = $1 ",
            $rest
        )
    };
}

/// Refuses a transaction that made one configuration too many in its scope.
pub async fn fits(transaction: &mut Transaction, scope: Scope) -> Result<(), Fault> {
    // Row-level security shows of members' own only the actor's.
    let count: i64 =
        sqlx::query_scalar("SELECT count(*) FROM mcp_configurations WHERE organization_id = $1 AND scope = $2")
            .bind(transaction.organization())
            .bind(scope.name())
            .fetch_one(transaction.connection())
            .await
            .map_err(fault)?;
    let (most, whose) = match scope {
        Scope::Organization => (MAX_CONFIGURATIONS, "An organization"),
        Scope::User => (MAX_OWN_CONFIGURATIONS, "A member"),
    };
    if count <= most { Ok(()) } else { Err(Fault::new(Code::Throttled, format!("{whose} has at most {most}."))) }
}

/// Keeps a new one.
pub async fn insert(
    transaction: &mut Transaction,
    id: ConfigurationId,
    scope: Scope,
    subject: &str,
    settings: &Settings,
    secured: &Secured,
) -> Result<Configuration, Fault> {
    let (owner, sealed) = ((scope == Scope::User).then_some(subject), secured.sealed());
    sqlx::query(
        "INSERT INTO mcp_configurations (organization_id, id, name, description, endpoint, transport, via, timeout_ms, \
         retries, enabled, tools_allow, tools_deny, name_prefix, auth_type, auth_header, secret, secret_hint, secret_set_at, \
         secret_generation, created_by, updated_by, scope, user_subject, catalogue) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, \
         CASE WHEN $16 IS NULL THEN NULL ELSE now() END, $18, $19, $19, $20, $21, $22)",
    )
    .bind(transaction.organization())
    .bind(id)
    .bind(&settings.name)
    .bind(settings.description.as_deref().unwrap_or_default())
    .bind(&settings.endpoint)
    .bind(settings.transport.name())
    .bind(settings.via.name())
    .bind(settings.timeout_ms.cast_signed())
    .bind(i32::from(settings.retries))
    .bind(settings.enabled)
    .bind(&settings.tools.allow)
    .bind(&settings.tools.deny)
    .bind(&settings.name_prefix)
    .bind(secured.kind())
    .bind(secured.header())
    .bind(sealed.map(|sealed| &sealed.secret))
    .bind(sealed.map(|sealed| &sealed.hint))
    .bind(sealed.map_or(0, |sealed| sealed.generation))
    .bind(subject)
    .bind(scope.name())
    .bind(owner)
    .bind(&settings.catalogue)
    .execute(transaction.connection())
    .await
    .map_err(duplicate_name)?;
    Ok(get(transaction, id).await?.configuration)
}

/// What becomes of the secret when a configuration is replaced.
#[derive(Clone, Debug)]
pub enum NewSecret {
    /// It stays; a header's may be renamed.
    Kept {
        /// The header that carries it, where one does.
        header: Option<String>,
        /// Whether what was seen of it still says something.
        is_proven: bool,
    },
    /// Another, or none.
    Set(Secured),
}

/// Replaces what one says.
pub async fn replace(
    transaction: &mut Transaction,
    id: ConfigurationId,
    subject: &str,
    settings: &Settings,
    secret: &NewSecret,
) -> Result<Configuration, Fault> {
    let (kind, header, is_proven) = match secret {
        NewSecret::Kept { header, is_proven } => (None, header.as_deref(), *is_proven),
        NewSecret::Set(secured) => (Some(secured.kind()), secured.header(), false),
    };
    let sealed = if let NewSecret::Set(secured) = secret { secured.sealed() } else { None };
    // `kind` is NULL where the secret stays; its generation never falls, so that no older seal opens again.
    sqlx::query(
        "UPDATE mcp_configurations SET name = $3, description = $4, endpoint = $5, transport = $6, via = $7, \
         timeout_ms = $8, retries = $9, enabled = $10, tools_allow = $11, tools_deny = $12, name_prefix = $13, \
         auth_type = COALESCE($14, auth_type), auth_header = $15, \
         secret = CASE WHEN $14 IS NULL THEN secret ELSE $16 END, \
         secret_hint = CASE WHEN $14 IS NULL THEN secret_hint ELSE $17 END, \
         secret_set_at = CASE WHEN $14 IS NULL THEN secret_set_at WHEN $16 IS NULL THEN NULL ELSE now() END, \
         secret_generation = COALESCE($18, secret_generation), \
         secret_state = CASE WHEN $19 THEN secret_state ELSE 'unused' END, \
         secret_state_at = CASE WHEN $19 THEN secret_state_at ELSE NULL END, updated_by = $20, catalogue = $21 \
         WHERE organization_id = $1 AND id = $2",
    )
    .bind(transaction.organization())
    .bind(id)
    .bind(&settings.name)
    .bind(settings.description.as_deref().unwrap_or_default())
    .bind(&settings.endpoint)
    .bind(settings.transport.name())
    .bind(settings.via.name())
    .bind(settings.timeout_ms.cast_signed())
    .bind(i32::from(settings.retries))
    .bind(settings.enabled)
    .bind(&settings.tools.allow)
    .bind(&settings.tools.deny)
    .bind(&settings.name_prefix)
    .bind(kind)
    .bind(header)
    .bind(sealed.map(|sealed| &sealed.secret))
    .bind(sealed.map(|sealed| &sealed.hint))
    .bind(sealed.map(|sealed| sealed.generation))
    .bind(is_proven)
    .bind(subject)
    .bind(&settings.catalogue)
    .execute(transaction.connection())
    .await
    .map_err(duplicate_name)?;
    Ok(get(transaction, id).await?.configuration)
}

fn duplicate_name(cause: sqlx::Error) -> Fault {
    match broken_constraint(&cause) {
        Some("mcp_configurations_name_key") => Fault {
            field: Some("name".to_owned()),
            ..Fault::new(Code::Conflict, "A configuration with this name exists already in this scope.")
        },
        _ => fault(cause),
    }
}

/// Notes what a server said to the secret of this generation. Not a change of the configuration.
pub async fn note_secret(
    transaction: &mut Transaction,
    id: ConfigurationId,
    secret_generation: i64,
    state: SecretState,
) -> Result<(), Fault> {
    sqlx::query(
        "UPDATE mcp_configurations SET secret_state = $4, secret_state_at = now() \
         WHERE organization_id = $1 AND id = $2 AND secret_generation = $3 AND secret_state <> $4",
    )
    .bind(transaction.organization())
    .bind(id)
    .bind(secret_generation)
    .bind(state.name())
    .execute(transaction.connection())
    .await
    .map(drop)
    .map_err(fault)
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
    let rows: Vec<Row> = sqlx::query_as(select!(
        "AND ($2::text IS NULL OR (name, id) > ($2, $3)) AND ($5::text IS NULL OR scope = $5) \
             AND ($6::text IS NULL OR transport = $6) AND ($7::bool IS NULL OR enabled = $7) ORDER BY name, id LIMIT $4"
    ))
    .bind(transaction.organization())
    .bind(after_name)
    .bind(after_id)
    .bind(i64::from(limit) + 1)
    .bind(command.scope.map(Scope::name))
    .bind(command.transport.map(Transport::name))
    .bind(command.enabled)
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

/// One by id, kept from others until the transaction ends.
pub async fn lock(transaction: &mut Transaction, id: ConfigurationId) -> Result<Stored, Fault> {
    sqlx::query_as::<_, Row>(select!("AND id = $2 FOR UPDATE"))
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

/// Raises its generation for a change of what belongs to it; answers the new one.
pub async fn touch(transaction: &mut Transaction, id: ConfigurationId, subject: &str) -> Result<i64, Fault> {
    sqlx::query_scalar(
        "UPDATE mcp_configurations SET updated_by = $3 WHERE organization_id = $1 AND id = $2 RETURNING generation",
    )
    .bind(transaction.organization())
    .bind(id)
    .bind(subject)
    .fetch_optional(transaction.connection())
    .await
    .map_err(fault)?
    .ok_or_else(|| Fault::unknown("configuration"))
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
