//! Sending a call again, as often as its configuration says. Before anything of a call has left, any
//! call may begin anew; once it was sent, only one whose tool may be repeated: its pinned hints or an
//! admin say so. All attempts share one deadline, and a server that says no is not asked twice.

use std::time::Duration;

use shared::{Code, Fault, fault::Retry, json::Raw};

use crate::upstream::{CallRequest, Specification, Upstreams};

/// The pause before the first repetition; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(100);

/// How a call ended that did not end well.
#[derive(Debug)]
pub(super) struct Failed {
    /// What the caller is told.
    pub(super) fault: Fault,
    /// Whether the server may have seen the call.
    pub(super) sent: bool,
}

/// How often a call may be sent again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Repeats {
    /// At most.
    pub(super) retries: u8,
    /// Whether the tool may run twice.
    pub(super) is_repeatable: bool,
}

/// Calls a tool, and again where that is safe.
pub(super) async fn call(
    upstreams: &Upstreams,
    specification: &Specification,
    request: CallRequest<'_>,
    Repeats { retries, is_repeatable }: Repeats,
) -> Result<Raw, Failed> {
    // What was said when the server may have seen the call: no later fault may claim less.
    let mut seen: Option<Fault> = None;
    let mut round = 0;
    loop {
        let failed = match once(upstreams, specification, request).await {
            Ok(result) => return Ok(result),
            Err(failed) => failed,
        };
        let pause = pause(round);
        let again =
            round < u32::from(retries) && may_repeat(&failed, is_repeatable) && pause < request.deadline.remaining();
        if failed.sent {
            seen = Some(failed.fault.clone());
        }
        if !again {
            return Err(honest(failed, seen));
        }
        metrics::counter!("switchboard_upstream_retries_total").increment(1);
        tracing::info!(request_id = request.request_id, round, fault = %failed.fault, "the call is sent again");
        tokio::time::sleep(pause).await;
        round += 1;
    }
}

async fn once(upstreams: &Upstreams, specification: &Specification, request: CallRequest<'_>) -> Result<Raw, Failed> {
    let client = upstreams.client_within(specification, request.deadline).await;
    let client = client.map_err(|fault| Failed { fault, sent: false })?;
    client.call(request).await.map_err(|fault| Failed { sent: fault.code != Code::Unavailable, fault })
}

fn may_repeat(failed: &Failed, is_repeatable: bool) -> bool {
    match failed.fault.code {
        Code::Unavailable => true,
        Code::UpstreamFailed => !failed.sent || is_repeatable,
        _ => false,
    }
}

fn honest(failed: Failed, seen: Option<Fault>) -> Failed {
    match seen {
        Some(fault) if failed.fault.code.face().retry != Retry::MayRepeatTheEffect => Failed { fault, sent: true },
        Some(_) => Failed { sent: true, ..failed },
        None => failed,
    }
}

/// Twice as long each time, less up to a half: callers that failed together do not come back together.
fn pause(round: u32) -> Duration {
    let longest = PAUSE.saturating_mul(2_u32.saturating_pow(round));
    longest.mul_f64(rand::random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(code: Code, sent: bool) -> Failed {
        Failed { fault: Fault::new(code, "x"), sent }
    }

    #[test]
    fn what_was_sent_is_repeated_only_where_the_tool_may_be() {
        assert!(may_repeat(&failed(Code::UpstreamFailed, false), false));
        assert!(!may_repeat(&failed(Code::UpstreamFailed, true), false));
        assert!(may_repeat(&failed(Code::UpstreamFailed, true), true));
        assert!(may_repeat(&failed(Code::Unavailable, false), false));
        for code in Code::ALL.into_iter().filter(|code| ![Code::UpstreamFailed, Code::Unavailable].contains(code)) {
            assert!(!may_repeat(&failed(code, false), true), "{code:?}");
        }
    }

    #[test]
    fn no_later_fault_claims_less_than_was_seen() {
        let seen = Some(Fault::new(Code::UpstreamFailed, "seen"));
        let told = honest(failed(Code::Unavailable, false), seen.clone());
        assert_eq!((told.fault.message.as_str(), told.sent), ("seen", true));
        assert_eq!(honest(failed(Code::Timeout, false), seen).fault.code, Code::Timeout);
        assert!(!honest(failed(Code::Unavailable, false), None).sent);
    }

    #[test]
    fn pauses_grow_and_differ() {
        for round in 0..5 {
            let longest = PAUSE * 2_u32.pow(round);
            assert!((longest / 2..=longest).contains(&pause(round)));
        }
    }
}
