//! Getting to know a server: which era of the protocol it speaks, in which version, in which
//! session. rmcp negotiates; what it learnt becomes a [`Link`], on which calls are single POSTs.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
};
use rmcp::{
    RoleClient,
    model::{ClientCapabilities, ClientConfig, Implementation, ProtocolVersion},
    service::{ClientInitializeError, ClientLifecycleMode, ClientServiceExt, RunningService},
    transport::{
        common::client_side_sse::NeverRetry,
        streamable_http_client::{StreamableHttpClientTransport, StreamableHttpClientTransportConfig},
    },
};
use serde_json::json;
use shared::{
    Fault,
    command::configurations::{Credential, Stage},
};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{
    exchange::{METHOD, NAME},
    probe::{Probe, Seen},
};
use crate::{egress::Egress, upstream::failure};

pub(super) const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
pub(super) const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");

/// What we call ourselves.
const CLIENT_NAME: &str = "switchboard";
/// How long one way of getting to know a server may take; there are two.
const ATTEMPT: Duration = Duration::from_secs(8);
/// How long a session may take to end; the server forgets it by itself too.
const GOODBYE: Duration = Duration::from_secs(5);
/// Our ids begin here: the session's first ids were rmcp's.
const FIRST_ID: u64 = 1_000;
/// The largest answer to a negotiation that is read, in bytes.
const MAX_HANDSHAKE_BYTES: usize = 1024 * 1024;

/// A server as it was found: everything that a call needs and that does not change between calls.
pub(super) struct Link {
    /// True for 2026-07-28 and later: no session, metadata on every request.
    pub(super) is_modern: bool,
    /// The headers of every request.
    pub(super) headers: HeaderMap,
    /// Those of a call, with room for its tool's name where the version has a header for it: a table that grows is
    /// made anew.
    pub(super) call_headers: HeaderMap,
    /// The inside of every request's `_meta` object; empty in the handshake era.
    pub(super) meta: Box<str>,
    /// The version of the protocol.
    pub(super) version: Box<str>,
    /// When the server first answered.
    pub(super) answered_at: Option<Instant>,
    next_id: AtomicU64,
    // Owns the session: dropping it ends the session on the server too.
    keeper: Mutex<Option<RunningService<RoleClient, ClientConfig>>>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("is_modern", &self.is_modern).finish_non_exhaustive()
    }
}

impl Link {
    /// Negotiates. Whatever the server does, it ends within two attempts of 8 seconds.
    pub(super) async fn open(egress: &Egress, endpoint: &Url, credential: &Credential) -> Result<Self, Failed> {
        let mut headers = base_headers(credential)?;
        let modern_first = ClientLifecycleMode::Auto {
            preferred_versions: vec![ProtocolVersion::V_2026_07_28],
            legacy_version: Some(ProtocolVersion::V_2025_11_25),
        };
        let found = match attempt(egress, endpoint, credential, modern_first).await {
            Ok(found) => Ok(found),
            Err(failed) if failed.is_final => Err(failed),
            // Old servers answer the unknown probe with anything: an error page, silence, nonsense.
            Err(first) => match attempt(egress, endpoint, credential, ClientLifecycleMode::Initialize).await {
                Ok(found) => Ok(found),
                Err(second) if second.is_final => {
                    Err(Failed { answered_at: first.answered_at.or(second.answered_at), ..second })
                }
                Err(_) => Err(first),
            },
        }?;
        headers.insert(PROTOCOL_VERSION, value(found.version.as_str())?);
        if let Some(session) = &found.session {
            headers.insert(SESSION_ID, value(session)?);
        }
        let is_modern = !found.version.has_initialize();
        let meta = if is_modern { meta(found.version.as_str()) } else { String::new() };
        let mut call_headers = headers.clone();
        if is_modern {
            call_headers.insert(METHOD, HeaderValue::from_static("tools/call"));
            call_headers.insert(NAME, HeaderValue::from_static(""));
        }
        // Without a session there is nothing to keep; dropping the service stops its tasks.
        let keeper = found.session.is_some().then_some(found.service);
        Ok(Self {
            is_modern,
            headers,
            call_headers,
            meta: meta.into(),
            version: found.version.as_str().into(),
            answered_at: found.answered_at,
            next_id: AtomicU64::new(FIRST_ID),
            keeper: Mutex::new(keeper),
        })
    }

    /// An id that no other request of this session has.
    pub(super) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Relaxed)
    }

    /// True when the server keeps a session for us.
    pub(super) fn has_session(&self) -> bool {
        self.headers.contains_key(SESSION_ID)
    }

    /// Ends the session, if there is one, and waits until the server knows.
    pub(super) async fn close(&self) {
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut keeper) = keeper {
            // A server that does not answer forgets the session by itself.
            let _ = keeper.close_with_timeout(GOODBYE).await;
        }
    }
}

/// A server that answered.
struct Found {
    service: RunningService<RoleClient, ClientConfig>,
    version: ProtocolVersion,
    session: Option<Arc<str>>,
    answered_at: Option<Instant>,
}

/// Why an attempt failed, and whether another kind of attempt could end differently.
#[derive(Debug)]
pub(in crate::upstream) struct Failed {
    /// What the caller is told.
    pub(in crate::upstream) fault: Fault,
    is_final: bool,
    /// Where on its way the connection ended.
    pub(in crate::upstream) stage: Stage,
    /// When the server first answered.
    pub(in crate::upstream) answered_at: Option<Instant>,
}

/// A mistake in what we were told, found before anything was sent.
impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        Self { fault, is_final: true, stage: Stage::Protocol, answered_at: None }
    }
}

async fn attempt(
    egress: &Egress,
    endpoint: &Url,
    credential: &Credential,
    mode: ClientLifecycleMode,
) -> Result<Found, Failed> {
    // However this ends but well, the server sees its connection closed.
    let given_up = CancellationToken::new();
    let (probe, seen) = Probe::new(egress.client().clone(), given_up.clone());
    let given_up = given_up.drop_guard();
    let mut config = StreamableHttpClientTransportConfig::with_uri(endpoint.as_str())
        .reinit_on_expired_session(false)
        .max_json_response_size(MAX_HANDSHAKE_BYTES)
        .max_sse_event_size(MAX_HANDSHAKE_BYTES)
        .max_error_response_size(4 * 1024);
    // The standing stream of a session brings nothing that a call waits for.
    config.retry_config = Arc::<NeverRetry>::default();
    match credential {
        Credential::None => {}
        Credential::Bearer(token) => config = config.auth_header(token.reveal().as_str()),
        Credential::Header { .. } => {
            config = config.custom_headers(own_header(credential)?.into_iter().collect());
        }
    }
    let transport = StreamableHttpClientTransport::with_client(probe, config);
    let identity =
        ClientConfig::new(ClientCapabilities::default(), Implementation::new(CLIENT_NAME, env!("CARGO_PKG_VERSION")))
            .with_protocol_version(ProtocolVersion::V_2025_11_25);
    let served = tokio::time::timeout(ATTEMPT, identity.serve_with_lifecycle(transport, mode)).await;
    match served {
        Ok(Ok(service)) => {
            given_up.disarm();
            found(service, &seen).map_err(|fault| Failed { answered_at: seen.answered_at(), ..Failed::from(fault) })
        }
        Ok(Err(error)) => Err(failed(&error, &seen)),
        Err(_) => {
            let answered_at = seen.answered_at();
            let stage = if answered_at.is_some() { Stage::Protocol } else { Stage::Http };
            Err(Failed { fault: failure::late(), is_final: false, stage, answered_at })
        }
    }
}

/// The error's text may quote the server: only its kind is used.
fn failed(error: &ClientInitializeError, seen: &Seen) -> Failed {
    let answered_at = seen.answered_at();
    if let Some(failed) = seen.failure() {
        return Failed { fault: failed.fault, is_final: failed.is_final, stage: failed.stage, answered_at };
    }
    let fault = match error {
        ClientInitializeError::NoCompatibleProtocolVersion { .. } => {
            failure::garbage("names no version of MCP that is spoken here")
        }
        _ => failure::garbage("is not MCP"),
    };
    Failed { fault, is_final: false, stage: Stage::Protocol, answered_at }
}

fn found(service: RunningService<RoleClient, ClientConfig>, seen: &Seen) -> Result<Found, Fault> {
    let version = service
        .peer_info()
        .map(|info| info.protocol_version.clone())
        .filter(|version| ProtocolVersion::KNOWN_VERSIONS.contains(version))
        .ok_or_else(|| failure::garbage("names no version of MCP that is spoken here"))?;
    let session = seen.session().filter(|_| version.has_initialize());
    Ok(Found { service, version, session, answered_at: seen.answered_at() })
}

fn base_headers(credential: &Credential) -> Result<HeaderMap, Fault> {
    let mut headers = HeaderMap::with_capacity(10);
    headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Credential::Bearer(token) = credential {
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", token.reveal()))
            .map_err(|_| Fault::invalid("auth.token", "The token holds characters that no header can carry."))?;
        bearer.set_sensitive(true);
        headers.insert(AUTHORIZATION, bearer);
    }
    if let Some((name, value)) = own_header(credential)? {
        headers.insert(name, value);
    }
    Ok(headers)
}

/// The header of the server's own that carries the secret, where one does.
fn own_header(credential: &Credential) -> Result<Option<(HeaderName, HeaderValue)>, Fault> {
    let Credential::Header { name, value } = credential else { return Ok(None) };
    let name = HeaderName::try_from(name.as_str())
        .map_err(|_| Fault::invalid("auth.name", "The header's name holds characters that no header can have."))?;
    let mut value = HeaderValue::try_from(value.reveal().as_str())
        .map_err(|_| Fault::invalid("auth.value", "The value holds characters that no header can carry."))?;
    value.set_sensitive(true);
    Ok(Some((name, value)))
}

fn value(text: &str) -> Result<HeaderValue, Fault> {
    HeaderValue::from_str(text).map_err(|_| failure::garbage("is not MCP"))
}

/// MCP 2026-07-28, request metadata: who asks, in which version, and that we offer nothing.
fn meta(version: &str) -> String {
    let client = json!({ "name": CLIENT_NAME, "version": env!("CARGO_PKG_VERSION") });
    format!(
        r#""io.modelcontextprotocol/protocolVersion":"{version}","io.modelcontextprotocol/clientInfo":{client},"io.modelcontextprotocol/clientCapabilities":{{}}"#
    )
}
