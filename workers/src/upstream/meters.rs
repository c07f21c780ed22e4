//! What clients tell the metrics: how many are open, what servers were asked for, how it ended and how
//! long it took.

use std::time::Instant;

use metrics::{Counter, Gauge, Histogram};
use shared::Fault;

/// The metrics of one open client, looked up when it is opened and not with every call.
pub(super) struct Meters {
    client: &'static str,
    open: Gauge,
    answered: Counter,
    seconds: Histogram,
}

impl Meters {
    /// Of a client that is open from now on, until this is dropped.
    pub(super) fn of(client: &'static str) -> Self {
        let open = metrics::gauge!("switchboard_upstream_connections", "client" => client);
        open.increment(1);
        Self {
            client,
            open,
            answered: requests(client, "done"),
            seconds: metrics::histogram!("switchboard_upstream_request_seconds", "client" => client),
        }
    }

    /// Counts a request by how it ended. One that its caller gave up is not counted.
    pub(super) fn count<T>(&self, started: Instant, ended: &Result<T, Fault>) {
        self.seconds.record(started.elapsed());
        match ended {
            Ok(_) => self.answered.increment(1),
            Err(fault) => requests(self.client, fault.code.face().name).increment(1),
        }
    }
}

impl Drop for Meters {
    fn drop(&mut self) {
        self.open.decrement(1);
    }
}

impl std::fmt::Debug for Meters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meters").field("client", &self.client).finish_non_exhaustive()
    }
}

fn requests(client: &'static str, end: &'static str) -> Counter {
    metrics::counter!("switchboard_upstream_requests_total", "client" => client, "end" => end)
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;
    use shared::Code;

    use super::*;

    #[test]
    fn a_client_is_counted_while_it_is_open_and_its_requests_by_how_they_end() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let said = || recorder.handle().render();
        metrics::with_local_recorder(&recorder, || {
            let (meters, started) = (Meters::of("native"), Instant::now());
            meters.count(started, &Ok(()));
            meters.count::<()>(started, &Err(Fault::new(Code::Reconnect, "The server said no.")));
            for line in [
                "switchboard_upstream_connections{client=\"native\"} 1",
                "switchboard_upstream_requests_total{client=\"native\",end=\"done\"} 1",
                "switchboard_upstream_requests_total{client=\"native\",end=\"reconnect\"} 1",
                "switchboard_upstream_request_seconds_count{client=\"native\"} 2",
            ] {
                assert!(said().lines().any(|said| said == line), "{line} is missing: {}", said());
            }
            drop(meters);
            assert!(said().contains("switchboard_upstream_connections{client=\"native\"} 0"), "{}", said());
        });
    }
}
