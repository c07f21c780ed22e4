//! The table, in Markdown so that it can be kept as it is.

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::Result;

use crate::arguments::Run;
use crate::gate::Gate;
use crate::measure::Sample;
use crate::plan::{Level, levels};
use crate::results::{Results, cpu};
use crate::targets::Target;

/// Prints everything on standard output.
pub(crate) fn print(run: &Run, results: &Results, gates: &[Gate]) -> Result<()> {
    let mut text = heading(run);
    for level in levels(run) {
        block(&mut text, run, results, level);
    }
    shares(&mut text, run, results);
    text.push_str("\n| figure | measured | gate | goal | |\n|---|---|---|---|---|\n");
    for gate in gates {
        let _ = writeln!(text, "{gate}");
    }
    Ok(std::io::stdout().lock().write_all(text.as_bytes())?)
}

fn heading(run: &Run) -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let mut text = String::new();
    if cfg!(debug_assertions) {
        text.push_str("**debug build: figures mean nothing**\n\n");
    }
    let (seconds, rounds, workers) = (run.window().as_secs_f64(), run.rounds, run.workers);
    let _ = writeln!(
        text,
        "{cores} cores, load {}; {rounds} rounds of {seconds} s, interleaved; {workers} process(es) per worker pool.",
        load_average()
    );
    text
}

/// Of the last minute, the run itself included.
fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

fn block(text: &mut String, run: &Run, results: &Results, level: Level) {
    let rows: String = Target::ALL
        .into_iter()
        .filter(|target| run.targets.contains(target))
        .filter_map(|target| row(results, level, target))
        .collect();
    let _ = write!(
        text,
        "\n| {} | calls/s | % direct | p50 ms | p95 ms | p99 ms | CPU s/1k | PSS MB | errors |\n\
         |---|---|---|---|---|---|---|---|---|\n{rows}",
        level.title()
    );
    for target in &run.targets {
        if let (_, Some(error)) = results.errors(level, *target) {
            let _ = writeln!(text, "\nFirst error of {}: {error}", target.title());
        }
    }
}

fn row(results: &Results, level: Level, target: Target) -> Option<String> {
    let median = |figure: fn(&Sample) -> f64| results.median(level, target, figure);
    let rate = |sample: &Sample| sample.figures.calls_per_s;
    let share = results.ratio(level, target, Target::Direct, rate);
    Some(format!(
        "| {} | {:.0} | {} | {:.2} | {:.2} | {:.2} | {:.3} | {:.0} | {} |\n",
        target.title(),
        median(rate)?,
        share.map_or("-".to_owned(), |share| format!("{:.1}", share * 100.0)),
        median(|sample| sample.figures.p50_ms)?,
        median(|sample| sample.figures.p95_ms)?,
        median(|sample| sample.figures.p99_ms)?,
        median(cpu)?,
        results.largest(level, target, |sample| sample.peak_pss_mb)?,
        results.errors(level, target).0,
    ))
}

/// Where the CPU time goes.
fn shares(text: &mut String, run: &Run, results: &Results) {
    text.push_str("\nCPU seconds per 1,000 calls by process (PostgreSQL is not in the tables):\n\n");
    for callers in [1, 64] {
        for target in [Target::Skeleton, Target::Durable, Target::Native, Target::Fastmcp] {
            let parts = results.by_process(Level::echo(callers), target);
            if run.targets.contains(&target) && !parts.is_empty() {
                let parts: Vec<_> = parts.iter().map(|(name, spent)| format!("{name} {spent:.3}")).collect();
                let _ = writeln!(text, "- {}, {}: {}", target.title(), Level::echo(callers).title(), parts.join(", "));
            }
        }
    }
}
