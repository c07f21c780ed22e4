//! More processes and accidents while the system runs: what end-to-end tests and the bench do to it.
//!
//! Names are those of the logs: `gateway-1`, `tool-2`, `nats`, `postgres`, `fastmcp`, `fastmcp-stdio`, `demo`, `demo-fastmcp`.

use std::sync::atomic::Ordering;

use anyhow::Result;

use super::Stack;
use crate::product::{Pool, Wiring};

impl Stack {
    /// Starts one more process of a pool and returns its name.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn add_worker(&self, pool: Pool) -> Result<String> {
        self.add_worker_with(pool, &[]).await
    }

    /// The same with variables of its own, which win over everything else.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn add_worker_with(&self, pool: Pool, variables: &[(&str, &str)]) -> Result<String> {
        let (issuer, jwks) = (self.issuer.url(), self.issuer.jwks_url());
        let mut options = self.options.clone();
        options.worker_env.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let wiring = Wiring { options: &options, ..self.wiring(&issuer, &jwks) };
        wiring.worker(pool, self.next_number()).await
    }

    /// Starts one more gateway and returns its name and its address.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn add_gateway(&self) -> Result<(String, String)> {
        self.add_gateway_with(&[]).await
    }

    /// The same with variables of its own, which win over everything else.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn add_gateway_with(&self, variables: &[(&str, &str)]) -> Result<(String, String)> {
        let (issuer, jwks) = (self.issuer.url(), self.issuer.jwks_url());
        let mut options = self.options.clone();
        options.gateway_env.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let wiring = Wiring { options: &options, ..self.wiring(&issuer, &jwks) };
        let number = self.next_number();
        Ok((format!("gateway-{number}"), wiring.gateway(number).await?))
    }

    /// Kills a process with `SIGKILL`.
    ///
    /// # Errors
    /// When none of this name runs.
    pub async fn kill(&self, name: &str) -> Result<()> {
        self.supervisor.kill(name).await
    }

    /// Stops a process in order, as a deployment that scales down would.
    ///
    /// # Errors
    /// When none of this name runs.
    pub async fn stop_one(&self, name: &str) -> Result<()> {
        self.supervisor.stop_one(name).await
    }

    /// Starts a process again on its ports, stopping it first if it runs.
    ///
    /// # Errors
    /// When there never was one, or it does not become ready.
    pub async fn restart(&self, name: &str) -> Result<()> {
        self.supervisor.restart(name).await
    }

    /// Stops a process in its tracks (`SIGSTOP`).
    ///
    /// # Errors
    /// When none of this name runs.
    pub fn freeze(&self, name: &str) -> Result<()> {
        self.supervisor.freeze(name)
    }

    /// Lets a frozen process go on (`SIGCONT`).
    ///
    /// # Errors
    /// When none of this name runs.
    pub fn thaw(&self, name: &str) -> Result<()> {
        self.supervisor.thaw(name)
    }

    fn next_number(&self) -> usize {
        self.added.fetch_add(1, Ordering::SeqCst) + 1
    }
}
