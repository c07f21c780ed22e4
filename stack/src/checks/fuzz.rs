//! The API fuzzed by its own document: schemathesis sends what the document allows and what it
//! forbids, and looks whether every answer is one that the document names.
//!
//! Against a system of its own, because it deletes, pauses and removes whatever it finds there.

use std::ffi::OsString;

use anyhow::{Context as _, Result};

use super::Verdict;
use crate::options::Options;
use crate::places::Places;
use crate::progress::Progress;
use crate::running::Stack;
use crate::scratch::Scratch;

/// The same requests in every run, so that a failure can be repeated.
const SEED: &str = "20261126";
/// For each kind of token, in seconds.
const SECONDS: &str = "20";
const SECONDS_IN_FULL: &str = "200";

/// Fuzzes as a user, as an admin of another organization, and at last as an operator, who may pause both.
///
/// # Errors
/// When the system does not start.
pub(super) fn run(places: &Places, full: bool) -> Result<Verdict> {
    let scratch = Scratch::new()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let stack = Stack::start(Options::test(scratch.path())).await?;
        let verdict = everybody(places, &stack, &scratch, full).await;
        stack.stop().await;
        verdict
    })
}

async fn everybody(places: &Places, stack: &Stack, scratch: &Scratch, full: bool) -> Result<Verdict> {
    let seeded = stack.seeded().context("nothing is seeded")?;
    let actors = [
        ("user", &seeded.acme.user_token),
        ("admin", &seeded.globex.admin_token),
        ("operator", &seeded.operator_token),
    ];
    let mut failed = Vec::new();
    for (actor, token) in actors {
        Progress::Lines.line(&format!("\n-- with the token of a platform's {actor}"));
        let mut fuzzer = tokio::process::Command::new(places.tool("schemathesis"));
        fuzzer
            .arg("--config-file")
            .arg(places.root().join("e2e/fuzz/schemathesis.toml"))
            .args(["run", &format!("{}/openapi.json", stack.url()), "--no-color", "--seed", SEED])
            .args(["--max-time", if full { SECONDS_IN_FULL } else { SECONDS }])
            .env("FUZZ_TOKEN", token)
            .env("PYTHONPATH", places.root().join("e2e/fuzz"))
            // Bytecode is nothing for the repository.
            .env("PYTHONDONTWRITEBYTECODE", OsString::from("1"))
            // What it keeps, it keeps where the system keeps its data.
            .current_dir(scratch.path());
        let status = fuzzer.status().await.context("schemathesis cannot be run")?;
        if !status.success() {
            failed.push(actor);
        }
    }
    Ok(if failed.is_empty() { Verdict::Passed } else { Verdict::Failed(format!("as {}", failed.join(", "))) })
}
