//! All targets of a run, brought up side by side: the product's stack as `cargo dev up` starts it, and the floors.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use stack::places::Places;
use stack::{Options, Scratch, Stack};

use super::backlog::Backlog;
use super::parts::Parts;
use super::switchboard::{self, FASTMCP, Member, NATIVE};
use super::{Target, aim};
use crate::load::Order;
use crate::processes::{self, Process};
use crate::prompts::{self, Prompts};
use crate::shape::Shape;

/// What runs.
pub(crate) struct Targets {
    stack: Stack,
    scratch: Scratch,
    parts: Vec<Parts>,
    member: Option<Member>,
    /// The MCP endpoint of each target that has one.
    addresses: Vec<(Target, SocketAddr)>,
    own: Vec<(Target, Vec<Process>)>,
    postgres: Vec<Process>,
    backlog: Backlog,
}

impl Targets {
    /// Brings up what is to be measured.
    ///
    /// # Errors
    /// What failed; everything that was started is stopped by the stack's watchdog.
    pub(crate) async fn start(places: &Places, wanted: &[Target], workers: u8) -> Result<Self> {
        let scratch = Scratch::new()?;
        let product = wanted.iter().any(|target| target.is_switchboard());
        let options = Options {
            workers_per_pool: usize::from(workers),
            product,
            seed: product,
            // As durable as in production: the audit trail's commits are part of the cost.
            test_mode: false,
            ..Options::development(scratch.path())
        };
        let stack = Stack::start(options).await?;
        let demo = address_of(&stack.demo_url())?;
        let member = if product { Some(switchboard::member(&stack).await?) } else { None };
        let mut targets = Self {
            addresses: vec![(Target::Direct, demo)],
            own: Self::of_the_stack(&stack)?,
            postgres: postgres(&stack)?,
            backlog: Backlog::of(&stack)?,
            stack,
            member,
            parts: Vec::new(),
            scratch,
        };
        for target in wanted {
            targets.start_floor(places, *target, demo).await?;
        }
        Ok(targets)
    }

    async fn start_floor(&mut self, places: &Places, target: Target, demo: SocketAddr) -> Result<()> {
        let folder = self.scratch.path().join(target.to_string());
        let mark = self.stack.supervisor().stack_id().to_owned();
        let mut parts = Parts::new(&folder, mark)?;
        let upstream = demo.to_string();
        let address = match target {
            Target::Direct | Target::Native | Target::Fastmcp => return Ok(()),
            Target::Proxy => parts.start("proxy", &itself()?, ["proxy", "--upstream", &upstream]).await?,
            Target::Skeleton | Target::Durable => {
                let nats = parts.start_nats(&places.tool("nats-server"), target == Target::Durable).await?;
                let (itself, worker, gateway) = (itself()?, format!("{target}-worker"), format!("{target}-gateway"));
                let worker = [worker.as_str(), "--nats", &nats, "--upstream", &upstream];
                parts.start("worker", &itself, worker).await?;
                parts.start("gateway", &itself, [gateway.as_str(), "--nats", &nats]).await?
            }
            Target::FastmcpProxy | Target::FastmcpProxyKept => {
                let script = places.root().join("bench/fastmcp_proxy.py");
                let script = script.to_str().context("the checkout's path is not text")?;
                let url = format!("http://{demo}/mcp");
                let kept = (target == Target::FastmcpProxyKept).then_some("--kept");
                let arguments = [script, "--upstream", &url].into_iter().chain(kept);
                parts.start("python", &places.tool("python"), arguments).await?
            }
        };
        self.addresses.push((target, address));
        self.own.push((target, parts.processes()));
        self.parts.push(parts);
        Ok(())
    }

    /// The processes of the stack, by what they are.
    fn of_the_stack(stack: &Stack) -> Result<Vec<(Target, Vec<Process>)>> {
        let tagged = stack::tagged(stack.supervisor().stack_id());
        let tagged: Vec<u32> = tagged.into_iter().filter_map(|pid| pid.try_into().ok()).collect();
        let find = |name: &str, program: &str, words: &[&str]| -> Vec<Process> {
            let pids = processes::with_arguments(&tagged, program, words);
            pids.into_iter().map(|pid| Process::new(name, pid)).collect()
        };
        let demo = find("demo", "demo", &[]);
        anyhow::ensure!(demo.len() == 1, "the demo server is not among the stack's processes");
        let mut native = find("gateway", "gateway", &[]);
        for pool in stack::Pool::ALL {
            native.extend(find(&format!("worker {}", pool.as_str()), "workers", &["--pool", pool.as_str()]));
        }
        native.extend(find("nats-server", "nats-server", &[]));
        let service = find("fastmcp service", "python", &["-m", "switchboard_fastmcp"]);
        let fastmcp = [native.clone(), service].concat();
        Ok(vec![(Target::Direct, demo), (Target::Native, native), (Target::Fastmcp, fastmcp)])
    }

    /// A call of this shape to this target.
    ///
    /// # Errors
    /// When the target was not started.
    pub(crate) fn order(&self, target: Target, shape: Shape) -> Result<Order> {
        if target.is_switchboard() {
            let member = self.member.as_ref().context("the product was not started")?;
            let configuration = if target == Target::Native { NATIVE } else { FASTMCP };
            return Ok(aim::api(member.gateway, &member.token, configuration, shape));
        }
        let address = self.addresses.iter().find(|(known, _)| *known == target).context("a target was not started")?;
        Ok(aim::direct(address.1, shape))
    }

    /// The target's own processes: what is paid for in addition to the upstream (for `direct`, the upstream).
    pub(crate) fn own(&self, target: Target) -> &[Process] {
        self.own.iter().find(|(known, _)| *known == target).map_or(&[], |(_, processes)| processes)
    }

    /// What the target makes work too, and is told apart: the database, which production has elsewhere.
    pub(crate) fn beside(&self, target: Target) -> &[Process] {
        if target.is_switchboard() { &self.postgres } else { &[] }
    }

    /// Waits until the target has finished what calls left behind, so that it is counted for them and not for whatever
    /// is measured next.
    ///
    /// # Errors
    /// When a process is gone, or the audit trail does not catch up.
    pub(crate) async fn settle(&self, target: Target) -> Result<()> {
        if target.is_switchboard() {
            self.backlog.until_written().await?;
        }
        processes::settle(&[self.own(target), self.beside(target)].concat()).await
    }

    /// What composing a prompt takes, where the product runs.
    ///
    /// # Errors
    /// What could not be written or composed.
    pub(crate) async fn prompts(&self) -> Result<Option<Prompts>> {
        match &self.member {
            Some(member) => prompts::measure(&self.stack, member).await.map(Some),
            None => Ok(None),
        }
    }

    /// Waits for the first process of the stack that ends although nobody stopped it.
    pub(crate) async fn death(&self) -> String {
        self.stack.death().await.to_string()
    }

    /// Stops everything.
    pub(crate) async fn stop(self) {
        for parts in self.parts {
            parts.stop().await;
        }
        self.stack.stop().await;
    }
}

fn itself() -> Result<PathBuf> {
    std::env::current_exe().context("the running binary cannot be found")
}

fn address_of(endpoint: &str) -> Result<SocketAddr> {
    let address = endpoint.strip_prefix("http://").and_then(|rest| rest.split('/').next());
    address.and_then(|address| address.parse().ok()).with_context(|| format!("{endpoint} has no address"))
}

/// PostgreSQL's first process: it writes over its environment, so its port tells it from others.
fn postgres(stack: &Stack) -> Result<Vec<Process>> {
    let url = stack.superuser_database_url()?;
    let port = url.rsplit_once(':').and_then(|(_, rest)| rest.split('/').next()).unwrap_or_default();
    let found = processes::with_arguments(&processes::pids(), "postgres", &["-p", port]);
    let process = |pid| Process { with_children: true, ..Process::new("PostgreSQL", pid) };
    Ok(found.into_iter().take(1).map(process).collect())
}
