//! Upstream clients against real servers: scripted ones that speak exact bytes, rmcp's own, and
//! the real `FastMCP` service.

mod cancelling;
mod faults;
mod handshake;
mod modern;
mod programs;
mod real;
mod server;
mod service;
mod sharing;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use shared::{
    Deadline, Fault,
    command::configurations::{Credential, Transport, Via},
    id::{ConfigurationId, OrganizationId},
    json::Raw,
    secret::Secret,
};
use url::Url;

use super::{CallRequest, Client, Specification, Target, Upstreams};
use crate::egress::{Egress, EgressConfig};

/// Longer than anything here takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn raw(json: &str) -> Raw {
    Raw::parse(Bytes::copy_from_slice(json.as_bytes())).unwrap()
}

/// A guard that lets exactly these servers through.
fn egress_to(urls: &[&Url]) -> Egress {
    let allow = urls.iter().map(|url| format!("127.0.0.1:{}", url.port().unwrap())).collect();
    Egress::new(&EgressConfig { allow, allow_http: true, ..EgressConfig::default() }).unwrap()
}

fn native_to(urls: &[&Url]) -> Upstreams {
    Upstreams::new(egress_to(urls), None, None, None)
}

fn specification(endpoint: &Url) -> Specification {
    Specification {
        organization: OrganizationId::new(),
        configuration: ConfigurationId::new(),
        generation: 1,
        session: None,
        target: Target::Endpoint(endpoint.clone()),
        transport: Transport::Http,
        via: Via::Native,
        credential: Credential::None,
    }
}

fn bearer(token: &str) -> Credential {
    Credential::Bearer(Secret::new(token.to_owned()))
}

fn request<'a>(tool: &'a str, arguments: &'a Raw) -> CallRequest<'a> {
    CallRequest {
        tool,
        arguments,
        header_parameters: &[],
        deadline: Deadline::after(PATIENCE),
        request_id: "test",
        holder: None,
        progress: None,
    }
}

async fn open(url: &Url) -> Arc<Client> {
    native_to(&[url]).client(&specification(url)).await.unwrap()
}

async fn call(client: &Arc<Client>, tool: &str, arguments: &str) -> Result<Raw, Fault> {
    client.call(request(tool, &raw(arguments))).await
}

fn text(raw: &Raw) -> &str {
    std::str::from_utf8(raw.bytes()).unwrap()
}
