//! `cargo dev`: the whole system on this machine. Each command is documented by `--help`.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use stack::{checks, cli, watchdog};

/// Runs, tests and measures Switchboard on this machine.
#[derive(Parser)]
#[command(name = "cargo dev", bin_name = "cargo dev")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Set everything up and run it until Ctrl-C
    Up(cli::Up),
    /// Stop what `up` started, and wait for it
    Down {
        /// Folder of the stack, when not .dev
        #[arg(long)]
        data_dir: Option<PathBuf>,
    },
    /// Show who is alive and how full each organization's lane is
    Status {
        /// Folder of the stack, when not .dev
        #[arg(long)]
        data_dir: Option<PathBuf>,
    },
    /// Set everything up and run every test
    Test {
        /// Run every count in full
        #[arg(long)]
        full: bool,
    },
    /// Only fuzz the API by its own document, on a system that is built
    Fuzz {
        /// Ten times as long
        #[arg(long)]
        full: bool,
    },
    /// Print an access token
    Token(cli::Token),
    /// Measure, in a release build
    #[command(disable_help_flag = true)]
    Bench {
        /// What the bench is told
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Only set up: the locked environment and the console
    Setup,
    /// Write the generated files of nats/ from the code
    Topology,
    /// Stop a stack's children once its supervisor is gone
    #[command(hide = true)]
    Watchdog {
        #[arg(long)]
        stack: String,
        #[arg(long)]
        lock: PathBuf,
    },
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Up(asked) => cli::up(&asked),
        Command::Down { data_dir } => cli::down(data_dir.as_deref()),
        Command::Status { data_dir } => cli::status(data_dir.as_deref()),
        Command::Test { full } => checks::run(full),
        Command::Fuzz { full } => checks::fuzz(full),
        Command::Token(asked) => cli::token(&asked),
        Command::Bench { arguments } => cli::bench(&arguments),
        Command::Setup => cli::setup(),
        Command::Topology => cli::topology(),
        Command::Watchdog { stack, lock } => watchdog::run(&stack, &lock),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr().lock(), "cargo dev: {error:#}");
            ExitCode::FAILURE
        }
    }
}
