//! How a child, and the watchdog before all children, comes into being and is waited for.

use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::sync::{mpsc, watch};

use super::{Child, Death, Inner, Supervisor, TAIL_LINES, describe};
use crate::child::{Log, Spec};
use crate::places::{DataDir, Places};
use crate::processes::signal_group;
use crate::watchdog::{self, Notice};

impl Supervisor {
    /// Starts the watchdog; no child yet.
    ///
    /// # Errors
    /// When the `dev` binary is not built or cannot run.
    pub async fn start(places: &Places, data: &DataDir) -> Result<Self> {
        let lock = data.join("watchdog.lock");
        watchdog::finished(&lock).await?;
        let stack = uuid::Uuid::new_v4().simple().to_string();
        let log = Log::new(&data.join("log"), "watchdog").open()?;
        let mut guard = Command::new(places.binary("dev")?)
            .args(["watchdog", "--stack", &stack, "--lock"])
            .arg(&lock)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Out of the terminal's group: Ctrl-C must not end it before its work.
            .process_group(0)
            .spawn()
            .context("the watchdog cannot be started")?;
        let pipe = guard.stdin.take();
        let (deaths, died) = mpsc::unbounded_channel();
        let (ended, watchdog_ended) = watch::channel(false);
        let inner = Arc::new(Inner {
            stack,
            logs: data.join("log"),
            children: Mutex::default(),
            watchdog: tokio::sync::Mutex::new(pipe),
            watchdog_ended,
            deaths: deaths.clone(),
            died: tokio::sync::Mutex::new(died),
            stopping: AtomicBool::new(false),
        });
        let watched = Arc::downgrade(&inner);
        tokio::spawn(async move {
            let status = guard.wait().await;
            let _ = ended.send(true);
            if watched.upgrade().is_some_and(|inner| !inner.stopping.load(Ordering::SeqCst)) {
                let _ = deaths.send(Death { name: "watchdog".to_owned(), report: describe(status.ok(), "") });
            }
        });
        Ok(Self(inner))
    }

    /// In a task of its own: a caller that loses interest half-way must not leave a child that nobody knows.
    pub(super) async fn spawn(&self, spec: Spec) -> Result<Child> {
        let this = self.clone();
        tokio::spawn(async move { this.spawn_and_announce(spec).await }).await.context("starting a child panicked")?
    }

    async fn spawn_and_announce(&self, spec: Spec) -> Result<Child> {
        if self.0.stopping.load(Ordering::SeqCst) {
            bail!("the stack is stopping");
        }
        let log = Log::new(&self.0.logs, &spec.name);
        if !self.forget(&spec.name) {
            log.rotate();
        }
        let mut command = spec.command(&self.0.stack, &log.open()?)?;
        // Held over the start, so that the children are announced in the order in which they are started.
        let mut pipe = self.0.watchdog.lock().await;
        let watchdog = pipe.as_mut().context("the stack is stopped")?;
        let mut process =
            command.spawn().with_context(|| format!("{} cannot be started ({})", spec.name, spec.program.display()))?;
        let pid = process.id().and_then(|pid| i32::try_from(pid).ok()).context("a child without an id")?;
        let notice = Notice::Started { pid, stop: spec.layer.stop_signal() };
        watchdog.write_all(notice.line().as_bytes()).await.context("the watchdog is gone")?;
        watchdog.flush().await.context("the watchdog is gone")?;
        drop(pipe);
        let (sender, exit) = watch::channel(None);
        let child = Child { spec, pid, exit, expected: Arc::new(AtomicBool::new(true)) };
        self.lock().push(child.clone());
        let (inner, reaped) = (Arc::downgrade(&self.0), child.clone());
        tokio::spawn(async move {
            let status = process.wait().await.unwrap_or_default();
            if let Some(inner) = inner.upgrade() {
                inner.ended(&reaped, status).await;
            }
            let _ = sender.send(Some(status));
        });
        Ok(child)
    }
}

impl Inner {
    /// A child was waited for: what is left of its group goes with it, and nobody signals its number again.
    async fn ended(&self, child: &Child, status: ExitStatus) {
        signal_group(child.pid, Signal::SIGKILL);
        if let Some(pipe) = self.watchdog.lock().await.as_mut() {
            let _ = pipe.write_all(Notice::Ended { pid: child.pid }.line().as_bytes()).await;
        }
        if !child.expected.load(Ordering::SeqCst) && !self.stopping.load(Ordering::SeqCst) {
            let name = child.spec.name.clone();
            let log = Log::new(&self.logs, &name);
            let report = describe(Some(status), &log.tail(TAIL_LINES));
            let _ = self.deaths.send(Death { name, report });
        }
    }
}
