//! What is done to children that run: orderly stops, and the accidents that tests stage.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Result, anyhow};
use nix::sys::signal::Signal;

use super::{Child, Supervisor};
use crate::child::Layer;
use crate::processes::{is_alive, signal_group};

/// How long a layer may take to stop before it is killed. Longer than the grace the product's own processes take.
const STOP_LIMIT: Duration = Duration::from_secs(20);

impl Supervisor {
    /// Names and process ids of the children that run.
    pub fn running(&self) -> Vec<(String, i32)> {
        let children = self.lock();
        children
            .iter()
            .filter(|child| child.ended().is_none())
            .map(|child| (child.spec.name.clone(), child.pid))
            .collect()
    }

    /// Kills a child with `SIGKILL` and waits until it is gone. Not counted as a death.
    ///
    /// # Errors
    /// When no child of this name runs.
    pub async fn kill(&self, name: &str) -> Result<()> {
        let child = self.find(name)?;
        child.expected.store(true, Ordering::SeqCst);
        signal_group(child.pid, Signal::SIGKILL);
        child.wait().await;
        Ok(())
    }

    /// Asks a child to end and waits; it is killed after a limit.
    ///
    /// # Errors
    /// When no child of this name runs.
    pub async fn stop_one(&self, name: &str) -> Result<()> {
        end(&self.find(name)?).await;
        Ok(())
    }

    /// Stops a child's whole group in its tracks, as a machine that hangs would.
    ///
    /// # Errors
    /// When no child of this name runs.
    pub fn freeze(&self, name: &str) -> Result<()> {
        signal_group(self.find(name)?.pid, Signal::SIGSTOP);
        Ok(())
    }

    /// Lets a frozen child go on.
    ///
    /// # Errors
    /// When no child of this name runs.
    pub fn thaw(&self, name: &str) -> Result<()> {
        signal_group(self.find(name)?.pid, Signal::SIGCONT);
        Ok(())
    }

    /// Starts a child again as it was, on the same ports, and waits until it is ready. One that runs is stopped first.
    ///
    /// # Errors
    /// When no child ever had this name, or it does not become ready.
    pub async fn restart(&self, name: &str) -> Result<()> {
        let known = self.lock().iter().rev().find(|child| child.spec.name == name).cloned();
        let child = known.ok_or_else(|| anyhow!("no child was ever named {name}"))?;
        if child.ended().is_none() {
            end(&child).await;
        }
        self.launch(child.spec).await
    }

    /// Stops everything in order and waits for it; afterwards nothing can be started. Safe to call twice.
    pub async fn stop(&self) {
        self.0.stopping.store(true, Ordering::SeqCst);
        for layer in Layer::ALL {
            let children: Vec<Child> = self.lock().iter().filter(|child| child.spec.layer == layer).cloned().collect();
            futures::future::join_all(children.iter().map(end)).await;
        }
        self.dismiss_the_watchdog().await;
    }

    /// Ends everything at once, for whoever presses Ctrl-C a second time.
    pub async fn kill_all(&self) {
        self.0.stopping.store(true, Ordering::SeqCst);
        let children: Vec<Child> = self.lock().clone();
        for child in children.iter().filter(|child| child.ended().is_none()) {
            // A killed postmaster takes its backends along only when it may clean up.
            let signal = if child.spec.layer == Layer::Postgres { Signal::SIGQUIT } else { Signal::SIGKILL };
            signal_group(child.pid, signal);
            signal_group(child.pid, Signal::SIGCONT);
        }
        self.dismiss_the_watchdog().await;
    }

    async fn dismiss_the_watchdog(&self) {
        self.0.watchdog.lock().await.take();
        let mut ended = self.0.watchdog_ended.clone();
        let _ = ended.wait_for(|ended| *ended).await;
    }

    fn find(&self, name: &str) -> Result<Child> {
        let children = self.lock();
        let found = children.iter().find(|child| child.spec.name == name && child.ended().is_none());
        found.cloned().ok_or_else(|| anyhow!("no child named {name} runs"))
    }
}

async fn end(child: &Child) {
    child.expected.store(true, Ordering::SeqCst);
    if child.ended().is_some() {
        return;
    }
    if is_alive(child.pid) {
        signal_group(child.pid, child.spec.layer.stop_signal());
        // A frozen child would never see the signal.
        signal_group(child.pid, Signal::SIGCONT);
    }
    if tokio::time::timeout(STOP_LIMIT, child.wait()).await.is_err() {
        signal_group(child.pid, Signal::SIGKILL);
        child.wait().await;
    }
}
