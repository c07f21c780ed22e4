//! The contract between the gateway and the workers: what crosses NATS, what the schema holds,
//! and what both binaries use. Nothing here knows HTTP faces or how a command is run.

#[macro_use]
mod macros;

pub mod audit;
pub mod bus;
pub mod command;
pub mod config;
pub mod context;
pub mod db;
pub mod fault;
mod hex;
pub mod id;
pub mod json;
pub mod secret;
pub mod telemetry;

pub use context::{Actor, Context, Deadline, Role};
pub use fault::{Code, Fault};
pub use hex::hex;
