//! The system under test and what tests need of it: organizations of their own, an HTTP client that
//! reads answers, connections in every role.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use stack::{
    NatsUser, Options, Pool, Scratch, Seeded, Stack,
    issuer::{Role, TokenRequest},
};
use tokio::runtime::Runtime;
use uuid::Uuid;

use crate::{faulty::Faulty, promises::recorder::Recorder, servers::Servers};

mod bus;
mod metrics;

/// No wait of a test is meant to come near this; only a hang does.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// One running system for all tests, started by the first that needs it.
pub(crate) struct World {
    running: OnceLock<Running>,
    adjust: fn(&mut Options),
}

impl Default for World {
    fn default() -> Self {
        Self::with(|options| {
            options.sse_demo = true;
            options.everything = true;
            options.force_fastmcp = through_fastmcp();
            options.pooler = std::env::var_os("SWITCHBOARD_POOLER").is_some();
        })
    }
}

fn through_fastmcp() -> bool {
    std::env::var_os("SWITCHBOARD_FORCE_FASTMCP").is_some()
}

pub(crate) struct Running {
    runtime: Runtime,
    system: Arc<System>,
    _scratch: Scratch,
}

/// The running system.
pub(crate) struct System {
    stack: tokio::sync::RwLock<Option<Stack>>,
    /// The gateway's address.
    pub(crate) url: String,
    /// The stack's marks for finding its processes.
    pub(crate) stack_id: String,
    pub(crate) seeded: Seeded,
    pub(crate) http: reqwest::Client,
    /// An MCP server that misbehaves on demand.
    pub(crate) faulty: Faulty,
    /// An MCP server that writes down who ran when.
    pub(crate) recorder: Recorder,
    /// Real servers of the tests' own, and traps.
    pub(crate) servers: Servers,
    /// The `FastMCP` service, and the key that its workers share with it.
    pub(crate) fastmcp_service: (String, String),
    /// The same for its stdio mode, and the folder of its programs' directories.
    pub(crate) stdio_service: (String, String),
    pub(crate) workspaces: std::path::PathBuf,
    pub(crate) demo_url: String,
    pub(crate) demo_fastmcp_url: String,
    pub(crate) demo_sse_url: String,
    pub(crate) everything_url: String,
    pub(crate) nats_url: String,
    pub(crate) nats_monitor_url: String,
    issuer: stack::Issuer,
    nats_passwords: Vec<(&'static str, String)>,
    databases: Vec<(&'static str, String)>,
    /// Everything goes through the `FastMCP` service in this run.
    pub(crate) through_fastmcp: bool,
    pub(crate) log_dir: std::path::PathBuf,
}

impl World {
    /// A system that differs from the plain one.
    pub(crate) const fn with(adjust: fn(&mut Options)) -> Self {
        Self { running: OnceLock::new(), adjust }
    }

    /// Runs one test on the system's runtime.
    pub(crate) fn run<F, T>(&self, test: F)
    where
        F: FnOnce(Arc<System>) -> T,
        T: Future<Output = ()>,
    {
        let running = self.running.get_or_init(|| Running::start(self.adjust));
        running.runtime.handle().clone().block_on(test(Arc::clone(&running.system)));
    }

    /// The system, if any test started it.
    pub(crate) fn started(&self) -> Option<&Running> {
        self.running.get()
    }
}

impl Running {
    fn start(adjust: fn(&mut Options)) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        let scratch = Scratch::new().expect("a scratch folder");
        let system = Arc::new(runtime.block_on(System::start(&scratch, adjust)).expect("the stack starts"));
        Self { runtime, system, _scratch: scratch }
    }

    pub(crate) fn system(&self) -> &Arc<System> {
        &self.system
    }

    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }
}

impl System {
    /// Starts one more, which the caller stops.
    pub(crate) async fn start(scratch: &Scratch, adjust: fn(&mut Options)) -> anyhow::Result<Self> {
        let (faulty, servers, recorder) = (Faulty::start().await?, Servers::start().await?, Recorder::start().await?);
        let mut options = Options::test(scratch.path());
        options.extra_egress = [&[faulty.address(), recorder.address()], servers.addresses()].concat();
        adjust(&mut options);
        let through_fastmcp = options.force_fastmcp;
        let stack = Stack::start(options).await?;
        let seeded = stack.seeded().ok_or_else(|| anyhow::anyhow!("not seeded"))?.clone();
        let mut nats_passwords = Vec::new();
        for (name, user) in NATS_USERS {
            nats_passwords.push((name, stack.nats_password(user)?));
        }
        let mut databases = vec![("superuser", stack.superuser_database_url()?)];
        for (name, pool) in POOLS {
            databases.push((name, stack.database_url(pool)?));
        }
        Ok(Self {
            url: stack.url().to_owned(),
            stack_id: stack.supervisor().stack_id().to_owned(),
            seeded,
            http: reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).timeout(PATIENCE).build()?,
            faulty,
            servers,
            recorder,
            fastmcp_service: (stack.fastmcp_service_url(), stack.fastmcp_service_key()?),
            stdio_service: (stack.stdio_service_url(), stack.stdio_service_key()?),
            workspaces: stack.workspaces(),
            demo_url: stack.demo_url(),
            demo_fastmcp_url: stack.demo_fastmcp_url(),
            demo_sse_url: stack.demo_sse_url().unwrap_or_default(),
            everything_url: stack.everything_url().unwrap_or_default(),
            nats_url: plain(&stack.nats_url()),
            nats_monitor_url: stack.nats_monitor_url(),
            issuer: stack.issuer().clone(),
            nats_passwords,
            databases,
            through_fastmcp,
            log_dir: scratch.path().join("log"),
            stack: tokio::sync::RwLock::new(Some(stack)),
        })
    }

    /// The stack, for tests that stage accidents on a system of their own.
    pub(crate) async fn stack(&self) -> tokio::sync::RwLockReadGuard<'_, Stack> {
        tokio::sync::RwLockReadGuard::map(self.stack.read().await, |stack| stack.as_ref().expect("the stack runs"))
    }

    /// Stops everything.
    pub(crate) async fn stop(&self) {
        if let Some(stack) = self.stack.write().await.take() {
            stack.stop().await;
        }
    }

    /// Where a pool's role, or `superuser`, connects to the database.
    pub(crate) fn database_url(&self, role: &str) -> &str {
        &self.databases.iter().find(|(name, _)| *name == role).expect("a role").1
    }

    /// A database connection as a pool's role, or as `superuser`.
    pub(crate) async fn database(&self, role: &str) -> sqlx::PgPool {
        let url = self.database_url(role);
        sqlx::postgres::PgPoolOptions::new().max_connections(2).connect(url).await.expect("PostgreSQL lets the role in")
    }

    /// Where a role connects to another database of the same server.
    pub(crate) fn url_of_database(&self, role: &str, name: &str) -> String {
        let url = &self.databases.iter().find(|(known, _)| *known == role).expect("a role").1;
        let mut url = url::Url::parse(url).expect("an address");
        url.set_path(name);
        url.into()
    }

    /// A new organization with an admin and a user, and the demo servers registered.
    pub(crate) async fn organization(&self) -> Tenant {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let slug = format!("t{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let operator = self.client(&self.seeded.operator_token);
        let body = json!({ "slug": slug, "name": slug, "calls_per_minute": 1_000_000 });
        let made = operator.post("/api/v1/organizations", &body).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
        let id: Uuid = made.json()["id"].as_str().expect("an id").parse().expect("a uuid");
        let admin = self.client(&self.token(id, &format!("{slug}-admin"), Role::Admin));
        let user = self.client(&self.token(id, &format!("{slug}-user"), Role::User));
        let tenant = Tenant { id, admin, user };
        tenant.register("demo", &self.demo_url, json!({})).await;
        tenant
    }

    /// A member's token.
    pub(crate) fn token(&self, organization: Uuid, subject: &str, role: Role) -> String {
        let request = TokenRequest {
            organization: Some(organization),
            subject: subject.to_owned(),
            email: format!("{subject}@example.test"),
            role: Some(role),
            ..TokenRequest::default()
        };
        self.issuer.mint(&request).expect("a token")
    }

    /// The issuer, for forging.
    pub(crate) const fn issuer(&self) -> &stack::Issuer {
        &self.issuer
    }

    /// An HTTP client that sends a token.
    pub(crate) fn client(&self, token: &str) -> Client {
        Client { http: self.http.clone(), url: self.url.clone(), token: token.to_owned() }
    }

    /// Waits until a query of the superuser answers at least one row, and answers the first.
    pub(crate) async fn eventually(&self, what: &str, sql: &'static str, parameter: &str) -> Value {
        let database = self.database("superuser").await;
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                let row: Option<Value> =
                    sqlx::query_scalar(sql).bind(parameter).fetch_optional(&database).await.expect("the query runs");
                if let Some(row) = row {
                    return row;
                }
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
        });
        found.await.unwrap_or_else(|_| panic!("{what} never came"))
    }
}

/// Credentials out of an address: tests bring their own.
fn plain(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        _ => url.to_owned(),
    }
}

const NATS_USERS: [(&str, NatsUser); 9] = [
    ("gateway", NatsUser::Gateway),
    ("session", NatsUser::Session),
    ("token", NatsUser::Token),
    ("tool", NatsUser::Tool),
    ("audit", NatsUser::Audit),
    ("controller", NatsUser::Controller),
    ("jetstream", NatsUser::Jetstream),
    ("lanes", NatsUser::Lanes),
    ("caller", NatsUser::Caller),
];

const POOLS: [(&str, Pool); 5] = [
    ("session", Pool::Session),
    ("token", Pool::Token),
    ("tool", Pool::Tool),
    ("audit", Pool::Audit),
    ("controller", Pool::Controller),
];

/// An organization of one test.
pub(crate) struct Tenant {
    pub(crate) id: Uuid,
    pub(crate) admin: Client,
    pub(crate) user: Client,
}

impl Tenant {
    /// Registers a server; `more` adds to or replaces fields of the body. Answers the id.
    pub(crate) async fn register(&self, name: &str, endpoint: &str, more: Value) -> String {
        let mut body = json!({ "name": name, "endpoint": endpoint });
        if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
            body.extend(more);
        }
        let made = self.admin.post("/api/v1/mcp/configurations", &body).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
        made.json()["id"].as_str().expect("an id").to_owned()
    }

    /// Calls a tool as the user.
    pub(crate) async fn call(&self, configuration: &str, tool: &str, arguments: Value) -> Answer {
        let body =
            json!({ "configuration": configuration, "tool": tool, "arguments": arguments, "timeout_ms": 20_000 });
        self.user.post("/api/v1/tool-calls", &body).await
    }
}

/// An HTTP client with a token.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
    pub(crate) token: String,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|cause| panic!("{cause}: {}", self.text))
    }

    /// Checks that this is a problem document with the code, and answers it.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        let content_type = self.headers.get("content-type").and_then(|value| value.to_str().ok());
        assert_eq!(content_type, Some("application/problem+json"), "{}", self.text);
        let problem = self.json();
        assert_eq!(problem["code"], code, "{}", self.text);
        assert_eq!(problem["status"], status);
        assert_eq!(problem["instance"].as_str(), self.headers.get("x-request-id").and_then(|id| id.to_str().ok()));
        problem
    }
}

impl Client {
    /// The same person at another gateway.
    pub(crate) fn at(&self, gateway: &str) -> Self {
        Self { url: gateway.to_owned(), ..self.clone() }
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url)).bearer_auth(&self.token)
    }

    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.expect("the gateway answers");
        let (status, headers) = (response.status(), response.headers().clone());
        Answer { status, headers, text: response.text().await.expect("a body") }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(self.request(Method::DELETE, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    /// Changes whatever is there, or what is still as this tag says.
    pub(crate) async fn put(&self, path: &str, if_match: &str, body: &Value) -> Answer {
        self.send(self.request(Method::PUT, path).header("if-match", if_match).json(body)).await
    }
}
