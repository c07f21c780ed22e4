//! Every act on the bus, times every role. Who is granted what stands here a second time, by hand,
//! from the design: the server must agree with it, whatever the generated configuration says.

use std::sync::Arc;

use shared::{
    bus::{Role, kv::Bucket, streams},
    command,
    id::{OrganizationId, PARTITIONS},
};

use super::{ADMINISTRATOR, CALLER, LISTENER, POOLS, ROLES, wire::Wire};
use crate::world::System;

/// An act: what is tried, who may, and whether it can be tried by those without disturbing others.
struct Act {
    how: How,
    granted: Vec<&'static str>,
    harmless: bool,
}

enum How {
    Publish(String),
    Subscribe(String, Option<String>),
}

impl Act {
    fn publish(subject: impl Into<String>, granted: &[&'static str]) -> Self {
        Self { how: How::Publish(subject.into()), granted: granted.to_vec(), harmless: false }
    }

    fn subscribe(subject: impl Into<String>, queue: Option<&str>, granted: &[&'static str]) -> Self {
        Self {
            how: How::Subscribe(subject.into(), queue.map(str::to_owned)),
            granted: granted.to_vec(),
            harmless: false,
        }
    }

    /// Those who may, do: the refusals of the others mean something.
    fn harmless(self) -> Self {
        Self { harmless: true, ..self }
    }

    /// Tries it; answers the refusal, and what the refusal must name.
    async fn attempt(&self, wire: &mut Wire) -> (Option<String>, String) {
        match &self.how {
            How::Publish(subject) => (wire.publish(subject, b"{}").await, format!("Publish to \"{subject}\"")),
            How::Subscribe(subject, queue) => {
                (wire.subscribe(subject, queue.as_deref()).await, format!("Subscription to \"{subject}\""))
            }
        }
    }
}

pub(crate) async fn every_role_is_held_to_its_subjects(system: Arc<System>) {
    assert_eq!(Role::ALL.map(Role::name), ROLES, "a new role has to be thought about here");
    let acts = acts();
    let (mut refused, mut done) = (0, 0);
    for role in ROLES.into_iter().chain([ADMINISTRATOR, CALLER, LISTENER]) {
        let mut attacker = Wire::connect(&system, role).await;
        let mut holder = Wire::connect(&system, role).await;
        for act in &acts {
            if !act.granted.contains(&role) {
                let (refusal, what) = act.attempt(&mut attacker).await;
                let refusal = refusal.unwrap_or_else(|| panic!("{role} was not refused: {what}"));
                assert!(
                    refusal.contains("Permissions Violation") && refusal.contains(&what),
                    "{role}, {what}: {refusal}"
                );
                refused += 1;
            } else if act.harmless {
                let (refusal, what) = act.attempt(&mut holder).await;
                assert_eq!(refusal, None, "{role} was kept from its own: {what}");
                done += 1;
            }
        }
        let heard = attacker.heard().await;
        assert!(heard.is_empty(), "{role} was refused everything, and yet heard {heard:?}");
    }
    assert!(refused > 3_000, "only {refused} acts were refused");
    assert!(done > 4 * ROLES.len(), "only {done} acts were done by those who may");
}

fn acts() -> Vec<Act> {
    let mut acts = listening();
    acts.extend(sending());
    acts.extend(state());
    acts.extend(jetstream());
    acts
}

/// Who may hear what.
fn listening() -> Vec<Act> {
    let mut acts = Vec::new();
    for everything in [
        ">",
        "*",
        "*.>",
        "cmd.>",
        "cmd.*.>",
        "calls.>",
        "work.>",
        "audit.>",
        "files.>",
        "files.*.*.*.*",
        "events.>",
        "events.*",
        "kv.>",
        "$KV.>",
        "$JS.>",
        "$JS.API.>",
        "$JS.ACK.>",
        "$JS.EVENT.>",
        "$SYS.>",
        "_INBOX.>",
        "_INBOX_gateway",
        "_R_.>",
    ] {
        acts.push(Act::subscribe(everything, None, &[]));
        acts.push(Act::subscribe(everything, Some("w"), &[]));
    }
    // To the server the whole is a token like any other: no subject there is longer.
    for everything in ["told.*", "told.>"] {
        acts.push(Act::subscribe(everything, None, &["gateway"]).harmless());
    }
    for role in ROLES.into_iter().chain([CALLER, LISTENER]) {
        acts.push(Act::subscribe(format!("_INBOX_{role}.>"), None, &[role]).harmless());
        acts.push(Act::subscribe(format!("_INBOX_{role}.*.*"), Some("spies"), &[role]).harmless());
    }
    for pool in POOLS {
        for subject in [format!("cmd.{pool}.>"), format!("cmd.{pool}.*.*.*"), format!("cmd.{pool}.nothing.never.*")] {
            // Without the queue a role would get a copy of what its workers get, unseen.
            acts.push(Act::subscribe(&subject, None, &[]));
            acts.push(Act::subscribe(&subject, Some("spies"), &[]));
        }
        acts.push(Act::subscribe(format!("cmd.{pool}.>"), Some(pool), &[pool]));
        acts.push(Act::subscribe(format!("cmd.{pool}.nothing.never.*"), Some(pool), &[pool]).harmless());
        acts.push(Act::subscribe(format!("work.{pool}"), None, &[]));
        acts.push(Act::subscribe(format!("work.{pool}"), Some("spies"), &[]));
        acts.push(Act::subscribe(format!("work.{pool}"), Some("w"), if pool == "tool" { &[LISTENER] } else { &[] }));
        acts.push(Act::subscribe(format!("pass.{pool}"), None, &[]));
        acts.push(Act::subscribe(format!("pass.{pool}"), Some("spies"), &[]));
        // Offers that nobody takes up: the worker asks again.
        acts.push(Act::subscribe(format!("pass.{pool}"), Some("w"), if pool == "tool" { &["tool"] } else { &[] }));
        acts.push(Act::subscribe(format!("calls.*.{pool}.*"), None, &[]));
    }
    acts
}

/// Who may send what.
fn sending() -> Vec<Act> {
    let organization = OrganizationId::new();
    let mut acts = Vec::new();
    for (name, pool, ..) in command::ALL {
        acts.push(Act::publish(format!("cmd.{}.{name}.{organization}", pool.name()), &["gateway"]));
    }
    for pool in POOLS {
        acts.push(Act::publish(format!("cmd.{pool}.any.thing.{organization}"), &["gateway"]));
        // Work comes from streams, never from a sender: who hears lanes may only fill its own end there.
        let fills: &[&'static str] = if pool == "tool" { &[LISTENER] } else { &[] };
        acts.push(Act::publish(format!("work.{pool}"), fills));
        acts.push(Act::publish(format!("cmd.{pool}.fill"), &["gateway", pool]));
        acts.push(Act::publish(format!("calls.{}.{pool}.{organization}", organization.partition()), &[CALLER]));
    }
    acts.push(Act::publish(format!("calls.{PARTITIONS}.tool.{organization}"), &[]));
    acts.push(Act::publish(format!("audit.{organization}"), &POOLS));
    acts.push(Act::publish(format!("audit.{organization}.more"), &[]));
    acts.push(Act::publish(format!("events.{organization}"), &["session"]));
    acts.push(Act::publish(format!("events.{organization}.more"), &[]));
    // What the server did not republish would be told to members.
    acts.push(Act::publish(format!("told.{organization}"), &[]));
    // Any part of any session: rows keep organizations apart. One that is empty is a tombstone.
    let part = format!("files.{organization}.{organization}.{organization}");
    acts.push(Act::publish(format!("{part}.0"), &["session", "tool"]));
    acts.push(Act::publish(part.as_str(), &[]));
    acts.push(Act::publish(format!("{part}.0.more"), &[]));
    acts.push(Act::publish("_INBOX_gateway.permissions.nobody", &POOLS).harmless());
    for pool in POOLS {
        // Tool workers pass calls on, each to the other's inbox.
        let passes_on: &[&'static str] = if pool == "tool" { &["tool"] } else { &[] };
        acts.push(Act::publish(format!("_INBOX_{pool}.permissions.nobody"), passes_on).harmless());
        acts.push(Act::publish(format!("pass.{pool}"), passes_on).harmless());
    }
    for subject in
        ["_INBOX.permissions", "_R_.permissions.x", "anything", "$SYS.REQ.SERVER.PING", "$SYS.REQ.ACCOUNT.PING"]
    {
        acts.push(Act::publish(subject, &[]));
    }
    acts
}

/// Who may write and watch the shared state.
fn state() -> Vec<Act> {
    let mut acts = Vec::new();
    for bucket in Bucket::ALL {
        let (writers, watchers): (&[&'static str], &[&'static str]) = match bucket {
            Bucket::Access => (&["session"], &["gateway", "session", "token", "tool"]),
            Bucket::Limits => (&["session"], &["gateway", "session", "token", "tool", "controller"]),
            Bucket::Configs => (&["token"], &["token", "tool"]),
            Bucket::Sessions => (&["session"], &["session", "tool"]),
            Bucket::Prompts => (&["session"], &["session"]),
            Bucket::Instances => (&[], &["gateway"]),
        };
        acts.push(Act::publish(format!("{}permissions", bucket.subject_prefix()), writers));
        acts.push(Act::subscribe(format!("{}>", bucket.subject_prefix()), None, &[]));
        // News that the server did not republish would be believed by every watcher.
        acts.push(Act::publish(format!("{}permissions", bucket.watch_prefix()), &[]));
        acts.push(Act::subscribe(format!("{}>", bucket.watch_prefix()), None, watchers).harmless());
        for request in ["STREAM.MSG.GET", "STREAM.INFO"] {
            acts.push(Act::publish(format!("js.{request}.{}", bucket.stream()), watchers).harmless());
            acts.push(Act::publish(format!("$JS.API.{request}.{}", bucket.stream()), &[ADMINISTRATOR]).harmless());
        }
        // Its answer would be stored bytes, sent wherever the asker says.
        let direct = format!("DIRECT.GET.{}", bucket.stream());
        for request in [direct.clone(), format!("{direct}.{}permissions", bucket.subject_prefix())] {
            acts.push(Act::publish(format!("js.{request}"), &[]));
            acts.push(Act::publish(format!("$JS.API.{request}"), &[ADMINISTRATOR]));
        }
    }
    for role in ROLES {
        acts.push(Act::publish(format!("$KV.INSTANCES.{role}.permissions"), &[role]));
        acts.push(Act::publish(format!("$KV.INSTANCES.{role}.permissions.more"), &[]));
    }
    acts
}

/// Who may do what to streams and consumers.
fn jetstream() -> Vec<Act> {
    let mut acts: Vec<Act> = [
        "INFO",
        "STREAM.LIST",
        "STREAM.NAMES",
        "STREAM.CREATE.spy",
        "ACCOUNT.PURGE.JETSTREAM",
        "META.LEADER.STEPDOWN",
        "SERVER.REMOVE",
    ]
    .iter()
    .flat_map(|act| administering(act))
    .collect();
    for config in streams::all(streams::Sizes::default()) {
        let stream = config.name;
        for act in [
            "STREAM.CREATE",
            "STREAM.UPDATE",
            "STREAM.DELETE",
            "STREAM.PURGE",
            "STREAM.SNAPSHOT",
            "STREAM.RESTORE",
            "STREAM.MSG.DELETE",
            "STREAM.PEER.REMOVE",
            "STREAM.LEADER.STEPDOWN",
            "CONSUMER.LIST",
            "CONSUMER.NAMES",
            "CONSUMER.CREATE",
        ] {
            acts.extend(administering(&format!("{act}.{stream}")));
        }
        for act in ["CREATE", "DURABLE.CREATE", "DELETE", "INFO", "PAUSE", "UNPIN", "LEADER.STEPDOWN", "MSG.NEXT"] {
            acts.extend(administering(&format!("CONSUMER.{act}.{stream}.spy")));
        }
        // Buckets have readers of their own, and so have events.
        if stream == streams::EVENTS {
            for request in ["STREAM.MSG.GET", "STREAM.INFO"] {
                acts.push(Act::publish(format!("js.{request}.{stream}"), &["gateway"]).harmless());
                acts.push(Act::publish(format!("$JS.API.{request}.{stream}"), &[ADMINISTRATOR]).harmless());
            }
        } else if stream == streams::FILES {
            acts.push(Act::publish(format!("js.STREAM.MSG.GET.{stream}"), &["session", "tool"]).harmless());
            acts.push(Act::publish(format!("$JS.API.STREAM.MSG.GET.{stream}"), &[ADMINISTRATOR]).harmless());
            acts.extend(administering(&format!("STREAM.INFO.{stream}")));
        } else if !stream.starts_with("KV_") {
            acts.extend(administering(&format!("STREAM.MSG.GET.{stream}")));
            acts.extend(administering(&format!("STREAM.INFO.{stream}")));
        }
        acts.extend(administering(&format!("CONSUMER.CREATE.{stream}.spy.audit.x")));
        let acknowledgers: &[&'static str] = if stream.starts_with("CALLS_") { &["tool", LISTENER] } else { &[] };
        acts.push(Act::publish(format!("$JS.ACK.{stream}.spy.1.1.1.1.0"), acknowledgers));
        for account in ["ROLES", "QUEUE"] {
            acts.push(Act::publish(format!("$JS.ACK._.{account}.{stream}.spy.1.1.1.1.0.x"), &[]));
        }
        acts.push(Act::publish(format!("$JS.FC.{stream}.spy.x"), &[]));
        acts.push(Act::publish(format!("$JS.SNAPSHOT.ACK.{stream}.x"), &[]));
    }
    // The one stream that is read by pulling, by its one reader.
    acts.push(Act::publish("js.CONSUMER.INFO.AUDIT.writer", &["audit"]).harmless());
    acts.push(Act::publish("js.CONSUMER.MSG.NEXT.AUDIT.writer", &["audit"]));
    acts.extend(administering("CONSUMER.DELETE.AUDIT.writer"));
    acts.push(Act::publish("$JS.ACK.AUDIT.writer.1.1.1.1.0", &["audit"]));
    acts
}

/// The administrator's alone, in its own account; under no other name can a role ask for it.
fn administering(request: &str) -> [Act; 3] {
    [
        Act::publish(format!("$JS.API.{request}"), &[ADMINISTRATOR]),
        Act::publish(format!("queue.{request}"), &[ADMINISTRATOR]),
        Act::publish(format!("js.{request}"), &[]),
    ]
}
