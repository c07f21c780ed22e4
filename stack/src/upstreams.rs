//! The MCP servers that stand in for a tenant's own, and the `FastMCP` service that reaches some of them.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::Result;

use crate::child::{Layer, Spec};
use crate::everything;
use crate::options::Options;
use crate::places::{DataDir, Places};
use crate::ports::PortBook;
use crate::programs;
use crate::readiness::Ready;
use crate::secrets::Secrets;
use crate::supervisor::Supervisor;

/// Ports of what runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Upstreams {
    pub(crate) demo: u16,
    /// The `FastMCP` service.
    pub(crate) service: Option<u16>,
    /// Its stdio mode.
    pub(crate) stdio: Option<u16>,
    pub(crate) demo_fastmcp: Option<u16>,
    pub(crate) demo_sse: Option<u16>,
    pub(crate) everything: Option<u16>,
}

impl Upstreams {
    /// Starts the service and the demo servers at once: Python's imports take a while.
    pub(crate) async fn start(
        supervisor: &Supervisor,
        places: &Places,
        data: &DataDir,
        ports: &PortBook,
        secrets: &Secrets,
        options: &Options,
    ) -> Result<Self> {
        let script = if options.everything { Some(install_everything(places, options).await?) } else { None };
        let everything = async {
            let Some(script) = script else { return Ok(None) };
            let spec = |ports: &[u16]| {
                Spec::new("everything", Layer::Demo, places.tool("node"), places.root())
                    .arguments([script.as_os_str(), "streamableHttp".as_ref()])
                    .variable("PORT", ports[0].to_string())
                    .ready(Ready::Listens(ports[0]))
            };
            Ok(Some(supervisor.launch_on(ports, &["everything"], spec).await?[0]))
        };
        let sse = async {
            if !options.sse_demo {
                return Ok(None);
            }
            python_demo(supervisor, places, ports, "demo-sse", "sse").await.map(Some)
        };
        let python = async {
            if !options.product {
                return Ok((None, None, None));
            }
            let service = service(supervisor, places, ports, secrets);
            let demo = python_demo(supervisor, places, ports, "demo-fastmcp", "http");
            let stdio = programs::start(supervisor, places, data, ports, secrets);
            futures::try_join!(service, stdio, demo)
                .map(|(service, stdio, demo)| (Some(service), Some(stdio), Some(demo)))
        };
        let (demo, (service, stdio, demo_fastmcp), demo_sse, everything) =
            futures::try_join!(native_demo(supervisor, places, ports), python, sse, everything)?;
        Ok(Self { demo, service, stdio, demo_fastmcp, demo_sse, everything })
    }

    /// Where tool workers reach the service; empty when there is none.
    pub(crate) fn service_url(&self) -> String {
        self.service.map_or_else(String::new, |port| format!("http://127.0.0.1:{port}"))
    }

    /// The same for its stdio mode.
    pub(crate) fn stdio_url(&self) -> String {
        self.stdio.map_or_else(String::new, |port| format!("http://127.0.0.1:{port}"))
    }

    /// The addresses a tenant's configuration may name: exactly these servers, and not the service.
    pub(crate) fn egress(&self) -> Vec<SocketAddr> {
        let ports = [Some(self.demo), self.demo_fastmcp, self.demo_sse, self.everything];
        ports.into_iter().flatten().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))).collect()
    }
}

/// Off the runtime's threads: npm takes seconds the first time.
async fn install_everything(places: &Places, options: &Options) -> Result<PathBuf> {
    let (places, progress) = (places.clone(), options.progress);
    tokio::task::spawn_blocking(move || everything::ensure(&places, progress)).await?
}

/// The key with which tool workers and the service recognise each other.
pub(crate) fn fastmcp_key(secrets: &Secrets) -> Result<String> {
    secrets.password("fastmcp")
}

async fn service(supervisor: &Supervisor, places: &Places, ports: &PortBook, secrets: &Secrets) -> Result<u16> {
    let key = fastmcp_key(secrets)?;
    let folder = places.root().join("fastmcp");
    let spec = |ports: &[u16]| {
        Spec::new("fastmcp", Layer::FastMcp, places.tool("python"), &folder)
            .arguments(["-m", "switchboard_fastmcp"])
            .variable("PYTHONPATH", &folder)
            .variable("PYTHONUNBUFFERED", "1")
            .variable("FASTMCP_LISTEN", format!("127.0.0.1:{}", ports[0]))
            .variable("FASTMCP_KEY", &key)
            .variable("LOG_FORMAT", "json")
            .ready(Ready::Answers(format!("http://127.0.0.1:{}/health", ports[0])))
    };
    Ok(supervisor.launch_on(ports, &["fastmcp"], spec).await?[0])
}

async fn native_demo(supervisor: &Supervisor, places: &Places, ports: &PortBook) -> Result<u16> {
    let program = places.binary("demo")?;
    let spec = |ports: &[u16]| {
        Spec::new("demo", Layer::Demo, &program, places.root())
            .arguments(["--port", &ports[0].to_string()])
            .ready(Ready::Listens(ports[0]))
    };
    Ok(supervisor.launch_on(ports, &["demo"], spec).await?[0])
}

async fn python_demo(
    supervisor: &Supervisor,
    places: &Places,
    ports: &PortBook,
    name: &str,
    transport: &str,
) -> Result<u16> {
    let script = places.root().join("fastmcp/demo/server.py");
    let spec = |ports: &[u16]| {
        Spec::new(name, Layer::Demo, places.tool("python"), places.root())
            .arguments([script.as_os_str(), "--transport".as_ref(), transport.as_ref()])
            .arguments(["--port", &ports[0].to_string()])
            .variable("PYTHONUNBUFFERED", "1")
            .ready(Ready::Listens(ports[0]))
    };
    Ok(supervisor.launch_on(ports, &[name], spec).await?[0])
}
