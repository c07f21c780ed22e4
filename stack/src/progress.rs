//! One line per step with the time it took, for the person who waits. Tests and the bench stay quiet.

use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::Result;

/// Whether steps are shown, and nothing else: what failed is in the error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Nothing is printed.
    Quiet,
    /// One line per finished step on standard error.
    Lines,
}

impl Progress {
    /// Runs a step and says how long it took.
    ///
    /// # Errors
    /// Those of the step.
    pub async fn step<T>(self, what: &str, step: impl Future<Output = Result<T>>) -> Result<T> {
        let began = Instant::now();
        let outcome = step.await;
        self.finished(what, began.elapsed(), outcome.is_ok());
        outcome
    }

    /// As [`Progress::step`], for work that blocks.
    ///
    /// # Errors
    /// Those of the step.
    pub fn blocking<T>(self, what: &str, step: impl FnOnce() -> Result<T>) -> Result<T> {
        let began = Instant::now();
        let outcome = step();
        self.finished(what, began.elapsed(), outcome.is_ok());
        outcome
    }

    /// Prints a line as it is.
    pub fn line(self, text: &str) {
        if self == Self::Lines {
            let _ = writeln!(std::io::stderr().lock(), "{text}");
        }
    }

    fn finished(self, what: &str, took: Duration, ok: bool) {
        let verdict = if ok { "ok" } else { "FAILED" };
        self.line(&format!("  {what:<34} {verdict:<6} {:>7.2} s", took.as_secs_f64()));
    }
}
