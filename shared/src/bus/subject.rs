//! Subjects: how a command's pool, name and tenant stand in the address of a message.

use std::str::FromStr;

use uuid::Uuid;

use super::files::Object;
use crate::{
    command::{Command, Pool},
    id::OrganizationId,
};

/// The queue group that shares a pool's lanes.
pub const WORK_GROUP: &str = "w";

/// `cmd.<pool>.<noun>.<verb>.<org>`: a direct command.
pub fn direct<C: Command>(organization: OrganizationId) -> String {
    format!("cmd.{}.{}.{organization}", C::POOL.name(), C::NAME)
}

/// `calls.<partition>.<pool>.<org>`: a queued command.
pub fn queued(pool: Pool, organization: OrganizationId) -> String {
    let mut text = Uuid::encode_buffer();
    format!("calls.{}.{}.{}", organization.partition(), pool.name(), organization.text(&mut text))
}

/// `work.<pool>`: where the server delivers a pool's lanes.
pub fn work(pool: Pool) -> String {
    format!("work.{}", pool.name())
}

/// `pass.<pool>`: where full workers of a pool offer calls to those with room.
pub fn pass(pool: Pool) -> String {
    format!("pass.{}", pool.name())
}

/// `cmd.<pool>.>`: everything direct for a pool.
pub fn direct_to(pool: Pool) -> String {
    format!("cmd.{}.>", pool.name())
}

/// `cmd.<pool>.fill`: no command, heard by a pool's direct workers: what one of them sends that ends.
pub fn filler(pool: Pool) -> String {
    format!("cmd.{}.fill", pool.name())
}

/// `audit.<org>`: an organization's events.
pub fn audit(organization: OrganizationId) -> String {
    format!("audit.{organization}")
}

/// `events.<org>`: what an organization's members are told. `*` stands for every organization.
pub fn events_of(organization: &str) -> String {
    format!("events.{organization}")
}

/// `told.<org>`: the same as the server republishes it to gateways.
pub fn told(organization: &str) -> String {
    format!("told.{organization}")
}

/// `files.<org>.<session>.<object>.<part>`: one part of a file's content.
pub fn file_part(object: &Object, part: u32) -> String {
    let Object { organization, session, id } = object;
    format!("files.{organization}.{session}.{id}.{part}")
}

/// Every part of every content.
pub const FILE_PARTS: &str = "files.*.*.*.*";

/// `_INBOX_<user>`: replies to a NATS user. Users cannot subscribe each other's.
pub fn inbox_prefix(user: &str) -> String {
    format!("_INBOX_{user}")
}

/// What stands for `$JS.API` in the roles' account. Another name, because the server answers that one
/// in every account by itself.
pub const API_PREFIX: &str = "js";

/// What stands for `$JS.API` of the queue's account in JetStream's, where the administrator is.
pub const QUEUE_API_PREFIX: &str = "queue";

/// `js.<request>`: a request of JetStream's API, as a role asks it.
pub fn api(request: &str) -> String {
    format!("{API_PREFIX}.{request}")
}

/// A subject in a user's inbox that nobody hears.
pub fn nobody(user: &str) -> String {
    format!("{}.nobody", inbox_prefix(user))
}

/// What a message's subject says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The tenant.
    pub organization: OrganizationId,
    /// `noun.verb` of a direct command; a queued message names its command in a header.
    pub command: Option<String>,
}

impl FromStr for Address {
    type Err = NotAnAddress;

    fn from_str(subject: &str) -> Result<Self, Self::Err> {
        let tokens: Vec<&str> = subject.split('.').collect();
        let (organization, command) = match tokens.as_slice() {
            ["cmd", _pool, noun, verb, organization] => (organization, Some(format!("{noun}.{verb}"))),
            ["calls", _partition, _pool, organization] => (organization, None),
            _ => return Err(NotAnAddress),
        };
        let organization = organization.parse().map_err(|_| NotAnAddress)?;
        Ok(Self { organization, command })
    }
}

/// The subject is none of ours.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the subject is no command's")]
pub struct NotAnAddress;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::configurations;

    #[test]
    fn a_direct_subject_reads_back() {
        let organization = OrganizationId::new();
        let subject = direct::<configurations::Get>(organization);
        assert!(subject.starts_with("cmd.token.configurations.get."));
        let address: Address = subject.parse().unwrap();
        assert_eq!(address, Address { organization, command: Some("configurations.get".into()) });
    }

    #[test]
    fn a_queued_subject_carries_its_partition() {
        let organization = OrganizationId::new();
        let subject = queued(Pool::Tool, organization);
        assert_eq!(subject.split('.').nth(1).unwrap(), organization.partition().to_string());
        assert_eq!(subject.parse::<Address>().unwrap().organization, organization);
    }

    #[test]
    fn anything_else_is_refused() {
        for subject in ["", "cmd", "cmd.a.b.c.not-a-uuid", "$KV.ACCESS.x", "calls.1.tool", "cmd.a.b.c.d.e"] {
            assert_eq!(subject.parse::<Address>(), Err(NotAnAddress), "{subject}");
        }
    }
}
