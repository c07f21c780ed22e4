//! What is measured, and how each is brought up.

pub(crate) mod aim;
mod backlog;
mod parts;
mod running;
pub(crate) mod switchboard;

use std::fmt;

pub(crate) use running::Targets;

/// A road to the native demo server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Target {
    /// The demo server itself
    Direct,
    /// A reverse proxy on hyper
    Proxy,
    /// poem, one NATS request, a worker, reqwest
    Skeleton,
    /// The skeleton with a queue, a limit and records by JetStream
    Durable,
    /// Switchboard, its own MCP client
    Native,
    /// Switchboard, through the FastMCP service
    Fastmcp,
    /// FastMCP's own proxy
    FastmcpProxy,
    /// FastMCP's own proxy, all callers on one upstream session
    FastmcpProxyKept,
}

impl Target {
    /// In the order of the table.
    pub(crate) const ALL: [Self; 8] = [
        Self::Direct,
        Self::Proxy,
        Self::Skeleton,
        Self::Durable,
        Self::Native,
        Self::Fastmcp,
        Self::FastmcpProxy,
        Self::FastmcpProxyKept,
    ];

    /// For people.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Proxy => "HTTP proxy (hyper)",
            Self::Skeleton => "skeleton (poem, NATS, worker)",
            Self::Durable => "durable skeleton (JetStream)",
            Self::Native => "Switchboard, native",
            Self::Fastmcp => "Switchboard, FastMCP service",
            Self::FastmcpProxy => "FastMCP's proxy",
            Self::FastmcpProxyKept => "FastMCP's proxy, kept session",
        }
    }

    /// Whether the product is what is called.
    pub(crate) fn is_switchboard(self) -> bool {
        matches!(self, Self::Native | Self::Fastmcp)
    }
}

/// As the command line writes it.
impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = clap::ValueEnum::to_possible_value(self);
        formatter.write_str(value.as_ref().map_or("", |value| value.get_name()))
    }
}
