//! The command line: what a person asks of a run, and the parts that a run starts of its own binary.

use std::net::SocketAddr;
use std::time::Duration;

use crate::targets::Target;

/// Measures a tool call through Switchboard, its floors and FastMCP's own proxy, interleaved.
#[derive(clap::Parser)]
#[command(name = "cargo dev bench", bin_name = "cargo dev bench", args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) run: Run,
    #[command(subcommand)]
    pub(crate) part: Option<Part>,
}

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Run {
    /// Length of one measurement
    #[arg(long, default_value_t = 3.0, value_parser = seconds)]
    seconds: f64,
    /// How often the fast targets are measured; the figures are medians
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=25))]
    pub(crate) rounds: u8,
    /// Concurrent callers
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64, 256], value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) callers: Vec<u16>,
    /// What to measure
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = Target::ALL)]
    pub(crate) targets: Vec<Target>,
    /// Processes per worker pool
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=32))]
    pub(crate) workers: u8,
    /// Fail when a figure misses its gate
    #[arg(long)]
    pub(crate) gate: bool,
}

impl Run {
    /// Length of one measurement.
    pub(crate) fn window(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.2..=600.0).contains(&seconds) { Ok(seconds) } else { Err("use 0.2 to 600".to_owned()) }
}

/// A part of a run, in a process of its own.
#[derive(clap::Subcommand)]
pub(crate) enum Part {
    /// Calls one target, as ordered on standard input
    #[command(hide = true)]
    Load,
    /// The HTTP floor
    #[command(hide = true)]
    Proxy {
        #[arg(long)]
        upstream: SocketAddr,
    },
    /// The HTTP side of the skeleton
    #[command(hide = true)]
    SkeletonGateway {
        #[arg(long)]
        nats: String,
    },
    /// The HTTP side of the durable skeleton
    #[command(hide = true)]
    DurableGateway {
        #[arg(long)]
        nats: String,
    },
    /// The upstream side of the durable skeleton
    #[command(hide = true)]
    DurableWorker {
        #[arg(long)]
        nats: String,
        #[arg(long)]
        upstream: SocketAddr,
    },
    /// The upstream side of the skeleton
    #[command(hide = true)]
    SkeletonWorker {
        #[arg(long)]
        nats: String,
        #[arg(long)]
        upstream: SocketAddr,
    },
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_measures_everything_by_default() {
        Arguments::command().debug_assert();
        let arguments = Arguments::try_parse_from(["bench"]).unwrap();
        assert_eq!(arguments.run.targets, Target::ALL);
        assert_eq!(arguments.run.callers, [1, 16, 64, 256]);
        assert!(arguments.part.is_none());
    }

    #[test]
    fn a_measurement_of_no_length_is_refused() {
        for text in ["0", "-1", "NaN", "inf", "soon"] {
            assert!(Arguments::try_parse_from(["bench", "--seconds", text]).is_err(), "{text}");
        }
    }
}
