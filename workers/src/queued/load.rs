//! How many queued calls a worker has, and how many of them it runs.

use std::{future::pending, sync::Arc, time::Duration};

use metrics::{Gauge, Histogram};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, watch};

/// Calls that are offered to other workers at once: enough to empty a hand quickly, few enough that a
/// busy pool hears little of it.
const OFFERS: usize = 4;

/// A worker's load. Clones share it.
#[derive(Clone, Debug)]
pub struct Load(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Delivered and not ended: running, or waiting for a turn.
    in_hand: watch::Sender<usize>,
    turns: Arc<Semaphore>,
    capacity: usize,
    offers: Semaphore,
    /// What is told of it, looked up once.
    running: Gauge,
    queued: Histogram,
}

/// The right to run a call; given back when dropped.
pub(super) type Turn = OwnedSemaphorePermit;

impl Load {
    /// Room for `capacity` calls at once.
    pub fn new(capacity: usize) -> Self {
        let (in_hand, turns) = (watch::Sender::new(0), Arc::new(Semaphore::new(capacity)));
        let (running, queued) =
            (metrics::gauge!("switchboard_calls_running"), metrics::histogram!("switchboard_call_queued_seconds"));
        Self(Arc::new(Inner { in_hand, turns, capacity, offers: Semaphore::new(OFFERS), running, queued }))
    }

    /// Calls running now.
    pub fn running(&self) -> usize {
        self.0.capacity.saturating_sub(self.0.turns.available_permits())
    }

    /// Calls delivered and not ended.
    pub(super) fn in_hand(&self) -> usize {
        *self.0.in_hand.borrow()
    }

    /// A delivery came.
    pub(super) fn enter(&self) -> Place {
        let capacity = self.0.capacity;
        self.0.in_hand.send_if_modified(|in_hand| {
            *in_hand += 1;
            // Who waits is told of nothing else: being woken for each call costs as much as a part of it.
            *in_hand == capacity
        });
        self.report();
        Place(self.clone())
    }

    /// Waits for a turn to run, behind everybody who waits already.
    pub(super) async fn turn(&self) -> Turn {
        match Arc::clone(&self.0.turns).acquire_owned().await {
            Ok(turn) => turn,
            // It is never closed.
            Err(_closed) => pending().await,
        }
    }

    /// A turn, if there is one at once.
    pub(super) fn turn_now(&self) -> Option<Turn> {
        Arc::clone(&self.0.turns).try_acquire_owned().ok()
    }

    /// Waits for the right to offer a call to others.
    pub(super) async fn offer(&self) -> SemaphorePermit<'_> {
        match self.0.offers.acquire().await {
            Ok(offer) => offer,
            Err(_closed) => pending().await,
        }
    }

    /// Waits until there is room for calls of others: not for every place that becomes free.
    pub(super) async fn has_room(&self) {
        let room = self.room();
        self.until(|in_hand| in_hand <= room).await;
    }

    /// The most that is in hand where there is room for calls of others.
    fn room(&self) -> usize {
        self.0.capacity - self.0.capacity.div_ceil(8)
    }

    /// Waits until there has been no room for this long.
    pub(super) async fn stays_full(&self, long: Duration) {
        loop {
            self.is_full().await;
            if tokio::time::timeout(long, self.has_room()).await.is_err() {
                return;
            }
        }
    }

    /// Waits until there is no room any more.
    async fn is_full(&self) {
        self.until(|in_hand| in_hand >= self.0.capacity).await;
    }

    async fn until(&self, holds: impl Fn(usize) -> bool) {
        // Its sender lives as long as we do.
        let _ = self.0.in_hand.subscribe().wait_for(|in_hand| holds(*in_hand)).await;
    }

    #[expect(clippy::cast_precision_loss, reason = "a worker never holds 2^52 calls")]
    fn report(&self) {
        self.0.running.set(self.in_hand() as f64);
    }

    /// A call waited so long until its turn.
    pub(super) fn queued(&self, waited: Duration) {
        self.0.queued.record(waited);
    }
}

/// A delivery in hand.
#[derive(Debug)]
pub(super) struct Place(Load);

impl Drop for Place {
    fn drop(&mut self) {
        let room = self.0.room();
        self.0.0.in_hand.send_if_modified(|in_hand| {
            *in_hand -= 1;
            *in_hand == room
        });
        self.0.report();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_more_run_than_there_is_capacity_for() {
        let load = Load::new(2);
        let (first, _second) = (load.turn().await, load.turn().await);
        assert_eq!(load.running(), 2);
        let mut third = Box::pin(load.turn());
        assert!(futures::poll!(&mut third).is_pending());
        drop(first);
        // Whoever waited comes first.
        assert!(load.turn_now().is_none());
        drop(third.await);
    }

    #[tokio::test]
    async fn room_is_more_than_one_place_that_became_free() {
        let load = Load::new(16);
        let mut places: Vec<Place> = (0..16).map(|_| load.enter()).collect();
        load.is_full().await;
        places.pop();
        let mut room = Box::pin(load.has_room());
        assert!(futures::poll!(&mut room).is_pending());
        places.pop();
        room.await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_moment_without_room_is_not_told_as_full() {
        let load = Load::new(8);
        let long = Duration::from_millis(250);
        let mut full = Box::pin(load.stays_full(long));
        for _ in 0..3 {
            let places: Vec<Place> = (0..8).map(|_| load.enter()).collect();
            assert!(tokio::time::timeout(long / 2, &mut full).await.is_err());
            drop(places);
            assert!(futures::poll!(&mut full).is_pending());
        }
        let _places: Vec<Place> = (0..8).map(|_| load.enter()).collect();
        let since = tokio::time::Instant::now();
        full.await;
        assert_eq!(since.elapsed(), long);
    }
}
