//! What the kernel says of processes: CPU time and memory, from `/proc`.

use std::time::Duration;

use anyhow::{Context as _, Result};

/// `USER_HZ`: the unit of `/proc/<pid>/stat`, the same on every architecture of Linux that matters here.
const TICKS_PER_SECOND: f64 = 100.0;

/// A process that is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    /// For people.
    pub(crate) name: String,
    pub(crate) pid: u32,
    /// Its children come and go and belong to it, as the backends of PostgreSQL do.
    pub(crate) with_children: bool,
}

impl Process {
    pub(crate) fn new(name: &str, pid: u32) -> Self {
        Self { name: name.to_owned(), pid, with_children: false }
    }

    /// CPU time since its start, user and system.
    ///
    /// # Errors
    /// When it is gone: a figure without it would be wrong.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        let stat = Stat::read(self.pid).with_context(|| format!("{} is gone", self.name))?;
        let mut ticks = stat.own;
        if self.with_children {
            ticks +=
                stat.reaped + all().iter().filter(|stat| stat.parent == self.pid).map(|stat| stat.own).sum::<f64>();
        }
        Ok(ticks / TICKS_PER_SECOND)
    }

    /// Proportional set size: what is shared with others counts by its share (`smaps_rollup`). 0 when it is gone.
    pub(crate) fn pss_bytes(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid)).unwrap_or_default();
        let kilobytes =
            text.lines().find_map(|line| line.strip_prefix("Pss:")?.split_whitespace().next()?.parse().ok());
        kilobytes.unwrap_or(0_u64) * 1_024
    }
}

/// CPU seconds of each process.
///
/// # Errors
/// When one is gone.
pub(crate) fn cpu_seconds(processes: &[Process]) -> Result<Vec<f64>> {
    processes.iter().map(Process::cpu_seconds).collect()
}

/// Memory of all together, in megabytes (10^6 bytes).
pub(crate) fn pss_megabytes(processes: &[Process]) -> f64 {
    let bytes: u64 = processes.iter().map(Process::pss_bytes).sum();
    f64::from(u32::try_from(bytes / 1_000).unwrap_or(u32::MAX)) / 1e3
}

/// Waits until the processes hardly run any more, so that what calls leave behind is counted for them and not for the
/// next target. Gives up after a limit: idle processes tick too.
pub(crate) async fn settle(processes: &[Process]) -> Result<()> {
    const LOOK: Duration = Duration::from_millis(200);
    const IDLE_SHARE: f64 = 0.1;
    const LOOKS: u32 = 50;
    let mut before: f64 = cpu_seconds(processes)?.iter().sum();
    for _ in 0..LOOKS {
        tokio::time::sleep(LOOK).await;
        let now: f64 = cpu_seconds(processes)?.iter().sum();
        if now - before <= IDLE_SHARE * LOOK.as_secs_f64() + f64::EPSILON {
            return Ok(());
        }
        before = now;
    }
    Ok(())
}

/// Those of the processes that run a program with these words, in this order, among its arguments.
pub(crate) fn with_arguments(pids: &[u32], program: &str, words: &[&str]) -> Vec<u32> {
    let matches = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        let mut parts = line.split('\0');
        let name = parts.next().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
        let parts: Vec<&str> = parts.collect();
        name == program && (words.is_empty() || parts.windows(words.len()).any(|window| window == words))
    };
    pids.iter().copied().filter(matches).collect()
}

/// Every process's id.
pub(crate) fn pids() -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

fn all() -> Vec<Stat> {
    pids().into_iter().filter_map(Stat::read).collect()
}

/// `/proc/<pid>/stat` (`proc_pid_stat(5)`), in ticks.
struct Stat {
    parent: u32,
    /// User and system time of the process.
    own: f64,
    /// The same of children that ended and were waited for.
    reaped: f64,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The command's name is in parentheses and may hold spaces and parentheses itself.
        let fields: Vec<&str> = text.rsplit_once(") ")?.1.split_whitespace().collect();
        let ticks = |field: usize| fields.get(field - 3)?.parse::<f64>().ok();
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            own: ticks(14)? + ticks(15)?,
            reaped: ticks(16)? + ticks(17)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_cpu_time_and_memory_and_is_found_by_its_name() {
        let own = Process::new("test", std::process::id());
        let before = own.cpu_seconds().unwrap();
        let mut sum = 0_u64;
        while own.cpu_seconds().unwrap() - before < 0.03 {
            sum = (0..1_000_u64).fold(sum, u64::wrapping_add);
        }
        assert!(own.pss_bytes() > 100_000 && own.pss_bytes() < 10_000_000_000);
        let program = std::env::current_exe().unwrap();
        let name = program.file_name().unwrap().to_str().unwrap();
        assert!(with_arguments(&pids(), name, &[]).contains(&own.pid));
        assert!(!with_arguments(&[own.pid], name, &["--no-such-word"]).contains(&own.pid));
    }

    #[test]
    fn a_process_that_is_gone_has_no_figure() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let gone = Process::new("gone", child.id());
        child.wait().unwrap();
        assert!(gone.cpu_seconds().is_err());
        assert_eq!(gone.pss_bytes(), 0);
    }
}
