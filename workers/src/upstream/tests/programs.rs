//! Programs of the catalogue, whose clients several workers share: the real stdio service with the
//! demo program, and a worker on each side.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use shared::{
    command::configurations::{Transport, Via},
    id::ConfigurationId,
};
use url::Url;

use super::{
    super::{Client, Specification, Target, Upstreams, fastmcp::Service},
    PATIENCE, call, egress_to,
    service::{Python, config},
    specification,
};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const WORKSPACE: &str = "org/_/one";

/// A folder that goes with its handle.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // What a program that still ends holds on to is the machine's to clear.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The stdio mode of the service.
struct Programs {
    service: Python,
    folder: Folder,
}

impl Programs {
    async fn start() -> Self {
        let folder = Folder(std::env::temp_dir().join(format!("switchboard-programs-{}", ConfigurationId::new())));
        fs::create_dir(&folder.0).unwrap();
        let (program, catalogue) = (folder.0.join("program"), folder.0.join("catalogue.json"));
        let bytes = fs::read(Path::new(ROOT).join("fastmcp/demo/stdio_server.py")).unwrap();
        fs::write(&program, &bytes).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let hash = Sha256::digest(&bytes);
        let sha256 = hash.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        let path = format!("/usr/local/bin:/usr/bin:/bin:{ROOT}/.dev/venv/bin");
        let entry = json!({ "name": "demo", "program": program, "sha256": sha256, "environment": { "PATH": path } });
        fs::write(&catalogue, json!([entry]).to_string()).unwrap();
        let workspaces = folder.0.join("workspaces");
        let service = Python::service_in(&[
            ("FASTMCP_MODE", "stdio"),
            ("FASTMCP_CATALOGUE", catalogue.to_str().unwrap()),
            ("FASTMCP_STDIO_WORKSPACES", workspaces.to_str().unwrap()),
            ("FASTMCP_STDIO_ALLOW_NETWORK", "1"),
        ])
        .await;
        Self { service, folder }
    }

    /// A worker, which forgets by itself what it did not use for so long.
    fn worker(&self, idle: Duration) -> Upstreams {
        let service = Service::new(config(&self.service.url, false), None);
        Upstreams::bounded(egress_to(&[]), None, Some(service), idle, 10)
    }

    /// Waits until the program has ended and its directory is gone.
    async fn ended(&self) {
        let workspace = self.folder.0.join("workspaces").join(WORKSPACE);
        let gone = async {
            while workspace.exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, gone).await.expect("the program goes on");
    }
}

fn program() -> Specification {
    let target = Target::Program { catalogue: "demo".to_owned(), workspace: WORKSPACE.to_owned(), is_kept: false };
    let nowhere = Url::parse("http://127.0.0.1:9/").unwrap();
    Specification { target, transport: Transport::Stdio, via: Via::Fastmcp, ..specification(&nowhere) }
}

/// When the program that answers began.
async fn started(client: &Arc<Client>) -> Value {
    let result: Value = serde_json::from_slice(call(client, "whoami", "{}").await.unwrap().bytes()).unwrap();
    let started = result["structuredContent"]["result"]["started"].clone();
    assert!(started.is_i64(), "{result}");
    started
}

#[tokio::test]
async fn a_program_ends_when_its_configuration_changes_and_not_when_one_of_its_workers_lets_go() {
    let programs = Programs::start().await;
    let specification = program();
    let (busy, stopping) = (programs.worker(PATIENCE), programs.worker(PATIENCE));
    let client = busy.client(&specification).await.unwrap();
    let began = started(&client).await;

    let other = stopping.client(&specification).await.unwrap();
    assert_eq!(started(&other).await, began, "they share it");
    stopping.close_all().await;
    drop(other);
    assert_eq!(started(&client).await, began, "a worker that stops ends nothing of another's");

    let idle = programs.worker(Duration::from_millis(50));
    let unused = Arc::downgrade(&idle.client(&specification).await.unwrap());
    let forgotten = async {
        while unused.strong_count() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, forgotten).await.expect("an idle client stays");
    assert_eq!(started(&client).await, began, "nor does one that forgets what it does not use");

    busy.forget(specification.organization, specification.configuration, specification.generation + 1).await;
    programs.ended().await;
}

#[tokio::test]
async fn what_a_trial_started_ends_with_the_trial() {
    let programs = Programs::start().await;
    let worker = programs.worker(PATIENCE);
    for is_let_go in [true, false] {
        let opened = worker.try_out(&program()).await.unwrap().unwrap();
        assert!(opened.version.starts_with("20"), "{}", opened.version);
        assert!(programs.folder.0.join("workspaces").join(WORKSPACE).is_dir());
        if is_let_go {
            opened.client.let_go();
        } else {
            drop(opened);
        }
        programs.ended().await;
    }
}
