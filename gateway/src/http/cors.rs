//! Browsers (Fetch standard, CORS protocol), without credentials: an origin may call with the tokens of
//! the organizations that registered it, and the gateway's own origin, where the console comes from,
//! with all. There is no wildcard. A preflight brings no token, so it is answered for an origin that
//! any organization registered; whether it is the caller's own is decided with the request
//! ([`Origins::check`]).

use std::{
    collections::HashSet,
    sync::{Arc, PoisonError, RwLock},
};

use metrics::counter;
use poem::{
    Request, Response,
    http::{
        HeaderMap, HeaderValue, Method, StatusCode,
        header::{
            ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
            ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
        },
    },
};
use shared::{
    Code, Fault,
    bus::{
        kv::Watch,
        state::{Limits, limits_key},
    },
    id::OrganizationId,
};

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE");
const REQUEST_HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, if-match, if-none-match, last-event-id, prefer, traceparent, x-request-id",
);
const RESPONSE_HEADERS: HeaderValue =
    HeaderValue::from_static("etag, location, retry-after, www-authenticate, x-request-id");
/// How long a browser may remember a preflight, in seconds.
const REMEMBERED_SECONDS: HeaderValue = HeaderValue::from_static("600");

/// Who registered which origin.
#[derive(Clone, Debug)]
pub struct Origins {
    own: Arc<str>,
    limits: Watch<Limits>,
    registered: Arc<RwLock<Registered>>,
}

/// The origins of all organizations, as of one state of what is watched.
#[derive(Debug, Default)]
struct Registered {
    as_of: Option<u64>,
    origins: HashSet<String>,
}

impl Origins {
    /// As registered in `limits`; `public_url` is where the console comes from.
    pub fn new(public_url: &url::Url, limits: Watch<Limits>) -> Self {
        Self { own: public_url.origin().ascii_serialization().into(), limits, registered: Arc::default() }
    }

    /// Refuses a request that a browser sends for a page of an origin which the token's organization
    /// did not register. A request without `Origin` comes from no page of another origin.
    pub fn check(&self, headers: &HeaderMap, organization: OrganizationId) -> Result<(), Fault> {
        let is_allowed = match origin(headers) {
            Sent::None => true,
            Sent::One(origin) => *origin == *self.own || self.is_registered_by(organization, origin),
            Sent::Several => false,
        };
        if is_allowed {
            return Ok(());
        }
        counter!("switchboard_origins_refused_total").increment(1);
        Err(Fault::new(Code::Forbidden, "This origin is not registered by the organization of the token."))
    }

    fn is_registered_by(&self, organization: OrganizationId, origin: &str) -> bool {
        let has = |limits: &Limits| !limits.deleted && limits.allowed_origins.iter().any(|known| known == origin);
        self.limits.look(&limits_key(organization), has).unwrap_or(false)
    }

    /// True for an origin whose pages may read answers at all.
    fn is_known(&self, origin: &str) -> bool {
        *origin == *self.own || self.is_registered(origin)
    }

    fn is_registered(&self, origin: &str) -> bool {
        let applied = *self.limits.changes().borrow();
        let registered = self.registered.read().unwrap_or_else(PoisonError::into_inner);
        if registered.as_of == Some(applied) {
            return registered.origins.contains(origin);
        }
        drop(registered);
        let entries = self.limits.entries();
        let live = entries.into_iter().filter(|(_, limits)| !limits.deleted);
        let origins: HashSet<String> = live.flat_map(|(_, limits)| limits.allowed_origins).collect();
        let is_registered = origins.contains(origin);
        *self.registered.write().unwrap_or_else(PoisonError::into_inner) = Registered { as_of: Some(applied), origins };
        is_registered
    }
}

/// What a request says of the page that it comes from.
enum Sent<'a> {
    None,
    One(&'a str),
    Several,
}

fn origin(headers: &HeaderMap) -> Sent<'_> {
    let mut values = headers.get_all(ORIGIN).iter();
    match (values.next(), values.next()) {
        (None, _) => Sent::None,
        (Some(value), None) => value.to_str().map_or(Sent::Several, Sent::One),
        (Some(_), Some(_)) => Sent::Several,
    }
}

/// What is for browsers of other origins: not the metrics, nor the console.
fn is_for_browsers(request: &Request) -> bool {
    let path = request.uri().path();
    path.starts_with("/api/") || path == "/mcp" || path.starts_with("/mcp/")
}

impl Origins {
    /// The answer to a preflight, where a request is one.
    pub fn preflight(&self, request: &Request) -> Option<Result<Response, Fault>> {
        let is_preflight =
            request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        if !is_preflight || !is_for_browsers(request) {
            return None;
        }
        match origin(request.headers()) {
            // No browser asks so: the router says which methods there are.
            Sent::None => None,
            Sent::One(origin) if self.is_known(origin) => Some(Ok(granted())),
            Sent::One(_) | Sent::Several => Some(Err(Fault::new(Code::Forbidden, "This origin is not registered."))),
        }
    }

    /// Whose pages may read the answer to a request.
    pub fn readers(&self, request: &Request) -> Readers {
        if !is_for_browsers(request) {
            return Readers::None;
        }
        match origin(request.headers()) {
            Sent::One(origin) if self.is_known(origin) => {
                HeaderValue::from_str(origin).map_or(Readers::NotThese, Readers::Of)
            }
            _ => Readers::NotThese,
        }
    }
}

/// Whose pages may read an answer.
#[derive(Debug)]
pub enum Readers {
    /// It is not for browsers.
    None,
    /// Not those of the origin that asks; others might.
    NotThese,
    /// Those of this origin.
    Of(HeaderValue),
}

impl Readers {
    /// Says so in the answer, an error too: a page wants to read it.
    pub fn mark(self, response: &mut Response) {
        let headers = response.headers_mut();
        if !matches!(self, Self::None) {
            headers.append(VARY, HeaderValue::from_static("origin"));
        }
        if let Self::Of(origin) = self {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, RESPONSE_HEADERS);
        }
    }
}

fn granted() -> Response {
    Response::builder()
        .status(StatusCode::NO_CONTENT)
        .header(ACCESS_CONTROL_ALLOW_METHODS, METHODS)
        .header(ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS)
        .header(ACCESS_CONTROL_MAX_AGE, REMEMBERED_SECONDS)
        .finish()
}
