//! A whole system, started and stopped as one.

mod accidents;
mod addresses;

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::dev_env;
use crate::issuer::Issuer;
use crate::nats::Nats;
use crate::options::Options;
use crate::places::{DataDir, Places};
use crate::pooler;
use crate::ports::PortBook;
use crate::postgres::Postgres;
use crate::product::{self, Pool, Wiring};
use crate::secrets::Secrets;
use crate::seed::{self, Endpoints, Seeded};
use crate::supervisor::{Death, Supervisor};
use crate::upstreams::Upstreams;

/// A running system. Dropping it makes the watchdog stop every process; [`Stack::stop`] does so in order and waits.
#[derive(Debug)]
pub struct Stack {
    supervisor: Supervisor,
    places: Places,
    data: DataDir,
    options: Options,
    secrets: Secrets,
    ports: PortBook,
    nats: Nats,
    postgres: Postgres,
    /// What workers connect to: the server, or the pooler before it.
    database: Postgres,
    upstreams: Upstreams,
    issuer: Issuer,
    _issuer_serves: DropGuard,
    gateways: Vec<String>,
    seeded: Option<Seeded>,
    /// The last number given to a process of any pool beyond those of the start.
    added: AtomicUsize,
}

impl Stack {
    /// Starts everything that the options ask for, and returns once the gateways are ready and the seed is in.
    ///
    /// The environment and the binaries must be there: see [`crate::environment::ensure`].
    ///
    /// # Errors
    /// What failed, with the last lines of the log concerned; nothing is left running.
    pub async fn start(options: Options) -> Result<Self> {
        let places = Places::find()?;
        let data = DataDir::open(&options.data_dir)?;
        let supervisor = Supervisor::start(&places, &data).await?;
        Self::start_under(supervisor, places, data, options).await
    }

    /// As [`Stack::start`], under a supervisor that the caller can stop at any moment.
    pub(crate) async fn start_under(
        supervisor: Supervisor,
        places: Places,
        data: DataDir,
        options: Options,
    ) -> Result<Self> {
        // On the heap: what it starts at once is a large state.
        let started = Box::pin(Self::bring_up(&supervisor, places, data, options)).await;
        if started.is_err() {
            supervisor.stop().await;
        }
        started
    }

    async fn bring_up(supervisor: &Supervisor, places: Places, data: DataDir, options: Options) -> Result<Self> {
        let progress = options.progress;
        if options.fresh {
            progress.blocking("wiping the old data", || data.wipe())?;
        }
        dev_env::remove(&data)?;
        let secrets = Secrets::open(data.join("secrets"))?;
        let ports = PortBook::open(data.join("ports"));
        if let Some(port) = options.gateway_port {
            ports.request("gateway-1", port)?;
        }
        let (issuer, issuer_serves) = serve_issuer(&data, &ports).await?;
        let (nats, postgres, upstreams) = futures::try_join!(
            progress.step("nats-server", Nats::start(supervisor, &places, &data, &ports, &secrets)),
            database(supervisor, &places, &data, &ports, &secrets, &options),
            progress.step(
                "fastmcp service, demo servers",
                Upstreams::start(supervisor, &places, &data, &ports, &secrets, &options)
            ),
        )?;
        let mut database = postgres;
        if options.pooler {
            let start = pooler::start(supervisor, &data, &ports, &secrets, postgres);
            database.port = progress.step("pgbouncer", start).await?;
        }
        let mut stack = Self {
            supervisor: supervisor.clone(),
            places,
            data,
            options,
            secrets,
            ports,
            nats,
            postgres,
            database,
            upstreams,
            issuer,
            _issuer_serves: issuer_serves,
            gateways: Vec::new(),
            seeded: None,
            added: AtomicUsize::new(0),
        };
        stack.start_product().await?;
        Ok(stack)
    }

    async fn start_product(&mut self) -> Result<()> {
        if !self.options.product {
            return Ok(());
        }
        let progress = self.options.progress;
        let each = self.options.workers_per_pool.max(1);
        self.added.store(each.max(self.options.gateways.max(1)), Ordering::SeqCst);
        progress.step("worker pools", self.start_workers(each)).await?;
        self.gateways = progress.step("gateway", self.start_gateways()).await?;
        if self.options.seed {
            let endpoints = Endpoints { demo: self.demo_url(), demo_fastmcp: self.demo_fastmcp_url() };
            let gateway = self.url().to_owned();
            let seeded = progress.step("organizations", seed::seed(&gateway, &self.issuer, &endpoints)).await?;
            self.seeded = Some(seeded);
            dev_env::write(self)?;
        }
        Ok(())
    }

    async fn start_workers(&self, each: usize) -> Result<()> {
        let (issuer, jwks) = (self.issuer.url(), self.issuer.jwks_url());
        let wiring = self.wiring(&issuer, &jwks);
        let [controller, pools @ ..] = Pool::ALL;
        wiring.worker(controller, 1).await?;
        let every = pools.iter().flat_map(|pool| (1..=each).map(|number| wiring.worker(*pool, number)));
        futures::future::try_join_all(every).await.map(|_| ())
    }

    async fn start_gateways(&self) -> Result<Vec<String>> {
        let (issuer, jwks) = (self.issuer.url(), self.issuer.jwks_url());
        let wiring = self.wiring(&issuer, &jwks);
        let first = wiring.gateway(1).await?;
        let others = (2..=self.options.gateways).map(|number| wiring.gateway(number));
        let mut urls = vec![first];
        urls.extend(futures::future::try_join_all(others).await?);
        Ok(urls)
    }

    fn wiring<'a>(&'a self, issuer_url: &'a str, jwks_url: &'a str) -> Wiring<'a> {
        Wiring {
            places: &self.places,
            data: &self.data,
            secrets: &self.secrets,
            ports: &self.ports,
            supervisor: &self.supervisor,
            options: &self.options,
            nats: self.nats,
            database: self.database,
            upstreams: self.upstreams,
            issuer_url,
            jwks_url,
        }
    }

    /// Stops every process in order: gateways, workers, `FastMCP` service, demo servers, NATS, `PostgreSQL`.
    pub async fn stop(self) {
        let _ = dev_env::remove(&self.data);
        self.supervisor.stop().await;
    }

    /// Waits for the first process that ends although nobody stopped it.
    pub async fn death(&self) -> Death {
        self.supervisor.death().await
    }

    /// The children, for tests that stage accidents.
    pub fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    pub(crate) fn data(&self) -> &DataDir {
        &self.data
    }
}

/// `PostgreSQL`, and the schema when the product is to run.
async fn database(
    supervisor: &Supervisor,
    places: &Places,
    data: &DataDir,
    ports: &PortBook,
    secrets: &Secrets,
    options: &Options,
) -> Result<Postgres> {
    let progress = options.progress;
    let start = Postgres::start(supervisor, places, data, ports, secrets, options.test_mode);
    let postgres = progress.step("PostgreSQL", start).await?;
    if options.product {
        progress.step("migrations", product::migrate(supervisor, places, data, secrets, postgres)).await?;
    }
    Ok(postgres)
}

/// Serves the stack's issuer inside this process until the guard is dropped.
async fn serve_issuer(data: &DataDir, ports: &PortBook) -> Result<(Issuer, DropGuard)> {
    let issuer = Issuer::open(&data.join("issuer"))?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, ports.take("issuer")?));
    let listener = listener.await.context("the issuer cannot listen")?;
    issuer.set_url(&format!("http://{}", listener.local_addr()?));
    let shutdown = CancellationToken::new();
    let (serving, until) = (issuer.clone(), shutdown.clone());
    tokio::spawn(async move { serving.serve(listener, until).await });
    Ok((issuer, shutdown.drop_guard()))
}
