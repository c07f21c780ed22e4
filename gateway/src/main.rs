//! The HTTP gateway.

use clap::Parser;

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
