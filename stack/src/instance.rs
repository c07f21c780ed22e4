//! One stack per data folder: the supervisor holds a lock on `pid`, which says who it is.
//!
//! A lock ends with its holder however that dies, so that a number left behind in the file never points at a stranger.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const POLL: Duration = Duration::from_millis(50);
/// Longer than an orderly stop may take.
const STOP_LIMIT: Duration = Duration::from_secs(150);

/// Held while this process is the supervisor of a data folder.
#[derive(Debug)]
pub(crate) struct Instance {
    _lock: File,
}

impl Instance {
    /// Becomes the supervisor, or says who is: `Err` holds the other's process id when it is known.
    pub(crate) fn claim(file: &Path) -> Result<Result<Self, Option<i32>>> {
        let mut lock = open(file)?;
        if lock.try_lock().is_err() {
            return Ok(Err(read(&mut lock)));
        }
        lock.set_len(0)?;
        lock.rewind()?;
        writeln!(lock, "{}", std::process::id())?;
        lock.flush()?;
        Ok(Ok(Self { _lock: lock }))
    }

    /// Asks the supervisor of a data folder to stop and waits until it has. False when none runs.
    #[expect(clippy::disallowed_methods, reason = "the command `down` has no runtime and nothing else to do")]
    pub(crate) fn stop(file: &Path) -> Result<bool> {
        if !file.exists() {
            return Ok(false);
        }
        let mut lock = open(file)?;
        let deadline = Instant::now() + STOP_LIMIT;
        let mut asked = false;
        while lock.try_lock().is_err() {
            if Instant::now() > deadline {
                bail!("the stack does not stop; its processes are named in the logs");
            }
            // The number may be a moment behind the lock.
            if !asked && let Some(pid) = read(&mut lock) {
                kill(Pid::from_raw(pid), Signal::SIGTERM).context("the running stack cannot be signalled")?;
                asked = true;
            }
            std::thread::sleep(POLL);
        }
        Ok(asked)
    }
}

fn open(file: &Path) -> Result<File> {
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(file);
    opened.with_context(|| format!("{} cannot be opened", file.display()))
}

fn read(file: &mut File) -> Option<i32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok().filter(|pid| *pid > 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn a_second_claim_learns_who_holds_the_first_and_succeeds_once_it_is_dropped() {
        let scratch = Scratch::new().unwrap();
        let file = scratch.path().join("pid");
        let first = Instance::claim(&file).unwrap().unwrap();
        let other = Instance::claim(&file).unwrap().unwrap_err();
        assert_eq!(other, i32::try_from(std::process::id()).ok());
        drop(first);
        assert!(Instance::claim(&file).unwrap().is_ok());
    }

    #[test]
    fn a_number_left_behind_is_not_signalled() {
        let scratch = Scratch::new().unwrap();
        let file = scratch.path().join("pid");
        // Our own number: a signal would end this test.
        std::fs::write(&file, std::process::id().to_string()).unwrap();
        assert!(!Instance::stop(&file).unwrap());
        assert!(!Instance::stop(&scratch.path().join("none")).unwrap());
    }
}
