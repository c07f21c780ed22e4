//! Calling a tool in a session: with clients of that session alone, and for a program in the session's
//! workspace, which is brought to the session's files before the call and collected after it. One such
//! call at a time: two programs would take each other's half-written files for the session's.

use std::{sync::Arc, time::Duration};

use futures::future::Either;
use shared::{Code, Deadline, Fault, command::tools::FileChanges, json::Raw};

use super::{
    catalogue::Entry,
    retrying::{self, Failed, Repeats},
    sessions::InUse,
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
    let calling = if matches!(specification.target, Target::Program { .. }) {
        Either::Left(with_workspace(scope, session, specification, entry.timeout(), request, repeats))
    } else {
        let upstreams = scope.parts.upstreams.clone();
        Either::Right(async move {
            let result = retrying::call(&upstreams, &specification, request, repeats).await?;
            Ok((result, None))
        })
    };
    tokio::select! {
        called = calling => called,
        () = session.ended() => {
            let message = "The session was over before the call ended; whether the tool ran is not known.";
            Err(Failed { fault: Fault::new(Code::OutcomeUnknown, message), sent: true })
        }
    }
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

async fn with_workspace(
    scope: &mut Scope<'_, Tool>,
    session: &Arc<InUse>,
    specification: Specification,
    patience: Duration,
    request: CallRequest<'_>,
    repeats: Repeats,
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
    let request = CallRequest { deadline: until.min(Deadline::after(patience)), ..request };
    let turn = host.turn(workspace.clone(), lease.holder(), request.deadline);
    let upstreams = scope.parts.upstreams.clone();
    let working = async {
        let exchange = Exchange::new(scope, session.id, &lease, turn);
        let before = exchange.bring().await.map_err(|fault| unsent(before_the_call(fault)))?;
        // What a call did that fails stays in the directory at most until the next one brings it back.
        let result = retrying::call(&upstreams, &specification, request, repeats).await?;
        let changes = exchange.take(before).await.map_err(|fault| Failed { fault, sent: true })?;
        exchange::keep(scope, session.id, &lease, changes)
            .await
            .map(|changes| (result, Some(changes)))
            .map_err(|fault| Failed { fault, sent: true })
    };
    let ended = tokio::select! {
        ended = working => ended,
        fault = lease.lost() => Err(Failed { fault, sent: true }),
    };
    let is_unchanged = |(_, files): &Ended| files.as_ref().is_some_and(|files| files.written + files.removed == 0);
    if ended.as_ref().is_ok_and(is_unchanged) {
        // The next call need not find it taken.
        lease.release().await;
    }
    ended
}

/// Nothing was asked of the tool yet, whatever the store or the host came to.
fn before_the_call(fault: Fault) -> Fault {
    match fault.code {
        Code::Timeout | Code::Unavailable | Code::Conflict | Code::Unknown => fault,
        _ => Fault::unavailable("The session's workspace", fault),
    }
}
