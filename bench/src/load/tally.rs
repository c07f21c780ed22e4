//! What callers counted, and the figures of it.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// The figures of one measurement, as the generator's last line.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// Good answers within the window, per second. The window is as long as was asked for, or until there were
    /// as many answers as make a figure.
    pub(crate) calls_per_s: f64,
    /// Good answers in all: those begun within the window and finished after it too.
    pub(crate) calls: u32,
    pub(crate) p50_ms: f64,
    pub(crate) p95_ms: f64,
    pub(crate) p99_ms: f64,
    /// Calls without a good answer.
    pub(crate) errors: u32,
    /// What the first of them was.
    pub(crate) first_error: Option<String>,
}

/// The longest that a target is called, however few answers it gave.
const LONGEST: Duration = Duration::from_secs(45);

/// When callers stop.
#[derive(Debug)]
pub(crate) struct Window {
    began: Instant,
    length: Duration,
    /// Answers without which there is no figure.
    least: u32,
    answered: AtomicU32,
}

impl Window {
    /// Begins now. A target too slow for `least` answers in it is called for up to [`LONGEST`].
    pub(crate) fn begin(length: Duration, least: u32) -> Self {
        Self { began: Instant::now(), length, least, answered: AtomicU32::new(0) }
    }

    /// Counts an answer, good or not; true when it was the caller's last.
    pub(crate) fn is_over(&self) -> bool {
        let answered = self.answered.fetch_add(1, Relaxed) + 1;
        let elapsed = self.began.elapsed();
        elapsed >= self.length && (answered >= self.least || elapsed >= LONGEST)
    }
}

/// What one or many callers counted.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    took: Vec<Duration>,
    /// When each answer was there, from the beginning of the window.
    finished: Vec<Duration>,
    errors: u32,
    first_error: Option<String>,
}

impl Tally {
    /// Counts a good answer.
    pub(crate) fn good(&mut self, window: &Window, began: Instant, finished: Instant) {
        self.took.push(finished - began);
        self.finished.push(finished - window.began);
    }

    /// Counts a call without a good answer.
    pub(crate) fn bad(&mut self, why: String) {
        self.errors += 1;
        self.first_error.get_or_insert(why);
    }

    /// Adds what another caller counted.
    pub(crate) fn add(&mut self, other: Self) {
        self.took.extend(other.took);
        self.finished.extend(other.finished);
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
    }

    /// The figures of a window of at least this length and so many answers.
    pub(crate) fn figures(mut self, length: Duration, least: u32) -> Figures {
        self.took.sort_unstable();
        self.finished.sort_unstable();
        let calls = u32::try_from(self.took.len()).unwrap_or(u32::MAX);
        let needed = usize::try_from(least).unwrap_or(usize::MAX).clamp(1, self.finished.len().max(1));
        let enough = self.finished.get(needed - 1).copied().unwrap_or_default();
        let window = length.max(enough);
        let within = self.finished.partition_point(|finished| *finished <= window);
        Figures {
            calls_per_s: f64::from(u32::try_from(within).unwrap_or(u32::MAX)) / window.as_secs_f64(),
            calls,
            p50_ms: percentile_ms(&self.took, 50),
            p95_ms: percentile_ms(&self.took, 95),
            p99_ms: percentile_ms(&self.took, 99),
            errors: self.errors,
            first_error: self.first_error,
        }
    }
}

/// The smallest time that at least `percent` of the calls did not exceed (nearest rank); 0 without calls.
fn percentile_ms(sorted: &[Duration], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).map_or(0.0, |took| took.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(window: &Window, calls: impl IntoIterator<Item = (u64, u64)>) -> Tally {
        let mut tally = Tally::default();
        for (began_ms, took_ms) in calls {
            let began = window.began + Duration::from_millis(began_ms);
            tally.good(window, began, began + Duration::from_millis(took_ms));
        }
        tally
    }

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let window = Window::begin(Duration::from_secs(2), 1);
        let figures = tally(&window, (1..=200).rev().map(|ms| (0, ms))).figures(window.length, 1);
        assert_eq!((figures.p50_ms, figures.p95_ms, figures.p99_ms), (100.0, 190.0, 198.0));
        assert_eq!((figures.calls, figures.calls_per_s), (200, 100.0));
    }

    #[test]
    fn an_answer_after_the_window_counts_as_a_call_but_not_as_throughput() {
        let window = Window::begin(Duration::from_secs(4), 1);
        let figures = tally(&window, [(0, 1_000), (1_000, 9_000)]).figures(window.length, 1);
        assert_eq!((figures.calls, figures.calls_per_s), (2, 0.25));
    }

    #[test]
    fn a_target_that_is_slower_than_the_window_is_called_until_there_is_a_figure() {
        let window = Window::begin(Duration::ZERO, 4);
        assert_eq!(
            [window.is_over(), window.is_over(), window.is_over(), window.is_over()],
            [false, false, false, true]
        );
        let slow = tally(&window, [(0, 5_000), (0, 5_000), (5_000, 5_000), (5_000, 5_000), (10_000, 5_000)]);
        let figures = slow.figures(Duration::from_secs(1), 4);
        assert_eq!((figures.calls, figures.calls_per_s), (5, 0.4));
    }

    #[test]
    fn the_first_error_is_kept_and_all_are_counted() {
        let (mut one, mut two) = (Tally::default(), Tally::default());
        two.bad("first".to_owned());
        two.bad("second".to_owned());
        one.add(two);
        let figures = one.figures(Duration::from_secs(1), 10);
        assert_eq!((figures.errors, figures.first_error.as_deref()), (2, Some("first")));
        assert_eq!((figures.p50_ms, figures.calls_per_s), (0.0, 0.0));
    }
}
