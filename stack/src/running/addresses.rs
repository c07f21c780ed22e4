//! Where everything of a running system is, and who may enter: for tests, the bench and `.dev/env`.

use anyhow::Result;

use super::Stack;
use crate::issuer::Issuer;
use crate::nats::NatsUser;
use crate::product::Pool;
use crate::programs::stdio_key;
use crate::seed::Seeded;
use crate::upstreams::fastmcp_key;

impl Stack {
    /// The first gateway, `http://127.0.0.1:<port>`; empty when there is none.
    pub fn url(&self) -> &str {
        self.gateways.first().map_or("", String::as_str)
    }

    /// Every gateway of the start.
    pub fn gateways(&self) -> &[String] {
        &self.gateways
    }

    /// The issuer of tokens that the gateways believe.
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// What was seeded, if anything was to be.
    pub fn seeded(&self) -> Option<&Seeded> {
        self.seeded.as_ref()
    }

    /// The endpoint of the native demo server.
    pub fn demo_url(&self) -> String {
        format!("http://127.0.0.1:{}/mcp", self.upstreams.demo)
    }

    /// The endpoint of the `FastMCP` demo server; empty without the product.
    pub fn demo_fastmcp_url(&self) -> String {
        self.upstreams.demo_fastmcp.map_or_else(String::new, |port| format!("http://127.0.0.1:{port}/mcp"))
    }

    /// The endpoint of the `FastMCP` server over legacy SSE, when one was asked for.
    pub fn demo_sse_url(&self) -> Option<String> {
        self.upstreams.demo_sse.map(|port| format!("http://127.0.0.1:{port}/sse"))
    }

    /// The endpoint of npm's reference server, when it was asked for.
    pub fn everything_url(&self) -> Option<String> {
        self.upstreams.everything.map(|port| format!("http://127.0.0.1:{port}/mcp"))
    }

    /// The `FastMCP` service; empty without the product.
    pub fn fastmcp_service_url(&self) -> String {
        self.upstreams.service_url()
    }

    /// The key shared with the `FastMCP` service. Not for logs.
    ///
    /// # Errors
    /// When the file of secrets cannot be written.
    pub fn fastmcp_service_key(&self) -> Result<String> {
        fastmcp_key(&self.secrets)
    }

    /// The stdio mode of the `FastMCP` service; empty without the product.
    pub fn stdio_service_url(&self) -> String {
        self.upstreams.stdio_url()
    }

    /// The key shared with it. Not for logs.
    ///
    /// # Errors
    /// When the file of secrets cannot be written.
    pub fn stdio_service_key(&self) -> Result<String> {
        stdio_key(&self.secrets)
    }

    /// Where the stdio service keeps the directories of programs.
    pub fn workspaces(&self) -> std::path::PathBuf {
        self.data.join("workspaces")
    }

    /// Where clients connect to NATS, without credentials.
    pub fn nats_url(&self) -> String {
        self.nats.url()
    }

    /// The monitoring endpoint of nats-server.
    pub fn nats_monitor_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.nats.monitor_port)
    }

    /// A role's password on the bus. Not for logs.
    ///
    /// # Errors
    /// When the file of secrets cannot be written.
    pub fn nats_password(&self, user: NatsUser) -> Result<String> {
        user.password(&self.secrets)
    }

    /// Where a pool's role connects to `PostgreSQL`. Holds the password: not for logs.
    ///
    /// # Errors
    /// When the file of secrets cannot be written.
    pub fn database_url(&self, pool: Pool) -> Result<String> {
        Ok(self.postgres.url(&pool.database_role(), &pool.database_password(&self.secrets)?))
    }

    /// Where the superuser connects to `PostgreSQL`. Holds the password: not for logs.
    ///
    /// # Errors
    /// When the file of secrets cannot be written.
    pub fn superuser_database_url(&self) -> Result<String> {
        self.postgres.superuser_url(&self.secrets)
    }
}
