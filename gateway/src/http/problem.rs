//! Faults as problem documents (RFC 9457), and the few errors that exist at the edge only.

use poem::{
    Response,
    error::{ParsePathError, ResponseError},
    http::{HeaderValue, StatusCode, header},
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use shared::{
    Fault,
    fault::{Code, Retry},
};

use super::methods::Allow;
use crate::auth::Denied;

/// A fault on its way out through HTTP.
#[derive(Debug, thiserror::Error)]
#[error("{fault}")]
pub struct Problem {
    fault: Fault,
    /// `error` of a bearer challenge (RFC 6750 section 3.1).
    challenge_error: Option<&'static str>,
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        Self { fault, challenge_error: None }
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        metrics::counter!("switchboard_authentication_refused_total", "reason" => denied.reason()).increment(1);
        Self { fault: denied.fault(), challenge_error: denied.challenge_error() }
    }
}

impl ResponseError for Problem {
    fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.fault.code.face().http).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

/// An error that only the edge knows: the request never became a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EdgeError {
    /// No route has this path.
    #[error("There is nothing at this address.")]
    Route,
    /// The route does not have this method.
    #[error("This address does not have that method.")]
    Method,
    /// The body is too large.
    #[error("{0}")]
    TooLarge(Limit),
    /// The body is not JSON by its own word.
    #[error("Send the body as application/json.")]
    MediaType,
    /// A change that replaces does not say what it replaces.
    #[error("Send If-Match with the ETag you read, or `*` to replace whatever there is.")]
    Precondition,
}

/// How large a body may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Limit {
    /// Any but the others.
    #[error("The body is larger than 1 MiB.")]
    Body,
    /// A file's.
    #[error("A file has at most 16 MiB.")]
    File,
}

impl EdgeError {
    /// Every one.
    pub const ALL: [Self; 5] =
        [Self::Route, Self::Method, Self::TooLarge(Limit::Body), Self::MediaType, Self::Precondition];

    /// Status, name and title.
    pub const fn parts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::Route => (StatusCode::NOT_FOUND, "route", "There is no such route"),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "method", "The method is not allowed"),
            Self::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "too_large", "The body is too large"),
            Self::MediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "media_type", "The media type is not supported"),
            Self::Precondition => {
                (StatusCode::PRECONDITION_REQUIRED, "precondition", "The change must name what it replaces")
            }
        }
    }

    /// The header at fault, where it is one.
    const fn field(self) -> Option<&'static str> {
        match self {
            Self::Precondition => Some("If-Match"),
            _ => None,
        }
    }
}

impl ResponseError for EdgeError {
    fn status(&self) -> StatusCode {
        self.parts().0
    }
}

/// What went wrong (RFC 9457).
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Problem")]
pub(super) struct Document<'a> {
    /// The fault's entry in our documentation.
    #[schemars(extend("format" = "uri"))]
    r#type: String,
    /// The fault in a few words.
    title: &'a str,
    /// The HTTP status.
    #[schemars(range(min = 400, max = 599))]
    status: u16,
    /// What went wrong this time, in one sentence.
    detail: &'a str,
    /// The request's id: quote it when you ask for help.
    instance: &'a str,
    /// The fault: one of a closed set.
    #[schemars(schema_with = "codes")]
    code: &'a str,
    /// What a caller may do.
    retry: Retry,
    /// The field or parameter at fault, as a path such as `auth.token`; empty for the whole body.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    /// When to try again, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

/// The names of all faults.
fn codes(_: &mut SchemaGenerator) -> Schema {
    let names = Code::ALL.into_iter().map(|code| code.face().name);
    let names: Vec<&str> = names.chain(EdgeError::ALL.into_iter().map(|error| error.parts().1)).collect();
    json_schema!({ "type": "string", "enum": names })
}

/// Whether no route takes the request: another's or a missing thing is an answer of its route.
pub fn is_routeless(error: &poem::Error) -> bool {
    error.status() == StatusCode::NOT_FOUND && error.downcast_ref::<Problem>().is_none()
}

/// Shapes any error of a handler or of the router.
pub fn respond(error: &poem::Error, public_url: &str, request_id: &str) -> Response {
    if let Some(problem) = error.downcast_ref::<Problem>() {
        return of_problem(problem, public_url, request_id);
    }
    let edge = match error.downcast_ref::<EdgeError>() {
        Some(edge) => Some(*edge),
        None => match error.status() {
            StatusCode::NOT_FOUND => Some(EdgeError::Route),
            StatusCode::METHOD_NOT_ALLOWED => Some(EdgeError::Method),
            StatusCode::PAYLOAD_TOO_LARGE => Some(EdgeError::TooLarge(Limit::Body)),
            _ => None,
        },
    };
    match edge {
        Some(edge) => {
            let mut response = of_edge(edge, public_url, request_id);
            let allow = error.data().and_then(|Allow(names)| HeaderValue::from_str(names).ok());
            if let Some(allow) = allow {
                response.headers_mut().insert(header::ALLOW, allow);
            }
            response
        }
        None if error.is::<ParsePathError>() => {
            let fault = Fault::invalid("path", "The path is not UTF-8.");
            of_problem(&fault.into(), public_url, request_id)
        }
        None if error.status().is_client_error() => {
            let fault = Fault::new(Code::Invalid, "The request could not be read.");
            of_problem(&fault.into(), public_url, request_id)
        }
        None => of_problem(&Fault::internal(error).into(), public_url, request_id),
    }
}

fn of_problem(problem: &Problem, public_url: &str, request_id: &str) -> Response {
    let Problem { fault, challenge_error } = problem;
    let face = fault.code.face();
    let document = Document {
        r#type: format!("{public_url}/docs/faults#{}", face.name),
        title: face.title,
        status: face.http,
        detail: &fault.message,
        instance: request_id,
        code: face.name,
        retry: face.retry,
        field: fault.field.as_deref(),
        retry_after_ms: fault.retry_after_ms,
    };
    let mut response = send(&document);
    if let Some(wait_ms) = fault.retry_after_ms {
        // Whole seconds, rounded up: zero would invite the same answer.
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait_ms.div_ceil(1_000).max(1)));
    }
    if fault.code == Code::Unauthenticated {
        // RFC 6750 section 3: `error` only when a token was sent and refused.
        let challenge = match challenge_error {
            Some(error) => {
                format!("Bearer realm=\"switchboard\", error=\"{error}\", error_description=\"{}\"", fault.message)
            }
            None => "Bearer realm=\"switchboard\"".to_owned(),
        };
        if let Ok(challenge) = HeaderValue::from_str(&challenge) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
    }
    response
}

fn of_edge(edge: EdgeError, public_url: &str, request_id: &str) -> Response {
    let (status, name, title) = edge.parts();
    send(&Document {
        r#type: format!("{public_url}/docs/faults#{name}"),
        title,
        status: status.as_u16(),
        detail: &edge.to_string(),
        instance: request_id,
        code: name,
        retry: Retry::Never,
        field: edge.field(),
        retry_after_ms: None,
    })
}

fn send(document: &Document<'_>) -> Response {
    let status = StatusCode::from_u16(document.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = serde_json::to_vec(document).unwrap_or_default();
    Response::builder().status(status).header(header::CONTENT_TYPE, "application/problem+json").body(body)
}
