//! Shaping answers: JSON in one pass, without a detour through a value tree.

use poem::{
    Response,
    http::{HeaderValue, StatusCode, header},
};
use serde::Serialize;
use shared::{Fault, command::Page};

use super::problem::Problem;

/// What handlers answer.
pub type Answer = Result<Response, Problem>;

/// A JSON document.
pub fn json<T: Serialize>(status: StatusCode, value: &T) -> Answer {
    let body = serde_json::to_vec(value).map_err(Fault::internal)?;
    Ok(Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
        // Answers are one tenant's own: no cache in between may keep them.
        .header(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))
        .body(body))
}

/// A page of a list.
pub fn page<T: Serialize>(page: &Page<T>) -> Answer {
    json(StatusCode::OK, page)
}

/// Done, nothing to say.
pub fn empty() -> Answer {
    Ok(Response::builder().status(StatusCode::NO_CONTENT).finish())
}
