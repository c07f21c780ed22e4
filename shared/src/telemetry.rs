//! Logs and metrics, the same in every process: JSON lines on standard output, Prometheus text on
//! request.

mod clock;
mod handles;

use std::{
    fmt::Write as _,
    io::{self, BufWriter, Stdout, Write},
    time::Duration,
};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use serde::Deserialize;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{EnvFilter, fmt::MakeWriter, layer::SubscriberExt, util::SubscriberInitExt};

pub use self::handles::Handles;

/// `LOG_*`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Log {
    /// `json` (default) or `text`.
    #[serde(default)]
    pub format: LogFormat,
    /// A `tracing` filter such as `info,workers=debug`.
    #[serde(default)]
    pub filter: Option<String>,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// For a person at a terminal.
    Text,
}

/// What other people's crates may say at most, whatever the filter: `rmcp` prints authorization
/// codes and token responses at debug level, the HTTP crates print headers, the NATS client whole
/// messages.
const CEILINGS: [&str; 6] = ["rmcp=off", "hyper=info", "hyper_util=info", "reqwest=info", "h2=info", "async_nats=info"];

/// Starts logging, each line written where it is said. For commands that people run; call once, first thing in `main`.
pub fn start_logs(config: &Log) -> anyhow::Result<()> {
    log_to(config, io::stdout)
}

/// Bytes of lines that are written at once.
const LINES_BYTES: usize = 64 * 1024;
/// Lines that may wait to be written; room for each is taken at the start.
const LINES_WAITING: usize = 4_096;

/// Starts logging for a process that serves: a thread of its own writes the lines, several at once where many come, so
/// that no call waits for a disk. Where they are written too slowly, who says more of them waits. Keep the guard until
/// the end, which writes what is left within a second; of a process that is killed the last lines are lost.
pub fn start_logs_aside(config: &Log) -> anyhow::Result<WorkerGuard> {
    let lines = Gathering(BufWriter::with_capacity(LINES_BYTES, io::stdout()));
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(false)
        .buffered_lines_limit(LINES_WAITING)
        .thread_name("logs")
        .finish(lines);
    log_to(config, writer)?;
    Ok(guard)
}

/// How long lines gather after some were written.
const GATHER_FOR: Duration = Duration::from_millis(20);

/// Lines of which those that come while it rests are written at once: to wake a thread for each costs more than to
/// write it.
struct Gathering(BufWriter<Stdout>);

impl Write for Gathering {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write(line)
    }

    /// Called when no more lines wait.
    #[expect(clippy::disallowed_methods, reason = "a thread of its own, which has nothing else to do")]
    fn flush(&mut self) -> io::Result<()> {
        let written = self.0.flush();
        std::thread::sleep(GATHER_FOR);
        written
    }
}

fn log_to<W>(config: &Log, writer: W) -> anyhow::Result<()>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let mut directives = config.filter.clone().unwrap_or_else(|| "info".to_owned());
    for ceiling in CEILINGS {
        write!(directives, ",{ceiling}")?;
    }
    let filter = EnvFilter::try_new(&directives)?;
    let registry = tracing_subscriber::registry().with(filter);
    match config.format {
        LogFormat::Json => registry
            .with(
                tracing_subscriber::fmt::layer()
                    .json()
                    .flatten_event(true)
                    // There are no spans: a line says itself whose it is.
                    .with_current_span(false)
                    .with_span_list(false)
                    .with_timer(clock::Clock)
                    .with_writer(writer),
            )
            .try_init()?,
        LogFormat::Text => registry.with(tracing_subscriber::fmt::layer().with_writer(writer)).try_init()?,
    }
    tracing::debug!(filter = directives, "logging");
    Ok(())
}

/// Upper bounds of latency buckets, in seconds.
const LATENCY_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0];

/// How often the recorder puts what histograms were told into their buckets. Until then it keeps every value.
const SORT_EVERY: Duration = Duration::from_secs(5);

/// Installs the metrics recorder and describes every metric of ours. Call once per process, within its runtime.
pub fn start_metrics() -> anyhow::Result<PrometheusHandle> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &LATENCY_BUCKETS)?
        .install_recorder()?;
    describe();
    let sorted = handle.clone();
    // Not left to whoever asks for the metrics: where nobody does, memory would grow with every call.
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(SORT_EVERY).await;
            sorted.run_upkeep();
        }
    });
    Ok(handle)
}

fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    describe_counter!("switchboard_http_requests_total", "HTTP requests answered, by route, method and status.");
    describe_histogram!("switchboard_http_request_seconds", Unit::Seconds, "Time to answer an HTTP request, by route.");
    describe_counter!(
        "switchboard_accept_failures_total",
        "Connections the gateway could not take, such as for want of files."
    );
    describe_counter!("switchboard_commands_total", "Commands run, by name and how they ended.");
    describe_histogram!("switchboard_command_seconds", Unit::Seconds, "Time a worker spent on a command, by name.");
    describe_gauge!("switchboard_calls_running", "Queued calls this worker runs right now.");
    describe_histogram!("switchboard_call_queued_seconds", Unit::Seconds, "Time calls waited in their lane.");
    describe_counter!("switchboard_calls_redelivered_total", "Queued calls delivered more than once.");
    describe_counter!("switchboard_messages_refused_total", "Messages no worker could accept, by reason.");
    describe_counter!(
        "switchboard_audit_events_total",
        "Audit events, by what became of them; one that cannot be kept is counted at each try."
    );
    describe_counter!(
        "switchboard_upstream_requests_total",
        "Calls and lists asked of MCP servers, by client and how they ended."
    );
    describe_histogram!(
        "switchboard_upstream_request_seconds",
        Unit::Seconds,
        "Time MCP servers took to answer, by client."
    );
    describe_gauge!("switchboard_upstream_connections", "MCP clients kept open, by client.");
    describe_counter!("switchboard_egress_refused_total", "Addresses the egress guard refused, by reason.");
    describe_counter!("switchboard_authentication_refused_total", "Requests refused for their token, by reason.");
    describe_gauge!(
        "switchboard_state_revision",
        "How far the process's copy of a bucket of the shared state goes; the highest among all processes is the latest."
    );
    describe_gauge!("switchboard_lanes_open", "Lanes the controller keeps open.");
    describe_gauge!("switchboard_build_info", "Always 1; the version is a label.");
    metrics::gauge!("switchboard_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}
