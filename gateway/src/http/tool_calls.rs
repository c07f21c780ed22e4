//! `POST /api/v1/tool-calls`: the main job.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use poem::{handler, http::StatusCode, web::Data};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::{
    Code, Context, Fault,
    bus::state::limits_key,
    command::tools::{Call, Called, FileChanges, TIMEOUT_RANGE_MS},
    id::{CallId, SessionId},
    json::Raw,
};

use super::{
    Gateway,
    answer::{Answer, json},
    body::Body,
    identity::Identity,
    operation::{self, Operation, post},
    outliving::Outliving,
};
use crate::rates::Ticket;

pub(super) fn operations() -> Vec<Operation> {
    operation::of(
        "Tool calls",
        [post("/api/v1/tool-calls", call, "Calls a tool and waits for its end.")
            .sends::<Call>()
            .takes::<CallBody>()
            .answers::<Finished<'_>>(StatusCode::OK)
            .or_fails([Code::Unknown, Code::Conflict, Code::Reconnect, Code::UpstreamFailed])],
    )
}

const DEFAULT_TIMEOUT_MS: u32 = 60_000;
/// The longest name of a configuration or tool that is looked at, in bytes.
const MAX_NAME_BYTES: usize = 256;

/// Which tool, with what.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ToolCall")]
struct CallBody {
    /// A configuration's name or id. Your own name wins over the organization's.
    #[schemars(length(min = 1, max = MAX_NAME_BYTES), regex(pattern = r"^[^\x00-\x1f\x7f-\x9f]*$"))]
    configuration: String,
    /// The tool's name, as the server gives it.
    #[schemars(length(min = 1, max = MAX_NAME_BYTES), regex(pattern = r"^[^\x00-\x1f\x7f-\x9f]*$"))]
    tool: String,
    /// An object that fits the tool's pinned schema; `{}` if absent.
    #[schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")]
    arguments: Option<Raw>,
    /// One of your sessions: the call uses clients and a workspace of that session alone.
    session: Option<SessionId>,
    /// How long you wait, in milliseconds, waiting in the queue included; 60,000 if absent.
    #[schemars(range(min = *TIMEOUT_RANGE_MS.start(), max = *TIMEOUT_RANGE_MS.end()))]
    timeout_ms: Option<u32>,
}

/// A finished call.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "FinishedCall")]
struct Finished<'a> {
    /// Names the call in the audit trail.
    id: CallId,
    /// Always `done`.
    #[schemars(extend("const" = "done"))]
    state: &'static str,
    /// The MCP `CallToolResult` as the server sent it. A tool that said no has `isError`.
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    result: &'a Raw,
    /// Where the time went.
    timings_ms: TimingsMs,
    /// What a program did to the files of the session it was called in.
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<FileChanges>,
}

/// Where a call's time went, in milliseconds.
#[derive(Debug, Serialize, JsonSchema)]
struct TimingsMs {
    /// Waiting in the lane.
    queued: f64,
    /// At the MCP server.
    upstream: f64,
    /// In the worker altogether.
    worker: f64,
    /// In the gateway altogether.
    total: f64,
}

impl CallBody {
    fn command(self) -> Result<Call, Fault> {
        for (field, text) in [("configuration", &self.configuration), ("tool", &self.tool)] {
            if !(1..=MAX_NAME_BYTES).contains(&text.len()) || text.contains(char::is_control) {
                return Err(Fault::invalid(
                    field,
                    format!("Use 1 to {MAX_NAME_BYTES} bytes without control characters."),
                ));
            }
        }
        let arguments = self.arguments.unwrap_or_else(Raw::empty_object);
        if !arguments.is_object() {
            return Err(Fault::invalid("arguments", "The arguments must be an object."));
        }
        Ok(Call {
            id: CallId::new(),
            configuration: self.configuration,
            tool: self.tool,
            arguments,
            session: self.session,
        })
    }
}

impl Gateway {
    /// Counts a call against what its organization may use, until the ticket is dropped.
    pub(crate) fn enter(&self, context: &Context) -> Result<Option<Ticket>, Fault> {
        let organization = context.organization;
        let entered = self.limits.look(&limits_key(organization), |limits| self.rates.enter(organization, limits));
        entered.transpose()
    }
}

/// A call that waited for nothing but a pause says so.
fn explain(gateway: &Gateway, context: &Context, fault: Fault) -> Fault {
    let limits = gateway.limits.get(&limits_key(context.organization));
    if fault.code == Code::Timeout && limits.is_some_and(|limits| limits.paused) {
        return Fault::timeout("The deadline passed while the organization's calls are paused.");
    }
    fault
}

/// Calls a tool and waits for its end.
#[handler]
pub(crate) async fn call(gateway: Data<&Arc<Gateway>>, identity: Identity, Body(body): Body<CallBody>) -> Answer {
    let started = Instant::now();
    let timeout_ms = body.timeout_ms.unwrap_or(DEFAULT_TIMEOUT_MS);
    if !TIMEOUT_RANGE_MS.contains(&timeout_ms) {
        return Err(Fault::invalid("timeout_ms", "Use 100 to 300,000 milliseconds.").into());
    }
    let patience = Duration::from_millis(timeout_ms.into());
    let context = Context { deadline: shared::Deadline::after(patience), ..identity.0 };
    let command = body.command()?;
    let ticket = gateway.enter(&context)?;
    // A call goes on when its client leaves, and with it what it takes of its organization's limits.
    let waiting = Arc::clone(gateway.0);
    let ended = Outliving::new(async move {
        let _ticket = ticket;
        waiting.caller.call(&context, &command).await.map_err(|fault| explain(&waiting, &context, fault))
    });
    let Called { id, result, timings, files } = ended.await.map_err(|_panic| Fault::internal("a call panicked"))??;
    let total = (started.elapsed().as_secs_f64() * 1e6).round() / 1e3;
    let timings_ms = TimingsMs { queued: timings.queued, upstream: timings.upstream, worker: timings.worker, total };
    json(StatusCode::OK, &Finished { id, state: "done", result: &result, timings_ms, files })
}
