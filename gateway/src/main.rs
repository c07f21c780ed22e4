//! The HTTP gateway.

use clap::Parser;

/// Many small allocations on several threads, and large results now and then, whose memory goes back to
/// the system (docs/performance.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Switchboard's HTTP gateway. Configuration comes from the environment; see docs/configuration.md.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // One TLS implementation for all crates; whoever asks second finds it installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Arguments::parse();
    gateway::start::run().await
}
