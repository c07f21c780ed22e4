//! Commands as plain data. How one is run exists only in the workers; which pool runs it, how it
//! gets there, who may send it and how long it may take is the one table at the end of this file.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    context::{Actor, Role},
    fault::{Code, Fault},
};

pub mod catalogue;
pub mod configurations;
pub mod lanes;
pub mod organizations;
pub mod prompts;
pub mod sessions;
pub mod tools;
pub mod users;

/// A pool of workers, scaled alone, with its own NATS user and PostgreSQL role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pool {
    /// The control plane without secrets.
    Session,
    /// Everything that seals a secret.
    Token,
    /// Calls to MCP servers.
    Tool,
    /// The audit trail.
    Audit,
    /// JetStream administration and reconcilers.
    Controller,
}

impl Pool {
    /// Every pool.
    pub const ALL: [Self; 5] = [Self::Session, Self::Token, Self::Tool, Self::Audit, Self::Controller];

    /// The name in subjects, users and flags.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Token => "token",
            Self::Tool => "tool",
            Self::Audit => "audit",
            Self::Controller => "controller",
        }
    }
}

/// How a command reaches its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Request-reply; nothing is stored.
    Direct,
    /// Through the organization's lane, bounded by its concurrency.
    Queued,
}

/// The least standing a sender needs (role-based access control).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Any member.
    User,
    /// An admin of the organization.
    Admin,
    /// A platform operator.
    Operator,
}

impl Access {
    /// True when the actor's standing reaches.
    pub fn admits(self, actor: &Actor) -> bool {
        match self {
            Self::User => true,
            Self::Admin => actor.role >= Role::Admin,
            Self::Operator => actor.operator,
        }
    }
}

/// A command: what is asked, as data.
pub trait Command: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// What is answered.
    type Reply: Serialize + DeserializeOwned + Send + 'static;
    /// Who runs it.
    const POOL: Pool;
    /// `noun.verb`, as in subjects and audit events.
    const NAME: &'static str;
    /// How it travels.
    const DELIVERY: Delivery;
    /// Who may send it.
    const ACCESS: Access;
    /// How long it may take at most, waiting included.
    const DEADLINE: Duration;
}

/// One page of a list, oldest key first.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "PageOf{T}")]
pub struct Page<T> {
    /// The items, in the list's order.
    pub items: Vec<T>,
    /// Opaque; give it back as `cursor` for the next page. Absent at the end.
    pub next: Option<String>,
}

/// Most items a page holds.
pub const MAX_PAGE: u32 = 200;

/// Which generation of a row a change is meant for (`If-Match`, RFC 9110 section 13.1.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expected {
    /// Whatever there is.
    Any,
    /// One of these. None of them where the tags that were sent are not ours.
    OneOf(Vec<i64>),
}

impl Expected {
    /// Compares with the row, which must be locked until it is changed.
    pub fn check(&self, generation: i64) -> Result<(), Fault> {
        match self {
            Self::Any => Ok(()),
            Self::OneOf(generations) if generations.contains(&generation) => Ok(()),
            Self::OneOf(_) => Err(Fault::new(Code::Stale, "It has changed since you read it; read it again.")),
        }
    }
}

/// The table: pool, then `"name": Type -> Reply { delivery, access, deadline in seconds }`.
/// Every row needs a `Run` in the workers, or they do not compile.
#[macro_export]
macro_rules! commands {
    ($use:ident) => {
        $use! {
            session {
                "organizations.create": organizations::Create -> organizations::Organization { Direct, Operator, 15 },
                "organizations.get": organizations::Get -> organizations::Organization { Direct, Operator, 15 },
                "organizations.change": organizations::Change -> organizations::Organization { Direct, Operator, 15 },
                "organizations.remove": organizations::Remove -> () { Direct, Operator, 15 },
                "organizations.list": organizations::List -> Page<organizations::Organization> { Direct, Operator, 15 },
                "organizations.read_own": organizations::ReadOwn -> organizations::Organization { Direct, User, 15 },
                "organizations.change_own": organizations::ChangeOwn -> organizations::Organization { Direct, Admin, 15 },
                "sessions.open": sessions::Open -> sessions::Session { Direct, User, 15 },
                "sessions.list": sessions::List -> Page<sessions::Session> { Direct, User, 15 },
                "sessions.get": sessions::Get -> sessions::Session { Direct, User, 15 },
                "sessions.end": sessions::End -> () { Direct, User, 15 },
                "users.admit": users::Admit -> users::Admitted { Direct, User, 10 },
                "users.me": users::Me -> users::Myself { Direct, User, 10 },
                "users.add": users::Add -> users::Member { Direct, Admin, 15 },
                "users.list": users::List -> Page<users::Member> { Direct, Admin, 15 },
                "users.get": users::Get -> users::Member { Direct, Admin, 15 },
                "users.change": users::Change -> users::Member { Direct, Admin, 15 },
                "users.remove": users::Remove -> () { Direct, Admin, 15 },
                "prompts.create": prompts::Create -> prompts::Prompt { Direct, User, 15 },
                "prompts.list": prompts::List -> Page<prompts::Prompt> { Direct, User, 15 },
                "prompts.get": prompts::Get -> prompts::Prompt { Direct, User, 15 },
                "prompts.replace": prompts::Replace -> prompts::Prompt { Direct, User, 15 },
                "prompts.remove": prompts::Remove -> () { Direct, User, 15 },
                "prompts.versions": prompts::Versions -> Page<prompts::Version> { Direct, User, 15 },
                "prompts.preview": prompts::Preview -> prompts::Composed { Direct, User, 15 },
            }
            token {
                "catalogue.list": catalogue::List -> Page<catalogue::Entry> { Direct, User, 15 },
                "configurations.register": configurations::Register -> configurations::Configuration { Direct, User, 15 },
                "configurations.list": configurations::List -> Page<configurations::Configuration> { Direct, User, 15 },
                "configurations.get": configurations::Get -> configurations::Configuration { Direct, User, 15 },
                "configurations.replace": configurations::Replace -> configurations::Configuration { Direct, User, 15 },
                "configurations.remove": configurations::Remove -> () { Direct, User, 15 },
                "tools.accept": tools::Accept -> tools::Pin { Direct, User, 15 },
                "tools.overrule": tools::Overrule -> tools::Pin { Direct, User, 15 },
            }
            tool {
                "tools.call": tools::Call -> tools::Called { Queued, User, 300 },
                "configurations.test": configurations::Test -> configurations::Report { Direct, User, 40 },
                "tools.list": tools::List -> tools::Definitions { Direct, User, 60 },
            }
            audit {}
            controller {
                "lanes.open": lanes::Open -> lanes::Lane { Direct, User, 10 },
            }
        }
    };
}

macro_rules! implement {
    ($($pool:ident { $($name:literal: $noun:ident :: $verb:ident -> $reply:ty { $delivery:ident, $access:ident, $seconds:literal },)* })*) => {
        $($(
            impl Command for $noun::$verb {
                type Reply = $reply;
                const POOL: Pool = implement!(@pool $pool);
                const NAME: &'static str = $name;
                const DELIVERY: Delivery = Delivery::$delivery;
                const ACCESS: Access = Access::$access;
                const DEADLINE: Duration = Duration::from_secs($seconds);
            }
        )*)*

        /// Every command: name, pool, delivery, access.
        pub const ALL: &[(&str, Pool, Delivery, Access)] = &[
            $($( ($name, implement!(@pool $pool), Delivery::$delivery, Access::$access), )*)*
        ];
    };
    (@pool session) => { Pool::Session };
    (@pool token) => { Pool::Token };
    (@pool tool) => { Pool::Tool };
    (@pool audit) => { Pool::Audit };
    (@pool controller) => { Pool::Controller };
}

commands!(implement);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_noun_dot_verb_and_unique() {
        let mut seen = std::collections::HashSet::new();
        for (name, ..) in ALL {
            assert_eq!(name.split('.').count(), 2, "{name}");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'.' || byte == b'_'), "{name}");
            assert!(seen.insert(name), "{name} stands twice");
        }
    }

    #[test]
    fn a_change_is_for_the_generations_that_were_read() {
        assert!(Expected::Any.check(7).is_ok());
        assert!(Expected::OneOf(vec![6, 7]).check(7).is_ok());
        for stale in [Vec::new(), vec![6, 8]] {
            assert_eq!(Expected::OneOf(stale).check(7).unwrap_err().code, Code::Stale);
        }
    }

    #[test]
    fn an_operator_is_not_an_admin_and_an_admin_is_not_an_operator() {
        let admin = Actor { subject: "a".into(), role: Role::Admin, operator: false };
        let operator = Actor { subject: "o".into(), role: Role::User, operator: true };
        assert!(Access::Admin.admits(&admin) && !Access::Operator.admits(&admin));
        assert!(Access::Operator.admits(&operator) && !Access::Admin.admits(&operator));
    }
}
