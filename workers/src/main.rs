//! One pool of workers per process: `workers --pool tool`.

use clap::{Parser, ValueEnum};
use shared::command::Pool;

/// Runs one pool of Switchboard's workers. Configuration comes from the environment; see
/// docs/configuration.md.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Which pool this process works for.
    #[arg(long, value_enum, env = "WORKER_POOL")]
    pool: Choice,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Choice {
    Session,
    Token,
    Tool,
    Audit,
    Controller,
}

impl From<Choice> for Pool {
    fn from(choice: Choice) -> Self {
        match choice {
            Choice::Session => Self::Session,
            Choice::Token => Self::Token,
            Choice::Tool => Self::Tool,
            Choice::Audit => Self::Audit,
            Choice::Controller => Self::Controller,
        }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // One TLS implementation for all crates; whoever asks second finds it installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    workers::start::run(Arguments::parse().pool.into()).await
}
