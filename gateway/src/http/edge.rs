//! What every request passes through: its id, who may read the answer, one log line, metrics, and errors as
//! problem documents. One layer, because each holds the whole request in its future and moves it on.

use std::{
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use metrics::{Counter, Histogram, SharedString};
use poem::{
    Endpoint, IntoResponse, Middleware, PathPattern, Request, Response, Result,
    http::{HeaderName, HeaderValue, Method, StatusCode, Version, header},
};

use shared::telemetry::Handles;

use super::{
    cors::Origins,
    problem::{self, Problem},
};
use crate::access::Origin;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The longest id or trace context a caller may bring.
const MAX_CORRELATION_BYTES: usize = 128;

/// The outermost layer. `S` is what handlers share.
#[derive(Clone, Debug)]
pub struct Edge<S> {
    public_url: String,
    origins: Origins,
    shared: S,
}

impl<S> Edge<S> {
    /// `public_url` prefixes the addresses of our documentation; handlers find `shared` with each request.
    pub const fn new(public_url: String, origins: Origins, shared: S) -> Self {
        Self { public_url, origins, shared }
    }
}

impl<E: Endpoint, S: Clone + Send + Sync + 'static> Middleware<E> for Edge<S> {
    type Output = Within<E, S>;

    fn transform(&self, inner: E) -> Self::Output {
        Within { inner, edge: self.clone() }
    }
}

/// An endpoint within the edge. Never fails: errors become answers.
#[derive(Debug)]
pub struct Within<E, S> {
    inner: E,
    edge: Edge<S>,
}

impl<E: Endpoint, S: Clone + Send + Sync + 'static> Endpoint for Within<E, S> {
    type Output = Response;

    async fn call(&self, mut request: Request) -> Result<Response> {
        let started = Instant::now();
        let origin = origin(&request);
        let request_id = origin.request_id.clone();
        let method = request.method().clone();
        let brings_much = brings_much(&request);
        request.extensions_mut().insert(origin);
        request.extensions_mut().insert(self.edge.shared.clone());
        let readers = self.edge.origins.readers(&request);
        let outcome = match self.edge.origins.preflight(&request) {
            Some(answer) => answer.map_err(|fault| Problem::from(fault).into()),
            None => self.inner.call(request).await.map(IntoResponse::into_response),
        };
        let (mut response, route) = match outcome {
            Ok(response) => {
                let route = route(response.data());
                (response, route)
            }
            Err(error) => {
                let route = if problem::is_routeless(&error) { NO_ROUTE } else { route(error.data()) };
                (problem::respond(&error, &self.edge.public_url, &request_id), route)
            }
        };
        if let Ok(value) = HeaderValue::from_str(&request_id) {
            response.headers_mut().insert(REQUEST_ID, value);
        }
        readers.mark(&mut response);
        let elapsed = started.elapsed();
        let status = response.status();
        if brings_much && !status.is_success() {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        // Text as text, not by way of its formatting: a line is written for every call.
        let (shown, path) = (method.as_str(), route.as_ref());
        let ms = elapsed.as_secs_f64() * 1e3;
        tracing::info!(request_id, method = shown, route = path, status = status.as_u16(), ms, "request");
        count(route, method_label(&method), status_label(status), elapsed);
        Ok(response)
    }
}

/// Tells the metrics of a request that was answered.
fn count(route: SharedString, method: &'static str, status: &'static str, elapsed: Duration) {
    type ByAnswer = Handles<(SharedString, &'static str, &'static str), (Counter, Histogram)>;
    static ANSWERS: LazyLock<ByAnswer> = LazyLock::new(Handles::default);
    let (requests, seconds) = ANSWERS.of((route, method, status), |(route, method, status)| {
        let labels = [("route", route.clone()), ("method", (*method).into()), ("status", (*status).into())];
        let seconds = metrics::histogram!("switchboard_http_request_seconds", "route" => route.clone());
        (metrics::counter!("switchboard_http_requests_total", &labels), seconds)
    });
    requests.increment(1);
    seconds.record(elapsed);
}

/// Bytes of a body that the server reads after it answered, rather than close the connection.
const READ_ON_BYTES: u64 = 8 * 1024;

/// Whether a request's body may not be read to its end where the request is refused. The connection is
/// then closed behind the answer, which has to say so (RFC 9112, section 9.6): else a client sends its next
/// request into it.
fn brings_much(request: &Request) -> bool {
    let headers = request.headers();
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let is_first_version = request.version() <= Version::HTTP_11;
    is_first_version && length.map_or(headers.contains_key(header::TRANSFER_ENCODING), |length| length > READ_ON_BYTES)
}

/// The label of requests that no route takes: paths are the senders' invention.
const NO_ROUTE: SharedString = SharedString::const_str("none");

/// The pattern as the router shares it, uncopied.
fn route(pattern: Option<&PathPattern>) -> SharedString {
    pattern.map_or(NO_ROUTE, |pattern| Arc::clone(&pattern.0).into())
}

/// Methods are tokens of the senders' invention too, and a label lives as long as the process.
fn method_label(method: &Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}

/// The status in digits, without writing them anew for every request.
fn status_label(status: StatusCode) -> &'static str {
    static DIGITS: [u8; 1_500] = {
        let mut digits = [b'0'; 1_500];
        let (mut index, mut number) = (0, [b'1', b'0', b'0']);
        while index < digits.len() {
            digits[index] = number[index % 3];
            index += 1;
            if index % 3 == 0 {
                // The next number, carrying.
                number[2] += 1;
                if number[2] > b'9' {
                    number[2] = b'0';
                    number[1] += 1;
                }
                if number[1] > b'9' {
                    number[1] = b'0';
                    number[0] += 1;
                }
            }
        }
        digits
    };
    let start = 3 * usize::from(status.as_u16().saturating_sub(100));
    DIGITS.get(start..start + 3).and_then(|digits| std::str::from_utf8(digits).ok()).unwrap_or("other")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_that_a_client_invents_makes_no_label() {
        for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::HEAD] {
            assert_eq!(method_label(&method), method.as_str());
        }
        for invented in ["BREW", "get", "X1", "X2"] {
            assert_eq!(method_label(&Method::from_bytes(invented.as_bytes()).unwrap()), "other");
        }
    }

    fn bare() -> Edge<()> {
        let url = "http://localhost".parse().unwrap();
        Edge::new(String::new(), Origins::new(&url, shared::bus::kv::Watch::empty()), ())
    }

    #[tokio::test]
    async fn a_refusal_of_much_says_that_the_connection_closes() {
        let refusing = poem::endpoint::make_sync(|_| StatusCode::CONFLICT);
        let edge = bare().transform(refusing);
        for (name, value, closes) in [
            (header::CONTENT_LENGTH, "8193", true),
            (header::TRANSFER_ENCODING, "chunked", true),
            (header::CONTENT_LENGTH, "100", false),
            (header::ACCEPT, "*/*", false),
        ] {
            let request = Request::builder().header(name, value).finish();
            let answer = edge.call(request).await.unwrap();
            assert_eq!(answer.headers().get(header::CONNECTION).is_some(), closes, "{value}");
        }
        let taking = bare().transform(poem::endpoint::make_sync(|_| StatusCode::CREATED));
        let request = Request::builder().header(header::CONTENT_LENGTH, "8193").finish();
        assert!(!taking.call(request).await.unwrap().headers().contains_key(header::CONNECTION));
    }

    #[test]
    fn a_status_is_labelled_with_its_digits() {
        for number in 100..600 {
            assert_eq!(status_label(StatusCode::from_u16(number).unwrap()), number.to_string());
        }
        assert_eq!(status_label(StatusCode::from_u16(600).unwrap()), "other");
    }

    #[tokio::test]
    async fn what_no_route_takes_is_one_route_however_it_is_spelled() {
        let api = poem::Route::new().at("/things/:id", poem::endpoint::make_sync(|_| "a thing"));
        let routes = poem::Route::new().nest("/api", api).nest_no_strip("/", crate::assets::routes());
        for (path, label) in [
            ("/api/things/1", "/api/things/:id"),
            ("/api/nothing", "none"),
            ("/wp-login.php", "none"),
            ("/a/b/c", "none"),
            ("/assets/nothing.js", "/assets/*path"),
        ] {
            let request = Request::builder().uri(path.parse().unwrap()).finish();
            let found = match routes.call(request).await {
                Ok(response) => route(response.data()),
                Err(error) if problem::is_routeless(&error) => NO_ROUTE,
                Err(error) => route(error.data()),
            };
            assert_eq!(found.as_ref(), label, "{path}");
        }
    }
}
