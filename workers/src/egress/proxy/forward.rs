//! The absolute form: a plain `http` request repeated through the guarded client, whose pool keeps
//! the connection to the server. Bodies flow both ways as they come; a redirect is passed on, and
//! whoever follows it asks again here.

use std::time::Duration;

use http::{HeaderMap, HeaderName, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use url::Url;

use super::{Body, REFUSED_HEADER, STATUS_HEADER, Shared, plain, refusal, unreachable};
use crate::egress::refusal_in;

/// How long a server may take to begin its answer: a little over the longest synchronous call.
const ANSWER_LIMIT: Duration = Duration::from_secs(310);

/// Fields that belong to one connection (RFC 9110 section 7.6.1), those of proxies, the two that
/// the client writes itself, and the two by which only this proxy speaks.
const OWN_FIELDS: [HeaderName; 13] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::HOST,
    header::CONTENT_LENGTH,
    HeaderName::from_static(REFUSED_HEADER),
    HeaderName::from_static(STATUS_HEADER),
];

pub(super) async fn send(shared: &Shared, request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let Some(url) = target(&head.uri) else {
        return plain(StatusCode::BAD_REQUEST, "The proxy needs an absolute http:// address, or CONNECT.");
    };
    if let Err(refused) = shared.egress.check(&url) {
        return refusal(refused);
    }
    let mut headers = head.headers;
    strip(&mut headers);
    let mut outgoing = shared.egress.unredirected().request(head.method, url).headers(headers);
    if !hyper::body::Body::is_end_stream(&body) {
        outgoing = outgoing.body(reqwest::Body::wrap(body));
    }
    match tokio::time::timeout(ANSWER_LIMIT, outgoing.send()).await {
        Ok(Ok(response)) => pass_on(response),
        Ok(Err(error)) => match refusal_in(&error) {
            Some(refused) => refusal(refused),
            None if error.is_connect() => unreachable(),
            // Sent, and then lost: the mark would promise that nothing was delivered.
            None => plain(StatusCode::BAD_GATEWAY, "The connection to the host was lost."),
        },
        Err(_) => plain(StatusCode::GATEWAY_TIMEOUT, "The host does not answer."),
    }
}

/// The URL of an absolute-form request. `https` is for `CONNECT`: here the proxy would read along.
fn target(uri: &http::Uri) -> Option<Url> {
    (uri.scheme_str() == Some("http")).then(|| Url::parse(&uri.to_string()).ok()).flatten()
}

fn pass_on(response: reqwest::Response) -> Response<Body> {
    let length = response.headers().get(header::CONTENT_LENGTH).cloned();
    let (mut head, body) = Response::<reqwest::Body>::from(response).into_parts();
    strip(&mut head.headers);
    // An answer to HEAD has a length and no body to count it from.
    if let Some(length) = length {
        head.headers.insert(header::CONTENT_LENGTH, length);
    }
    head.version = http::Version::HTTP_11;
    Response::from_parts(head, body.map_err(Into::into).boxed())
}

/// Removes what belongs to one connection, and what its `Connection` field adds to that.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in OWN_FIELDS.iter().chain(&named) {
        headers.remove(name);
    }
}
