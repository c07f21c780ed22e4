//! Further upstreams of the tests, beside those of the stack: real demo servers in this process that
//! ask for a token or know only the handshake era, whose counters no other test moves; an open
//! address where nobody listens; and an open one that is a bait.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use serde_json::Value;
use tokio::net::TcpListener;

/// What the protected server asks for.
pub(crate) const BEARER: &str = "t0k3n-of-the-protected-server";

/// Where they are. Every address here is open to the egress guard.
#[derive(Debug)]
pub(crate) struct Servers {
    /// Asks for [`BEARER`].
    pub(crate) protected_url: String,
    /// Knows nothing of 2026-07-28.
    pub(crate) legacy_url: String,
    /// For the one test that counts connections.
    pub(crate) counted_url: String,
    /// For the one test that counts what refused calls did: nothing.
    pub(crate) witness_url: String,
    /// Nobody listens.
    pub(crate) closed_url: String,
    /// Whoever connects here was led astray.
    pub(crate) bait: Trap,
    addresses: Vec<SocketAddr>,
}

impl Servers {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let mut addresses = Vec::new();
        let mut demo = async |bearer: Option<&str>, legacy_only: bool| {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let address = listener.local_addr()?;
            let options = stack::demo::Options { bearer: bearer.map(str::to_owned), legacy_only };
            // Never cancelled: the server ends with the tests' runtime.
            #[expect(clippy::default_trait_access, reason = "the token's crate is no dependency of the tests")]
            tokio::spawn(stack::demo::serve(listener, options, Default::default()));
            addresses.push(address);
            anyhow::Ok(stack::demo::endpoint(address))
        };
        let protected_url = demo(Some(BEARER), false).await?;
        let legacy_url = demo(None, true).await?;
        let counted_url = demo(None, false).await?;
        let witness_url = demo(None, false).await?;
        let closed = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
        let bait = Trap::at("127.0.0.1:0").await?;
        addresses.extend([closed, bait.address]);
        Ok(Self {
            protected_url,
            legacy_url,
            counted_url,
            witness_url,
            closed_url: format!("http://{closed}/mcp"),
            bait,
            addresses,
        })
    }

    /// All of them, for the allow-list.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

/// What a demo server counted (`/control/stats`).
pub(crate) async fn stats(http: &reqwest::Client, endpoint: &str) -> Value {
    let url = endpoint.replace("/mcp", "/control/stats");
    http.get(url).send().await.expect("the demo answers").json().await.expect("statistics")
}

/// A listener that counts who comes, and sends them away.
#[derive(Debug)]
pub(crate) struct Trap {
    pub(crate) address: SocketAddr,
    caught: Arc<AtomicUsize>,
}

impl Trap {
    pub(crate) async fn at(address: &str) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let trap = Self { address: listener.local_addr()?, caught: Arc::default() };
        let caught = Arc::clone(&trap.caught);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                caught.fetch_add(1, SeqCst);
                drop(stream);
            }
        });
        Ok(trap)
    }

    /// Connections so far.
    pub(crate) fn caught(&self) -> usize {
        self.caught.load(SeqCst)
    }
}
