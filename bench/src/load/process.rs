//! The generator's process: an order in, `warm` out, `go` in, figures out.

use std::io::{BufRead as _, Write as _};
use std::sync::{Arc, mpsc};

use anyhow::{Context as _, Result, bail};
use futures::future::join_all;
use tokio::sync::watch;

use super::caller::{Caller, Prepared};
use super::tally::{Tally, Window};
use super::{GO, Order, WARM};

/// Obeys one order.
///
/// # Errors
/// When the target cannot be connected to, or whoever ordered is gone.
pub(crate) fn run() -> Result<()> {
    let mut lines = std::io::stdin().lock().lines();
    let order: Order = serde_json::from_str(&lines.next().context("no order")??).context("no order")?;
    let callers = order.callers;
    let prepared = Prepared::new(order)?;
    let (length, least) = prepared.window();
    let threads = threads(callers);
    let (go, started) = watch::channel(None);
    let (warm, warmed) = mpsc::channel();
    let running: Vec<_> = (0..threads)
        .map(|thread| {
            let numbers: Vec<u16> = (0..callers).filter(|number| number % threads == thread).collect();
            let (prepared, warm, started) = (Arc::clone(&prepared), warm.clone(), started.clone());
            std::thread::spawn(move || one_thread(&prepared, &numbers, &warm, started))
        })
        .collect();
    drop(warm);
    for _ in 0..threads {
        warmed.recv().context("a thread ended")??;
    }
    say(WARM)?;
    if lines.next().transpose()?.as_deref() != Some(GO) {
        bail!("not wanted any more");
    }
    go.send(Some(Arc::new(Window::begin(length, least))))?;
    let mut tally = Tally::default();
    for thread in running {
        tally.add(thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??);
    }
    say(&serde_json::to_string(&tally.figures(length, least))?)
}

/// Half the machine at most, and no more threads than callers: single-threaded runtimes spare a call the hand-over
/// between threads.
fn threads(callers: u16) -> u16 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u16::try_from(cores / 2).unwrap_or(u16::MAX).clamp(1, callers.max(1))
}

fn one_thread(
    prepared: &Arc<Prepared>,
    numbers: &[u16],
    warm: &mpsc::Sender<Result<()>>,
    mut started: watch::Receiver<Option<Arc<Window>>>,
) -> Result<Tally> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let connected = join_all(numbers.iter().map(|number| Caller::connect(Arc::clone(prepared), *number))).await;
        let callers = match connected.into_iter().collect::<Result<Vec<_>>>() {
            Ok(callers) => callers,
            Err(error) => {
                let _ = warm.send(Err(error));
                return Ok(Tally::default());
            }
        };
        let (_, callers) = together(callers, Arc::new(prepared.warm_up())).await?;
        let _ = warm.send(Ok(()));
        let window = started.wait_for(Option::is_some).await?.clone();
        Ok(together(callers, window.context("no window")?).await?.0)
    })
}

/// All callers at once, each in a task.
async fn together(callers: Vec<Caller>, window: Arc<Window>) -> Result<(Tally, Vec<Caller>)> {
    let tasks: Vec<_> = callers
        .into_iter()
        .map(|mut caller| {
            let window = Arc::clone(&window);
            tokio::spawn(async move {
                let tally = caller.call_until_over(&window).await;
                (tally, caller)
            })
        })
        .collect();
    let (mut sum, mut callers) = (Tally::default(), Vec::with_capacity(tasks.len()));
    for task in tasks {
        let (tally, caller) = task.await?;
        sum.add(tally);
        callers.push(caller);
    }
    Ok((sum, callers))
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
