//! A run from start to end: bring up, measure cell by cell, stop, print.

use std::io::Write as _;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use stack::Progress;
use stack::environment;
use stack::places::Places;

use crate::arguments::Run;
use crate::gate;
use crate::measure::measure;
use crate::plan::{self, Cell};
use crate::report;
use crate::results::Results;
use crate::targets::Targets;

/// Runs; true unless a gate was to be kept and was missed.
///
/// # Errors
/// What could not be started or measured.
pub(crate) fn run(run: &Run) -> Result<bool> {
    if run.gate && cfg!(debug_assertions) {
        bail!("--gate needs a release build: use `cargo dev bench --gate`");
    }
    if !cfg!(target_os = "linux") {
        bail!("CPU time and memory are read from /proc: the bench needs Linux");
    }
    let places = Places::find()?;
    environment::ensure(&places, Progress::Lines)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let results = runtime.block_on(with_targets(&places, run))?;
    let gates = gate::gates(&results);
    report::print(run, &results, &gates)?;
    let missed = gates.iter().filter(|gate| !gate.passes()).count();
    if run.gate && missed > 0 {
        say(&format!("{missed} of {} figures missed their gate", gates.len()));
    }
    Ok(!run.gate || missed == 0)
}

async fn with_targets(places: &Places, run: &Run) -> Result<Results> {
    let targets = tokio::select! {
        targets = Box::pin(Targets::start(places, &run.targets, run.workers)) => targets?,
        _ = tokio::signal::ctrl_c() => bail!("stopped"),
    };
    let results = tokio::select! {
        results = cells(&targets, run) => results,
        death = targets.death() => Err(anyhow::anyhow!("{death}")),
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("stopped")),
    };
    targets.stop().await;
    results
}

async fn cells(targets: &Targets, run: &Run) -> Result<Results> {
    let cells = plan::cells(run);
    let (began, mut results) = (Instant::now(), Results::default());
    say(&format!("{} measurements, about {:.0} s", cells.len(), plan::expected(run, &cells).as_secs_f64()));
    for (index, cell) in cells.iter().enumerate() {
        let Cell { target, level, round } = *cell;
        let sample = measure(targets, target, level, run.window())
            .await
            .with_context(|| format!("{}, {}", target.title(), level.title()))?;
        let figures = &sample.figures;
        say(&format!(
            "{:>4.0} s  {:>3}/{} round {}  {:<26} {:<30} {:>7.0} calls/s  p50 {:>8.2} ms{}",
            began.elapsed().as_secs_f64(),
            index + 1,
            cells.len(),
            round + 1,
            level.title(),
            target.title(),
            figures.calls_per_s,
            figures.p50_ms,
            if figures.errors > 0 { format!("  {} ERRORS", figures.errors) } else { String::new() }
        ));
        results.add(*cell, sample);
    }
    if let Some(prompts) = targets.prompts().await.context("composing prompts")? {
        say(&format!(
            "prompts: {:.3} ms from what is kept, {:.2} ms from PostgreSQL",
            prompts.kept_ms, prompts.read_ms
        ));
        results.set_prompts(prompts);
    }
    Ok(results)
}

/// One line for the person who waits.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
