//! `PostgreSQL` from the locked environment: created once, started on loopback, with passwords from the first moment.
//!
//! `PostgreSQL` refuses to run as root, and a checkout in root's home is closed to every other user;
//! [`unprivileged`] finds a way for each case.

mod unprivileged;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use self::unprivileged::Unprivileged;
use crate::child::{Layer, Spec};
use crate::places::{DataDir, Places};
use crate::ports::PortBook;
use crate::readiness::Ready;
use crate::secrets::{Secrets, write_private};
use crate::supervisor::Supervisor;

/// The superuser and its database carry the same name, as on Supabase.
const SUPERUSER: &str = "postgres";

/// A running server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Postgres {
    pub(crate) port: u16,
}

impl Postgres {
    /// Creates the cluster when there is none, and starts it.
    pub(crate) async fn start(
        supervisor: &Supervisor,
        places: &Places,
        data: &DataDir,
        ports: &PortBook,
        secrets: &Secrets,
        throw_away: bool,
    ) -> Result<Self> {
        let way = Unprivileged::find(&places.postgres_installation()?, data)?;
        let cluster = way.home().join("postgres");
        if cluster.join("PG_VERSION").is_file() {
            way.hand_over(&cluster)?;
        } else {
            create(supervisor, &way, &cluster, secrets).await?;
        }
        let taken =
            supervisor.launch_on(ports, &["postgres"], |ports| server(&way, &cluster, ports[0], throw_away)).await?;
        Ok(Self { port: taken[0] })
    }

    /// Where to connect as the superuser. Holds the password: not for logs.
    pub(crate) fn superuser_url(self, secrets: &Secrets) -> Result<String> {
        Ok(self.url(SUPERUSER, &secrets.password("postgres")?))
    }

    /// Where to connect as a role. Holds the password: not for logs.
    pub(crate) fn url(self, role: &str, password: &str) -> String {
        format!("postgres://{role}:{password}@127.0.0.1:{}/{SUPERUSER}", self.port)
    }
}

/// Creates the cluster beside its place and moves it there when whole, so that an interruption leaves no half of one.
async fn create(supervisor: &Supervisor, way: &Unprivileged, cluster: &Path, secrets: &Secrets) -> Result<()> {
    let unfinished = cluster.with_extension("new");
    let _ = fs::remove_dir_all(&unfinished);
    fs::create_dir_all(&unfinished).context("the folder of the database cannot be made")?;
    way.hand_over(&unfinished)?;
    let password_file = way.home().join("postgres.password");
    write_private(&password_file, &secrets.password("postgres")?)?;
    way.hand_over(&password_file)?;
    let mut spec = way
        .spec("initdb", "initdb")
        .arguments([
            "-U",
            SUPERUSER,
            "-A",
            "scram-sha-256",
            "--locale=C",
            "-E",
            "UTF8",
            "--no-instructions",
            "-N",
            "-D",
        ])
        .arguments([unfinished.as_os_str()])
        .arguments(["--pwfile".as_ref(), password_file.as_os_str()]);
    spec.layer = Layer::Nats; // initdb takes SIGTERM
    let created = supervisor.complete(spec).await;
    let _ = fs::remove_file(&password_file);
    created?;
    fs::rename(&unfinished, cluster).context("the new database cannot be put in its place")
}

fn server(way: &Unprivileged, cluster: &Path, port: u16, throw_away: bool) -> Spec {
    let durability: &[&str] =
        if throw_away { &["fsync=off", "synchronous_commit=off", "full_page_writes=off"] } else { &[] };
    let settings = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=200"];
    let settings = settings.iter().chain(durability).flat_map(|setting| ["-c", *setting]);
    way.spec("postgres", "postgres")
        .arguments(["-D".as_ref(), cluster.as_os_str()])
        .arguments(["-p", &port.to_string()])
        .arguments(settings)
        .ready(Ready::Postgres(port))
}

/// The folder of binaries inside an installation.
fn binaries(installation: &Path) -> PathBuf {
    installation.join("bin")
}
