//! Trying a server out on request: the same guard, the same clients and the same way of its secret
//! as for a call, taken step by step, so that a person learns where it ends and what to do about it.
//! Runs in the tool pool, which is where calls go out; nothing is called, and only what is new of a
//! saved configuration's tools is kept.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use shared::{
    Code, Deadline, Fault,
    command::configurations::{Report, Stage, StageReport, Test, TestedServer, ToolReport, Transport, Via},
    id::ConfigurationId,
    json::Raw,
};

use super::{
    asking,
    catalogue::{self, Entry},
    filter,
    schema::heavily,
    secret_use, soundness,
};
use crate::{
    catalogue::workspace,
    configurations::{checked_credential, may_write, target},
    egress::reach::{self, Unreached},
    pools::Tool,
    run::Run,
    scope::Scope,
    upstream::{Opened, Specification, Target, Unopened},
};

mod hints;

/// How long a trial may take altogether.
const LIMIT: Duration = Duration::from_secs(30);
/// The generation of what is not there: those that are begin with 1.
const UNSAVED: i64 = 0;
/// The most tools that are looked at and told of: a long list shall not hold up everybody else's checks.
const MAX_EXAMINED: usize = 500;

impl Run for Test {
    type Parts = Tool;

    async fn run(self, scope: &mut Scope<'_, Tool>) -> Result<Report, Fault> {
        let (specification, entry) = match self.server {
            TestedServer::Saved(id) => {
                scope.notes.resource("configuration", &id);
                let entry = catalogue::entry(scope, &id.to_string()).await?;
                may_write(scope, entry.scope())?;
                (apart(scope, &entry), Some(entry))
            }
            TestedServer::Unsaved { scope: ownership, endpoint, catalogue, transport, via, credential } => {
                may_write(scope, ownership)?;
                checked_credential(transport, &credential)?;
                let via = if transport == Transport::Http { via } else { Via::Fastmcp };
                // Nobody else's, so that nothing of it is found under another's name.
                let id = ConfigurationId::new();
                let target = match target(transport, endpoint.as_deref(), catalogue.as_deref())? {
                    Some(endpoint) => Target::Endpoint(endpoint),
                    None => Target::Program {
                        catalogue: catalogue.unwrap_or_default(),
                        workspace: workspace(scope.context, ownership, id, UNSAVED),
                        is_kept: false,
                    },
                };
                let specification = Specification {
                    organization: scope.context.organization,
                    configuration: id,
                    generation: UNSAVED,
                    session: None,
                    target,
                    transport,
                    via,
                    credential,
                };
                (specification, None)
            }
        };
        let (host, first) = match &specification.target {
            Target::Endpoint(endpoint) => (endpoint.host_str().unwrap_or_default(), Stage::Http),
            Target::Program { catalogue, .. } => (catalogue.as_str(), Stage::Program),
        };
        scope.notes.detail(if first == Stage::Http { "host" } else { "program" }, host);
        let mut trial = Trial::new(scope.context.deadline.min(Deadline::after(LIMIT)), first);
        let tools = trial.of(scope, &specification).await?;
        match &entry {
            Some(entry) => conclude(scope, entry, &trial, tools.as_deref()).await?,
            None => trial.of_a_request()?,
        }
        let mut tools = tools.unwrap_or_default();
        tools.truncate(MAX_EXAMINED);
        let report = trial.report(&specification, heavily(move || soundness::examine(&tools)).await?);
        scope.notes.detail("ok", report.ok);
        Ok(report)
    }
}

/// A saved configuration's server under an identity of the trial's own: what a trial lets go of, a
/// program's directory included, is not what calls use.
fn apart(scope: &Scope<'_, Tool>, entry: &Entry) -> Specification {
    let mut specification = entry.specification().clone();
    (specification.configuration, specification.generation) = (ConfigurationId::new(), UNSAVED);
    if let Target::Program { workspace: own, .. } = &mut specification.target {
        *own = workspace(scope.context, entry.scope(), specification.configuration, UNSAVED);
    }
    specification
}

/// What is learnt of a saved configuration on the way is kept: what its server says to its secret,
/// and the definitions of tools that are new.
async fn conclude(
    scope: &Scope<'_, Tool>,
    entry: &Arc<Entry>,
    trial: &Trial,
    tools: Option<&[Raw]>,
) -> Result<(), Fault> {
    let outcome = trial.fault.as_ref().map_or(Ok(&()), Err);
    secret_use::note(scope.parts, scope.context, entry, outcome);
    let Some(tools) = tools else { return Ok(()) };
    let offered = filter::sift(entry.filter(), tools.to_vec());
    asking::keep(scope, entry, offered).await.map(drop)
}

/// A trial under way.
struct Trial {
    until: Deadline,
    /// What stands for the whole way to the server's first word.
    first: Stage,
    stages: Vec<StageReport>,
    /// What ended it, as the caller of a tool would be told.
    fault: Option<Fault>,
    hint: Option<&'static str>,
}

impl Trial {
    const fn new(until: Deadline, first: Stage) -> Self {
        Self { until, first, stages: Vec::new(), fault: None, hint: None }
    }

    /// Refuses what is no server's failure but a mistake in the request: a program's name.
    fn of_a_request(&mut self) -> Result<(), Fault> {
        let mistake = self.fault.take_if(|fault| fault.field.as_deref() == Some("catalogue"));
        mistake.map_or(Ok(()), Err)
    }

    /// Takes every stage up to the first that is not passed; answers the tools, if it came so far.
    async fn of(&mut self, scope: &Scope<'_, Tool>, specification: &Specification) -> Result<Option<Vec<Raw>>, Fault> {
        if !self.reaches(scope, specification).await {
            return Ok(None);
        }
        let started = Instant::now();
        let opening = scope.parts.upstreams.try_out(specification);
        let in_time = tokio::time::timeout(self.until.remaining(), opening).await;
        let opened = in_time.unwrap_or_else(|_| {
            let fault = Fault::timeout("The server did not answer in time.");
            Ok(Err(Unopened { stage: Stage::Http, fault, answered_at: None }))
        });
        let Opened { client, version, answered_at } = match opened? {
            Ok(opened) => opened,
            Err(unopened) => {
                self.unopened(started, unopened, specification);
                return Ok(None);
            }
        };
        self.met(started, answered_at, Some(format!("MCP {version}")));
        let listing = Instant::now();
        let listed = client.list_everything(self.until, &scope.context.request_id).await;
        client.let_go();
        match listed {
            Ok(tools) => {
                self.pass(Stage::Auth, Duration::ZERO, None);
                let detail = match tools.len() {
                    1 => "1 tool".to_owned(),
                    count if count > MAX_EXAMINED => format!("{count} tools, of which {MAX_EXAMINED} were looked at"),
                    count => format!("{count} tools"),
                };
                self.pass(Stage::Tools, listing.elapsed(), Some(detail));
                Ok(Some(tools))
            }
            Err(fault) if fault.code == Code::Reconnect => {
                self.fail(Stage::Auth, listing.elapsed(), fault, hints::of(Stage::Auth, specification));
                Ok(None)
            }
            Err(fault) => {
                self.pass(Stage::Auth, Duration::ZERO, None);
                self.fail(Stage::Tools, listing.elapsed(), fault, hints::of(Stage::Tools, specification));
                Ok(None)
            }
        }
    }

    /// The stages before anything of MCP is said: the address, its name, its port, its certificate.
    async fn reaches(&mut self, scope: &Scope<'_, Tool>, specification: &Specification) -> bool {
        let egress = scope.parts.upstreams.egress();
        let Some(endpoint) = specification.target.endpoint() else { return true };
        let started = Instant::now();
        if let Err(refused) = egress.check(endpoint) {
            self.fail(Stage::Address, started.elapsed(), refused.into(), hints::of_address(refused));
            return false;
        }
        self.pass(Stage::Address, started.elapsed(), None);
        let (Some(host), Some(port)) = (endpoint.host_str(), endpoint.port_or_known_default()) else { return false };
        let started = Instant::now();
        let addresses = match egress.resolve(host, port).await {
            Ok(addresses) => addresses,
            Err(refused) => {
                self.fail(Stage::Dns, started.elapsed(), refused.into(), hints::of(Stage::Dns, specification));
                return false;
            }
        };
        self.pass(Stage::Dns, started.elapsed(), None);
        let started = Instant::now();
        let stream = match reach::connect(&addresses).await {
            Ok(stream) => stream,
            Err(Unreached(why)) => {
                self.fail(Stage::Tcp, started.elapsed(), unreached(why), hints::of(Stage::Tcp, specification));
                return false;
            }
        };
        self.pass(Stage::Tcp, started.elapsed(), None);
        if endpoint.scheme() != "https" {
            return true;
        }
        let started = Instant::now();
        if let Err(Unreached(why)) = reach::greet(host, stream).await {
            self.fail(Stage::Tls, started.elapsed(), unreached(why), hints::of(Stage::Tls, specification));
            return false;
        }
        self.pass(Stage::Tls, started.elapsed(), None);
        true
    }

    /// The stages that negotiation takes at once.
    fn met(&mut self, started: Instant, answered_at: Option<Instant>, version: Option<String>) {
        let whole = started.elapsed();
        // Where another process speaks to the server, only the whole is known.
        let http = answered_at.map_or(whole, |at| at.saturating_duration_since(started));
        self.pass(self.first, http, None);
        self.pass(Stage::Protocol, whole.saturating_sub(http), version);
    }

    fn unopened(&mut self, started: Instant, unopened: Unopened, specification: &Specification) {
        let Unopened { stage, fault, answered_at } = unopened;
        let stage = if stage == Stage::Http { self.first } else { stage };
        let whole = started.elapsed();
        let http = answered_at.map_or(whole, |at| at.saturating_duration_since(started));
        let hint = hints::of_fault(stage, &fault, specification);
        match stage {
            Stage::Auth => {
                self.met(started, answered_at, None);
                self.fail(stage, Duration::ZERO, fault, hint);
            }
            Stage::Protocol => {
                self.pass(self.first, http, None);
                self.fail(stage, whole.saturating_sub(http), fault, hint);
            }
            _ => self.fail(self.first, whole, fault, hint),
        }
    }

    fn pass(&mut self, stage: Stage, took: Duration, detail: Option<String>) {
        self.stages.push(StageReport { stage, ok: true, ms: milliseconds(took), detail });
    }

    fn fail(&mut self, stage: Stage, took: Duration, fault: Fault, hint: &'static str) {
        let detail = Some(fault.message.clone());
        self.stages.push(StageReport { stage, ok: false, ms: milliseconds(took), detail });
        (self.fault, self.hint) = (Some(fault), Some(hint));
    }

    fn report(self, specification: &Specification, tools: Vec<ToolReport>) -> Report {
        let ok = self.fault.is_none();
        let unsound = tools.iter().filter(|tool| !tool.problems.is_empty()).count();
        let hint = match self.hint {
            Some(hint) => Some(hint.to_owned()),
            None if unsound > 0 => Some(format!("Have {unsound} of {} tools put right at the server.", tools.len())),
            None if ok && tools.is_empty() => Some(hints::no_tools(specification).to_owned()),
            None => None,
        };
        Report { ok, stages: self.stages, tools, hint }
    }
}

fn unreached(why: &str) -> Fault {
    Fault::new(Code::UpstreamFailed, why)
}

fn milliseconds(took: Duration) -> f64 {
    (took.as_secs_f64() * 1e6).round() / 1e3
}
