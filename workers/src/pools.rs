//! The pools: what each shares among its commands, and which commands it answers. The match is
//! written from the command table, so a row without a `Run` in its pool does not compile.

use shared::{
    Code, Fault,
    bus::{
        Bus,
        administration::Administration,
        kv::Watch,
        standing::Standing,
        state::{ConfigurationState, Limits},
    },
    command::{Command, Pool, catalogue, configurations, lanes, organizations, prompts, sessions, tools, users},
    db::Database,
};

use crate::{
    announce::Announcer,
    catalogue::Programs,
    egress::Egress,
    lanes::LaneLocks,
    prompts::Composer,
    run::{Ended, Job, execute, refuse},
    sessions::SessionsConfig,
    tools::Catalogue,
    upstream::Upstreams,
    vault::Vault,
};

/// What every pool has.
pub trait Parts: Send + Sync + std::fmt::Debug + 'static {
    /// Which pool.
    const POOL: Pool;
    /// The pool's connection to NATS.
    fn bus(&self) -> &Bus;
    /// The pool's connections to PostgreSQL, in its own role.
    fn database(&self) -> &Database;
    /// Spreads news, where the pool has any.
    fn announcer(&self) -> Option<&Announcer> {
        None
    }
    /// Who may act, where the pool acts for members.
    fn standing(&self) -> Option<&Standing> {
        None
    }
}

/// Which commands a pool answers.
pub trait Dispatch: Parts + Sized {
    /// Runs one delivery by the command's name.
    fn dispatch(&self, job: Job<'_>) -> impl Future<Output = Ended> + Send;
}

macro_rules! parts {
    ($(#[$doc:meta])* $name:ident $([$announcer:ident])? $(<$standing:ident>)? { $($(#[$field_doc:meta])* $field:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name {
            /// NATS, in the pool's role.
            pub bus: Bus,
            /// PostgreSQL, in the pool's role.
            pub database: Database,
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl Parts for $name {
            const POOL: Pool = Pool::$name;
            fn bus(&self) -> &Bus {
                &self.bus
            }
            fn database(&self) -> &Database {
                &self.database
            }
            $(fn announcer(&self) -> Option<&Announcer> {
                Some(&self.$announcer)
            })?
            $(fn standing(&self) -> Option<&Standing> {
                Some(&self.$standing)
            })?
        }
    };
}

parts!(
    /// The control plane without secrets.
    Session [announcer] <standing> {
        /// Spreads news of limits, members and prompts.
        announcer: Announcer,
        /// Who may act.
        standing: Standing,
        /// What the deployment chose about sessions.
        sessions: SessionsConfig,
        /// Composes prompts.
        prompts: Composer,
    }
);
parts!(
    /// Everything that seals a secret.
    Token [announcer] <standing> {
        /// Who may act.
        standing: Standing,
        /// Seals.
        vault: Vault,
        /// Says which endpoints may be registered.
        egress: Egress,
        /// Says which programs may be named.
        programs: Programs,
        /// Spreads news of configurations.
        announcer: Announcer,
    }
);
parts!(
    /// Calls to MCP servers.
    Tool <standing> {
        /// Who may act.
        standing: Standing,
        /// Opens what the token pool sealed.
        vault: Vault,
        /// MCP clients kept open.
        upstreams: Upstreams,
        /// Configurations and pinned tools kept at hand.
        catalogue: Catalogue,
        /// The latest state of each configuration.
        configurations: Watch<ConfigurationState>,
    }
);
parts!(
    /// JetStream administration.
    Controller {
        /// Streams and consumers.
        administration: Administration,
        /// Each organization's limits.
        limits: Watch<Limits>,
        /// One act at a time on one lane.
        locks: LaneLocks,
    }
);
parts!(
    /// The audit trail.
    Audit {}
);

macro_rules! dispatchers {
    ($($pool:ident { $($name:literal: $noun:ident :: $verb:ident -> $reply:ty { $($rest:tt)* },)* })*) => {
        $(
            impl Dispatch for dispatchers!(@parts $pool) {
                async fn dispatch(&self, job: Job<'_>) -> Ended {
                    match job.envelope.command.as_str() {
                        $(<$noun::$verb as Command>::NAME => execute::<$noun::$verb>(self, job).await,)*
                        other => {
                            metrics::counter!("switchboard_messages_refused_total", "reason" => "unknown_command").increment(1);
                            refuse(other, job, Fault::new(Code::Invalid, "There is no such command."))
                        }
                    }
                }
            }
        )*
    };
    (@parts session) => { Session };
    (@parts token) => { Token };
    (@parts tool) => { Tool };
    (@parts audit) => { Audit };
    (@parts controller) => { Controller };
}

shared::commands!(dispatchers);
