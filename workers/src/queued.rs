//! The loop that works off lanes. A slot of an organization is held exactly as long as its call:
//! the result goes out first, then the slot is released.

use std::{
    sync::{Arc, atomic::{AtomicUsize, Ordering}},
    time::{Duration, Instant},
};

use shared::{
    Fault,
    bus::{
        envelope::Envelope,
        lanes::ACK_WAIT,
        work::{Delivered, Slot, Work},
    },
};
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    direct::answer,
    pools::Dispatch,
    run::Job,
};

/// A call that nobody confirmed for this long is no longer ours: just short of the server's patience.
const FENCE: Duration = ACK_WAIT.saturating_sub(Duration::from_secs(2));

/// How many queued calls this worker runs.
#[derive(Clone, Debug)]
pub struct Load {
    running: Arc<AtomicUsize>,
    freed: Arc<Notify>,
    capacity: usize,
}

impl Load {
    /// Room for `capacity` calls.
    pub fn new(capacity: usize) -> Self {
        Self { running: Arc::default(), freed: Arc::default(), capacity }
    }

    /// Calls running now.
    pub fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    fn is_full(&self) -> bool {
        self.running() >= self.capacity
    }

    /// Waits until there is room worth subscribing for again.
    async fn has_room(&self) {
        while self.running() > self.capacity * 3 / 4 {
            self.freed.notified().await;
        }
    }

    fn enter(&self) -> Place {
        let running = self.running.fetch_add(1, Ordering::Relaxed) + 1;
        report(running);
        Place(self.clone())
    }
}

#[expect(clippy::cast_precision_loss, reason = "a worker never runs 2^52 calls")]
fn report(running: usize) {
    metrics::gauge!("switchboard_calls_running").set(running as f64);
}

struct Place(Load);

impl Drop for Place {
    fn drop(&mut self) {
        report(self.0.running.fetch_sub(1, Ordering::Relaxed) - 1);
        self.0.freed.notify_one();
    }
}

/// Works until told to stop, then finishes what was delivered.
pub async fn serve<P: Dispatch>(parts: Arc<P>, load: Load, tasks: TaskTracker, stop: CancellationToken) -> Result<(), Fault> {
    while !stop.is_cancelled() {
        let mut work = parts.bus().work(P::POOL).await?;
        take_until_full(&parts, &mut work, &load, &tasks, &stop).await;
        // Full or stopping: the rest stays in the stream for other workers; what was delivered to
        // this one already holds its slots and is run.
        work.drain().await;
        while let Some(delivered) = work.next().await {
            take(&parts, delivered, &load, &tasks);
        }
        tokio::select! {
            () = load.has_room() => {}
            () = stop.cancelled() => {}
        }
    }
    Ok(())
}

async fn take_until_full<P: Dispatch>(parts: &Arc<P>, work: &mut Work, load: &Load, tasks: &TaskTracker, stop: &CancellationToken) {
    while !load.is_full() {
        let delivered = tokio::select! {
            delivered = work.next() => delivered,
            () = stop.cancelled() => return,
        };
        match delivered {
            Some(delivered) => take(parts, delivered, load, tasks),
            None => return,
        }
    }
}

fn take<P: Dispatch>(parts: &Arc<P>, delivered: Delivered, load: &Load, tasks: &TaskTracker) {
    let (parts, place) = (Arc::clone(parts), load.enter());
    tasks.spawn(async move {
        one(&*parts, delivered).await;
        drop(place);
    });
}

async fn one<P: Dispatch>(parts: &P, delivered: Delivered) {
    let Delivered { envelope, attempt, queued_at_ms, slot } = delivered;
    match envelope {
        Ok(envelope) => run_in_slot(parts, &envelope, attempt, queued_at_ms, &slot).await,
        Err(refusal) => {
            tracing::warn!(reason = refusal.reason(), "a queued message was refused");
            metrics::counter!("switchboard_messages_refused_total", "reason" => refusal.reason()).increment(1);
            release(&slot).await;
        }
    }
}

async fn run_in_slot<P: Dispatch>(parts: &P, envelope: &Envelope, attempt: u64, queued_at_ms: u64, slot: &Slot) {
    let queued_ms = shared::context::now_unix_ms().saturating_sub(queued_at_ms);
    metrics::histogram!("switchboard_call_queued_seconds").record(Duration::from_millis(queued_ms));
    if attempt > 1 {
        metrics::counter!("switchboard_calls_redelivered_total").increment(1);
    }
    let hold = Hold::new();
    let ended = tokio::select! {
        ended = parts.dispatch(Job { envelope, attempt, queued_ms }) => Some(ended),
        () = hold.keep(slot) => None,
    };
    // A frozen process wakes up with a result for a slot that was given to another: theirs counts.
    match ended.filter(|_| !hold.is_lost()) {
        Some(ended) => {
            answer(parts.bus(), envelope, ended).await;
            release(slot).await;
        }
        None => tracing::warn!(call = %envelope.call, "the slot was lost; the call was aborted"),
    }
}

async fn release(slot: &Slot) {
    if let Err(fault) = slot.release().await {
        // The server will deliver it again; the audit id and the redelivery rule make that harmless.
        tracing::warn!(%fault, "a slot's release was not confirmed");
    }
}

/// Keeps a slot while its call runs, and knows when it is lost.
struct Hold {
    confirmed_at: std::sync::Mutex<Instant>,
}

impl Hold {
    fn new() -> Self {
        Self { confirmed_at: std::sync::Mutex::new(Instant::now()) }
    }

    fn unconfirmed_for(&self) -> Duration {
        self.confirmed_at.lock().unwrap_or_else(std::sync::PoisonError::into_inner).elapsed()
    }

    fn is_lost(&self) -> bool {
        self.unconfirmed_for() >= FENCE
    }

    /// Extends the slot every third of its patience; returns once it is lost. Calls shorter than
    /// that send nothing.
    async fn keep(&self, slot: &Slot) {
        let every = ACK_WAIT / 3;
        loop {
            tokio::time::sleep(every.min(FENCE.saturating_sub(self.unconfirmed_for()))).await;
            if self.is_lost() {
                return;
            }
            let asked_at = Instant::now();
            let left = FENCE.saturating_sub(self.unconfirmed_for());
            if matches!(tokio::time::timeout(left, slot.extend()).await, Ok(Ok(()))) {
                *self.confirmed_at.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = asked_at;
            }
        }
    }
}
