//! A secret goes in once, by whatever field, and comes out nowhere but at the server it is for: not in
//! answers, logs at their most talkative, metrics, the audit trail, streams, the shared state, the
//! database or a dump of it.

use std::{path::Path, sync::Arc};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::Method;
use serde_json::{Value, json};
use stack::Options;
use uuid::Uuid;

use crate::{
    faulty::UPSTREAM_BODY,
    servers::BEARER,
    trail::Trail,
    world::{System, Tenant},
};

/// A system that logs everything it can.
pub(crate) fn at_trace(options: &mut Options) {
    for variables in [&mut options.worker_env, &mut options.gateway_env] {
        variables.push(("LOG_FILTER".to_owned(), "trace".to_owned()));
    }
}

/// A secret made for one test, and every form in which it might turn up.
struct Canary {
    token: String,
    forms: Vec<String>,
}

impl Canary {
    fn new() -> Self {
        let core = format!("canary-{}", Uuid::new_v4().simple());
        // The last four characters may be shown as a hint.
        Self { token: format!("{core}wxyz"), forms: forms(&core) }
    }

    fn absent(&self, place: &str, text: &str) {
        for form in &self.forms {
            assert!(!text.contains(form), "the secret stands in {place}: ..{}..", around(text, form));
        }
    }
}

/// As it is, as hexadecimal (how PostgreSQL shows bytes), and as base64 at each of its three
/// alignments (NATS and JSON carry bytes so).
fn forms(core: &str) -> Vec<String> {
    let digit = |value: u8| char::from_digit(value.into(), 16).expect("half a byte");
    let hexadecimal = core.bytes().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect();
    let mut forms = vec![core.to_owned(), hexadecimal];
    for skipped in 0..3 {
        let length = (core.len() - skipped) / 3 * 3;
        forms.push(BASE64_STANDARD.encode(&core.as_bytes()[skipped..skipped + length]));
    }
    forms
}

fn around(text: &str, form: &str) -> String {
    let at = text.find(form).unwrap_or_default();
    String::from_utf8_lossy(&text.as_bytes()[at.saturating_sub(120)..text.len().min(at + 120)]).into_owned()
}

/// Registers it in every good and every bad way there is and uses it; answers what was answered.
async fn spread(system: &System, tenant: &Tenant, canary: &Canary) -> Vec<(String, String)> {
    let auth = json!({ "type": "bearer", "token": canary.token });
    let header = json!({ "type": "header", "name": "X-Api-Key", "value": canary.token });
    let mut answers = Vec::new();
    let servers = [
        ("plain", &system.demo_url, "native", &auth),
        ("service", &system.demo_fastmcp_url, "fastmcp", &auth),
        ("protected", &system.servers.protected_url, "native", &auth),
        ("failing", &system.faulty.url("/status/500"), "native", &auth),
        ("failing-service", &system.faulty.url("/status/500"), "fastmcp", &auth),
        ("header", &system.demo_url, "native", &header),
        ("header-service", &system.demo_fastmcp_url, "fastmcp", &header),
        ("header-failing", &system.faulty.url("/status/500"), "native", &header),
    ];
    for (name, endpoint, via, auth) in servers {
        let id = tenant.register(name, endpoint, json!({ "via": via, "auth": auth })).await;
        for path in [format!("/api/v1/mcp/configurations/{id}"), format!("/api/v1/mcp/configurations/{id}/tools")] {
            answers.push((format!("{name} {path}"), tenant.admin.get(&path).await.text));
        }
        let tried = json!({ "endpoint": endpoint, "via": via, "auth": auth });
        answers.push((format!("a trial of {name}"), tenant.admin.post("/api/v1/mcp/test", &tried).await.text));
        answers.push((format!("a call of {name}"), tenant.call(name, "echo", json!({ "text": "x" })).await.text));
    }
    let token = &canary.token;
    let refused = [
        json!({ "name": "plain", "endpoint": system.demo_url, "auth": auth }).to_string(),
        json!({ "name": "bad name", "endpoint": system.demo_url, "auth": auth }).to_string(),
        json!({ "name": "a", "endpoint": "http://10.0.0.1/", "auth": auth }).to_string(),
        json!({ "name": "a", "endpoint": format!("http://u:{token}@127.0.0.1/"), "auth": auth }).to_string(),
        json!({ "name": "a", "endpoint": system.demo_url, "auth": { "type": "bearer", "token": format!("{token} ") } })
            .to_string(),
        json!({ "name": "a", "endpoint": system.demo_url, "auth": token }).to_string(),
        json!({ "name": "a", "endpoint": system.demo_url, "auth": { "type": token } }).to_string(),
        json!({ "name": "a", "endpoint": system.demo_url, "auth": { "type": "none", "token": token } }).to_string(),
        json!({ "name": "a", "endpoint": system.demo_url, "auth": { "type": "bearer", "token": { "value": token } } })
            .to_string(),
        json!({ "name": "a", "endpoint": system.demo_url, "auth": { "type": "bearer", "token": [token] } }).to_string(),
        json!({ "name": "a", "endpoint": system.demo_url, "auth": { "type": "header", "name": "Cookie", "value": token } })
            .to_string(),
        json!({ "name": "a", "endpoint": system.demo_url, "auth": { "type": "header", "value": token } }).to_string(),
        json!({ "name": "a", "endpoint": system.demo_url, "auth": { "type": "header", "name": "X-K", "value": [token] } })
            .to_string(),
        json!({ "name": "a", "endpoint": system.demo_url, "scope": token }).to_string(),
        json!({ "name": "a", "endpoint": system.demo_url, "timeout_ms": token }).to_string(),
        format!(r#"{{"name":"a","auth":{{"type":"bearer","token":"{token}"}}"#),
        format!(r#"{{"name":"a","auth":{{"type":"bearer","token":"{token}\ud800"}}}}"#),
    ];
    for body in refused {
        let request =
            tenant.admin.request(Method::POST, "/api/v1/mcp/configurations").header("content-type", "application/json");
        let answer = tenant.admin.send(request.body(body)).await;
        assert!(answer.status.is_client_error(), "{}", answer.text);
        answers.push(("a refused registration".to_owned(), answer.text));
    }
    for client in [&tenant.admin, &tenant.user] {
        answers.push(("the list".to_owned(), client.get("/api/v1/mcp/configurations").await.text));
    }
    answers.push(("metrics".to_owned(), tenant.admin.get("/metrics").await.text));
    answers
}

pub(crate) async fn a_secret_of_any_field_comes_out_nowhere(system: Arc<System>) {
    let tenant = system.organization().await;
    let canary = Canary::new();
    let answers = spread(&system, &tenant, &canary).await;
    for (what, text) in &answers {
        canary.absent(what, text);
        assert!(!text.contains(UPSTREAM_BODY), "{what} repeats a server's own words: {text}");
    }
    let list = &answers.iter().find(|(what, _)| what == "the list").expect("a list").1;
    assert!(list.contains(r#""hint":"wxyz""#), "the hint is there to recognize it by: {list}");

    Trail::new(&system, &tenant).caught_up().await;
    let rows = database(&system, &canary).await;
    assert!(rows > 50, "only {rows} rows were looked at");
    let messages = streams(&system, &tenant, &canary).await;
    // Records are not among them any more: the table has them as they were published.
    assert!(messages > 3, "only {messages} messages were looked at");
    dumped(&system, &canary).await;
    measured(&system, &canary).await;
    let files = files(&system.log_dir, &canary);
    for process in
        ["gateway-1", "token-1", "tool-1", "audit-1", "session-1", "controller-1", "fastmcp", "nats", "postgres"]
    {
        assert!(files.iter().any(|name| name.contains(process)), "the log of {process} was not looked at: {files:?}");
    }
    no_deployment_secret_is_logged(&system);
    for process in ["gateway-1", "token-1", "tool-1"] {
        let log = std::fs::read_to_string(system.log_dir.join(format!("{process}.log"))).expect("a log");
        assert!(log.contains(r#""level":"DEBUG""#) && log.contains("trace"), "{process} is not at its most talkative");
    }
}

/// Every row of every table, as text; answers how many there were.
async fn database(system: &System, canary: &Canary) -> usize {
    let database = system.database("superuser").await;
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')",
    )
    .fetch_all(&database)
    .await
    .expect("the query runs");
    assert!(tables.iter().any(|table| table == "public.mcp_configurations"), "{tables:?}");
    let sealed: i64 =
        sqlx::query_scalar("SELECT count(*) FROM mcp_configurations WHERE secret IS NOT NULL AND secret_hint = 'wxyz'")
            .fetch_one(&database)
            .await
            .expect("the query runs");
    assert_eq!(sealed, 8, "the secret is in the database, sealed");
    let mut seen = 0;
    for table in tables {
        // The name comes from the catalogue, quoted by the server.
        let query = sqlx::AssertSqlSafe(format!("SELECT to_jsonb(t)::text FROM ONLY {table} t"));
        let rows: Vec<String> = sqlx::query_scalar(query).fetch_all(&database).await.expect("the query runs");
        for row in &rows {
            canary.absent(&table, row);
            assert!(
                !table.contains("mcp_configurations") || !row.contains(BEARER),
                "another secret in plain text: {row}"
            );
        }
        seen += rows.len();
    }
    seen
}

/// A dump as backups are made of it.
async fn dumped(system: &System, canary: &Canary) {
    let installation = stack::places::Places::find().and_then(|places| places.postgres_installation());
    let program = installation.expect("the locked environment").join("bin/pg_dump");
    let dump = tokio::process::Command::new(program).arg(system.database_url("superuser")).output().await;
    let dump = dump.expect("pg_dump runs");
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    let text = String::from_utf8_lossy(&dump.stdout);
    assert!(text.contains("COPY public.mcp_configurations"), "the dump holds no configurations");
    canary.absent("a dump of the database", &text);
}

/// What the gateway and every worker tell a collector of metrics.
async fn measured(system: &System, canary: &Canary) {
    let ports = std::fs::read_to_string(system.log_dir.with_file_name("ports")).expect("the book of ports");
    for process in ["gateway-1", "token-1", "tool-1", "audit-1", "session-1", "controller-1"] {
        let port = ports.lines().find_map(|line| line.strip_prefix(process)?.strip_prefix('='));
        let url = format!("http://127.0.0.1:{}/metrics", port.expect("a port"));
        let text = system.http.get(url).send().await.expect("an answer").text().await.expect("text");
        assert!(text.contains("switchboard_build_info"), "{process}: {text}");
        canary.absent(&format!("the metrics of {process}"), &text);
    }
}

/// Every message of the organization in every stream, the shared state included; answers how many.
async fn streams(system: &System, tenant: &Tenant, canary: &Canary) -> usize {
    // Only the administrator can read what lies in them.
    let nats = system.nats("jetstream").await;
    let ask = async |subject: String, request: Value| -> Value {
        let answer = nats.request(subject, request.to_string().into()).await.expect("JetStream answers");
        serde_json::from_slice(&answer.payload).expect("JSON")
    };
    let mut all = Vec::new();
    for api in ["$JS.API", "queue"] {
        let names = ask(format!("{api}.STREAM.NAMES"), json!({})).await;
        let names = names["streams"].as_array().expect("streams").iter();
        all.extend(names.map(|name| (api, name.as_str().expect("a name").to_owned())));
    }
    let mut seen = 0;
    for (api, name) in all {
        let organization = tenant.id;
        let filters = [
            format!("audit.{organization}"),
            format!("$KV.*.{organization}"),
            format!("$KV.*.{organization}.*"),
            format!("calls.*.*.{organization}"),
        ];
        for filter in filters {
            let mut next = 1;
            loop {
                let question = json!({ "seq": next, "next_by_subj": filter });
                let answer = ask(format!("{api}.STREAM.MSG.GET.{name}"), question).await;
                let Some(sequence) = answer["message"]["seq"].as_u64() else { break };
                let decoded = |part: &str| {
                    let bytes =
                        BASE64_STANDARD.decode(answer["message"][part].as_str().unwrap_or_default()).expect("base64");
                    String::from_utf8_lossy(&bytes).into_owned()
                };
                canary.absent(&format!("{name}, {filter}"), &(decoded("hdrs") + &decoded("data")));
                (next, seen) = (sequence + 1, seen + 1);
            }
        }
    }
    seen
}

/// Passwords and keys of the deployment itself.
fn no_deployment_secret_is_logged(system: &System) {
    let secrets = std::fs::read_to_string(system.log_dir.with_file_name("secrets")).expect("the stack's secrets");
    let secrets: Vec<_> = secrets.lines().filter_map(|line| line.split_once('=')).collect();
    assert!(secrets.iter().any(|(name, _)| *name == "vault"), "the key of the vault is not among them");
    for entry in walkdir::WalkDir::new(&system.log_dir).into_iter().filter_map(Result::ok) {
        let Ok(bytes) = std::fs::read(entry.path()) else { continue };
        let log = String::from_utf8_lossy(&bytes);
        for (name, value) in &secrets {
            // A vault's key stands behind its id, which is no secret.
            let value = value.rsplit(':').next().expect("a value");
            assert!(!log.contains(value), "the secret {name} stands in {}", entry.path().display());
        }
    }
}

/// Every file that processes of the stack wrote their words to; answers their names.
fn files(log_dir: &Path, canary: &Canary) -> Vec<String> {
    let entries =
        walkdir::WalkDir::new(log_dir).into_iter().filter_map(Result::ok).filter(|entry| entry.file_type().is_file());
    entries
        .map(|entry| {
            let name = entry.path().display().to_string();
            canary.absent(&name, &String::from_utf8_lossy(&std::fs::read(entry.path()).expect("a log")));
            name
        })
        .collect()
}
