//! The stdio mode of the `FastMCP` service, with a catalogue of one program: the stack's own demo server.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::child::{Layer, Spec};
use crate::places::{DataDir, Places};
use crate::ports::PortBook;
use crate::readiness::Ready;
use crate::secrets::{Secrets, write_private};
use crate::supervisor::Supervisor;
use shared::hex;

/// The program's name in the catalogue.
pub const DEMO_PROGRAM: &str = "demo";
const DEMO: &str = "stdio_server.py";

/// The catalogue, which the token workers read too.
pub(crate) fn catalogue(data: &DataDir) -> PathBuf {
    data.join("catalogue.json")
}

/// The key with which tool workers and the stdio service recognise each other.
pub(crate) fn stdio_key(secrets: &Secrets) -> Result<String> {
    secrets.password("fastmcp-stdio")
}

/// Starts the service on what [`write`] wrote.
pub(crate) async fn start(
    supervisor: &Supervisor,
    places: &Places,
    data: &DataDir,
    ports: &PortBook,
    secrets: &Secrets,
) -> Result<u16> {
    write(places, data)?;
    let key = stdio_key(secrets)?;
    let folder = places.root().join("fastmcp");
    let spec = |ports: &[u16]| {
        Spec::new("fastmcp-stdio", Layer::FastMcp, places.tool("python"), &folder)
            .arguments(["-m", "switchboard_fastmcp"])
            .variable("PYTHONPATH", &folder)
            .variable("PYTHONUNBUFFERED", "1")
            .variable("FASTMCP_MODE", "stdio")
            .variable("FASTMCP_LISTEN", format!("127.0.0.1:{}", ports[0]))
            .variable("FASTMCP_KEY", &key)
            .variable("FASTMCP_CATALOGUE", catalogue(data))
            .variable("FASTMCP_STDIO_WORKSPACES", data.join("workspaces"))
            // The stack shall start on machines that refuse namespaces; there its log says so.
            .variable("FASTMCP_STDIO_ALLOW_NETWORK", "1")
            .variable("LOG_FORMAT", "json")
            .ready(Ready::Answers(format!("http://127.0.0.1:{}/health", ports[0])))
    };
    Ok(supervisor.launch_on(ports, &["fastmcp-stdio"], spec).await?[0])
}

/// A copy of the program that nobody else may write, whatever the checkout's modes are, and its entry.
fn write(places: &Places, data: &DataDir) -> Result<()> {
    let source = places.root().join("fastmcp/demo").join(DEMO);
    let bytes = fs::read(&source).with_context(|| format!("{} cannot be read", source.display()))?;
    let program = data.join(DEMO);
    fs::write(&program, &bytes)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    let own = places.tool("python");
    let own = own.parent().map(|folder| format!(":{}", folder.display())).unwrap_or_default();
    let entries = json!([{
        "name": DEMO_PROGRAM,
        "description": "Works with files in its workspace, and tries to get out of it.",
        "program": program,
        "arguments": ["{workspace}"],
        "sha256": hex(&Sha256::digest(&bytes)),
        // The program's first line asks `env` for a Python; a user of its own reaches the system's first.
        "environment": { "PATH": format!("/usr/local/bin:/usr/bin:/bin{own}") },
    }]);
    write_private(&catalogue(data), &entries.to_string())
}
