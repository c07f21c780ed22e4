//! `cargo dev up`: set up, build, start, say where everything is, and stop at a signal.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{cargo, data_folder};
use crate::dev_env;
use crate::instance::Instance;
use crate::options::Options;
use crate::places::{DataDir, Places};
use crate::progress::Progress;
use crate::running::Stack;
use crate::supervisor::Supervisor;
use crate::{environment, web};

/// How the stack is to be started.
#[derive(Debug, Clone, clap::Args)]
pub struct Up {
    /// Start anew: remove what earlier runs stored
    #[arg(long)]
    fresh: bool,
    /// Port of the gateway, when not the last run's or a free one
    #[arg(long)]
    port: Option<u16>,
    /// Processes per worker pool
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=32))]
    workers: u8,
    /// Gateways
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=32))]
    gateways: u8,
    /// Folder for the stack's data, when not .dev
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Start only the message bus, the database and the native demo server
    #[arg(long, hide = true)]
    without_product: bool,
    /// Use the binaries as they are
    #[arg(long, hide = true)]
    no_build: bool,
}

/// Runs the stack until a signal or an accident ends it.
///
/// # Errors
/// What is missing or in the way, or which process ended; nothing is left running.
pub fn up(asked: &Up) -> Result<()> {
    let began = Instant::now();
    let places = Places::find()?;
    let data = DataDir::open(&data_folder(&places, asked.data_dir.as_deref()))?;
    let _instance = match Instance::claim(&data.join("pid"))? {
        Ok(instance) => instance,
        Err(pid) => bail!(already_running(&data, pid)),
    };
    environment::ensure(&places, Progress::Lines)?;
    if !asked.without_product {
        web::ensure(&places, Progress::Lines)?;
    }
    // Only cargo sets the variable: a binary that is run by itself does not build.
    if !asked.no_build && std::env::var_os("CARGO").is_some() {
        let profile: &[&str] = if places.is_release() { &["--release"] } else { &[] };
        cargo::build(&places, &[&["--quiet", "--workspace", "--bins"], profile].concat())?;
    }
    let options = Options {
        fresh: asked.fresh,
        workers_per_pool: usize::from(asked.workers),
        gateways: usize::from(asked.gateways),
        gateway_port: asked.port,
        product: !asked.without_product,
        ..Options::development(data.path())
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(places, data, options, began))
}

fn already_running(data: &DataDir, pid: Option<i32>) -> String {
    let process = pid.map_or_else(String::new, |pid| format!(" (process {pid})"));
    match dev_env::value(data, "SWITCHBOARD_URL") {
        Some(url) => format!("already running at {url}{process}: `cargo dev down` stops it"),
        None => format!("already running{process}, and starting or stopping: `cargo dev down` stops it"),
    }
}

async fn run(places: Places, data: DataDir, options: Options, began: Instant) -> Result<()> {
    let mut signals = Signals::listen()?;
    Progress::Lines.line("Starting");
    let supervisor = tokio::select! {
        () = signals.next() => return Ok(()),
        supervisor = Supervisor::start(&places, &data) => supervisor?,
    };
    let starting = Stack::start_under(supervisor.clone(), places, data.clone(), options);
    let stack = tokio::select! {
        () = signals.next() => None,
        stack = starting => Some(stack?),
    };
    let mut outcome = Ok(());
    if let Some(stack) = &stack {
        announce(stack, began)?;
        tokio::select! {
            () = signals.next() => {}
            death = stack.death() => outcome = Err(anyhow::anyhow!("{death}")),
        }
    }
    Progress::Lines.line("Stopping");
    dev_env::remove(&data)?;
    tokio::select! {
        () = supervisor.stop() => {}
        () = signals.next() => supervisor.kill_all().await,
    }
    outcome
}

fn announce(stack: &Stack, began: Instant) -> Result<()> {
    let progress = Progress::Lines;
    let folder = stack.data().path().display();
    if stack.seeded().is_some() {
        // Passwords stay off the screen; tokens are what the reader came for.
        let shown = |key: &str| !["NATS_URL", "DATABASE_URL"].contains(&key);
        for (key, value) in dev_env::entries(stack)?.into_iter().filter(|(key, _)| shown(key)) {
            progress.line(&format!("{key}={value}"));
        }
        progress.line(&format!("All of these, NATS_URL and DATABASE_URL: {folder}/env"));
    }
    progress.line(&format!("Data and logs: {folder}"));
    let at = if stack.url().is_empty() { String::new() } else { format!(" at {}", stack.url()) };
    progress.line(&format!("Ready after {:.1} s{at}; Ctrl-C stops", began.elapsed().as_secs_f64()));
    Ok(())
}

/// Every signal that asks a process to end.
struct Signals([Signal; 3]);

impl Signals {
    fn listen() -> Result<Self> {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [one, two, three] = kinds.map(signal);
        Ok(Self([one?, two?, three?]))
    }

    async fn next(&mut self) {
        let [one, two, three] = &mut self.0;
        tokio::select! {
            _ = one.recv() => {}
            _ = two.recv() => {}
            _ = three.recv() => {}
        }
    }
}
