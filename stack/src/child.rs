//! One child process: what to run, under which name, and how it is stopped.

use std::ffi::OsString;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use tokio::process::Command;

use crate::processes::MARK;
use crate::readiness::Ready;

/// Variables a child may see of the environment this was started in. Everything else a child needs is given to it, so
/// that a developer's own `DATABASE_URL` or proxy does not reach into the stack.
const PASSED_ON: [&str; 9] =
    ["PATH", "HOME", "USER", "LANG", "TMPDIR", "RUST_LOG", "RUST_BACKTRACE", "LLVM_PROFILE_FILE", "TZ"];

/// The order of stopping: what calls goes before what is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Layer {
    Gateway,
    Workers,
    FastMcp,
    Demo,
    Nats,
    Postgres,
}

impl Layer {
    pub(crate) const ALL: [Self; 6] =
        [Self::Gateway, Self::Workers, Self::FastMcp, Self::Demo, Self::Nats, Self::Postgres];

    /// The signal that asks for an orderly end. `PostgreSQL` takes `SIGTERM` as "when the last client has left".
    pub(crate) fn stop_signal(self) -> Signal {
        if self == Self::Postgres { Signal::SIGINT } else { Signal::SIGTERM }
    }
}

/// What to run. `Debug` shows neither arguments' nor variables' values: they hold secrets.
#[derive(Clone)]
pub(crate) struct Spec {
    pub(crate) name: String,
    pub(crate) layer: Layer,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) environment: Vec<(String, OsString)>,
    pub(crate) directory: PathBuf,
    /// User and group to run as, when not this process's own.
    pub(crate) identity: Option<(u32, u32)>,
    pub(crate) ready: Ready,
}

impl fmt::Debug for Spec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Spec").field("name", &self.name).field("program", &self.program).finish_non_exhaustive()
    }
}

impl Spec {
    pub(crate) fn new(name: &str, layer: Layer, program: impl Into<PathBuf>, directory: &Path) -> Self {
        Self {
            name: name.to_owned(),
            layer,
            program: program.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            directory: directory.to_path_buf(),
            identity: None,
            ready: Ready::Started,
        }
    }

    pub(crate) fn arguments<T: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = T>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    pub(crate) fn variable(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn ready(mut self, ready: Ready) -> Self {
        self.ready = ready;
        self
    }

    /// The command, with its output going to the given file and in a process group of its own, so that Ctrl-C reaches
    /// only the supervisor.
    pub(crate) fn command(&self, stack: &str, log: &File) -> Result<Command> {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .env_clear()
            .envs(PASSED_ON.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env(MARK, stack)
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log.try_clone()?)
            .process_group(0);
        if let Some((user, group)) = self.identity {
            command.uid(user).gid(group);
        }
        Ok(command)
    }
}

/// The log of a child, `<folder>/<name>.log`; the one of the run before is kept as `.log.1`.
#[derive(Debug, Clone)]
pub(crate) struct Log(PathBuf);

impl Log {
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        Self(folder.join(format!("{name}.log")))
    }

    pub(crate) fn rotate(&self) {
        let _ = std::fs::rename(&self.0, self.0.with_extension("log.1"));
    }

    pub(crate) fn open(&self) -> Result<File> {
        let opened = OpenOptions::new().create(true).append(true).open(&self.0);
        opened.with_context(|| format!("{} cannot be opened", self.0.display()))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The last lines without those of backtraces, which would push out what went wrong; looked for in the last 64 KiB.
    pub(crate) fn tail(&self, lines: usize) -> String {
        const MOST_BYTES: u64 = 65_536;
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = File::open(&self.0)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(MOST_BYTES)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let mut in_backtrace = false;
        let own = text.lines().filter(|line| {
            // Numbered causes of an error look like frames; frames come behind these words alone.
            in_backtrace = line.eq_ignore_ascii_case("stack backtrace:") || (in_backtrace && is_a_frame(line));
            !(in_backtrace && is_a_frame(line))
        });
        let all: Vec<&str> = own.collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

/// `  12: some::function`, or the place of it, `          at /a/file.rs:1:2`.
fn is_a_frame(line: &str) -> bool {
    let frame = line.trim_start();
    let number = frame.bytes().take_while(u8::is_ascii_digit).count();
    line.len() > frame.len() && (frame.starts_with("at ") || (number > 0 && frame[number..].starts_with(": ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn the_last_words_of_a_child_are_its_own_not_those_of_its_backtrace() {
        let scratch = Scratch::new().unwrap();
        let log = Log::new(scratch.path(), "worker");
        let frames =
            (0..200).map(|number| format!("{number:4}: a::function\n             at ./src/lib.rs:{number}:9\n"));
        let frames: String = frames.collect();
        let said =
            "Error: OPS_LISTEN\n\nCaused by:\n    0: no listener\n    1: Address already in use\n\nStack backtrace:\n";
        std::fs::write(log.path(), format!("{said}{frames}last")).unwrap();
        assert_eq!(log.tail(12), format!("{said}last"));
        assert_eq!(log.tail(2), "Stack backtrace:\nlast");
    }
}
