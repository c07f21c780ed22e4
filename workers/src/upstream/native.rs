//! The worker's own MCP client for streamable HTTP. rmcp negotiates the era once; after that a call
//! is one POST of raw JSON over a pooled connection, because nothing that is parsed, copied or
//! handshaken per call comes for free (facts: a handshake per call halves throughput).

mod era;
mod exchange;
mod message;
mod probe;
mod sse;

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::HeaderValue;
use shared::{Fault, command::configurations::Credential, json::Raw};
use tokio::sync::Mutex;
use url::Url;

pub(super) use self::era::Failed;
use self::{
    era::Link,
    exchange::{Exchange, Failure, MAX_RESULT_BYTES, METHOD, NAME},
};
use super::{CallRequest, failure, listing::Listing, parameters, within};
use crate::egress::{Destination, Egress};

/// A server that was found, and how to find it again.
pub(super) struct Native {
    egress: Egress,
    endpoint: Destination,
    credential: Credential,
    link: ArcSwap<Link>,
    // One at a time looks for a server that has changed; the others wait and use what it found.
    renewing: Mutex<()>,
}

impl std::fmt::Debug for Native {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Native").field("link", &self.link).finish_non_exhaustive()
    }
}

impl Native {
    /// Finds the server: guard, era, version, session.
    pub(super) async fn connect(egress: &Egress, endpoint: &Url, credential: &Credential) -> Result<Self, Failed> {
        egress.check(endpoint).map_err(Fault::from)?;
        let destination = Destination::of(endpoint).map_err(Fault::from)?;
        let link = Link::open(egress, endpoint, credential).await?;
        Ok(Self {
            egress: egress.clone(),
            endpoint: destination,
            credential: credential.clone(),
            link: ArcSwap::from_pointee(link),
            renewing: Mutex::new(()),
        })
    }

    pub(super) async fn call(&self, request: &CallRequest<'_>) -> Result<Raw, Fault> {
        within(request.deadline, async {
            let link = self.link.load_full();
            let result = match self.call_on(&link, request).await {
                Err(Failure::Stranger(_)) => {
                    let link = Box::pin(self.renewed(&link, request.request_id)).await?;
                    self.call_on(&link, request).await
                }
                outcome => outcome,
            };
            result_object(result.map_err(Failure::into_fault)?)
        })
        .await
    }

    async fn call_on(&self, link: &Arc<Link>, request: &CallRequest<'_>) -> Result<Bytes, Failure> {
        let id = link.next_id();
        let arguments = request.arguments.bytes();
        let body = message::call(id, request.tool, arguments, &link.meta, request.progress.is_some());
        let mut headers = link.call_headers.clone();
        if link.is_modern {
            headers.insert(NAME, parameters::encoded(request.tool));
            parameters::insert(&mut headers, request.arguments, request.header_parameters);
        }
        self.on(link, request.request_id, MAX_RESULT_BYTES).ask(id, headers, body, request.progress).await
    }

    /// The version of the protocol that was agreed upon, and when the server first answered.
    pub(super) fn met(&self) -> (String, Option<std::time::Instant>) {
        let link = self.link.load();
        (link.version.to_string(), link.answered_at)
    }

    /// `is_whole`: with the tools that cannot be called.
    pub(super) async fn list_tools(
        &self,
        deadline: shared::Deadline,
        request_id: &str,
        is_whole: bool,
    ) -> Result<Vec<Raw>, Fault> {
        within(deadline, async {
            let link = self.link.load_full();
            let (listing, link) = match self.list_on(&link, request_id).await {
                Err(Failure::Stranger(_)) => {
                    let link = Box::pin(self.renewed(&link, request_id)).await?;
                    (self.list_on(&link, request_id).await, link)
                }
                outcome => (outcome, link),
            };
            Ok(listing.map_err(Failure::into_fault)?.finish(link.is_modern && !is_whole))
        })
        .await
    }

    async fn list_on(&self, link: &Arc<Link>, request_id: &str) -> Result<Listing, Failure> {
        let mut listing = Listing::default();
        let mut cursor: Option<String> = None;
        loop {
            let id = link.next_id();
            let body = message::list(id, cursor.as_deref(), &link.meta);
            let mut headers = link.headers.clone();
            if link.is_modern {
                headers.insert(METHOD, HeaderValue::from_static("tools/list"));
            }
            let page = match self.on(link, request_id, listing.room_bytes()).ask(id, headers, body, None).await {
                // A server without tools need not know the method.
                Err(Failure::Fault { code: Some(failure::METHOD_NOT_FOUND), .. }) => return Ok(Listing::default()),
                page => page?,
            };
            match listing.take(&page)? {
                Some(next) => cursor = Some(next.to_owned()),
                None => return Ok(listing),
            }
        }
    }

    fn on<'a>(&'a self, link: &'a Arc<Link>, request_id: &'a str, max_bytes: usize) -> Exchange<'a> {
        Exchange { egress: &self.egress, endpoint: &self.endpoint, link, request_id, max_bytes }
    }

    /// A link newer than the one that proved stale.
    async fn renewed(&self, stale: &Arc<Link>, request_id: &str) -> Result<Arc<Link>, Fault> {
        let _turn = self.renewing.lock().await;
        let current = self.link.load_full();
        if !Arc::ptr_eq(&current, stale) {
            return Ok(current);
        }
        tracing::info!(request_id, "the upstream does not know us any more, connecting anew");
        let opened = Link::open(&self.egress, self.endpoint.url(), &self.credential).await;
        let fresh = Arc::new(opened.map_err(|failed| failed.fault)?);
        self.link.store(Arc::clone(&fresh));
        Ok(fresh)
    }

    pub(super) async fn close(&self) {
        self.link.load_full().close().await;
    }
}

fn result_object(result: Bytes) -> Result<Raw, Fault> {
    let result = Raw::parse(result).map_err(|_| failure::garbage("nests too deep"))?;
    if result.is_object() { Ok(result) } else { Err(failure::garbage("is not MCP")) }
}
