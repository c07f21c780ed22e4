//! nats-server from the locked environment, with the configuration that production uses and one password per role.

use anyhow::Result;
use shared::bus::topology::QUEUE_API;

use crate::child::{Layer, Spec};
use crate::places::{DataDir, Places};
use crate::ports::PortBook;
use crate::readiness::Ready;
use crate::secrets::Secrets;
use crate::supervisor::Supervisor;

/// Who connects to NATS: each role has a user of its own with exact permissions (`nats/`), and so have the administrator
/// of `JetStream` and the two sides of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NatsUser {
    /// The gateways.
    Gateway,
    /// The pool of the control plane without secrets.
    Session,
    /// The pool that touches secrets.
    Token,
    /// The pool that calls tools.
    Tool,
    /// The pool that writes the audit trail.
    Audit,
    /// The pool of lanes and sweeps.
    Controller,
    /// The administrator of `JetStream`, which the controller connects as besides.
    Jetstream,
    /// Who works calls off, which tool workers connect as besides.
    Lanes,
    /// Who publishes calls, which gateways connect as besides.
    Caller,
}

impl NatsUser {
    /// Every user.
    pub const ALL: [Self; 9] = [
        Self::Gateway,
        Self::Session,
        Self::Token,
        Self::Tool,
        Self::Audit,
        Self::Controller,
        Self::Jetstream,
        Self::Lanes,
        Self::Caller,
    ];

    /// The user's name.
    pub fn user(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Session => "session",
            Self::Token => "token",
            Self::Tool => "tool",
            Self::Audit => "audit",
            Self::Controller => "controller",
            Self::Jetstream => "jetstream",
            Self::Lanes => "lanes",
            Self::Caller => "caller",
        }
    }

    pub(crate) fn password(self, secrets: &Secrets) -> Result<String> {
        secrets.password(&format!("nats-{}", self.user()))
    }
}

/// A running server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Nats {
    pub(crate) port: u16,
    pub(crate) monitor_port: u16,
}

/// Settings of Go's runtime for a nats-server that shares a machine with everything else (docs/performance.md). Its
/// memory is collected when it has grown by three quarters, not doubled: some 10 MB less under load, for a little more
/// work. It runs on half of the processors: a goroutine that wakes another on an idle processor costs more than what
/// most do.
#[must_use]
pub fn go_runtime() -> [(&'static str, String); 2] {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    [("GOGC", "75".to_owned()), ("GOMAXPROCS", (processors / 2).max(1).to_string())]
}

impl Nats {
    /// Starts the server and waits until it answers that it is healthy, `JetStream` included.
    pub(crate) async fn start(
        supervisor: &Supervisor,
        places: &Places,
        data: &DataDir,
        ports: &PortBook,
        secrets: &Secrets,
    ) -> Result<Self> {
        let configuration = places.root().join("nats/nats.conf");
        let passwords = NatsUser::ALL
            .iter()
            .map(|role| Ok((format!("NATS_PASSWORD_{}", role.user().to_uppercase()), role.password(secrets)?)))
            .collect::<Result<Vec<_>>>()?;
        // No process but the server is given it.
        let queue_api = format!("{}.>", secrets.password("nats-queue-api")?);
        let store = data.join("nats");
        let spec = |ports: &[u16]| {
            let mut spec = Spec::new("nats", Layer::Nats, places.tool("nats-server"), data.path())
                .arguments(["-c".as_ref(), configuration.as_os_str()])
                .variable("NATS_HOST", "127.0.0.1")
                .variable("NATS_PORT", ports[0].to_string())
                .variable("NATS_MONITOR_PORT", ports[1].to_string())
                .variable("NATS_STORE_DIR", &store)
                .variable(QUEUE_API, &queue_api)
                .ready(Ready::Answers(format!("http://127.0.0.1:{}/healthz", ports[1])));
            for (name, value) in go_runtime() {
                spec = spec.variable(name, value);
            }
            for (name, password) in &passwords {
                spec = spec.variable(name, password);
            }
            spec
        };
        let taken = supervisor.launch_on(ports, &["nats", "nats-monitor"], spec).await?;
        Ok(Self { port: taken[0], monitor_port: taken[1] })
    }

    /// Where clients connect, without credentials.
    pub(crate) fn url(self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }
}
