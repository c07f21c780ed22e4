//! HTTP on one side, NATS on the other, and nothing else: no database, no encryption key, no
//! connection to an address a tenant supplied.

pub mod access;
pub mod assets;
pub mod auth;
pub mod http;
pub mod listener;
pub mod rates;
pub mod start;
