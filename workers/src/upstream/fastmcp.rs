//! The client of the `FastMCP` service, which speaks to the servers that this process does not speak
//! to itself (legacy SSE, and whatever an operator prefers to send that way). The service keeps the
//! MCP clients; here is only the handle, whose specification travels with every request, so that
//! any replica of the service can answer.

mod answer;
mod config;
mod signature;
pub mod workspace;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, header::CONTENT_TYPE};
use reqwest::{Request, Response, redirect::Policy};
use serde_json::json;
use shared::{Deadline, Fault, command::configurations::Credential, hex, json::Raw, secret::Secret};
use url::Url;

pub use self::config::FastMcpConfig;
use self::signature::{Key, Nonce};
use super::{CallRequest, Specification, Target, failure, listing::Listing, within};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// How long the service itself may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(3);
/// How long the service may take to prove itself, and to let go of a client.
const COURTESY: Duration = Duration::from_secs(5);
/// How long connecting to an MCP server may take.
const OPEN: Duration = Duration::from_secs(16);
/// Shorter than the 75 seconds after which the service closes an unused connection.
const POOL_IDLE: Duration = Duration::from_mins(1);
const POOLED_CONNECTIONS: usize = 64;

/// The `FastMCP` service.
#[derive(Clone, Debug)]
pub(super) struct Service(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    http: Result<reqwest::Client, String>,
    url: Url,
    key: Key,
    force: bool,
    proxy: Option<Secret<String>>,
    // Whether the service has shown that it holds the key: before that it is told no secret.
    is_proven: AtomicBool,
}

impl Service {
    pub(super) fn new(config: FastMcpConfig, proxy: Option<Secret<String>>) -> Self {
        // Fails where it is installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // Our own service at an address that the operator chose: the egress guard is not for it.
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .referer(false)
            .connect_timeout(CONNECT)
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(POOLED_CONNECTIONS)
            .tcp_nodelay(true)
            .build()
            .map_err(|error| error.to_string());
        let is_proven = AtomicBool::new(false);
        Self(Arc::new(Inner {
            http,
            url: config.url,
            key: Key::new(&config.key),
            force: config.force,
            proxy,
            is_proven,
        }))
    }

    /// True when every configuration goes this way.
    pub(super) fn is_forced(&self) -> bool {
        self.0.force
    }

    /// Has the service connect to an MCP server.
    pub(super) async fn connect(&self, specification: &Specification, digest: &[u8; 32]) -> Result<Remote, Fault> {
        let mut remote = Remote::new(self.clone(), specification, digest);
        let met = within(Deadline::after(OPEN), async {
            let body = remote.body(OPEN, &[]);
            let response = self.post("/mcp/connect", body, "-").await?;
            answer::whole(response).await
        })
        .await?;
        remote.version = answer::version(&met);
        Ok(remote)
    }

    /// Asks for a proof of the key, in a request that gives nothing away.
    async fn prove(&self) -> Result<(), Fault> {
        let response = tokio::time::timeout(COURTESY, self.send(Method::GET, "/health", Vec::new(), "-"));
        let response = response.await.map_err(|_| failure::late())??;
        if !response.status().is_success() {
            return Err(Fault::unavailable("The FastMCP service", "it is not healthy"));
        }
        self.0.is_proven.store(true, Relaxed);
        Ok(())
    }

    /// Sends what may hold a secret, and so only to a service that has proven itself.
    async fn post(&self, path: &'static str, body: Vec<u8>, request_id: &str) -> Result<Response, Fault> {
        if !self.0.is_proven.load(Relaxed) {
            self.prove().await?;
        }
        self.send(Method::POST, path, body, request_id).await
    }

    /// Sends a signed request; an answer without proof is no answer.
    async fn send(
        &self,
        method: Method,
        path: &'static str,
        body: Vec<u8>,
        request_id: &str,
    ) -> Result<Response, Fault> {
        let http = self.0.http.as_ref().map_err(Fault::internal)?;
        let mut url = self.0.url.clone();
        url.set_path(path);
        let nonce = Nonce::new();
        let mut request = Request::new(method, url);
        let method = request.method().clone();
        self.0.key.sign(request.headers_mut(), &method, path, &nonce, &body);
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Ok(id) = HeaderValue::from_str(request_id) {
            request.headers_mut().insert(REQUEST_ID, id);
        }
        if !body.is_empty() {
            *request.body_mut() = Some(body.into());
        }
        let response = http.execute(request).await.map_err(|error| self.lost(&error))?;
        if self.0.key.is_proven(response.headers(), &nonce, response.status()) {
            return Ok(response);
        }
        self.0.is_proven.store(false, Relaxed);
        Err(Fault::internal("the FastMCP service's answer is not proven: whoever answers does not hold the key"))
    }

    fn lost(&self, error: &reqwest::Error) -> Fault {
        // Another process may listen there tomorrow.
        self.0.is_proven.store(false, Relaxed);
        if error.is_connect() {
            return Fault::unavailable("The FastMCP service", error);
        }
        tracing::warn!(cause = %error, "the connection to the FastMCP service broke");
        failure::broken()
    }
}

/// One MCP client that the service keeps for us.
#[derive(Debug)]
pub(super) struct Remote {
    service: Service,
    // `"client_id":"..","specification":{..}`: the beginning of every request, token included.
    preamble: Secret<String>,
    client_id: String,
    /// Whether other workers may use the same client: nothing in a program's id is this worker's.
    pub(super) is_shared: bool,
    /// The version of the protocol that was agreed upon.
    pub(super) version: String,
}

impl Remote {
    fn new(service: Service, specification: &Specification, digest: &[u8; 32]) -> Self {
        use sha2::{Digest as _, Sha256};
        let proxy = service.0.proxy.as_ref().map(|proxy| proxy.reveal().as_str());
        let mut hash = Sha256::new_with_prefix(digest);
        hash.update(proxy.unwrap_or_default());
        let client_id = hex(&hash.finalize());
        // `via` is part of the digest, so a forced client is not the one that asked for it.
        let auth = match &specification.credential {
            Credential::None | Credential::Header { .. } => json!({ "type": "none" }),
            Credential::Bearer(token) => json!({ "type": "bearer", "token": token.reveal() }),
        };
        let transport = specification.transport.name();
        let mut described = match &specification.target {
            Target::Endpoint(url) => json!({ "transport": transport, "url": url.as_str(), "auth": auth }),
            Target::Program { catalogue, workspace, is_kept } => {
                json!({ "transport": transport, "catalogue": catalogue, "workspace": workspace, "kept": is_kept })
            }
        };
        if let Credential::Header { name, value } = &specification.credential {
            described["headers"] = json!({ name.as_str(): value.reveal() });
        }
        if let Some(proxy) = proxy {
            described["proxy"] = proxy.into();
        }
        let preamble = Secret::new(format!(r#"{{"client_id":"{client_id}","specification":{described}"#));
        let is_shared = specification.target.endpoint().is_none();
        Self { service, preamble, client_id, is_shared, version: String::new() }
    }

    /// A request's body: the preamble, the time that is left, and the rest of the object's inside.
    fn body(&self, patience: Duration, rest: &[&[u8]]) -> Vec<u8> {
        // The service takes 1 to 600,000 ms.
        let timeout = format!(r#","timeout_ms":{}"#, patience.as_millis().clamp(1, 600_000));
        let preamble = self.preamble.reveal().as_bytes();
        let size_bytes = preamble.len() + timeout.len() + rest.iter().map(|part| part.len()).sum::<usize>() + 1;
        let mut body = Vec::with_capacity(size_bytes);
        body.extend_from_slice(preamble);
        body.extend_from_slice(timeout.as_bytes());
        for part in rest {
            body.extend_from_slice(part);
        }
        body.push(b'}');
        body
    }

    /// The service carries no header parameters: it learns them from the server's list itself.
    pub(super) async fn call(&self, request: &CallRequest<'_>) -> Result<Raw, Fault> {
        within(request.deadline, async {
            let tool = serde_json::to_vec(request.tool).map_err(Fault::internal)?;
            let arguments = request.arguments.bytes();
            let stream: &[u8] = if request.progress.is_some() { br#","stream":true"# } else { b"" };
            let holder = request.holder.map(|holder| format!(r#","holder":"{holder}""#)).unwrap_or_default();
            let rest: [&[u8]; 6] = [br#","tool":"#, &tool, br#","arguments":"#, arguments, stream, holder.as_bytes()];
            let body = self.body(request.deadline.remaining(), &rest);
            let response = self.service.post("/mcp/call_tool", body, request.request_id).await?;
            match request.progress {
                Some(progress) => answer::framed(response, progress).await,
                None => answer::result(&answer::whole(response).await?),
            }
        })
        .await
    }

    pub(super) async fn list_tools(&self, deadline: Deadline, request_id: &str) -> Result<Vec<Raw>, Fault> {
        within(deadline, async {
            let body = self.body(deadline.remaining(), &[]);
            let response = self.service.post("/mcp/list_tools", body, request_id).await?;
            let page: Bytes = answer::whole(response).await?;
            let mut listing = Listing::default();
            listing.take(&page)?;
            Ok(listing.finish(false))
        })
        .await
    }

    /// Has the service let go of it, unless others may use it: the service lets go of those by itself.
    pub(super) async fn close(&self) {
        if !self.is_shared {
            self.end().await;
        }
    }

    /// Has the service let go of it, whoever may use it.
    pub(super) async fn end(&self) {
        goodbye(self.service.clone(), &self.client_id).await;
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        if self.is_shared {
            return;
        }
        // Without a runtime the process is ending; the service lets go of idle clients by itself.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (service, client_id) = (self.service.clone(), std::mem::take(&mut self.client_id));
            runtime.spawn(async move { goodbye(service, &client_id).await });
        }
    }
}

async fn goodbye(service: Service, client_id: &str) {
    let body = format!(r#"{{"client_id":"{client_id}"}}"#).into_bytes();
    let sent = tokio::time::timeout(COURTESY, service.post("/mcp/disconnect", body, "-")).await;
    if !matches!(sent, Ok(Ok(_))) {
        tracing::debug!("a client of the FastMCP service was not disconnected");
    }
}
