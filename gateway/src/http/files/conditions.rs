//! `If-Match` and `If-None-Match` of files (RFC 9110 sections 13.1.1 and 13.1.2), whose tags are the
//! SHA-256 of the content. The worker compares within the transaction that changes the file.

use poem::{FromRequest, Request, RequestBody, Result, http::header};
use shared::command::files::{Conditions, Tags};

use crate::http::{
    etag::{self, Listed},
    problem::Problem,
};

/// What a request says about the content that it wants, replaces or removes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Preconditions(pub(crate) Conditions);

impl<'a> FromRequest<'a> for Preconditions {
    async fn from_request(request: &'a Request, _body: &mut RequestBody) -> Result<Self> {
        let read = |name| etag::listed(request.headers(), &name).map_err(Problem::from);
        Ok(Self(Conditions {
            // A weak tag never says that the bytes are the same, and may well say that they are not.
            if_match: read(header::IF_MATCH)?.map(|listed| tags(listed, |is_weak| !is_weak)),
            if_none_match: read(header::IF_NONE_MATCH)?.map(|listed| tags(listed, |_| true)),
        }))
    }
}

fn tags(listed: Listed, counts: impl Fn(bool) -> bool) -> Tags {
    match listed {
        Listed::Any => Tags::Any,
        Listed::Tags(tags) => {
            Tags::OneOf(tags.into_iter().filter(|(is_weak, _)| counts(*is_weak)).map(|(_, tag)| tag).collect())
        }
    }
}
