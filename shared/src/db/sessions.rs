//! Sessions.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use sqlx::{FromRow, types::Json};

use super::{Transaction, fault, page};
use crate::{
    command::{
        MAX_PAGE, Page,
        prompts::Composed,
        sessions::{EndReason, Files, List, Session, State},
    },
    fault::{Code, Fault},
    id::{SessionId, UserId},
};

/// The columns of a [`Row`]; what its member wrote into it is left out where many are read, and where a
/// pool may not read it.
macro_rules! columns {
    ($head:literal, $prompt:literal, $tail:literal) => {
        columns!($head, "metadata", $prompt, $tail)
    };
    ($head:literal, $metadata:literal, $prompt:literal, $tail:literal) => {
        concat!(
            $head,
            " id, user_id, subject, agent_type, state, end_reason, ",
            $metadata,
            " AS metadata, ",
            $prompt,
            " AS prompt, created_at, touched_at, idle_seconds, expires_at, usable_until, ended_at, files_bytes, \
             files_quota_bytes, generation, usable_until <= now() AS is_over ",
            $tail
        )
    };
}

mod limits;
mod upkeep;

pub use self::{
    limits::{busy, check_room, take_turn},
    upkeep::{Place, forget, happened, long_gone, pending, to_end, wait_briefly, with_pending},
};

#[derive(FromRow)]
struct Row {
    id: SessionId,
    user_id: UserId,
    subject: String,
    agent_type: String,
    state: String,
    end_reason: Option<String>,
    metadata: Json<Map<String, Value>>,
    prompt: Option<Json<Composed>>,
    created_at: DateTime<Utc>,
    touched_at: DateTime<Utc>,
    idle_seconds: i32,
    expires_at: DateTime<Utc>,
    usable_until: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
    files_bytes: i64,
    files_quota_bytes: i64,
    generation: i64,
    is_over: bool,
}

impl Row {
    fn read(self) -> Result<Session, Fault> {
        let foreign = || Fault::internal("a session's state or reason is one the code does not know");
        let mut state = State::parse(&self.state).ok_or_else(foreign)?;
        let mut end_reason = None;
        if let Some(reason) = &self.end_reason {
            end_reason = Some(EndReason::parse(reason).ok_or_else(foreign)?);
        }
        // The sweep has not come by yet.
        if state == State::Active && self.is_over {
            state = State::Expired;
            end_reason = Some(if self.usable_until < self.expires_at { EndReason::Idle } else { EndReason::Age });
        }
        Ok(Session {
            id: self.id,
            user: self.user_id,
            subject: self.subject,
            agent_type: self.agent_type,
            state,
            end_reason,
            metadata: self.metadata.0,
            prompt: self.prompt.map(|prompt| prompt.0),
            created_at: self.created_at,
            touched_at: self.touched_at,
            idle_seconds: u32::try_from(self.idle_seconds).unwrap_or_default(),
            expires_at: self.expires_at,
            usable_until: self.usable_until,
            ended_at: self.ended_at.or_else(|| self.is_over.then_some(self.usable_until)),
            files: Files { bytes: self.files_bytes, quota_bytes: self.files_quota_bytes },
            generation: self.generation,
        })
    }
}

fn unknown() -> Fault {
    Fault::unknown("session")
}

/// A session that is to be opened.
#[derive(Clone, Debug)]
pub struct Opening<'a> {
    /// Its id.
    pub id: SessionId,
    /// Whose.
    pub user: UserId,
    /// Their subject.
    pub subject: &'a str,
    /// What kind of agent runs in it.
    pub agent_type: &'a str,
    /// The composed prompt, from now on frozen.
    pub prompt: &'a Composed,
    /// The opener's own.
    pub metadata: &'a Map<String, Value>,
    /// The oldest it may get.
    pub ttl_seconds: u32,
    /// How long it may stand unused.
    pub idle_seconds: u32,
    /// Bytes its files may take.
    pub files_quota_bytes: i64,
    /// What must happen once it is there.
    pub pending: &'a [String],
}

/// Adds one.
pub async fn open(transaction: &mut Transaction, opening: &Opening<'_>) -> Result<Session, Fault> {
    let seconds = |seconds: u32| i32::try_from(seconds).map_err(Fault::internal);
    // The clock, not the transaction's beginning: it may have waited for its turn.
    sqlx::query_as::<_, Row>(columns!(
        "INSERT INTO sessions (organization_id, id, user_id, subject, agent_type, prompt, metadata, created_at, \
             touched_at, expires_at, idle_seconds, files_quota_bytes, pending_hooks) \
         SELECT $1, $2, $3, $4, $5, $6, $7, clock, clock, clock + make_interval(secs => $8), $9, $10, $11 \
         FROM clock_timestamp() AS clock RETURNING",
        "prompt",
        ""
    ))
    .bind(transaction.organization())
    .bind(opening.id)
    .bind(opening.user)
    .bind(opening.subject)
    .bind(opening.agent_type)
    .bind(Json(opening.prompt))
    .bind(Json(opening.metadata))
    .bind(f64::from(opening.ttl_seconds))
    .bind(seconds(opening.idle_seconds)?)
    .bind(opening.files_quota_bytes)
    .bind(opening.pending)
    .fetch_one(transaction.connection())
    .await
    .map_err(fault)?
    .read()
}

/// One by id; `viewer` is the only subject that sees it, unless it is `None`.
pub async fn get(transaction: &mut Transaction, id: SessionId, viewer: Option<&str>) -> Result<Session, Fault> {
    sqlx::query_as::<_, Row>(columns!(
        "SELECT",
        "prompt",
        "FROM sessions WHERE organization_id = $1 AND id = $2 AND ($3::text IS NULL OR subject = $3)"
    ))
    .bind(transaction.organization())
    .bind(id)
    .bind(viewer)
    .fetch_optional(transaction.connection())
    .await
    .map_err(fault)?
    .ok_or_else(unknown)?
    .read()
}

/// Those of `viewer`, or of everybody, by id and without their prompts.
pub async fn list(transaction: &mut Transaction, command: &List, viewer: Option<&str>) -> Result<Page<Session>, Fault> {
    let limit = command.limit.clamp(1, MAX_PAGE);
    let not_ours = |_| Fault::invalid("cursor", "Give back `next` as it was.");
    let after: Option<SessionId> = command.cursor.as_deref().map(str::parse).transpose().map_err(not_ours)?;
    let rows: Vec<Row> = sqlx::query_as(columns!(
        "SELECT",
        "NULL::jsonb",
        "FROM sessions WHERE organization_id = $1 AND ($2::uuid IS NULL OR id > $2) \
             AND ($3::text IS NULL OR subject = $3) AND ($4::uuid IS NULL OR user_id = $4) \
             AND ($5::text IS NULL OR $5 = CASE WHEN state = 'active' AND usable_until <= now() THEN 'expired' ELSE state END) \
         ORDER BY id LIMIT $6"
    ))
    .bind(transaction.organization())
    .bind(after)
    .bind(viewer)
    .bind(command.user)
    .bind(command.state.map(State::name))
    .bind(i64::from(limit) + 1)
    .fetch_all(transaction.connection())
    .await
    .map_err(fault)?;
    let sessions = rows.into_iter().map(Row::read).collect::<Result<Vec<_>, _>>()?;
    Ok(page(sessions, limit, |session: &Session| session.id.to_string()))
}

/// What becomes of one that is over: why, and what must happen because of it.
#[derive(Clone, Copy, Debug)]
pub struct Ending<'a> {
    /// Why.
    pub reason: EndReason,
    /// What must happen.
    pub pending: &'a [String],
}

/// Ends one that is active; `None` where it is not (any more), or has been used again since its time
/// was found to be over. What is still pending of its life stands before what is added.
pub async fn end(transaction: &mut Transaction, id: SessionId, ending: Ending<'_>) -> Result<Option<Session>, Fault> {
    let state = ending.reason.state();
    let row: Option<Row> = sqlx::query_as(columns!(
        "UPDATE sessions SET state = $3, end_reason = $4, pending_hooks = pending_hooks || $5::text[], \
             ended_at = CASE $3 WHEN 'expired' THEN usable_until ELSE clock_timestamp() END \
         WHERE organization_id = $1 AND id = $2 AND state = 'active' \
             AND ($3 = 'ended' OR usable_until <= clock_timestamp()) RETURNING",
        "'{}'::jsonb",
        "NULL::jsonb",
        ""
    ))
    .bind(transaction.organization())
    .bind(id)
    .bind(state.name())
    .bind(ending.reason.name())
    .bind(ending.pending)
    .fetch_optional(transaction.connection())
    .await
    .map_err(fault)?;
    row.map(Row::read).transpose()
}

/// The active sessions of a member that nobody holds at this moment, locked until the end of the
/// transaction.
pub async fn lock_of_member(transaction: &mut Transaction, user: UserId) -> Result<Vec<SessionId>, Fault> {
    sqlx::query_scalar(
        "SELECT id FROM sessions WHERE organization_id = $1 AND user_id = $2 AND state = 'active' \
         ORDER BY id FOR NO KEY UPDATE SKIP LOCKED",
    )
    .bind(transaction.organization())
    .bind(user)
    .fetch_all(transaction.connection())
    .await
    .map_err(fault)
}

/// A session that its member may use now.
#[derive(Clone, Debug, FromRow)]
pub struct Usable {
    /// Its id.
    pub id: SessionId,
    /// The membership it belongs to.
    pub user_id: UserId,
    /// When it is over in any case.
    pub expires_at: DateTime<Utc>,
    /// When it is over unless it is used before.
    pub usable_until: DateTime<Utc>,
    /// Bytes its files take.
    pub files_bytes: i64,
    /// Bytes they may take.
    pub files_quota_bytes: i64,
    /// Grows with each change of a file.
    pub workspace_version: i64,
    /// Grows when the state changes.
    pub generation: i64,
    state: String,
    is_over: bool,
}

/// A [`Usable`] of the organization, the id and the subject.
macro_rules! usable {
    ($tail:literal) => {
        concat!(
            "SELECT id, user_id, expires_at, usable_until, files_bytes, files_quota_bytes, workspace_version, \
             generation, state, usable_until <= clock_timestamp() AS is_over \
             FROM sessions WHERE organization_id = $1 AND id = $2 AND subject = $3",
            $tail
        )
    };
}

/// The session of a subject, if it can be used now: unknown where there is none or it is somebody
/// else's, a conflict where it is over.
pub async fn usable(transaction: &mut Transaction, id: SessionId, subject: &str) -> Result<Usable, Fault> {
    usable_by(transaction, usable!(""), id, subject).await
}

/// The same, its row locked until the end of the transaction: files change one after the other, and the
/// session does not end meanwhile.
pub async fn lock_usable(transaction: &mut Transaction, id: SessionId, subject: &str) -> Result<Usable, Fault> {
    usable_by(transaction, usable!(" FOR NO KEY UPDATE"), id, subject).await
}

async fn usable_by(
    transaction: &mut Transaction,
    query: &'static str,
    id: SessionId,
    subject: &str,
) -> Result<Usable, Fault> {
    let row: Option<Usable> = sqlx::query_as(query)
        .bind(transaction.organization())
        .bind(id)
        .bind(subject)
        .fetch_optional(transaction.connection())
        .await
        .map_err(fault)?;
    let session = row.ok_or_else(unknown)?;
    match session.state.as_str() {
        "active" if !session.is_over => Ok(session),
        "ended" => Err(Fault::new(Code::Conflict, "The session has ended; open another.")),
        _ => Err(Fault::new(Code::Conflict, "The session has expired; open another.")),
    }
}

/// Notes that a session is used, unless that was noted a moment ago: within the last 15 s and the last
/// quarter of its idle time. Answers whether it wrote; `pending` must happen then.
pub async fn touch(transaction: &mut Transaction, id: SessionId, pending: &[String]) -> Result<bool, Fault> {
    let touched = sqlx::query(
        "UPDATE sessions SET touched_at = clock_timestamp(), \
             pending_hooks = pending_hooks || ARRAY(SELECT unnest($3::text[]) EXCEPT SELECT unnest(pending_hooks)) \
         WHERE organization_id = $1 AND id = $2 AND state = 'active' AND usable_until > clock_timestamp() \
             AND touched_at <= clock_timestamp() - LEAST(interval '15 seconds', make_interval(secs => idle_seconds / 4.0))",
    )
    .bind(transaction.organization())
    .bind(id)
    .bind(pending)
    .execute(transaction.connection())
    .await
    .map_err(fault)?;
    Ok(touched.rows_affected() > 0)
}
