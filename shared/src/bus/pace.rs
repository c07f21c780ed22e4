//! How fast an organization's calls come through, as this process sees it: the honest answer to
//! "when shall I try again?" when the queue is full.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use moka::sync::Cache;

use crate::id::OrganizationId;

/// The weight of the newest call in the moving average.
const NEWEST: f64 = 0.2;
/// What is answered while nothing is known.
const FIRST_GUESS: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_mins(1);

/// Moving averages of the time calls spend from acceptance to their end, waiting included.
#[derive(Clone, Debug)]
pub(super) struct Pace(Cache<OrganizationId, Arc<Mutex<f64>>>);

impl Default for Pace {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(100_000).time_to_idle(Duration::from_mins(10)).build())
    }
}

impl Pace {
    /// A call came through.
    pub(super) fn note(&self, organization: OrganizationId, took: Duration) {
        let took = took.as_secs_f64();
        let average = self.0.get_with(organization, || Arc::new(Mutex::new(took)));
        let mut average = average.lock().unwrap_or_else(PoisonError::into_inner);
        *average += NEWEST * (took - *average);
    }

    /// When half of a full queue will have gone: calls that came through lately waited in it, so
    /// half their time is what it takes.
    pub(super) fn until_half_empty(&self, organization: OrganizationId) -> Duration {
        let known = self.0.get(&organization).map(|average| *average.lock().unwrap_or_else(PoisonError::into_inner));
        known
            .map_or(FIRST_GUESS, |seconds| Duration::from_secs_f64(seconds / 2.0))
            .clamp(Duration::from_millis(100), LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_follows_what_calls_take() {
        let (pace, organization) = (Pace::default(), OrganizationId::new());
        assert_eq!(pace.until_half_empty(organization), FIRST_GUESS);
        for _ in 0..50 {
            pace.note(organization, Duration::from_secs(8));
        }
        let wait = pace.until_half_empty(organization).as_secs_f64();
        assert!((3.9..4.1).contains(&wait), "{wait}");
        assert_eq!(pace.until_half_empty(OrganizationId::new()), FIRST_GUESS);
    }
}
