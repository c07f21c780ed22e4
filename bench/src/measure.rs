//! One cell: a generator of its own, warmed up, measured while the kernel counts, and waited for until the target has
//! finished what the calls left behind.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::load::tally::Figures;
use crate::load::{GO, Order, WARM};
use crate::plan::Level;
use crate::processes::{Process, cpu_seconds, pss_megabytes};
use crate::targets::{Target, Targets};

const WARM_UP: Duration = Duration::from_millis(400);
/// How often memory is looked at; each look costs the kernel a walk through the page tables.
const MEMORY_LOOK: Duration = Duration::from_millis(250);
/// What a generator may take longer than its window: the last calls of a slow target.
const PATIENCE: Duration = Duration::from_mins(2);

/// What one measurement found.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample {
    pub(crate) figures: Figures,
    /// CPU seconds per 1,000 good answers, by process in the order given.
    pub(crate) cpu_s_per_1k: Vec<(String, f64)>,
    /// The same of what is told apart.
    pub(crate) beside_cpu_s_per_1k: Vec<(String, f64)>,
    /// The largest sum that was seen, in 10^6 bytes.
    pub(crate) peak_pss_mb: f64,
}

/// Measures a target of the run.
///
/// # Errors
/// When the target or the generator is gone.
pub(crate) async fn measure(targets: &Targets, target: Target, level: Level, window: Duration) -> Result<Sample> {
    let mut order = targets.order(target, level.shape)?;
    (order.callers, order.warm_up_s, order.window_s) = (level.callers, WARM_UP.as_secs_f64(), window.as_secs_f64());
    let (own, beside) = (targets.own(target), targets.beside(target));
    let all = [own, beside].concat();
    let mut generator = Generator::start(&order).await?;
    targets.settle(target).await?;
    let before = cpu_seconds(&all)?;
    generator.tell(GO).await?;
    let (figures, peak_pss_mb) = generator.figures(window + PATIENCE, own).await?;
    targets.settle(target).await?;
    let after = cpu_seconds(&all)?;
    let thousands = f64::from(figures.calls.max(1)) / 1e3;
    let spent = |process: &Process, index: usize| (process.name.clone(), (after[index] - before[index]) / thousands);
    let own_cpu = own.iter().enumerate().map(|(index, process)| spent(process, index)).collect();
    let beside_cpu = beside.iter().enumerate().map(|(index, process)| spent(process, own.len() + index)).collect();
    Ok(Sample { figures, cpu_s_per_1k: own_cpu, beside_cpu_s_per_1k: beside_cpu, peak_pss_mb })
}

/// The load generator's process.
struct Generator {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Generator {
    /// Starts it and waits until it is warm.
    async fn start(order: &Order) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("load").stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().context("the load generator cannot be started")?;
        let output = child.stdout.take().context("no output")?;
        let mut generator = Self { child, lines: BufReader::new(output).lines() };
        generator.tell(&serde_json::to_string(order)?).await?;
        match generator.line(PATIENCE).await?.as_str() {
            WARM => Ok(generator),
            other => bail!("the load generator said {other}"),
        }
    }

    async fn tell(&mut self, line: &str) -> Result<()> {
        let input = self.child.stdin.as_mut().context("no input")?;
        input.write_all(format!("{line}\n").as_bytes()).await?;
        Ok(input.flush().await?)
    }

    async fn line(&mut self, patience: Duration) -> Result<String> {
        let line = tokio::time::timeout(patience, self.lines.next_line()).await.context("the load generator hangs")?;
        line?.context("the load generator ended; its words stand above")
    }

    /// The figures, and the most memory that the processes had meanwhile.
    async fn figures(&mut self, patience: Duration, watched: &[Process]) -> Result<(Figures, f64)> {
        let mut peak: f64 = 0.0;
        let line = self.line(patience);
        tokio::pin!(line);
        loop {
            peak = peak.max(pss_megabytes(watched));
            tokio::select! {
                line = &mut line => return Ok((serde_json::from_str(&line?).context("the generator's figures")?, peak)),
                () = tokio::time::sleep(MEMORY_LOOK) => {}
            }
        }
    }
}
