//! The product's own processes as the stack runs them: migrations, worker pools, gateways, each with exactly the
//! variables it would be given in production.

use std::net::SocketAddr;

use anyhow::Result;

use crate::child::{Layer, Spec};
use crate::nats::{Nats, NatsUser};
use crate::options::Options;
use crate::places::{DataDir, Places};
use crate::ports::PortBook;
use crate::postgres::Postgres;
use crate::programs::{self, stdio_key};
use crate::readiness::Ready;
use crate::secrets::Secrets;
use crate::supervisor::Supervisor;
use crate::upstreams::{Upstreams, fastmcp_key};

/// A pool of the workers binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pool {
    /// The control plane without secrets.
    Session,
    /// Everything that touches a secret.
    Token,
    /// Calls.
    Tool,
    /// The audit trail.
    Audit,
    /// `JetStream` administration and reconcilers.
    Controller,
}

impl Pool {
    /// Every pool; the controller first, since it makes the streams that the others read.
    pub const ALL: [Self; 5] = [Self::Controller, Self::Session, Self::Token, Self::Tool, Self::Audit];

    /// The value of `--pool`.
    pub fn as_str(self) -> &'static str {
        self.nats_user().user()
    }

    /// Its user on the bus.
    pub fn nats_user(self) -> NatsUser {
        match self {
            Self::Session => NatsUser::Session,
            Self::Token => NatsUser::Token,
            Self::Tool => NatsUser::Tool,
            Self::Audit => NatsUser::Audit,
            Self::Controller => NatsUser::Controller,
        }
    }

    /// Its role in the database.
    pub fn database_role(self) -> String {
        format!("switchboard_{}", self.as_str())
    }

    pub(crate) fn database_password(self, secrets: &Secrets) -> Result<String> {
        secrets.password(&format!("postgres-{}", self.as_str()))
    }

    fn holds_vault_keys(self) -> bool {
        matches!(self, Self::Token | Self::Tool)
    }
}

/// What the product's processes are connected to.
#[derive(Debug)]
pub(crate) struct Wiring<'a> {
    pub(crate) places: &'a Places,
    pub(crate) data: &'a DataDir,
    pub(crate) secrets: &'a Secrets,
    pub(crate) ports: &'a PortBook,
    pub(crate) supervisor: &'a Supervisor,
    pub(crate) options: &'a Options,
    pub(crate) nats: Nats,
    /// The server, or the pooler before it.
    pub(crate) database: Postgres,
    pub(crate) upstreams: Upstreams,
    pub(crate) issuer_url: &'a str,
    pub(crate) jwks_url: &'a str,
}

/// Applies the migrations and gives each pool's role its password.
pub(crate) async fn migrate(
    supervisor: &Supervisor,
    places: &Places,
    data: &DataDir,
    secrets: &Secrets,
    postgres: Postgres,
) -> Result<()> {
    let mut spec = Spec::new("migrate", Layer::Workers, places.binary("migrate")?, data.path())
        .variable("DATABASE_URL", postgres.superuser_url(secrets)?)
        .variable("LOG_FORMAT", "json");
    for pool in Pool::ALL {
        let name = format!("ROLE_PASSWORD_{}", pool.as_str().to_uppercase());
        spec = spec.variable(&name, pool.database_password(secrets)?);
    }
    supervisor.complete(spec).await
}

impl Wiring<'_> {
    /// Starts one more process of a pool and returns its name, `<pool>-<number>`.
    pub(crate) async fn worker(&self, pool: Pool, number: usize) -> Result<String> {
        let name = format!("{}-{number}", pool.as_str());
        let program = self.places.binary("workers")?;
        let shared = self.worker_environment(pool)?;
        let proxy = format!("{name}-proxy");
        let names: &[&str] = if pool == Pool::Tool { &[&name, &proxy] } else { &[&name] };
        let spec = |ports: &[u16]| {
            let mut spec = Spec::new(&name, Layer::Workers, &program, self.data.path())
                .arguments(["--pool", pool.as_str()])
                .variable("OPS_LISTEN", loopback(ports[0]))
                .ready(Ready::Answers(format!("http://{}/ready", loopback(ports[0]))));
            if let Some(port) = ports.get(1) {
                spec = spec.variable("EGRESS_PROXY_LISTEN", loopback(*port));
            }
            with(with(spec, &shared), &self.options.worker_env)
        };
        self.supervisor.launch_on(self.ports, names, spec).await?;
        Ok(name)
    }

    fn worker_environment(&self, pool: Pool) -> Result<Vec<(String, String)>> {
        let password = pool.database_password(self.secrets)?;
        let mut variables = self.bus_environment(pool.nats_user())?;
        let mut set = |name: &str, value: String| variables.push((name.to_owned(), value));
        set("DATABASE_URL", self.database.url(&pool.database_role(), &password));
        if self.options.pooler {
            set("DATABASE_POOL_MODE", "transaction".to_owned());
        }
        if pool.holds_vault_keys() {
            set("VAULT_KEYS", self.secrets.vault_key("vault")?);
            set("EGRESS_ALLOW", list(&[self.upstreams.egress(), self.options.extra_egress.clone()].concat()));
            set("EGRESS_ALLOW_HTTP", "true".to_owned());
        }
        if pool == Pool::Controller {
            set("JETSTREAM_PASSWORD", NatsUser::Jetstream.password(self.secrets)?);
        }
        if pool == Pool::Token {
            set("FASTMCP_CATALOGUE", programs::catalogue(self.data).display().to_string());
        }
        if pool == Pool::Tool {
            set("JETSTREAM_PASSWORD", NatsUser::Lanes.password(self.secrets)?);
            set("FASTMCP_URL", self.upstreams.service_url());
            set("FASTMCP_KEY", fastmcp_key(self.secrets)?);
            set("FASTMCP_STDIO_URL", self.upstreams.stdio_url());
            set("FASTMCP_STDIO_KEY", stdio_key(self.secrets)?);
            if self.options.force_fastmcp {
                set("FASTMCP_FORCE", "true".to_owned());
            }
        }
        Ok(variables)
    }

    /// Starts one more gateway and returns its address. The first one's address is everybody's public one.
    pub(crate) async fn gateway(&self, number: usize) -> Result<String> {
        let name = format!("gateway-{number}");
        let program = self.places.binary("gateway")?;
        let mut bus = self.bus_environment(NatsUser::Gateway)?;
        bus.push(("JETSTREAM_PASSWORD".to_owned(), NatsUser::Caller.password(self.secrets)?));
        let public = (number > 1).then(|| self.ports.take("gateway-1")).transpose()?;
        let spec = |ports: &[u16]| {
            let spec = Spec::new(&name, Layer::Gateway, &program, self.data.path())
                .variable("GATEWAY_LISTEN", loopback(ports[0]))
                .variable("GATEWAY_PUBLIC_URL", format!("http://{}", loopback(public.unwrap_or(ports[0]))))
                // Nobody balances load here.
                .variable("GATEWAY_DRAIN_SECONDS", "0")
                .variable("AUTH_ISSUER", self.issuer_url)
                .variable("AUTH_AUDIENCES", crate::issuer::AUDIENCE)
                .variable("AUTH_JWKS_URL", self.jwks_url)
                .ready(Ready::Answers(format!("http://{}/ready", loopback(ports[0]))));
            with(with(spec, &bus), &self.options.gateway_env)
        };
        let ports = self.supervisor.launch_on(self.ports, &[&name], spec).await?;
        Ok(format!("http://{}", loopback(ports[0])))
    }

    fn bus_environment(&self, user: NatsUser) -> Result<Vec<(String, String)>> {
        let variables = [
            ("NATS_URL", self.nats.url()),
            ("NATS_USER", user.user().to_owned()),
            ("NATS_PASSWORD", user.password(self.secrets)?),
            ("LOG_FORMAT", "json".to_owned()),
        ];
        Ok(variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }
}

fn with(spec: Spec, variables: &[(String, String)]) -> Spec {
    variables.iter().fold(spec, |spec, (name, value)| spec.variable(name, value))
}

fn loopback(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

fn list(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(",")
}
