//! What exists on NATS and who may touch it, in one place. `nats/topology.json` and
//! `nats/accounts.conf` are written from here and tested equal, so that a reviewer and the
//! server read what the code means.
//!
//! Three accounts. The roles stand in one, which imports exactly what they may ask of JetStream in the second, where its
//! administrator is: an answer always goes back into the account that asked, and cannot become a request of JetStream
//! wherever a role wants it sent (ADR 11). Calls have the third to themselves: who publishes them and who works them off
//! are in it, since crossing was a third of what the server did for a call. There JetStream's API is closed, but under a
//! name that the server alone is given (ADR 20).

use std::{collections::BTreeSet, fmt::Write as _};

use serde::Serialize;

use super::{
    Role, administration,
    kv::Bucket,
    queue::Side,
    streams::{self, AUDIT, AUDIT_WRITER, EVENTS, FILES, Sizes},
    subject::{
        API_PREFIX, FILE_PARTS, QUEUE_API_PREFIX, WORK_GROUP, api, direct_to, events_of, filler, inbox_prefix, nobody,
        pass, told, work,
    },
};
use crate::{command::Pool, id::PARTITIONS};

/// What one user may publish and subscribe. Nothing else is allowed.
#[derive(Clone, Debug, Serialize)]
pub struct Permissions {
    /// The NATS user.
    pub user: &'static str,
    /// Subjects it may publish.
    pub publish: Vec<String>,
    /// Subjects it may subscribe; `subject queue` allows the queue form only.
    pub subscribe: Vec<String>,
}

/// The permissions of a role.
pub fn permissions(role: Role) -> Permissions {
    let mut publish = vec![format!("$KV.INSTANCES.{}.*", role.name())];
    let mut subscribe = vec![format!("{}.>", inbox_prefix(role.name()))];
    match role {
        Role::Gateway => {
            publish.extend(Pool::ALL.map(direct_to));
            watches(&[Bucket::Access, Bucket::Limits, Bucket::Instances], &mut publish, &mut subscribe);
            // Tenant events: what was said before, and what is said now.
            publish.push(api(&format!("STREAM.INFO.{EVENTS}")));
            publish.push(api(&format!("STREAM.MSG.GET.{EVENTS}")));
            subscribe.push(told("*"));
        }
        Role::Pool(pool) => {
            publish.push(format!("{}.>", inbox_prefix(Role::Gateway.name())));
            publish.push("audit.*".to_owned());
            publish.push(filler(pool));
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
            publish.push(format!("{}>", Bucket::Sessions.subject_prefix()));
            publish.push(format!("{}>", Bucket::Prompts.subject_prefix()));
            publish.push(events_of("*"));
            watches(&[Bucket::Access, Bucket::Limits, Bucket::Sessions, Bucket::Prompts], publish, subscribe);
            keeps_files(publish);
        }
        Pool::Token => {
            publish.push(format!("{}>", Bucket::Configs.subject_prefix()));
            watches(&[Bucket::Configs, Bucket::Access, Bucket::Limits], publish, subscribe);
        }
        Pool::Tool => {
            publish.extend(slots());
            // Calls pass from a full worker to one with room, each by the other's inbox.
            publish.push(pass(pool));
            publish.push(format!("{}.>", inbox_prefix(pool.name())));
            subscribe.push(format!("{} {WORK_GROUP}", pass(pool)));
            watches(&[Bucket::Configs, Bucket::Access, Bucket::Limits, Bucket::Sessions], publish, subscribe);
            keeps_files(publish);
        }
        Pool::Audit => {
            publish.push(api(&format!("CONSUMER.INFO.{AUDIT}.{AUDIT_WRITER}")));
            publish.push(api(&format!("CONSUMER.MSG.NEXT.{AUDIT}.{AUDIT_WRITER}")));
            publish.push(format!("$JS.ACK.{AUDIT}.{AUDIT_WRITER}.>"));
        }
        // It administers as another user, in JetStream's account.
        Pool::Controller => watches(&[Bucket::Limits], publish, subscribe),
    }
}

/// Where slots of each partition are extended and released. A release comes from the roles' account, since it must not
/// overtake the answer that went before it; the queue's account hears it there, which costs the server less than a
/// request that crosses.
fn slots() -> impl Iterator<Item = String> {
    (0..PARTITIONS).map(|partition| format!("$JS.ACK.{}.>", streams::calls(partition)))
}

/// Writing, removing and reading the parts of files.
fn keeps_files(publish: &mut Vec<String>) {
    publish.push(FILE_PARTS.to_owned());
    publish.push(api(&format!("STREAM.MSG.GET.{FILES}")));
}

/// Reading a bucket: its last revision, its entries, and changes as the server republishes them.
fn watches(buckets: &[Bucket], publish: &mut Vec<String>, subscribe: &mut Vec<String>) {
    for bucket in buckets {
        publish.push(api(&format!("STREAM.INFO.{}", bucket.stream())));
        publish.push(api(&format!("STREAM.MSG.GET.{}", bucket.stream())));
        subscribe.push(format!("{}>", bucket.watch_prefix()));
    }
}

/// The permissions of JetStream's administrator (a consumer's deliver subject is not checked by the
/// server, so that creating consumers is its alone).
fn administrator() -> Permissions {
    Permissions {
        user: administration::USER,
        publish: vec![format!("{API}.>"), format!("{QUEUE_API_PREFIX}.>")],
        subscribe: vec![format!("{}.>", inbox_prefix(administration::USER))],
    }
}

/// The permissions of a side of the queue.
fn queue(side: Side) -> Permissions {
    let user = side.user();
    let mut publish = Vec::new();
    let mut subscribe = vec![format!("{}.>", inbox_prefix(user))];
    match side {
        Side::Calling => {
            publish.extend((0..PARTITIONS).map(|partition| format!("calls.{partition}.*.*")));
        }
        Side::Working => {
            publish.push(nobody(user));
            publish.extend(slots());
            // No delivery: those name an acknowledgement, and the server lets no client do that.
            publish.push(work(Pool::Tool));
            subscribe.push(format!("{} {WORK_GROUP}", work(Pool::Tool)));
        }
    }
    publish.sort();
    subscribe.sort();
    Permissions { user, publish, subscribe }
}

/// What the roles' account takes over from JetStream's.
#[derive(Clone, Debug, Serialize)]
struct Imports {
    /// Requests, by the subject that roles publish. Answers come back to whoever asked.
    services: BTreeSet<String>,
    /// What roles hear.
    streams: BTreeSet<String>,
}

impl Imports {
    /// Exactly what some role may publish to JetStream, or hear from it.
    fn new() -> Self {
        let from_jetstream = |subject: &String| {
            ["$", "audit.", "events.", "files.", "js."].iter().any(|prefix| subject.starts_with(prefix))
        };
        let delivered = |subject: &String| ["kv.", "told."].iter().any(|prefix| subject.starts_with(prefix));
        let all = || Role::ALL.into_iter().map(permissions);
        Self {
            services: all()
                .flat_map(|role| role.publish)
                .filter(from_jetstream)
                .filter(|subject| slots().all(|slot| slot != *subject))
                .collect(),
            streams: all()
                .flat_map(|role| role.subscribe)
                .filter(delivered)
                .filter_map(|subject| subject.split(' ').next().map(str::to_owned))
                .collect(),
        }
    }

    /// A service's subject in its account.
    fn exported(subject: &str) -> String {
        match subject.strip_prefix(API_PREFIX) {
            Some(request) => format!("{API}{request}"),
            None => subject.to_owned(),
        }
    }
}

/// JetStream's API, as the server names it in every account.
const API: &str = "$JS.API";
/// Where nothing is.
const NOWHERE: &str = "nowhere.>";
/// The variable of nats-server that holds the name of the API in the queue's account: words that cannot be guessed,
/// and `.>`.
pub const QUEUE_API: &str = "NATS_QUEUE_API";

/// `nats/topology.json`: streams, permissions and what crosses between the accounts.
pub fn json() -> serde_json::Value {
    serde_json::json!({
        "streams": streams::all(Sizes::default()),
        "consumers": [{ "stream": AUDIT, "durable": AUDIT_WRITER }],
        "administrator": administrator(),
        "queue": Side::ALL.map(queue),
        "permissions": Role::ALL.map(permissions),
        "imports": Imports::new(),
        "slots": slots().collect::<Vec<_>>(),
    })
}

/// `nats/accounts.conf`: the accounts, what crosses between them, and their users, one password
/// variable each.
pub fn accounts_conf() -> String {
    let imports = Imports::new();
    let mut conf = String::from(
        "# Written from shared/src/bus/topology.rs by `cargo dev topology`; a test keeps the two equal.\naccounts {\n",
    );
    conf.push_str(&jetstream_account(&imports));
    conf.push_str(&queue_account());
    conf.push_str(&roles_account(&imports));
    let _ = writeln!(
        conf,
        "  SYS {{ exports: [{{ service: \"{API}.>\", accounts: [QUEUE] }}, {{ service: \"{NOWHERE}\", accounts: [QUEUE] }}] }}"
    );
    conf.push_str("}\nsystem_account: SYS\n");
    conf
}

fn jetstream_account(imports: &Imports) -> String {
    let mut conf = String::from(
        "  # Where the shared state, records, news and files are. Only what is exported can be asked from elsewhere.\n  \
         JETSTREAM {\n    jetstream: enabled\n    exports: [\n",
    );
    for service in &imports.services {
        // A batch is many answers to one request.
        let many = if service.contains(".MSG.NEXT.") { ", response_type: stream" } else { "" };
        let _ = writeln!(conf, "      {{ service: \"{}\", accounts: [ROLES]{many} }}", Imports::exported(service));
    }
    for stream in &imports.streams {
        let _ = writeln!(conf, "      {{ stream: \"{stream}\", accounts: [ROLES] }}");
    }
    let _ = writeln!(
        conf,
        "    ]\n    imports: [\n      {{ service: {{ account: QUEUE, subject: ${QUEUE_API} }}, to: \"{QUEUE_API_PREFIX}.>\" }}"
    );
    conf.push_str("    ]\n    users: [\n");
    conf.push_str(&user(&administrator()));
    conf.push_str("    ]\n  }\n");
    conf
}

fn queue_account() -> String {
    let released = slots().fold(String::new(), |mut released, slot| {
        let _ = writeln!(released, "      {{ stream: {{ account: ROLES, subject: \"{slot}\" }} }}");
        released
    });
    let users: String = Side::ALL.map(|side| user(&queue(side))).concat();
    format!(
        "  # Where calls wait. An import of the API from the server's own account keeps the server from adding its own:\n  \
         # what asks here asks nobody, but for who knows another name.\n  \
         QUEUE {{\n    jetstream: enabled\n    exports: [ {{ service: ${QUEUE_API}, accounts: [JETSTREAM] }} ]\n    \
         imports: [\n      {{ service: {{ account: SYS, subject: \"{NOWHERE}\" }}, to: \"{API}.>\" }}\n      \
         {{ service: {{ account: SYS, subject: \"{API}.>\" }}, to: ${QUEUE_API} }}\n{released}    ]\n    users: [\n{users}    ]\n  }}\n"
    )
}

fn roles_account(imports: &Imports) -> String {
    let mut conf = String::from("  # Where the processes meet.\n  ROLES {\n    exports: [\n");
    for slot in slots() {
        let _ = writeln!(conf, "      {{ stream: \"{slot}\", accounts: [QUEUE] }}");
    }
    conf.push_str("    ]\n    imports: [\n");
    for service in &imports.services {
        let exported = Imports::exported(service);
        let to = if exported == *service { String::new() } else { format!(", to: \"{service}\"") };
        let _ = writeln!(conf, "      {{ service: {{ account: JETSTREAM, subject: \"{exported}\" }}{to} }}");
    }
    for stream in &imports.streams {
        let _ = writeln!(conf, "      {{ stream: {{ account: JETSTREAM, subject: \"{stream}\" }} }}");
    }
    conf.push_str("    ]\n    users: [\n");
    for role in Role::ALL {
        conf.push_str(&user(&permissions(role)));
    }
    conf.push_str("    ]\n  }\n");
    conf
}

fn user(permissions: &Permissions) -> String {
    let Permissions { user, publish, subscribe } = permissions;
    format!(
        "      {{\n        user: {user}\n        password: $NATS_PASSWORD_{}\n        permissions: {{\n          publish: {{ allow: {} }}\n          subscribe: {{ allow: {} }}\n        }}\n      }}\n",
        user.to_ascii_uppercase(),
        list(publish),
        list(subscribe),
    )
}

/// Writes both files into `folder` (the repository's `nats/`).
pub fn write(folder: &std::path::Path) -> std::io::Result<()> {
    let topology = serde_json::to_string_pretty(&json()).map_err(std::io::Error::other)?;
    std::fs::write(folder.join("topology.json"), topology + "\n")?;
    std::fs::write(folder.join("accounts.conf"), accounts_conf())
}

fn list(subjects: &[String]) -> String {
    let lines: Vec<String> = subjects.iter().map(|subject| format!("            \"{subject}\"")).collect();
    format!("[\n{}\n          ]", lines.join("\n"))
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
        let conf = std::fs::read_to_string(format!("{folder}/accounts.conf")).unwrap();
        assert_eq!(conf, accounts_conf(), "run `cargo dev topology`");
    }

    #[test]
    fn no_role_may_create_change_or_delete() {
        let users = Role::ALL.into_iter().map(permissions).chain(Side::ALL.map(queue));
        let granted = users.flat_map(|user| user.publish);
        for subject in granted.chain(Imports::new().services) {
            let words = ["$JS.API", "CREATE", "DELETE", "UPDATE", "PURGE", "PAUSE", "DIRECT"];
            assert!(!words.iter().any(|word| subject.contains(word)), "{subject}");
        }
    }

    #[test]
    fn whatever_a_role_may_ask_of_jetstream_is_imported() {
        let Imports { services, streams } = Imports::new();
        for role in Role::ALL {
            let Permissions { publish, subscribe, .. } = permissions(role);
            for subject in publish.into_iter().filter(|subject| !subject.starts_with("cmd.")) {
                let own = subject.starts_with("_INBOX_") || subject.starts_with("pass.");
                let own = own || slots().any(|slot| slot == subject);
                assert!(own || services.contains(&subject), "{subject}");
            }
            for subject in subscribe.iter().filter_map(|subject| subject.split(' ').next()) {
                let own = ["_INBOX_", "cmd.", "pass."].iter().any(|prefix| subject.starts_with(prefix));
                assert!(own || streams.contains(subject), "{subject}");
            }
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
