//! Calling a tool in a session: with clients of that session alone, and for a program in the session's
//! workspace, which is brought to the session's files before the call and collected after it. One such
//! call at a time: two programs would take each other's half-written files for the session's.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use futures::future::Either;
use shared::{Code, Deadline, Fault, command::tools::FileChanges, json::Raw};

use super::{
    catalogue::Entry,
    retrying::{self, Failed, Repeats},
    sessions::{self, InUse},
};
use crate::{
    pools::Tool,
    scope::Scope,
    upstream::{CallRequest, Specification, Target},
};

mod exchange;
mod lease;

use self::{exchange::Exchange, lease::Lease};

/// What a call came to, and what it did to the session's files, if it is a program's.
pub(super) type Ended = (Raw, Option<FileChanges>);

/// Calls a tool in a session, and not beyond its end.
pub(super) async fn call(
    scope: &mut Scope<'_, Tool>,
    session: &Arc<InUse>,
    entry: &Entry,
    request: CallRequest<'_>,
    repeats: Repeats,
) -> Result<Ended, Failed> {
    scope.notes.detail("session", session.id.to_string());
    let specification = specification(scope, session, entry);
    let (parts, context) = (scope.parts, scope.context);
    let asked = AtomicBool::new(false);
    let calling = if matches!(specification.target, Target::Program { .. }) {
        let request = Asking { request, repeats, patience: entry.timeout(), is_asked: &asked };
        Either::Left(with_workspace(scope, session, specification, request))
    } else {
        let (upstreams, asked) = (scope.parts.upstreams.clone(), &asked);
        Either::Right(async move {
            asked.store(true, Relaxed);
            let result = retrying::call(&upstreams, &specification, request, repeats).await?;
            Ok((result, None))
        })
    };
    let ended = tokio::select! {
        called = calling => called,
        () = session.ended() => Err(over(asked.load(Relaxed))),
        () = sessions::keep_in_use(parts, context, session) => Err(over(asked.load(Relaxed))),
    };
    if sessions::is_over(parts, context.organization, session.id) {
        // A client that was still being opened when the news came.
        parts.upstreams.end_session(context.organization, session.id).await;
    }
    ended
}

/// The session ended before the call did.
fn over(is_asked: bool) -> Failed {
    if is_asked {
        let message = "The session was over before the call ended; whether the tool ran is not known.";
        return Failed { fault: Fault::new(Code::OutcomeUnknown, message), sent: true };
    }
    Failed { fault: Fault::new(Code::Conflict, "The session was over before the tool was called."), sent: false }
}

/// The server as it is for calls of this session.
fn specification(scope: &Scope<'_, Tool>, session: &InUse, entry: &Entry) -> Specification {
    let mut specification = entry.specification().clone();
    specification.session = Some(session.id);
    if let Target::Program { workspace, is_kept, .. } = &mut specification.target {
        *workspace = format!("{}/{}/{}", scope.context.organization, session.user, session.id);
        *is_kept = true;
    }
    specification
}

/// What is asked of a program, and whether it was.
struct Asking<'a> {
    request: CallRequest<'a>,
    repeats: Repeats,
    patience: Duration,
    is_asked: &'a AtomicBool,
}

async fn with_workspace(
    scope: &mut Scope<'_, Tool>,
    session: &Arc<InUse>,
    specification: Specification,
    asking: Asking<'_>,
) -> Result<Ended, Failed> {
    let unsent = |fault| Failed { fault, sent: false };
    let Target::Program { workspace, .. } = &specification.target else {
        return Err(unsent(Fault::internal("a workspace is a program's")));
    };
    let Some(host) = scope.parts.upstreams.workspaces() else {
        return Err(unsent(Fault::invalid("transport", "Transport `stdio` is not offered here any more.")));
    };
    let until = scope.context.deadline;
    let _turn = lease::own_turn(session, until).await.map_err(unsent)?;
    let lease = Lease::take(scope, session.id, until).await.map_err(unsent)?;
    // Waiting for the others is no time at the server.
    let deadline = until.min(Deadline::after(asking.patience));
    let turn = host.turn(workspace.clone(), lease.holder(), deadline);
    let holder = turn.holder().to_owned();
    let request = CallRequest { deadline, holder: Some(&holder), ..asking.request };
    let upstreams = scope.parts.upstreams.clone();
    let working = async {
        let exchange = Exchange::new(scope, session.id, &lease, turn);
        let before = exchange.bring().await.map_err(|fault| unsent(before_the_call(fault)))?;
        asking.is_asked.store(true, Relaxed);
        // What a call did that fails stays in the directory at most until the next one brings it back.
        let result = retrying::call(&upstreams, &specification, request, asking.repeats).await?;
        let changes = exchange.take(before).await.map_err(|fault| Failed { fault, sent: true })?;
        Ok((result, changes))
    };
    let (result, changes) = tokio::select! {
        worked = working => worked?,
        fault = lease.lost() => return Err(Failed { fault, sent: true }),
    };
    // From here on the lease need not be renewed: it is looked at once more while the row is held.
    let is_unchanged = changes.is_nothing();
    let files = exchange::keep(scope, session.id, &lease, changes).await;
    let files = files.map_err(|fault| Failed { fault, sent: true })?;
    if is_unchanged {
        // The next call need not find it taken.
        lease.release().await;
    }
    Ok((result, Some(files)))
}

/// Nothing was asked of the tool yet, whatever the store or the host came to.
fn before_the_call(fault: Fault) -> Fault {
    match fault.code {
        Code::Timeout | Code::Unavailable | Code::Conflict | Code::Unknown => fault,
        _ => Fault::unavailable("The session's workspace", fault),
    }
}
