//! `demo --port N [--bearer TOKEN] [--legacy-only]`: the native demo MCP server on its own.

use std::{
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
};

use anyhow::Context as _;
use clap::Parser;
use stack::demo::{self, Options};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

/// A demo MCP server on 127.0.0.1: streamable HTTP at /mcp, counters at /control/stats.
#[derive(Parser)]
#[command(name = "demo")]
struct Arguments {
    /// Port to listen on; 0 takes a free one, which the first line of output names.
    #[arg(long)]
    port: u16,
    /// Token that callers must send. The environment keeps it out of the process list.
    #[arg(long, env = "DEMO_BEARER", hide_env_values = true)]
    bearer: Option<String>,
    /// Answer as a server that knows no protocol newer than 2025-11-25.
    #[arg(long)]
    legacy_only: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, arguments.port));
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    let endpoint = demo::endpoint(listener.local_addr()?);
    let shutdown = CancellationToken::new();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stop.cancel();
    });
    writeln!(std::io::stdout(), "listening on {endpoint}")?;
    let options = Options { bearer: arguments.bearer, legacy_only: arguments.legacy_only };
    demo::serve(listener, options, shutdown).await
}
