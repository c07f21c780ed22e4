//! What reached the demo server, counted by the server itself: the tests' witness.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use serde::Serialize;
use serde_json::{Map, Value};

use super::tools::NAMES;

/// Counters since the start or the last reset.
#[derive(Debug, Default)]
pub(super) struct Stats {
    calls: [AtomicU64; NAMES.len()],
    running: AtomicU64,
    max_running: AtomicU64,
    cancelled: AtomicU64,
    connections: AtomicU64,
    counter: AtomicU64,
}

/// The body of `GET /control/stats`.
#[derive(Debug, Serialize)]
pub(super) struct Snapshot {
    /// Calls begun, by tool; every tool is named, also those never called.
    calls: Map<String, Value>,
    /// Calls executing at this moment.
    running: u64,
    /// Calls that were cancelled, or whose caller went away, before they had a result.
    cancelled: u64,
    /// TCP connections that carried at least one request to `/mcp`.
    connections: u64,
    /// The value `counter_increment` has reached.
    counter: u64,
    /// The most calls that were ever executing at once.
    max_running: u64,
}

impl Stats {
    /// Counts a call in; it counts itself out when the returned value is dropped.
    pub(super) fn begin(&self, tool: usize) -> Running<'_> {
        self.calls[tool].fetch_add(1, SeqCst);
        let running = self.running.fetch_add(1, SeqCst) + 1;
        self.max_running.fetch_max(running, SeqCst);
        Running { stats: self, finished: false }
    }

    pub(super) fn count_connection(&self) {
        self.connections.fetch_add(1, SeqCst);
    }

    /// Adds one to the counter and returns what it is then.
    pub(super) fn increment(&self) -> u64 {
        self.counter.fetch_add(1, SeqCst) + 1
    }

    pub(super) fn counter(&self) -> u64 {
        self.counter.load(SeqCst)
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let calls = NAMES
            .iter()
            .zip(&self.calls)
            .map(|(name, count)| ((*name).to_owned(), Value::from(count.load(SeqCst))))
            .collect();
        Snapshot {
            calls,
            running: self.running.load(SeqCst),
            cancelled: self.cancelled.load(SeqCst),
            connections: self.connections.load(SeqCst),
            counter: self.counter(),
            max_running: self.max_running.load(SeqCst),
        }
    }

    /// Starts counting anew. Calls still executing stay in `running` and are the new peak.
    pub(super) fn reset(&self) {
        let zeroed = [&self.cancelled, &self.connections, &self.counter];
        for count in self.calls.iter().chain(zeroed) {
            count.store(0, SeqCst);
        }
        self.max_running.store(self.running.load(SeqCst), SeqCst);
    }
}

/// A call that is executing. Dropped without [`Running::finish`], it counts as cancelled.
#[derive(Debug)]
pub(super) struct Running<'a> {
    stats: &'a Stats,
    finished: bool,
}

impl Running<'_> {
    /// The call has its result.
    pub(super) fn finish(mut self) {
        self.finished = true;
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.stats.cancelled.fetch_add(1, SeqCst);
        }
        self.stats.running.fetch_sub(1, SeqCst);
    }
}
