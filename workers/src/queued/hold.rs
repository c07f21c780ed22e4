//! Holding a slot: in-progress signs while a call runs, and knowing when the slot is lost.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use shared::bus::{lanes::ACK_WAIT, work::Slot};

/// A call that nobody confirmed for this long is no longer ours: just short of the server's patience.
const FENCE: Duration = ACK_WAIT.saturating_sub(Duration::from_secs(2));

/// When the server last knew that a slot is held.
#[derive(Debug)]
pub(super) struct Hold {
    confirmed_at: Mutex<Instant>,
}

impl Hold {
    /// A slot that was given out no earlier than this.
    pub(super) fn since(given: Instant) -> Self {
        Self { confirmed_at: Mutex::new(given) }
    }

    /// True once another worker may have the slot.
    pub(super) fn is_lost(&self) -> bool {
        Instant::now() >= self.lost_at()
    }

    /// When another worker may have the slot, unless it is extended until then.
    pub(super) fn lost_at(&self) -> Instant {
        *self.lock() + FENCE
    }

    /// Extends the slot every third of the server's patience; returns once it is lost. Calls shorter
    /// than that send nothing.
    pub(super) async fn keep(&self, slot: &Slot) {
        let every = ACK_WAIT / 3;
        // What was passed on may have waited for a while.
        let mut wait = every.saturating_sub(self.unconfirmed_for());
        loop {
            tokio::time::sleep(wait.min(FENCE.saturating_sub(self.unconfirmed_for()))).await;
            wait = every;
            if self.is_lost() {
                return;
            }
            let asked_at = Instant::now();
            let left = FENCE.saturating_sub(self.unconfirmed_for());
            if matches!(tokio::time::timeout(left, slot.extend()).await, Ok(Ok(()))) {
                *self.lock() = asked_at;
            }
        }
    }

    /// How long ago the server last knew that the slot is held.
    pub(super) fn unconfirmed_for(&self) -> Duration {
        self.lock().elapsed()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Instant> {
        self.confirmed_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_that_may_be_anothers_is_lost() {
        assert!(!Hold::since(Instant::now()).is_lost());
        assert!(Hold::since(Instant::now().checked_sub(FENCE).unwrap()).is_lost());
    }
}
