//! The whole table of commands and roles (role-based access control): who may send what stands here a
//! second time, by hand, and the workers must agree with it. Each command is sent as each kind of
//! sender, its payload undecodable, so that nothing happens: whoever may send it is told that it cannot
//! be read, everybody else that their role does not reach.

use std::{sync::Arc, time::Duration};

use async_nats::{Client, HeaderMap};
use bytes::Bytes;
use futures::StreamExt;
use serde_json::{Value, json};
use shared::{Code, Deadline, bus::frame::Frame, command::ALL};

use crate::world::{PATIENCE, System};

/// The least standing that each command takes.
const LEAST: [(&str, &str); 45] = [
    ("organizations.create", "operator"),
    ("organizations.get", "operator"),
    ("organizations.change", "operator"),
    ("organizations.remove", "operator"),
    ("organizations.list", "operator"),
    ("organizations.read_own", "user"),
    ("organizations.change_own", "admin"),
    // Whose a session is decides about the rest: `members_see_their_own_sessions_and_admins_everybodys`.
    ("sessions.open", "user"),
    ("sessions.list", "user"),
    ("sessions.get", "user"),
    ("sessions.end", "user"),
    ("users.admit", "user"),
    ("users.me", "user"),
    ("users.add", "admin"),
    ("users.list", "admin"),
    ("users.get", "admin"),
    ("users.change", "admin"),
    ("users.remove", "admin"),
    // Whose a prompt is decides about the rest: `whose_a_prompt_is_decides_who_writes_it`.
    ("prompts.create", "user"),
    ("prompts.list", "user"),
    ("prompts.get", "user"),
    ("prompts.replace", "user"),
    ("prompts.remove", "user"),
    ("prompts.versions", "user"),
    ("prompts.preview", "user"),
    // Whose a configuration is decides about the rest: `a_member_with_role_user_cannot_do_what_admins_do`.
    ("configurations.register", "user"),
    ("configurations.list", "user"),
    ("configurations.get", "user"),
    ("configurations.remove", "user"),
    ("configurations.replace", "user"),
    ("configurations.test", "user"),
    ("catalogue.list", "user"),
    ("tools.call", "user"),
    ("tools.list", "user"),
    ("tools.accept", "user"),
    ("tools.overrule", "user"),
    ("lanes.open", "user"),
    // Whose the session is decides about the rest: `nobody_else_reaches_a_members_files`.
    ("files.list", "user"),
    ("files.open", "user"),
    ("files.read", "user"),
    ("files.append", "user"),
    ("files.write", "user"),
    ("files.remove", "user"),
    ("files.discard", "user"),
    // Nobody's: shows that a row here which is no command is noticed.
    ("nobody.knows", "operator"),
];

/// Kinds of senders: the role within the organization, and whether they are a platform operator.
const SENDERS: [(&str, bool); 4] = [("user", false), ("admin", false), ("user", true), ("admin", true)];

/// In MessagePack nothing begins with this byte.
const UNDECODABLE: &[u8] = b"\xc1";

/// The worker's answer. What the server says of its audit record comes to the same inbox, before it or after.
async fn final_frame(gateway: &Client, subject: String, headers: HeaderMap) -> Bytes {
    let inbox = gateway.new_inbox();
    let mut replies = gateway.subscribe(inbox.clone()).await.expect("an inbox");
    let sent = gateway.publish_with_reply_and_headers(subject, inbox, headers, UNDECODABLE.into()).await;
    sent.expect("the command is sent");
    loop {
        let reply = replies.next().await.expect("a worker answers").payload;
        if !reply.starts_with(b"{") {
            return reply;
        }
    }
}

pub(crate) async fn every_command_is_for_the_roles_that_are_meant(system: Arc<System>) {
    let tenant = system.organization().await;
    let gateway = system.nats("gateway").await;
    for (name, pool, ..) in ALL {
        let least = LEAST.iter().find(|(known, _)| known == name);
        let (_, least) = least.unwrap_or_else(|| panic!("nobody said who may send {name}"));
        for (role, is_operator) in SENDERS {
            let mut headers = HeaderMap::new();
            headers.insert("Org", tenant.id.to_string());
            let context = json!({
                "actor": "somebody", "role": role, "operator": is_operator, "request": format!("roles-{}", tenant.id),
                "deadline": Deadline::after(Duration::from_secs(20)).unix_ms(),
            });
            headers.insert("Context", context.to_string());
            let subject = format!("cmd.{}.{name}.{}", pool.name(), tenant.id);
            let answer = final_frame(&gateway, subject, headers);
            let answer = tokio::time::timeout(PATIENCE, answer).await.expect("in time");
            let Ok(Frame::Done(Err(fault))) = Frame::<Value>::decode(&answer) else {
                panic!("{name} as {role}: not a refusal");
            };
            let may = match *least {
                "user" => true,
                "admin" => role == "admin",
                _ => is_operator,
            };
            let expected = if may { Code::Invalid } else { Code::Forbidden };
            assert_eq!(fault.code, expected, "{name} as {role}, operator {is_operator}: {fault}");
        }
    }
    let unknown: Vec<&str> =
        LEAST.iter().map(|(name, _)| *name).filter(|name| !ALL.iter().any(|(known, ..)| known == name)).collect();
    assert_eq!(unknown, ["nobody.knows"], "these are no commands any more");
}
