//! How many queued calls a worker has, and how many of them it runs.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::{Semaphore, SemaphorePermit};

/// A worker's load. Clones share it.
#[derive(Clone, Debug)]
pub struct Load(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Delivered and not ended: running, or waiting for a turn.
    in_hand: AtomicUsize,
    turns: Semaphore,
    capacity: usize,
}

impl Load {
    /// Room for `capacity` calls at once.
    pub fn new(capacity: usize) -> Self {
        Self(Arc::new(Inner { in_hand: AtomicUsize::new(0), turns: Semaphore::new(capacity), capacity }))
    }

    /// Calls running now.
    pub fn running(&self) -> usize {
        self.0.capacity.saturating_sub(self.0.turns.available_permits())
    }

    /// A delivery came.
    pub(super) fn enter(&self) -> Place {
        report(self.0.in_hand.fetch_add(1, Ordering::Relaxed) + 1);
        Place(self.clone())
    }
}

#[expect(clippy::cast_precision_loss, reason = "a worker never holds 2^52 calls")]
fn report(in_hand: usize) {
    metrics::gauge!("switchboard_calls_running").set(in_hand as f64);
}

/// A delivery in hand.
#[derive(Debug)]
pub(super) struct Place(Load);

impl Place {
    /// Waits for a turn to run. `None` never comes: the semaphore is not closed.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.0.0.turns.acquire().await.ok()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        report(self.0.0.in_hand.fetch_sub(1, Ordering::Relaxed) - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_more_run_than_there_is_capacity_for() {
        let load = Load::new(2);
        let places: Vec<Place> = (0..3).map(|_| load.enter()).collect();
        let (first, _second) = (places[0].turn().await, places[1].turn().await);
        assert_eq!(load.running(), 2);
        let mut third = Box::pin(places[2].turn());
        assert!(futures::poll!(&mut third).is_pending());
        drop(first);
        assert!(third.await.is_some());
    }
}
