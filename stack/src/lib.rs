//! The whole system on one machine: message bus, database, `FastMCP` service, demonstration upstreams, token issuer,
//! worker pools and gateways.
//!
//! The development stack is the test harness with Ctrl-C: `cargo dev up`, the end-to-end tests and the bench all start
//! it through [`Stack::start`], so that what a developer runs is what is tested.

pub mod checks;
mod child;
pub mod cli;
pub mod demo;
mod dev_env;
pub mod environment;
pub mod everything;
mod fingerprint;
mod http;
mod instance;
pub mod issuer;
mod nats;
mod options;
pub mod places;
pub mod pooler;
mod ports;
mod postgres;
mod processes;
mod product;
mod programs;
mod progress;
mod readiness;
mod running;
mod scratch;
mod secrets;
mod seed;
pub mod status;
mod supervisor;
mod upstreams;
pub mod watchdog;
pub mod web;

pub use issuer::Issuer;
pub use nats::{NatsUser, go_runtime};
pub use options::Options;
pub use processes::tagged;
pub use product::Pool;
pub use programs::DEMO_PROGRAM;
pub use progress::Progress;
pub use running::Stack;
pub use scratch::Scratch;
pub use seed::{Seeded, Tenant};
pub use supervisor::{Death, Supervisor};
