//! What every request passes through: its id, one log line, metrics, and errors as problem
//! documents.

use std::time::Instant;

use poem::{
    Endpoint, IntoResponse, Middleware, PathPattern, Request, Response, Result,
    http::{HeaderName, HeaderValue},
};

use super::problem;
use crate::access::Origin;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The longest id or trace context a caller may bring.
const MAX_CORRELATION_BYTES: usize = 128;

/// The outermost layer.
#[derive(Clone, Debug)]
pub struct Edge {
    public_url: String,
}

impl Edge {
    /// `public_url` prefixes the addresses of our documentation.
    pub const fn new(public_url: String) -> Self {
        Self { public_url }
    }
}

impl<E: Endpoint> Middleware<E> for Edge {
    type Output = Within<E>;

    fn transform(&self, inner: E) -> Self::Output {
        Within { inner, public_url: self.public_url.clone() }
    }
}

/// An endpoint within the edge. Never fails: errors become answers.
#[derive(Debug)]
pub struct Within<E> {
    inner: E,
    public_url: String,
}

impl<E: Endpoint> Endpoint for Within<E> {
    type Output = Response;

    async fn call(&self, mut request: Request) -> Result<Response> {
        let started = Instant::now();
        let origin = origin(&request);
        let request_id = origin.request_id.clone();
        let method = request.method().clone();
        request.extensions_mut().insert(origin);
        let outcome = self.inner.call(request).await.map(IntoResponse::into_response);
        let (mut response, route) = match outcome {
            Ok(response) => {
                let route = response.data::<PathPattern>().map_or_else(String::new, |pattern| pattern.0.to_string());
                (response, route)
            }
            Err(error) => {
                let route = error.data::<PathPattern>().map_or_else(String::new, |pattern| pattern.0.to_string());
                (problem::respond(&error, &self.public_url, &request_id), route)
            }
        };
        if let Ok(value) = HeaderValue::from_str(&request_id) {
            response.headers_mut().insert(REQUEST_ID, value);
        }
        let status = response.status().as_u16();
        let labels = [("route", route.clone()), ("method", method.to_string()), ("status", status.to_string())];
        metrics::counter!("switchboard_http_requests_total", &labels).increment(1);
        metrics::histogram!("switchboard_http_request_seconds", "route" => route.clone()).record(started.elapsed());
        tracing::info!(request_id, %method, route, status, ms = started.elapsed().as_secs_f64() * 1e3, "request");
        Ok(response)
    }
}

/// The caller's own request id and trace context where they can travel; a new id otherwise.
fn origin(request: &Request) -> Origin {
    let text = |name: &HeaderName| {
        let value = request.headers().get(name)?.to_str().ok()?;
        let fits =
            (1..=MAX_CORRELATION_BYTES).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then(|| value.to_owned())
    };
    Origin {
        request_id: text(&REQUEST_ID).unwrap_or_else(|| uuid::Uuid::now_v7().to_string()),
        traceparent: text(&TRACEPARENT),
    }
}
