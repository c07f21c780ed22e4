//! `cargo dev test`: every check of the repository, with a table at the end. They run one after the other, but for the
//! Python tests, which keep one core busy: fuzzing and lints run beside them.
//!
//! A stage that fails does not stop the others, except where they stand on it: without the set-up or the build there is
//! nothing to test.

mod fuzz;

use std::io::Write as _;
use std::panic::resume_unwind;
use std::process::{Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::cli::{cargo, setup};
use crate::options::Options;
use crate::places::Places;
use crate::progress::Progress;
use crate::running::Stack;
use crate::scratch::Scratch;
use crate::{everything, web};

/// What the browser test answers when the machine has no browser.
const NO_BROWSER: i32 = 3;

const FUZZING: &str = "the API by its document";

/// End-to-end tests in which it makes no difference which client asks the server.
const CLIENTLESS: [&str; 11] = [
    "answers::",
    "promises",
    "permissions::",
    "rotation::",
    "pooler::",
    "supabase::",
    "openapi::",
    "prompts::",
    "sessions::",
    "files::",
    "workspaces::",
];

enum Verdict {
    Passed,
    Failed(String),
    NotRun(String),
}

/// A stage's name, and what it does.
type Check<'a> = (&'static str, &'a (dyn Fn() -> Result<Verdict> + Sync));

struct Stage {
    name: &'static str,
    verdict: Verdict,
    took: Duration,
}

/// Runs all stages and prints the table; the last line is `N passed, N failed, N skipped`.
///
/// # Errors
/// When a stage failed.
pub fn run(full: bool) -> Result<()> {
    let began = Instant::now();
    let places = Places::find()?;
    let groups: [&[Check<'_>]; 8] = [
        &[("set-up", &|| {
            setup()?;
            everything::ensure(&places, Progress::Lines).map(|_| Verdict::Passed)
        })],
        &[("build", &|| call(cargo(&places).args(["build", "--workspace", "--bins", "--tests"])))],
        &[("Rust tests", &|| call(with_counts(cargo(&places).args(["test", "--workspace"]), full)))],
        &[("end to end through FastMCP", &|| {
            let mut again = cargo(&places);
            again.args(["test", "--workspace", "--test", "e2e", "--"]);
            again.args(CLIENTLESS.iter().flat_map(|module| ["--skip", module]));
            again.env("SWITCHBOARD_FORCE_FASTMCP", "1");
            call(with_counts(&mut again, full))
        })],
        &[
            (FUZZING, &|| fuzz::run(&places, full)),
            ("Rust style", &|| rust_style(&places)),
            ("Python tests", &|| call_beside(with_counts(python(&places).args(["-m", "pytest", "-q"]), full))),
        ],
        &[("Python style", &|| {
            let mut ruff = Command::new(places.tool("ruff"));
            call(ruff.args(["check", ".", "../e2e/fuzz"]).current_dir(places.root().join("fastmcp")))
        })],
        &[("console types and unit tests", &|| call(with_counts(console(&places)?.arg("test"), full)))],
        &[("console in a browser", &|| browser(&places, full))],
    ];
    let mut stages: Vec<Stage> = Vec::new();
    for group in groups {
        // Set-up and build.
        let ground = &stages[..stages.len().min(2)];
        if ground.iter().any(|stage| matches!(stage.verdict, Verdict::Failed(_))) {
            let not_run = || Verdict::NotRun("there is nothing to test".to_owned());
            stages.extend(group.iter().map(|(name, _)| Stage { name, verdict: not_run(), took: Duration::ZERO }));
        } else {
            stages.extend(side_by_side(group));
        }
    }
    report(&stages, began.elapsed())
}

/// Runs stages at the same time.
fn side_by_side(checks: &[Check<'_>]) -> Vec<Stage> {
    thread::scope(|scope| {
        let running: Vec<_> = checks.iter().map(|check| scope.spawn(move || stage(*check))).collect();
        running.into_iter().map(|stage| stage.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    })
}

/// Runs the fuzzing stage alone.
///
/// # Errors
/// When it failed.
pub fn fuzz(full: bool) -> Result<()> {
    let places = Places::find()?;
    let stage = stage((FUZZING, &|| fuzz::run(&places, full)));
    let took = stage.took;
    report(&[stage], took)
}

fn stage((name, run): Check<'_>) -> Stage {
    Progress::Lines.line(&format!("\n== {name}"));
    let began = Instant::now();
    let verdict = run().unwrap_or_else(|error| Verdict::Failed(format!("{error:#}")));
    if let Verdict::Failed(why) | Verdict::NotRun(why) = &verdict {
        Progress::Lines.line(&format!("{name}: {why}"));
    }
    Stage { name, verdict, took: began.elapsed() }
}

fn report(stages: &[Stage], took: Duration) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out)?;
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for Stage { name, verdict, took } in stages {
        let (count, words) = match verdict {
            Verdict::Passed => (&mut passed, "passed".to_owned()),
            Verdict::Failed(why) => (&mut failed, format!("FAILED: {}", first_line(why))),
            Verdict::NotRun(why) => (&mut skipped, format!("not run: {}", first_line(why))),
        };
        *count += 1;
        writeln!(out, "{name:<30} {:>8.1} s  {words}", took.as_secs_f64())?;
    }
    writeln!(out, "{:<30} {:>8.1} s\n", "all", took.as_secs_f64())?;
    writeln!(out, "{passed} passed, {failed} failed, {skipped} skipped")?;
    if failed > 0 {
        bail!("some stages failed; each one's own words stand above the table");
    }
    Ok(())
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// Runs a command whose output the reader sees.
fn call(command: &mut Command) -> Result<Verdict> {
    let name = command.get_program().to_string_lossy().into_owned();
    Ok(of_status(command.status().with_context(|| format!("{name} cannot be run"))?))
}

fn of_status(status: ExitStatus) -> Verdict {
    if status.success() { Verdict::Passed } else { Verdict::Failed(format!("ended with {status}")) }
}

/// The same beside another command: its output is shown in one piece, once it has ended.
fn call_beside(command: &mut Command) -> Result<Verdict> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("{name} cannot be run"))?;
    std::io::stdout().lock().write_all(&output.stdout)?;
    std::io::stderr().lock().write_all(&output.stderr)?;
    Ok(of_status(output.status))
}

/// Tells tests whether to run every count in full.
fn with_counts(command: &mut Command, full: bool) -> &mut Command {
    if full { command.env("SWITCHBOARD_FULL", "1") } else { command.env_remove("SWITCHBOARD_FULL") }
}

/// Formatting and lints, where the toolchain has them.
fn rust_style(places: &Places) -> Result<Verdict> {
    // Denied lints fail. The others are shown: a newer toolchain may know some that this code has not met.
    let clippy = ["clippy", "--workspace", "--all-targets", "--quiet"];
    for (tool, arguments) in [("fmt", &["fmt", "--all", "--check"][..]), ("clippy", &clippy)] {
        let present = cargo(places).args([tool, "--version"]).output().is_ok_and(|output| output.status.success());
        if !present {
            return Ok(Verdict::NotRun(format!("the toolchain has no cargo {tool}")));
        }
        let verdict = call(cargo(places).args(arguments))?;
        if !matches!(verdict, Verdict::Passed) {
            return Ok(verdict);
        }
    }
    Ok(Verdict::Passed)
}

fn python(places: &Places) -> Command {
    let mut command = Command::new(places.tool("python"));
    command.current_dir(places.root().join("fastmcp"));
    command
}

fn console(places: &Places) -> Result<Command> {
    anyhow::ensure!(places.root().join("web/package.json").is_file(), "web/ holds no console");
    Ok(web::npm(places))
}

/// The console's browser test against a system of its own.
fn browser(places: &Places, full: bool) -> Result<Verdict> {
    let mut command = console(places)?;
    with_counts(command.args(["run", "test:browser"]), full);
    let scratch = Scratch::new()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let stack = Stack::start(Options::test(scratch.path())).await?;
        for (key, value) in crate::dev_env::entries(&stack)? {
            command.env(key, value);
        }
        let status = tokio::process::Command::from(command).status().await;
        stack.stop().await;
        let status = status.context("npm cannot be run")?;
        Ok(match status.code() {
            Some(0) => Verdict::Passed,
            Some(NO_BROWSER) => Verdict::NotRun("no chromium".to_owned()),
            _ => Verdict::Failed(format!("ended with {status}")),
        })
    })
}
