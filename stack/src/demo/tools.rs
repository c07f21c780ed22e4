//! The demo's tools: small promises that a gateway can be held to (order, size, progress, cancellation, effects).

use std::{borrow::Cow, sync::Arc, time::Duration};

use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, Implementation, JsonObject,
        ListToolsResult, PaginatedRequestParams, ProgressNotificationParam, ProtocolVersion, ServerCapabilities,
        ServerConfig, Tool,
    },
    service::RequestContext,
};
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};

use super::{odd::Odd, stats::Stats};

pub(super) mod catalogue;

pub(super) use catalogue::NAMES;

/// How often `sleep` reports progress.
const PROGRESS_PERIOD: Duration = Duration::from_millis(100);
/// The longest `sleep`, in milliseconds.
const MAX_SLEEP_MS: u64 = 600_000;
/// The longest text `big` makes, in bytes.
const MAX_BIG_BYTES: u64 = 64 * 1024 * 1024;
/// What `big` repeats, so that a lost or doubled piece is seen.
const BIG_PATTERN: &str = "0123456789abcdefghijklmnopqrstuvwxyz\n";

/// The MCP side of the demo; cloned for every request or session, all clones share their counts.
#[derive(Debug, Clone)]
pub(super) struct Tools {
    stats: Arc<Stats>,
    odd: Arc<Odd>,
    list: Arc<Vec<Tool>>,
    legacy_only: bool,
}

/// Why a call has no result.
enum Refusal {
    /// The arguments do not fit: told to the caller as a tool result with `isError`.
    Arguments(String),
    /// The caller is gone; nobody reads what is answered.
    Cancelled,
}

impl Tools {
    pub(super) fn new(stats: Arc<Stats>, odd: Arc<Odd>, legacy_only: bool) -> Self {
        let list = Arc::new(catalogue::all(&odd));
        Self { stats, odd, list, legacy_only }
    }

    async fn run(
        &self,
        name: &str,
        arguments: &JsonObject,
        context: &RequestContext<RoleServer>,
    ) -> Result<CallToolResult, Refusal> {
        Ok(match name {
            "echo" => text(string(arguments, "text")?),
            "add" => sum(arguments)?,
            "sleep" => sleep(arguments, context).await?,
            "fail" => CallToolResult::error(vec![ContentBlock::text(string(arguments, "message")?)]),
            "big" => text(big(whole(arguments, "bytes", MAX_BIG_BYTES)?)),
            "counter_increment" => count(self.stats.increment()),
            "read_counter" => count(self.stats.counter()),
            _ => CallToolResult::success(self.odd.content()),
        })
    }
}

impl ServerHandler for Tools {
    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let Some(index) = NAMES.iter().position(|name| *name == request.name) else {
            return Err(ErrorData::invalid_params("unknown tool", None));
        };
        let running = self.stats.begin(index);
        let arguments = request.arguments.unwrap_or_default();
        match self.run(NAMES[index], &arguments, &context).await {
            Ok(result) => {
                running.finish();
                Ok(result.into())
            }
            Err(Refusal::Arguments(message)) => {
                running.finish();
                Ok(CallToolResult::error(vec![ContentBlock::text(message)]).into())
            }
            Err(Refusal::Cancelled) => Err(ErrorData::internal_error("cancelled", None)),
        }
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(self.list.to_vec()))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        self.list.iter().find(|tool| tool.name == name).cloned()
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        let newest = if self.legacy_only { &ProtocolVersion::V_2025_11_25 } else { &ProtocolVersion::V_2026_07_28 };
        Cow::Borrowed(ProtocolVersion::known_up_to(newest))
    }

    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new("switchboard-demo", env!("CARGO_PKG_VERSION")))
            .with_instructions("Tools that make a gateway's promises visible.")
    }
}

/// Waits `ms`, telling how far it is when the caller sent a progress token; ends at once when cancelled.
async fn sleep(arguments: &JsonObject, context: &RequestContext<RoleServer>) -> Result<CallToolResult, Refusal> {
    let ms = whole(arguments, "ms", MAX_SLEEP_MS)?;
    let started = Instant::now();
    let end = started + Duration::from_millis(ms);
    let mut ticks = interval_at(started + PROGRESS_PERIOD, PROGRESS_PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let token = context.meta.get_progress_token();
    let mut reported_ms = 0;
    loop {
        tokio::select! {
            biased;
            () = context.ct.cancelled() => return Err(Refusal::Cancelled),
            () = sleep_until(end) => return Ok(text(format!("slept {ms} ms"))),
            _ = ticks.tick(), if token.is_some() => {}
        }
        let Some(token) = token.clone() else { continue };
        reported_ms = (reported_ms + 100).max(whole_ms(started.elapsed()) / 100 * 100);
        let progress = ProgressNotificationParam::new(token, as_number(reported_ms))
            .with_total(as_number(ms))
            .with_message(format!("{reported_ms} of {ms} ms"));
        tokio::select! {
            biased;
            () = context.ct.cancelled() => return Err(Refusal::Cancelled),
            sent = context.peer.notify_progress(progress) => if let Err(error) = sent {
                tracing::debug!(%error, "progress could not be delivered");
            },
        }
    }
}

fn whole_ms(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds bounded by MAX_SLEEP_MS are exact in an f64")]
fn as_number(ms: u64) -> f64 {
    ms as f64
}

/// Adds as integers while both are, so that large ones stay exact; otherwise as doubles.
fn sum(arguments: &JsonObject) -> Result<CallToolResult, Refusal> {
    let (a, b) = (number(arguments, "a")?, number(arguments, "b")?);
    let exact = a.as_i64().zip(b.as_i64());
    let sum = match exact.and_then(|(a, b)| a.checked_add(b)) {
        Some(sum) => Value::from(sum),
        None => Value::from(a.as_f64().unwrap_or(f64::NAN) + b.as_f64().unwrap_or(f64::NAN)),
    };
    if sum.is_null() {
        return Err(Refusal::Arguments("the sum is not a number".to_owned()));
    }
    Ok(structured(sum.to_string(), json!({ "sum": sum })))
}

fn big(bytes: u64) -> String {
    let length = usize::try_from(bytes).unwrap_or(usize::MAX);
    let mut text = BIG_PATTERN.repeat(length.div_ceil(BIG_PATTERN.len()));
    text.truncate(length);
    text
}

fn count(count: u64) -> CallToolResult {
    structured(count.to_string(), json!({ "count": count }))
}

fn text(text: String) -> CallToolResult {
    CallToolResult::success(vec![ContentBlock::text(text)])
}

fn structured(plain: String, value: Value) -> CallToolResult {
    let mut result = text(plain);
    result.structured_content = Some(value);
    result
}

fn string(arguments: &JsonObject, name: &str) -> Result<String, Refusal> {
    match arguments.get(name) {
        Some(Value::String(value)) => Ok(value.clone()),
        _ => Err(Refusal::Arguments(format!("{name} must be a string"))),
    }
}

fn number(arguments: &JsonObject, name: &str) -> Result<serde_json::Number, Refusal> {
    match arguments.get(name) {
        Some(Value::Number(value)) => Ok(value.clone()),
        _ => Err(Refusal::Arguments(format!("{name} must be a number"))),
    }
}

fn whole(arguments: &JsonObject, name: &str, most: u64) -> Result<u64, Refusal> {
    match arguments.get(name).and_then(Value::as_u64) {
        Some(value) if value <= most => Ok(value),
        _ => Err(Refusal::Arguments(format!("{name} must be a whole number from 0 to {most}"))),
    }
}
