//! Starts children, notices when one dies, and stops them all in order.
//!
//! Every child leads a process group, writes to a log of its own, carries the stack's mark and is announced to the
//! [watchdog](crate::watchdog), so that neither an error, nor a dropped handle, nor `kill -9` leaves one behind.

mod control;
mod spawn;

use std::fmt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use tokio::process::ChildStdin;
use tokio::sync::{mpsc, watch};

use crate::child::{Log, Spec};
use crate::ports::PortBook;

/// How long a child may take until it answers.
const START_LIMIT: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(15);
const BIND_TRIES: usize = 4;
const TAIL_LINES: usize = 12;

/// A child that ended although nobody stopped it.
#[derive(Debug, Clone)]
pub struct Death {
    /// The child's name, as in its log's.
    pub name: String,
    /// How it ended and its last lines.
    pub report: String,
}

impl fmt::Display for Death {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.name, self.report)
    }
}

/// A handle on the children of one stack; clones share them.
#[derive(Debug, Clone)]
pub struct Supervisor(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    stack: String,
    logs: PathBuf,
    children: Mutex<Vec<Child>>,
    /// Closing this pipe, however it happens, makes the watchdog stop everything.
    watchdog: tokio::sync::Mutex<Option<ChildStdin>>,
    watchdog_ended: watch::Receiver<bool>,
    deaths: mpsc::UnboundedSender<Death>,
    died: tokio::sync::Mutex<mpsc::UnboundedReceiver<Death>>,
    stopping: AtomicBool,
}

#[derive(Debug, Clone)]
struct Child {
    spec: Spec,
    pid: i32,
    exit: watch::Receiver<Option<ExitStatus>>,
    /// While it starts, and once it is stopped or killed on purpose.
    expected: Arc<AtomicBool>,
}

impl Child {
    fn ended(&self) -> Option<ExitStatus> {
        *self.exit.borrow()
    }

    async fn wait(&self) -> Option<ExitStatus> {
        let mut exit = self.exit.clone();
        exit.wait_for(Option::is_some).await.ok().and_then(|status| *status)
    }
}

impl Supervisor {
    /// The id that marks this stack's processes; see [`crate::tagged`].
    pub fn stack_id(&self) -> &str {
        &self.0.stack
    }

    /// Waits for the first child that ends although nobody stopped it.
    pub async fn death(&self) -> Death {
        let received = self.0.died.lock().await.recv().await;
        // The sender lives in `self`, so the channel cannot end.
        received.unwrap_or_else(|| Death { name: "supervisor".to_owned(), report: "ended".to_owned() })
    }

    /// Starts a child and waits until it is ready.
    pub(crate) async fn launch(&self, spec: Spec) -> Result<()> {
        let child = self.spawn(spec).await?;
        self.until_ready(&child).await?;
        // From here on its end is a death; before, it is the error of this call.
        child.expected.store(false, Ordering::SeqCst);
        match child.ended() {
            Some(status) => Err(anyhow!("{} {}", child.spec.name, describe(Some(status), ""))),
            None => Ok(()),
        }
    }

    /// As [`Supervisor::launch`], on ports of the given names; a child that finds one of them taken is started again
    /// on others. Returns the ports.
    pub(crate) async fn launch_on(
        &self,
        ports: &PortBook,
        names: &[&str],
        spec: impl Fn(&[u16]) -> Spec,
    ) -> Result<Vec<u16>> {
        for attempt in 1.. {
            let taken = names.iter().map(|name| ports.take(name)).collect::<Result<Vec<_>>>()?;
            let spec = spec(&taken);
            let log = Log::new(&self.0.logs, &spec.name);
            let Err(error) = self.launch(spec).await else { return Ok(taken) };
            let could_not_bind = log.tail(TAIL_LINES).to_lowercase().contains("in use");
            if !could_not_bind || attempt == BIND_TRIES {
                return Err(error);
            }
            for name in names {
                ports.give_up(name);
            }
        }
        bail!("no port could be bound")
    }

    /// Runs a child to its end: migrations, the first creation of the database.
    pub(crate) async fn complete(&self, spec: Spec) -> Result<()> {
        let name = spec.name.clone();
        let child = self.spawn(spec).await?;
        let status = child.wait().await;
        self.forget(&name);
        if status.is_some_and(|status| status.success()) {
            return Ok(());
        }
        Err(anyhow!("{name} {}", describe(status, &self.tail(&name))))
    }

    async fn until_ready(&self, child: &Child) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        while Instant::now() < deadline {
            if let Some(status) = child.ended() {
                let name = &child.spec.name;
                bail!("{name} {}", describe(Some(status), &self.tail(name)));
            }
            if child.spec.ready.holds().await {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        bail!("{} does not become ready\n{}", child.spec.name, self.tail(&child.spec.name))
    }

    /// Drops the record of an ended child of this name. Returns whether there was one.
    fn forget(&self, name: &str) -> bool {
        let mut children = self.lock();
        let before = children.len();
        children.retain(|child| child.spec.name != name || child.ended().is_none());
        children.len() != before
    }

    fn tail(&self, name: &str) -> String {
        let log = Log::new(&self.0.logs, name);
        format!("{}\n(the whole log: {})", log.tail(TAIL_LINES), log.path().display())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Child>> {
        self.0.children.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn describe(status: Option<ExitStatus>, tail: &str) -> String {
    let how = status.map_or_else(|| "ended".to_owned(), |status| format!("ended ({status})"));
    if tail.is_empty() { how } else { format!("{how}; its last lines:\n{tail}") }
}
