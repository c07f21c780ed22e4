//! Behaviour: the pools that run commands. A command's data stands in `shared`; how it is run
//! stands here, one noun a file.

pub mod announce;
pub mod beginnings;
pub mod catalogue;
pub mod configurations;
pub mod controller;
pub mod direct;
pub mod egress;
pub mod files;
pub mod lanes;
pub mod ops;
pub mod organizations;
pub mod outbox;
pub mod pools;
pub mod prompts;
pub mod queued;
pub mod reconcile;
pub mod rotation;
pub mod run;
pub mod scope;
pub mod sealing;
pub mod sessions;
pub mod start;
pub mod tools;
pub mod trail;
pub mod upstream;
pub mod users;
pub mod vault;
