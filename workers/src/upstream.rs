//! The MCP servers that tenants registered, as clients kept open: one per organization,
//! configuration, generation and credential, so that a call costs one request and nothing of one
//! tenant's connection can be reached from another's call.

mod failure;
pub mod fastmcp;
mod listing;
mod meters;
mod native;
mod parameters;
mod specification;
#[cfg(test)]
mod tests;
mod trying;

use std::{
    future::ready,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{FutureExt, future::Either};
use moka::{future::Cache, policy::EvictionPolicy};
use shared::{
    Deadline, Fault,
    command::configurations::{Transport, Via},
    id::{ConfigurationId, OrganizationId, SessionId},
    json::Raw,
    secret::Secret,
};
use tokio_util::task::TaskTracker;

pub(crate) use self::failure::printable;
use self::{fastmcp::Service, meters::Meters, native::Native};
pub use self::{
    fastmcp::{
        FastMcpConfig,
        workspace::{Collected, Known, Most, Turn, Workspaces},
    },
    parameters::{BadAnnotation, HeaderParameter},
    specification::{Specification, Target},
    trying::{Opened, Unopened},
};
use crate::egress::Egress;

/// How long a client that nobody uses is kept.
const IDLE: Duration = Duration::from_mins(10);
/// The most clients that are kept; the least recently used go first.
const MAX_CLIENTS: u64 = 4_096;
/// How often expired clients are looked for, so that an idle worker lets go of them too.
const SWEEP: Duration = Duration::from_secs(30);

/// What a client is found by. Organization, configuration, generation and session stand beside the
/// digest so that [`Upstreams::forget`] and [`Upstreams::end_session`] find what they are to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    organization: OrganizationId,
    configuration: ConfigurationId,
    generation: i64,
    session: Option<SessionId>,
    digest: [u8; 32],
}

/// One call of a tool.
#[derive(Clone, Copy)]
pub struct CallRequest<'a> {
    /// The tool's name as the server knows it.
    pub tool: &'a str,
    /// A JSON object; sent byte for byte.
    pub arguments: &'a Raw,
    /// The arguments that travel as headers too, from the tool's pinned schema
    /// ([`HeaderParameter::in_schema`]).
    pub header_parameters: &'a [HeaderParameter],
    /// When the caller stops waiting.
    pub deadline: Deadline,
    /// For the log.
    pub request_id: &'a str,
    /// Names the turn at the workspace, where it is a session's.
    pub holder: Option<&'a str>,
    /// Is handed `{"progress", "total"?, "message"?}` as the server wrote it. Must not block.
    pub progress: Option<&'a (dyn Fn(Raw) + Send + Sync)>,
}

impl std::fmt::Debug for CallRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CallRequest")
            .field("tool", &self.tool)
            .field("request_id", &self.request_id)
            .finish_non_exhaustive()
    }
}

/// An open client. Dropping the last handle closes it; a program that other workers may use goes on.
#[derive(Debug)]
pub struct Client {
    kind: Kind,
    // The calls that run: a client that is put out ends after them.
    calls: TaskTracker,
    meters: Meters,
}

#[derive(Debug)]
enum Kind {
    Native(Box<Native>),
    FastMcp(fastmcp::Remote),
}

impl Client {
    fn of(kind: Kind) -> Self {
        let meters = Meters::of(match kind {
            Kind::Native(_) => "native",
            Kind::FastMcp(_) => "fastmcp",
        });
        Self { kind, calls: TaskTracker::new(), meters }
    }

    /// Calls a tool; the answer is the raw `result` object, byte for byte. A result with
    /// `isError` is a result. Dropping the future cancels the call on the server. The call is
    /// never sent twice, except where the server refused it unread.
    pub async fn call(&self, request: CallRequest<'_>) -> Result<Raw, Fault> {
        let (_running, started) = (self.calls.token(), Instant::now());
        let ended = match &self.kind {
            Kind::Native(native) => native.call(&request).await,
            Kind::FastMcp(remote) => remote.call(&request).await,
        };
        self.meters.count(started, &ended);
        ended
    }

    /// Every tool's definition as the server wrote it, all pages: at most 64 pages, 10,000 tools
    /// and 8 MiB.
    pub async fn list_tools(&self, deadline: Deadline, request_id: &str) -> Result<Vec<Raw>, Fault> {
        self.list(deadline, request_id, false).await
    }

    /// The same with the tools that cannot be called, for telling somebody why.
    pub async fn list_everything(&self, deadline: Deadline, request_id: &str) -> Result<Vec<Raw>, Fault> {
        self.list(deadline, request_id, true).await
    }

    async fn list(&self, deadline: Deadline, request_id: &str, everything: bool) -> Result<Vec<Raw>, Fault> {
        let (_running, started) = (self.calls.token(), Instant::now());
        let ended = match &self.kind {
            Kind::Native(native) => native.list_tools(deadline, request_id, everything).await,
            Kind::FastMcp(remote) => remote.list_tools(deadline, request_id).await,
        };
        self.meters.count(started, &ended);
        ended
    }

    /// Closes once nobody uses it any more.
    async fn retire(self: Arc<Self>) {
        self.unused().await;
        self.close().await;
    }

    /// The same of what is outdated: it ends for other workers too.
    async fn end(self: Arc<Self>) {
        self.unused().await;
        match &self.kind {
            Kind::Native(native) => native.close().await,
            Kind::FastMcp(remote) => remote.end().await,
        }
    }

    async fn unused(&self) {
        self.calls.close();
        self.calls.wait().await;
    }

    async fn close(&self) {
        match &self.kind {
            Kind::Native(native) => native.close().await,
            Kind::FastMcp(remote) => remote.close().await,
        }
    }
}

/// The open clients of this process. Clones share them.
#[derive(Clone, Debug)]
pub struct Upstreams(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    egress: Egress,
    fastmcp: Option<Service>,
    stdio: Option<Service>,
    open: Cache<Key, Arc<Client>>,
}

impl Upstreams {
    /// No client is open yet. `proxy_url` is the filtering proxy that the `FastMCP` service must
    /// use, credentials included; `stdio` is the service that runs programs. Must be called within
    /// a tokio runtime.
    pub fn new(
        egress: Egress,
        fastmcp: Option<FastMcpConfig>,
        proxy_url: Option<Secret<String>>,
        stdio: Option<FastMcpConfig>,
    ) -> Self {
        let fastmcp = fastmcp.map(|config| Service::new(config, proxy_url));
        // Programs have no network, so no proxy either.
        let stdio = stdio.map(|config| Service::new(config, None));
        Self::bounded(egress, fastmcp, stdio, IDLE, MAX_CLIENTS)
    }

    fn bounded(
        egress: Egress,
        fastmcp: Option<Service>,
        stdio: Option<Service>,
        idle: Duration,
        max_clients: u64,
    ) -> Self {
        // Least recently used, so that the newest is always taken in: it is about to be used.
        let open = Cache::builder()
            .max_capacity(max_clients)
            .eviction_policy(EvictionPolicy::lru())
            .time_to_idle(idle)
            .eviction_listener(|_, client: Arc<Client>, cause| {
                // The cache drops what it evicts when it likes; a session should end now.
                if cause.was_evicted() {
                    tokio::spawn(client.retire());
                }
            })
            .build();
        let inner = Arc::new(Inner { egress, fastmcp, stdio, open });
        let weak = Arc::downgrade(&inner);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(SWEEP.min(idle)).await;
                let Some(inner) = weak.upgrade() else { return };
                inner.open.run_pending_tasks().await;
            }
        });
        Self(inner)
    }

    /// The open client for this specification, opened now if there is none. Concurrent first
    /// uses open one. Bounded in time by itself: two attempts of 8 seconds.
    pub async fn client(&self, specification: &Specification) -> Result<Arc<Client>, Fault> {
        let digest = specification.digest();
        let Specification { organization, configuration, generation, session, .. } = *specification;
        let key = Key { organization, configuration, generation, session, digest };
        if let Some(client) = self.0.open.get(&key).await {
            return Ok(client);
        }
        let opening = Box::pin(async {
            let opened = self.0.open(specification, &digest).await;
            let outcome = if opened.is_ok() { "ok" } else { "failed" };
            metrics::counter!("switchboard_upstream_connects_total", "outcome" => outcome).increment(1);
            opened.map(|kind| Arc::new(Client::of(kind)))
        });
        // Boxed: a future that almost no call needs, larger than all that it needs.
        let opened = Box::pin(self.0.open.try_get_with(key, opening)).await;
        opened.map_err(|fault: Arc<Fault>| Arc::unwrap_or_clone(fault))
    }

    /// The same for a caller that stops waiting at the deadline.
    pub async fn client_within(&self, specification: &Specification, deadline: Deadline) -> Result<Arc<Client>, Fault> {
        within(deadline, self.client(specification)).await
    }

    /// Lets go of a configuration's clients of generations before this one: nobody finds them any
    /// more, and each is closed, on the server too, once its running calls ended.
    pub async fn forget(&self, organization: OrganizationId, configuration: ConfigurationId, generation: i64) {
        let outdated = |key: &Key| {
            key.organization == organization && key.configuration == configuration && key.generation < generation
        };
        for client in self.take(outdated).await {
            tokio::spawn(client.end());
        }
    }

    /// Lets go of a session's clients: each is closed, on the server too, once its running calls ended.
    pub async fn end_session(&self, organization: OrganizationId, session: SessionId) {
        let theirs = |key: &Key| key.organization == organization && key.session == Some(session);
        for client in self.take(theirs).await {
            tokio::spawn(client.end());
        }
    }

    /// The host of programs, where there is one, as the keeper of workspaces.
    pub fn workspaces(&self) -> Option<Workspaces> {
        self.0.stdio.clone().map(Workspaces::of)
    }

    /// The guard that everything here passes.
    pub fn egress(&self) -> &Egress {
        &self.0.egress
    }

    /// Closes everything, before the process ends.
    pub async fn close_all(&self) {
        let clients = self.take(|_| true).await;
        futures::future::join_all(clients.iter().map(|client| client.close())).await;
    }

    async fn take(&self, is_meant: impl Fn(&Key) -> bool) -> Vec<Arc<Client>> {
        let keys: Vec<Arc<Key>> = self.0.open.iter().map(|(key, _)| key).filter(|key| is_meant(key)).collect();
        let taking = keys.iter().map(|key| self.0.open.remove(key.as_ref()));
        futures::future::join_all(taking).await.into_iter().flatten().collect()
    }
}

impl Inner {
    async fn open(&self, specification: &Specification, digest: &[u8; 32]) -> Result<Kind, Fault> {
        let service = self.service(specification)?;
        match (service, specification.target.endpoint()) {
            (None, Some(endpoint)) => {
                let native = Native::connect(&self.egress, endpoint, &specification.credential).await;
                native.map(|native| Kind::Native(Box::new(native))).map_err(|failed| failed.fault)
            }
            (Some(service), endpoint) => {
                // The service's proxy judges every connection; this says why before a secret leaves us.
                if let Some(endpoint) = endpoint {
                    self.egress.check(endpoint)?;
                    if let (Some(host), Some(port)) = (endpoint.host_str(), endpoint.port_or_known_default()) {
                        self.egress.resolve(host, port).await?;
                    }
                }
                service.connect(specification, digest).await.map(Kind::FastMcp)
            }
            (None, None) => Err(Fault::internal("a program has no other way than its service")),
        }
    }

    /// The `FastMCP` service, where it speaks to this server.
    fn service(&self, specification: &Specification) -> Result<Option<&Service>, Fault> {
        if specification.target.endpoint().is_none() {
            let message = "Transport `stdio` is not offered here any more.";
            return self.stdio.as_ref().map(Some).ok_or_else(|| Fault::invalid("transport", message));
        }
        let wants_service = specification.transport == Transport::Sse || specification.via == Via::Fastmcp;
        match &self.fastmcp {
            Some(service) if wants_service || service.is_forced() => Ok(Some(service)),
            None if wants_service => {
                let message = "This deployment runs no FastMCP service, which this configuration needs.";
                Err(Fault::invalid("via", message))
            }
            _ => Ok(None),
        }
    }
}

/// Works until the deadline; past it the work is dropped, which cancels it.
///
/// Not an `async fn`: that would hold the work twice, as it came and as it is awaited.
fn within<T>(
    deadline: Deadline,
    work: impl Future<Output = Result<T, Fault>>,
) -> impl Future<Output = Result<T, Fault>> {
    if deadline.has_passed() {
        return Either::Left(ready(Err(failure::late())));
    }
    let worked = tokio::time::timeout(deadline.remaining(), work);
    Either::Right(worked.map(|ended| ended.unwrap_or_else(|_| Err(failure::late()))))
}
