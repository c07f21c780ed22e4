//! What exists on NATS and who may touch it, in one place. `nats/topology.json` and
//! `nats/permissions.conf` are written from here and tested equal, so that a reviewer and the
//! server read what the code means.

use std::fmt::Write as _;

use serde::Serialize;

use super::{
    Role,
    kv::Bucket,
    streams::{self, AUDIT, AUDIT_WRITER, Sizes},
    subject::{WORK_GROUP, direct_to, inbox_prefix, work},
};
use crate::{command::Pool, id::PARTITIONS};

/// What one role may publish and subscribe. Nothing else is allowed.
#[derive(Clone, Debug, Serialize)]
pub struct Permissions {
    /// The NATS user.
    pub user: &'static str,
    /// Subjects it may publish.
    pub publish: Vec<String>,
    /// Subjects it may subscribe; `subject queue` allows the queue form only.
    pub subscribe: Vec<String>,
}

/// The permissions of a role (facts: a consumer's deliver subject is not checked by the server, so
/// that creating consumers is the controller's alone).
pub fn permissions(role: Role) -> Permissions {
    let mut publish = vec![format!("$KV.INSTANCES.{}.*", role.name())];
    let mut subscribe = vec![format!("{}.>", inbox_prefix(role))];
    match role {
        Role::Gateway => {
            publish.extend(Pool::ALL.map(direct_to));
            publish.extend((0..PARTITIONS).map(|partition| format!("calls.{partition}.*.*")));
            watches(&[Bucket::Access, Bucket::Limits, Bucket::Instances], &mut publish, &mut subscribe);
        }
        Role::Pool(pool) => {
            publish.push(format!("{}.>", inbox_prefix(Role::Gateway)));
            publish.push("audit.*".to_owned());
            subscribe.push(format!("{} {}", direct_to(pool), pool.name()));
            pool_permissions(pool, &mut publish, &mut subscribe);
        }
    }
    publish.sort();
    subscribe.sort();
    Permissions { user: role.name(), publish, subscribe }
}

fn pool_permissions(pool: Pool, publish: &mut Vec<String>, subscribe: &mut Vec<String>) {
    match pool {
        Pool::Session => {
            publish.push(format!("{}>", Bucket::Access.subject_prefix()));
            publish.push(format!("{}>", Bucket::Limits.subject_prefix()));
            watches(&[Bucket::Access, Bucket::Limits], publish, subscribe);
        }
        Pool::Token => {
            publish.push(format!("{}>", Bucket::Configs.subject_prefix()));
            watches(&[Bucket::Configs], publish, subscribe);
        }
        Pool::Tool => {
            publish.extend((0..PARTITIONS).map(|partition| format!("$JS.ACK.{}.>", streams::calls(partition))));
            subscribe.push(format!("{} {WORK_GROUP}", work(pool)));
            watches(&[Bucket::Configs], publish, subscribe);
        }
        Pool::Audit => {
            publish.push(format!("$JS.API.CONSUMER.INFO.{AUDIT}.{AUDIT_WRITER}"));
            publish.push(format!("$JS.API.CONSUMER.MSG.NEXT.{AUDIT}.{AUDIT_WRITER}"));
            publish.push(format!("$JS.API.STREAM.INFO.{AUDIT}"));
            publish.push(format!("$JS.ACK.{AUDIT}.{AUDIT_WRITER}.>"));
        }
        Pool::Controller => {
            publish.push("$JS.API.>".to_owned());
            watches(&[Bucket::Limits], publish, subscribe);
        }
    }
}

/// Reading a bucket: its last revision, its entries, and changes as the server republishes them.
fn watches(buckets: &[Bucket], publish: &mut Vec<String>, subscribe: &mut Vec<String>) {
    for bucket in buckets {
        publish.push(format!("$JS.API.STREAM.INFO.{}", bucket.stream()));
        publish.push(format!("$JS.API.STREAM.MSG.GET.{}", bucket.stream()));
        subscribe.push(format!("{}>", bucket.watch_prefix()));
    }
}

/// `nats/topology.json`: streams and permissions.
pub fn json() -> serde_json::Value {
    serde_json::json!({
        "streams": streams::all(Sizes::default()),
        "consumers": [{ "stream": AUDIT, "durable": AUDIT_WRITER }],
        "permissions": Role::ALL.map(permissions),
    })
}

/// `nats/permissions.conf`: the users of the application account, one password variable each.
pub fn permissions_conf() -> String {
    let mut conf = String::from(
        "# Written from shared/src/bus/topology.rs by `cargo dev topology`; a test keeps the two equal.\nusers: [\n",
    );
    for role in Role::ALL {
        let Permissions { user, publish, subscribe } = permissions(role);
        let variable = user.to_ascii_uppercase();
        let _ = write!(
            conf,
            "  {{\n    user: {user}\n    password: $NATS_PASSWORD_{variable}\n    permissions: {{\n      publish: {{ allow: {} }}\n      subscribe: {{ allow: {} }}\n    }}\n  }}\n",
            list(&publish),
            list(&subscribe),
        );
    }
    conf.push_str("]\n");
    conf
}

/// Writes both files into `folder` (the repository's `nats/`).
pub fn write(folder: &std::path::Path) -> std::io::Result<()> {
    let topology = serde_json::to_string_pretty(&json()).map_err(std::io::Error::other)?;
    std::fs::write(folder.join("topology.json"), topology + "\n")?;
    std::fs::write(folder.join("permissions.conf"), permissions_conf())
}

fn list(subjects: &[String]) -> String {
    let lines: Vec<String> = subjects.iter().map(|subject| format!("        \"{subject}\"")).collect();
    format!("[\n{}\n      ]", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checked_in_topology_is_what_the_code_says() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../nats");
        let written: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(format!("{folder}/topology.json")).unwrap()).unwrap();
        assert_eq!(written, json(), "run `cargo dev topology`");
        let conf = std::fs::read_to_string(format!("{folder}/permissions.conf")).unwrap();
        assert_eq!(conf, permissions_conf(), "run `cargo dev topology`");
    }

    #[test]
    fn only_the_controller_may_create_or_delete() {
        for role in Role::ALL {
            let may_administer = permissions(role).publish.iter().any(|subject| {
                subject == "$JS.API.>"
                    || subject.contains(".CREATE")
                    || subject.contains(".DELETE")
                    || subject.contains(".UPDATE")
            });
            assert_eq!(may_administer, role == Role::Pool(Pool::Controller), "{}", role.name());
        }
    }

    #[test]
    fn only_the_token_pool_hears_its_commands() {
        for role in Role::ALL {
            let hears = permissions(role).subscribe.iter().any(|subject| subject.starts_with("cmd.token"));
            assert_eq!(hears, role == Role::Pool(Pool::Token), "{}", role.name());
        }
    }
}
