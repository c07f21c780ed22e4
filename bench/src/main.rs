//! What a tool call costs, beside what it would cost without us.
//!
//! One run interleaves all targets (A B C A B C ..), because on a machine that others use too only figures taken within
//! the same minute compare. The floors and the load generator are subcommands of this same binary: processes of their
//! own, so that each one's CPU time and memory are the kernel's figures, not our estimates.

mod arguments;
mod floors;
mod gate;
mod load;
mod measure;
mod plan;
mod processes;
mod prompts;
mod report;
mod results;
mod run;
mod shape;
mod targets;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

use crate::arguments::{Arguments, Part};

fn main() -> ExitCode {
    let Arguments { run, part } = Arguments::parse();
    // Fails only when one is installed already, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let outcome = match part {
        None => run::run(&run),
        Some(Part::Load) => load::process::run().map(|()| true),
        Some(Part::Proxy { upstream }) => floors::proxy::run(upstream).map(|()| true),
        Some(Part::DurableGateway { nats }) => floors::durable::gateway(&nats).map(|()| true),
        Some(Part::DurableWorker { nats, upstream }) => floors::durable::worker(&nats, upstream).map(|()| true),
        Some(Part::SkeletonGateway { nats }) => floors::skeleton::gateway(&nats).map(|()| true),
        Some(Part::SkeletonWorker { nats, upstream }) => floors::skeleton::worker(&nats, upstream).map(|()| true),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr().lock(), "bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
