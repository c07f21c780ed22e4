//! `/api/v1/sessions/{id}/files`: the files of a session, for the member whose session it is. Bodies pass
//! in parts, so that a gateway never holds much more than one.

use std::sync::Arc;

use poem::{Request, Response, handler, http::StatusCode, web::Data};
use schemars::JsonSchema;
use shared::{
    Code, Fault,
    command::{
        Page,
        files::{File, List, MAX_PATH_BYTES, Open, Remove, Write},
    },
    id::SessionId,
};

use self::{
    conditions::Preconditions,
    location::{Location, PathParameter},
};
use super::{
    Gateway,
    answer::{Answer, empty, json, page},
    etag::ContentTags,
    id::Id,
    identity::Identity,
    methods::Head,
    operation::{self, Operation, delete, get, put},
    paging::{Filter, Paged, Paging},
    problem::{EdgeError, Limit, Problem},
};

mod conditions;
mod download;
mod location;
mod upload;

pub(super) fn operations() -> Vec<Operation> {
    const PATH: &str = "/api/v1/sessions/:id/files";
    const ONE: &str = "/api/v1/sessions/:id/files/*path";
    const ABOUT_PATH: &str = "Where the file is in the workspace; percent-encoded, and decoded once.";
    operation::of(
        "Files of sessions",
        [
            get(PATH, list, "Lists the files of a session by path, in the order of their bytes.")
                .sends::<List>()
                .at_id::<SessionId>()
                .query::<Paging>()
                .query::<Beginning>()
                .answers::<Page<File>>(StatusCode::OK)
                .or_fails([Code::Conflict]),
            get(ONE, read, "Reads a file.")
                .sends::<Open>()
                .at_id::<SessionId>()
                .at::<PathParameter>("path", ABOUT_PATH)
                .may_bring::<ContentTags>("If-Match", "Only if it has this content.")
                .may_bring::<ContentTags>("If-None-Match", "Only if it has another content.")
                .answers_other("application/octet-stream")
                .answers_unchanged()
                .tagged_by_content()
                .or_fails([Code::Conflict, Code::Stale]),
            put(
                ONE,
                write,
                "Writes a file: a new one, or over the one that is there. Any media type is taken, none is kept.",
            )
            .sends::<Write>()
            .at_id::<SessionId>()
            .at::<PathParameter>("path", ABOUT_PATH)
            .may_bring::<ContentTags>("If-Match", "Only over this content; `*` only over a file that is there.")
            .may_bring::<ContentTags>("If-None-Match", "Not over this content; `*` only where there is no file.")
            .takes_bytes("application/octet-stream")
            .answers::<File>(StatusCode::OK)
            .answers::<File>(StatusCode::CREATED)
            .tagged_by_content()
            .or_fails([Code::Conflict, Code::Stale])
            .or_fails([EdgeError::TooLarge(Limit::File)]),
            delete(ONE, remove, "Removes a file.")
                .sends::<Remove>()
                .at_id::<SessionId>()
                .at::<PathParameter>("path", ABOUT_PATH)
                .may_bring::<ContentTags>("If-Match", "Only if it has this content.")
                .may_bring::<ContentTags>("If-None-Match", "Only if it has another content.")
                .answers_nothing()
                .or_fails([Code::Conflict, Code::Stale]),
        ],
    )
}

/// Which files are listed.
#[derive(Clone, Debug, Default, JsonSchema)]
pub struct Beginning {
    /// Only those whose paths begin so.
    #[schemars(length(min = 1, max = MAX_PATH_BYTES))]
    prefix: Option<String>,
}

impl Filter for Beginning {
    fn take(&mut self, name: &str, value: &str) -> Option<Result<(), Fault>> {
        if name != "prefix" {
            return None;
        }
        if !(1..=MAX_PATH_BYTES).contains(&value.len()) || value.contains('\0') {
            let message = format!("Use the beginning of a path, of 1 to {MAX_PATH_BYTES} bytes.");
            return Some(Err(Fault::invalid("prefix", message)));
        }
        self.prefix = Some(value.to_owned());
        Some(Ok(()))
    }
}

/// Lists files by path.
#[handler]
pub(crate) async fn list(
    gateway: Data<&Arc<Gateway>>,
    identity: Identity,
    Id(session): Id<SessionId>,
    Paged { paging, filter }: Paged<Beginning>,
) -> Answer {
    let Paging { cursor, limit } = paging;
    page(&gateway.caller.call(&identity, &List { session, prefix: filter.prefix, cursor, limit }).await?)
}

/// Reads one.
#[handler]
pub(crate) async fn read(
    request: &Request,
    gateway: Data<&Arc<Gateway>>,
    identity: Identity,
    Location { session, path }: Location,
    Preconditions(conditions): Preconditions,
) -> Answer {
    let head = Head::asked(request);
    let command = Open { session, path, conditions, head };
    let opened = gateway.caller.call(&identity, &command).await?;
    let is_known = command.conditions.if_none_match.is_some_and(|tags| tags.name(Some(&opened.file.sha256)));
    if is_known {
        return download::unchanged(&opened.file);
    }
    if head {
        return download::described(&opened.file, ());
    }
    let file = opened.file.clone();
    download::described(&file, download::body(Arc::clone(&gateway), &identity, session, opened))
}

/// Writes one.
#[handler]
pub(crate) async fn write(
    request: &Request,
    body: poem::Body,
    gateway: Data<&Arc<Gateway>>,
    identity: Identity,
    Location { session, path }: Location,
    Preconditions(conditions): Preconditions,
) -> Result<Response, poem::Error> {
    let incoming = upload::Incoming::new(request, body)?;
    let mut upload = upload::Upload::new(Arc::clone(&gateway), &identity, session);
    let content = match upload.content(incoming).await {
        Ok(content) => content,
        Err(refused) => {
            upload.give_up().await;
            return Err(refused);
        }
    };
    let command = Write { session, path, content, conditions };
    let written = upload.finish(&command).await.map_err(Problem::from)?;
    let status = if written.created { StatusCode::CREATED } else { StatusCode::OK };
    Ok(download::tagged(&written.file, json(status, &written.file))?)
}

/// Removes one.
#[handler]
pub(crate) async fn remove(
    gateway: Data<&Arc<Gateway>>,
    identity: Identity,
    Location { session, path }: Location,
    Preconditions(conditions): Preconditions,
) -> Answer {
    gateway.caller.call(&identity, &Remove { session, path, conditions }).await?;
    empty()
}
