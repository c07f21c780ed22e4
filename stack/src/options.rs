//! What a stack is asked to be.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::progress::Progress;

/// Start from [`Options::development`] or [`Options::test`] and change what matters.
#[derive(Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each switches one thing on, and every combination has a meaning")]
pub struct Options {
    /// Everything the stack stores; no two stacks share one.
    pub data_dir: PathBuf,
    /// Wipe what an earlier run stored.
    pub fresh: bool,
    /// Processes per pool of session, token, tool and audit. The controller is one unless more are added.
    pub workers_per_pool: usize,
    /// Gateway processes.
    pub gateways: usize,
    /// The first gateway's port; none: the one of the last run, or a free one.
    pub gateway_port: Option<u16>,
    /// The database may lose data when the machine crashes; nothing else differs.
    pub test_mode: bool,
    /// Every upstream is reached through the `FastMCP` service, whatever its configuration says.
    pub force_fastmcp: bool,
    /// Workers reach the database through a transaction pooler; see [`crate::pooler`].
    pub pooler: bool,
    /// Also start a `FastMCP` server over legacy SSE.
    pub sse_demo: bool,
    /// Also install and start npm's reference server.
    pub everything: bool,
    /// The whole product; without, only NATS, `PostgreSQL` and the native demo server.
    pub product: bool,
    /// Organizations, users and configurations.
    pub seed: bool,
    /// Upstreams of the caller's own, beside the stack's demo servers, that the egress guard lets through.
    pub extra_egress: Vec<SocketAddr>,
    /// Further variables of gateways; they win over the stack's.
    pub gateway_env: Vec<(String, String)>,
    /// Further variables of workers; they win over the stack's.
    pub worker_env: Vec<(String, String)>,
    /// Whether steps are shown.
    pub progress: Progress,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Options").field("data_dir", &self.data_dir).finish_non_exhaustive()
    }
}

impl Options {
    /// What `cargo dev up` starts.
    pub fn development(data_dir: &Path) -> Self {
        Self {
            data_dir: data_dir.to_path_buf(),
            fresh: false,
            workers_per_pool: 1,
            gateways: 1,
            gateway_port: None,
            test_mode: false,
            force_fastmcp: false,
            pooler: false,
            sse_demo: false,
            everything: false,
            product: true,
            seed: true,
            extra_egress: Vec::new(),
            gateway_env: Vec::new(),
            worker_env: Vec::new(),
            progress: Progress::Lines,
        }
    }

    /// The same for a test: quiet, and quicker with the disk.
    pub fn test(data_dir: &Path) -> Self {
        Self { test_mode: true, progress: Progress::Quiet, ..Self::development(data_dir) }
    }
}
