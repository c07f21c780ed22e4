//! The one way out to any address that a tenant supplied. A tenant may register any address as an
//! MCP server, so every request to one is an attempt to reach what only we can reach. The guard
//! stands in three places, each sufficient against the attacks it can see:
//!
//! 1. [`Egress::check`] judges a URL as it is written, when it is registered and before each use;
//! 2. the door inside [`Egress::send`], and the gate inside [`Egress::client`], judge it again for
//!    every connection, so that a caller who forgot to ask, or a library that follows a link, gets
//!    no further;
//! 3. the resolver behind each judges addresses, and those judged are those connected to.
//!
//! The `FastMCP` service, which is another process, goes through [`proxy`] and so through the same.

mod client;
mod config;
mod names;
pub mod proxy;
mod ranges;
pub mod reach;
mod refused;
mod sender;
#[cfg(test)]
mod tests;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Response};
use hyper::body::Incoming;
use url::{Host, Url};

pub use client::{BodyError, read_capped};
pub use config::EgressConfig;
pub use names::{Names, SystemNames};
pub use refused::{Refused, refusal_in};
pub use sender::{Destination, SendError};

use config::{Rules, normal_name};

/// Any error, as libraries hand it over.
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How long a name may take to resolve.
const RESOLVE_LIMIT: Duration = Duration::from_secs(5);

/// The guard and the pooled clients behind it. Clones share both.
#[derive(Clone, Debug)]
pub struct Egress {
    guard: Guard,
    sender: sender::Sender,
    client: reqwest::Client,
    unredirected: reqwest::Client,
}

/// The rules with the resolver: all that judging needs.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    rules: Arc<Rules>,
    names: Arc<dyn Names>,
    allow_http: bool,
}

impl Egress {
    /// The guard with the operating system's resolver. Fails where a list does not parse or the
    /// machine has no root certificates.
    pub fn new(config: &EgressConfig) -> anyhow::Result<Self> {
        Self::with_names(config, Arc::new(SystemNames))
    }

    /// The guard with another resolver.
    pub fn with_names(config: &EgressConfig, names: Arc<dyn Names>) -> anyhow::Result<Self> {
        let rules = Arc::new(Rules::parse(config)?);
        let guard = Guard { rules, names, allow_http: config.allow_http };
        let client = client::guarded(&guard, client::same_origin())?;
        let unredirected = client::guarded(&guard, reqwest::redirect::Policy::none())?;
        let sender = sender::Sender::new(&guard)?;
        Ok(Self { guard, sender, client, unredirected })
    }

    /// Judges a URL as it is written; no name is resolved.
    pub fn check(&self, url: &Url) -> Result<(), Refused> {
        self.guard.check(url)
    }

    /// Sends a request to a tenant's address: pooled, guarded, without cookies, without a time limit
    /// (the caller's deadline is the limit). Follows at most 3 redirects, by 307 and 308 (RFC 9110
    /// sections 15.4.8 and 15.4.9) to the same origin.
    pub async fn send(
        &self,
        to: &Destination,
        method: Method,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response<Incoming>, SendError> {
        self.sender.send(to, method, headers, body).await
    }

    /// The same as a client of reqwest, for libraries that ask for one.
    pub fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// The same, but a redirect is an answer like another.
    pub fn unredirected(&self) -> &reqwest::Client {
        &self.unredirected
    }

    /// The addresses of a host (a name, an IPv4 address, an IPv6 address in brackets) that may be
    /// connected to on this port. Forbidden ones are left out; none left is a refusal. Whoever
    /// connects must connect to these and not resolve again.
    pub async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Refused> {
        let host = Host::parse(host).map_err(|_| Refused::Host)?;
        let addresses = match self.guard.judge(&host, port)? {
            Written::Address(address) => vec![address],
            Written::Name(name) => self.guard.addresses(&name).await?,
        };
        Ok(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect())
    }
}

/// A host that passed as written.
enum Written {
    Address(IpAddr),
    Name(String),
}

impl Guard {
    pub(crate) fn check(&self, url: &Url) -> Result<(), Refused> {
        match url.scheme() {
            "https" => {}
            "http" if self.allow_http => {}
            _ => return Err(Refused::Scheme),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refused::UserInfo);
        }
        let host = url.host().ok_or(Refused::Host)?;
        let port = url.port_or_known_default().ok_or(Refused::Port)?;
        self.judge(&host, port).map(drop)
    }

    fn judge<S: AsRef<str>>(&self, host: &Host<S>, port: u16) -> Result<Written, Refused> {
        match host {
            Host::Ipv4(address) => self.judge_address((*address).into(), port),
            Host::Ipv6(address) => self.judge_address(address.to_canonical(), port),
            Host::Domain(name) => self.judge_name(name.as_ref(), port),
        }
    }

    fn judge_address(&self, address: IpAddr, port: u16) -> Result<Written, Refused> {
        if self.rules.denies(address) || self.rules.is_own(address, port) {
            return Err(Refused::Denied);
        }
        if self.rules.opens_port(address, port) {
            return Ok(Written::Address(address));
        }
        if ranges::is_metadata(address) {
            return Err(Refused::Metadata);
        }
        if !ranges::is_public(address) && !self.rules.opens(address) {
            return Err(Refused::Address);
        }
        self.judge_port(port)?;
        Ok(Written::Address(address))
    }

    fn judge_name(&self, name: &str, port: u16) -> Result<Written, Refused> {
        let name = normal_name(name).ok_or(Refused::Host)?;
        if self.rules.denies_name(&name) {
            return Err(Refused::Denied);
        }
        let mut ports = self.rules.ports_of(&name).peekable();
        if ports.peek().is_some() {
            // A listed name may lead to private addresses, so that no other port of it is open.
            return if ports.any(|open| open == port) { Ok(Written::Name(name.clone())) } else { Err(Refused::Port) };
        }
        drop(ports);
        if ranges::is_metadata_name(&name) {
            return Err(Refused::Metadata);
        }
        if ranges::is_private_name(&name) {
            return Err(Refused::PrivateName);
        }
        self.judge_port(port)?;
        Ok(Written::Name(name))
    }

    fn judge_port(&self, port: u16) -> Result<(), Refused> {
        if ranges::is_open_port(port, self.allow_http) { Ok(()) } else { Err(Refused::Port) }
    }

    /// The addresses of a name that may be connected to. It needs no port: a listed name has been
    /// held to its ports by [`Self::judge_name`], and for any other name an entry with a port
    /// counts for nothing, so that `127.0.0.1:9001` opens no other port of 127.0.0.1 to a name
    /// that resolves there.
    pub(crate) async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, Refused> {
        let name = normal_name(name).ok_or(Refused::Host)?;
        let found = match tokio::time::timeout(RESOLVE_LIMIT, self.names.look_up(&name)).await {
            Ok(Ok(found)) if !found.is_empty() => found,
            _ => return Err(Refused::Unresolved),
        };
        let listed = self.rules.ports_of(&name).next().is_some();
        let open: Vec<IpAddr> = found
            .into_iter()
            .map(|address| address.to_canonical())
            .filter(|address| self.connects(*address, listed))
            .collect();
        if open.is_empty() { Err(Refused::Address) } else { Ok(open) }
    }

    fn connects(&self, address: IpAddr, listed: bool) -> bool {
        !self.rules.denies(address)
            && !ranges::is_metadata(address)
            && (listed || ranges::is_public(address) || self.rules.opens(address))
    }
}
