//! One pool of workers per process: `workers --pool tool`. And what an operator does to keys:
//! `workers rotate-keys`.

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use shared::command::Pool;
use workers::rotation::command::{self, RotateKeys};

/// Many small allocations on several threads, and large results now and then, whose memory goes back to
/// the system (docs/performance.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Runs one pool of Switchboard's workers. Configuration comes from the environment; see
/// docs/configuration.md.
#[derive(Debug, Parser)]
#[command(version, subcommand_negates_reqs = true)]
struct Arguments {
    /// Which pool this process works for.
    #[arg(long, value_enum, env = "WORKER_POOL", required = true)]
    pool: Option<Choice>,
    #[command(subcommand)]
    instead: Option<Instead>,
}

#[derive(Debug, Subcommand)]
enum Instead {
    RotateKeys(RotateKeys),
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
async fn main() -> anyhow::Result<ExitCode> {
    // One TLS implementation for all crates; whoever asks second finds it installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match Arguments::parse() {
        Arguments { instead: Some(Instead::RotateKeys(arguments)), .. } => command::run(&arguments).await,
        // A task, since what is awaited here itself runs on a thread of its own, which every message would wake.
        Arguments { pool: Some(pool), .. } => {
            tokio::spawn(workers::start::run(pool.into())).await?.map(|()| ExitCode::SUCCESS)
        }
        // The parser asks for one of the two.
        Arguments { .. } => Ok(ExitCode::FAILURE),
    }
}
