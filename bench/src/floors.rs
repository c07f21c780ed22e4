//! What a tool call would cost with less than a gateway in between: bare roads without authentication and tenants, all
//! but one without queue, limit and audit. Nobody can use them; they say how far the product is from what the machine
//! and its parts allow.

pub(crate) mod durable;
pub(crate) mod proxy;
pub(crate) mod skeleton;

use std::io::Write as _;

use anyhow::Result;
use tokio::runtime::{Builder, Runtime};

/// What a floor says, followed by its address, once it can be called.
pub(crate) const LISTENING: &str = "listening ";

/// A runtime like that of the product's own processes.
fn runtime() -> Result<Runtime> {
    Ok(Builder::new_multi_thread().enable_all().build()?)
}

/// Tells whoever started us that we are ready.
fn announce(address: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{LISTENING}{address}")?;
    Ok(out.flush()?)
}
