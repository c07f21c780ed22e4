//! The process that outlives a killed supervisor just long enough to stop its children.
//!
//! The supervisor tells it each child over a pipe. When the supervisor dies in whatever way, the kernel closes the pipe,
//! and the watchdog stops what is still recorded. That needs no parent-death signal, so it works on macOS as on Linux,
//! and for test binaries as for `cargo dev up`. It holds a lock while it lives: the next start waits for that lock
//! instead of meeting half-stopped children.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use crate::processes::{is_alive, signal_group, tagged};

/// How long children get to stop by themselves.
const GRACE: Duration = Duration::from_secs(5);
/// `PostgreSQL` writes a checkpoint when it stops; killing it would cost a recovery at the next start.
const GRACE_OF_INTERRUPTED: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

/// A line from the supervisor to its watchdog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notice {
    /// A child that leads a process group, and the signal that stops it.
    Started { pid: i32, stop: Signal },
    /// A child that was waited for.
    Ended { pid: i32 },
}

impl Notice {
    pub(crate) fn line(self) -> String {
        match self {
            Self::Started { pid, stop } => format!("started {pid} {stop}\n"),
            Self::Ended { pid } => format!("ended {pid}\n"),
        }
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        match (words.next()?, words.next()?.parse().ok()?, words.next()) {
            ("started", pid, Some(stop)) => Some(Self::Started { pid, stop: stop.parse().ok()? }),
            ("ended", pid, None) => Some(Self::Ended { pid }),
            _ => None,
        }
    }
}

/// Reads notices from standard input until it ends, then stops what is left.
///
/// # Errors
/// When the lock cannot be taken.
pub fn run(stack: &str, lock: &Path) -> Result<()> {
    let held = File::create(lock).context("the watchdog's lock cannot be opened")?;
    held.lock().context("the watchdog's lock cannot be taken")?;
    let mut children = BTreeMap::new();
    for line in BufReader::new(std::io::stdin().lock()).lines() {
        let Ok(line) = line else { break };
        match Notice::parse(&line) {
            Some(Notice::Started { pid, stop }) => drop(children.insert(pid, stop)),
            Some(Notice::Ended { pid }) => drop(children.remove(&pid)),
            None => {}
        }
    }
    stop_all(children, stack);
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a process of its own, without a runtime")]
fn stop_all(mut children: BTreeMap<i32, Signal>, stack: &str) {
    // A child started in the last instant may not have been announced; its mark gives it away.
    for pid in tagged(stack) {
        children.entry(pid).or_insert(Signal::SIGTERM);
    }
    for (pid, stop) in &children {
        signal_group(*pid, *stop);
        // A frozen process sees its signal only once it runs again.
        signal_group(*pid, Signal::SIGCONT);
    }
    let began = Instant::now();
    while !children.is_empty() {
        children.retain(|pid, stop| {
            let grace = if *stop == Signal::SIGINT { GRACE_OF_INTERRUPTED } else { GRACE };
            if is_alive(*pid) && began.elapsed() < grace {
                return true;
            }
            // Also after a clean end: members of its group may be left.
            signal_group(*pid, Signal::SIGKILL);
            false
        });
        sleep(POLL);
    }
    for pid in tagged(stack) {
        signal_group(pid, Signal::SIGKILL);
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// Waits until the watchdog of an earlier run has finished.
///
/// # Errors
/// When it does not within [`GRACE_OF_INTERRUPTED`] and some.
pub(crate) async fn finished(lock: &Path) -> Result<()> {
    let held = File::create(lock).context("the watchdog's lock cannot be opened")?;
    let deadline = Instant::now() + GRACE_OF_INTERRUPTED + GRACE;
    while held.try_lock().is_err() {
        anyhow::ensure!(Instant::now() < deadline, "an earlier stack in the same folder does not stop");
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_survives_the_pipe_and_a_broken_line_is_no_notice() {
        let started = Notice::Started { pid: 71, stop: Signal::SIGINT };
        for notice in [started, Notice::Ended { pid: 71 }] {
            assert_eq!(Notice::parse(notice.line().trim_end()), Some(notice));
        }
        for broken in ["", "started", "started x SIGINT", "started 1", "started 1 LOUD", "ended 1 2"] {
            assert_eq!(Notice::parse(broken), None, "{broken}");
        }
    }
}
