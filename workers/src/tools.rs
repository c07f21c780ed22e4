//! Tools: calling them through the queue, and listing them. Nothing is sent to a server before the
//! tool is known, its definition is the pinned one and the arguments fit its schema.

use std::time::Instant;

use sha2::{Digest, Sha256};
use shared::{
    Code, Deadline, Fault,
    command::tools::{Call, Called, Definitions, List, Timings},
    fault::Retry,
    hex,
    json::Raw,
};

use crate::{
    pools::Tool,
    run::{Run, of_a_lost_worker as outcome_unknown},
    scope::Scope,
    upstream::CallRequest,
};

mod accepting;
mod asking;
mod catalogue;
mod definition;
mod filter;
mod in_session;
pub mod news;
mod pinning;
mod retrying;
mod schema;
mod secret_use;
mod sessions;
mod soundness;
mod testing;
mod unambiguous;

pub use catalogue::Catalogue;
pub(crate) use filter::admits;
pub use sessions::Sessions;

use retrying::{Failed, Repeats};

/// The delivery at which a worker gives up instead of trying again.
const LAST_ATTEMPT: u64 = 3;

impl Run for Call {
    type Parts = Tool;

    async fn run(self, scope: &mut Scope<'_, Tool>) -> Result<Called, Fault> {
        let started = Instant::now();
        let repeated = scope.attempt > 1;
        scope.notes.resource("tool", &format!("{}/{}", self.configuration, self.tool));
        scope.notes.detail("arguments_sha256", hex(&Sha256::digest(self.arguments.bytes())));
        // An earlier delivery may have got further than this one.
        let honest = |fault| if repeated { before_a_repetition(fault) } else { fault };
        let session = match self.session {
            Some(id) => Some(Box::pin(sessions::in_use(scope, id)).await.map_err(honest)?),
            None => None,
        };
        let entry = catalogue::with_tool(scope, &self.configuration, &self.tool).await.map_err(honest)?;
        let tool = entry.tool(&self.tool).map_err(honest)?;
        if repeated && (!tool.repeatable || scope.attempt >= LAST_ATTEMPT) {
            return Err(outcome_unknown());
        }
        if tool.changed {
            // Policy `warn`: it is called, and whoever reads the trail is told.
            scope.notes.detail("definition", "changed");
            metrics::counter!("switchboard_changed_tool_calls_total").increment(1);
        }
        let definition = tool.definition.compiled().await.map_err(honest)?;
        definition.check(&self.arguments).await.map_err(honest)?;
        let deadline = scope.context.deadline.min(Deadline::after(entry.timeout()));
        let asked = Instant::now();
        let request = CallRequest {
            tool: &self.tool,
            arguments: &self.arguments,
            header_parameters: definition.header_parameters(),
            deadline,
            request_id: &scope.context.request_id,
            holder: None,
            progress: None,
        };
        let repeats = Repeats { retries: entry.retries(), is_repeatable: tool.repeatable };
        let called = if let Some(session) = &session {
            Box::pin(in_session::call(scope, session, &entry, request, repeats)).await
        } else {
            let called = retrying::call(&scope.parts.upstreams, entry.specification(), request, repeats).await;
            called.map(|result| (result, None))
        };
        secret_use::note(scope.parts, scope.context, &entry, called.as_ref().map_err(|failed| &failed.fault));
        let (result, files) = called.map_err(|Failed { fault, sent }| match (repeated, sent) {
            (false, _) => fault,
            (true, false) => before_a_repetition(fault),
            (true, true) => of_a_repetition(fault),
        })?;
        let upstream = milliseconds(asked);
        fits_a_frame(&result)?;
        let timings = Timings { queued: whole_milliseconds(scope.queued_ms), upstream, worker: milliseconds(started) };
        Ok(Called { id: self.id, result, timings, files })
    }
}

impl Run for List {
    type Parts = Tool;

    async fn run(self, scope: &mut Scope<'_, Tool>) -> Result<Definitions, Fault> {
        scope.notes.resource("configuration", &self.configuration);
        catalogue::refreshed(scope, self.configuration).await
    }
}

/// What a later delivery may say of a fault before it called the tool: nothing that claims that
/// nothing happened, because an earlier one may have called it.
fn before_a_repetition(fault: Fault) -> Fault {
    if fault.code == Code::Timeout { fault } else { outcome_unknown() }
}

/// The same of a fault of its own call, whose cause is worth telling where it claims nothing.
fn of_a_repetition(fault: Fault) -> Fault {
    if fault.code.face().retry == Retry::MayRepeatTheEffect { fault } else { outcome_unknown() }
}

/// A frame must fit one message; the limit leaves room for the rest of it.
fn fits_a_frame(result: &Raw) -> Result<(), Fault> {
    const MAX_RESULT_BYTES: usize = 7 * 1024 * 1024;
    if result.bytes().len() > MAX_RESULT_BYTES {
        return Err(Fault::new(Code::UpstreamFailed, "The tool's result is larger than 7 MiB."));
    }
    Ok(())
}

fn milliseconds(since: Instant) -> f64 {
    (since.elapsed().as_secs_f64() * 1e6).round() / 1e3
}

#[expect(clippy::cast_precision_loss, reason = "no call waits 2^52 milliseconds")]
const fn whole_milliseconds(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_delivery_never_claims_that_nothing_happened() {
        for code in Code::ALL {
            for told in [before_a_repetition, of_a_repetition].map(|tell| tell(Fault::new(code, "x"))) {
                assert_eq!(told.code.face().retry, Retry::MayRepeatTheEffect, "{code:?}");
            }
        }
        for code in [Code::Unknown, Code::Conflict, Code::Invalid, Code::Unavailable, Code::UpstreamFailed] {
            assert_eq!(before_a_repetition(Fault::new(code, "x")), outcome_unknown());
        }
        assert_eq!(before_a_repetition(Fault::timeout("x")), Fault::timeout("x"));
        let failed = Fault::new(Code::UpstreamFailed, "x");
        assert_eq!(of_a_repetition(failed.clone()), failed);
    }
}
