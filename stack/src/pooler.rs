//! A real transaction pooler between the workers and `PostgreSQL`: `PgBouncer`, where the machine has one. No registry
//! of the locked environment carries it, so that a machine without it does without.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::unistd::Uid;

use crate::child::{Layer, Spec};
use crate::places::DataDir;
use crate::ports::PortBook;
use crate::postgres::Postgres;
use crate::product::Pool;
use crate::readiness::Ready;
use crate::secrets::{Secrets, write_private};
use crate::supervisor::Supervisor;

/// Connections to the server for each role: fewer than the workers open, so that transactions of different clients
/// meet on one connection all the time.
const CONNECTIONS: u8 = 2;

/// The installed `PgBouncer`, if there is one on the PATH.
pub fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join("pgbouncer")).find(|program| program.is_file())
}

/// Starts it before the server and returns its port.
pub(crate) async fn start(
    supervisor: &Supervisor,
    data: &DataDir,
    ports: &PortBook,
    secrets: &Secrets,
    postgres: Postgres,
) -> Result<u16> {
    let program = program().context("there is no pgbouncer on the PATH")?;
    let users = data.join("pgbouncer.users");
    write_private(&users, &passwords(secrets)?)?;
    let file = data.join("pgbouncer.ini");
    let spec = |ports: &[u16]| {
        let spec = Spec::new("pgbouncer", Layer::Nats, &program, data.path())
            .arguments(as_nobody())
            .arguments([file.as_os_str()])
            .ready(Ready::Postgres(ports[0]));
        // What cannot be written is told by the child that cannot read it.
        let _ = write_private(&file, &configuration(ports[0], postgres.port, &users));
        spec
    };
    Ok(supervisor.launch_on(ports, &["pgbouncer"], spec).await?[0])
}

/// It refuses to run as root, and reads its files before it becomes somebody else.
fn as_nobody() -> Vec<OsString> {
    if Uid::effective().is_root() { vec!["-u".into(), "nobody".into()] } else { Vec::new() }
}

fn passwords(secrets: &Secrets) -> Result<String> {
    let mut text = String::new();
    for pool in Pool::ALL {
        let _ = writeln!(text, "\"{}\" \"{}\"", pool.database_role(), pool.database_password(secrets)?);
    }
    Ok(text)
}

/// The defaults, except for what makes it lend a connection per transaction.
fn configuration(port: u16, server: u16, users: &Path) -> String {
    format!(
        "[databases]\n* = host=127.0.0.1 port={server}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
         unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {}\npool_mode = transaction\n\
         default_pool_size = {CONNECTIONS}\nmax_client_conn = 500\n",
        users.display()
    )
}
