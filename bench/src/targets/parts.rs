//! Processes that the bench starts itself beside the stack: few variables, a log of their own, and the stack's mark, so
//! that its watchdog ends them should the bench be killed.

use std::ffi::OsStr;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::floors::LISTENING;
use crate::processes::Process;

/// By this variable the stack's watchdog knows what belongs to its stack (see `stack::tagged`).
const MARK: &str = "SWITCHBOARD_STACK";
/// Python's imports take a while on a busy machine.
const START_LIMIT: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(20);
/// The skeletons' server: the product's limits, without users.
const NATS_CONFIGURATION: &str =
    "host: 127.0.0.1\nport: -1\nmax_payload: 8MB\nmax_pending: 64MB\nwrite_deadline: \"10s\"\nping_interval: \"20s\"\n";

/// The processes of one floor.
pub(crate) struct Parts {
    folder: PathBuf,
    mark: String,
    children: Vec<(String, Child)>,
}

impl Parts {
    /// None yet; logs go to the folder.
    pub(crate) fn new(folder: &Path, mark: String) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        Ok(Self { folder: folder.to_path_buf(), mark, children: Vec::new() })
    }

    /// Starts a program and waits until it says where it listens.
    pub(crate) async fn start<T: AsRef<OsStr>>(
        &mut self,
        name: &str,
        program: &Path,
        arguments: impl IntoIterator<Item = T>,
    ) -> Result<SocketAddr> {
        let mut command = self.command(name, program)?;
        let mut child = command.args(arguments).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().context("no output")?;
        self.children.push((name.to_owned(), child));
        let mut lines = BufReader::new(output).lines();
        let line = tokio::time::timeout(START_LIMIT, lines.next_line()).await.ok().transpose()?.flatten();
        let address = line.as_deref().and_then(|line| line.strip_prefix(LISTENING)?.parse().ok());
        address.with_context(|| format!("{name} does not listen: {}", self.log(name)))
    }

    /// Starts nats-server, with JetStream or without, on a port of its choice and returns its address.
    pub(crate) async fn start_nats(&mut self, program: &Path, has_jetstream: bool) -> Result<String> {
        let configuration = self.folder.join("nats.conf");
        let store = self.folder.join("store");
        let jetstream =
            if has_jetstream { format!("jetstream {{ store_dir: \"{}\" }}\n", store.display()) } else { String::new() };
        std::fs::write(&configuration, format!("{NATS_CONFIGURATION}{jetstream}"))?;
        let mut command = self.command("nats-server", program)?;
        command.arg("-c").arg(&configuration).arg("--ports_file_dir").arg(&self.folder).stdout(Stdio::null());
        command.envs(stack::go_runtime());
        let child = command.spawn().context("nats-server cannot be started")?;
        let ports = self.folder.join(format!("nats-server_{}.ports", child.id().unwrap_or_default()));
        self.children.push(("nats-server".to_owned(), child));
        let read = || -> Option<String> {
            let ports: serde_json::Value = serde_json::from_slice(&std::fs::read(&ports).ok()?).ok()?;
            Some(ports.pointer("/nats/0")?.as_str()?.to_owned())
        };
        let mut waited = Duration::ZERO;
        while waited < START_LIMIT {
            if let Some(url) = read() {
                return Ok(url);
            }
            tokio::time::sleep(POLL).await;
            waited += POLL;
        }
        bail!("nats-server does not listen: {}", self.log("nats-server"))
    }

    fn command(&self, name: &str, program: &Path) -> Result<Command> {
        let mut command = Command::new(program);
        command
            .env_clear()
            .envs(["PATH", "HOME", "LANG"].into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
            .env(MARK, &self.mark)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stderr(File::create(self.folder.join(format!("{name}.log")))?)
            .process_group(0)
            .kill_on_drop(true);
        Ok(command)
    }

    fn log(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.folder.join(format!("{name}.log"))).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }

    /// What to watch.
    pub(crate) fn processes(&self) -> Vec<Process> {
        self.children.iter().filter_map(|(name, child)| Some(Process::new(name, child.id()?))).collect()
    }

    /// Ends all; nothing in them is worth an orderly end.
    pub(crate) async fn stop(mut self) {
        for (_, child) in &mut self.children {
            let _ = child.kill().await;
        }
    }
}
