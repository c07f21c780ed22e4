//! What the operator opens and closes, for the whole deployment and never per tenant.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, bail};
use ipnet::IpNet;
use serde::Deserialize;
use shared::config::{flag, list};
use url::{Host, Url};

use super::ranges;

/// `EGRESS_*`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct EgressConfig {
    /// What is reachable although it is private, separated by commas:
    ///
    /// - `name:port`: this name, whatever it resolves to, on this port only;
    /// - `address:port` (IPv6 in brackets): this address written as such; a name that resolves to it is not covered;
    /// - `network:port` (`10.1.0.0/16:8443`, `[fd00::/8]:8443`): the same for a range;
    /// - `network` or `address` without a port: these addresses, by name too, on the ports that are open anyway.
    ///
    /// Metadata addresses open only when written out as `address:port`.
    #[serde(default, deserialize_with = "list")]
    pub allow: Vec<String>,
    /// Whether `http://` is allowed; only for development and closed networks.
    #[serde(default, deserialize_with = "flag")]
    pub allow_http: bool,
    /// What is closed although it is public: networks, addresses, and names with all below them. Wins over `allow`.
    #[serde(default, deserialize_with = "list")]
    pub deny: Vec<String>,
    /// Where a tool worker serves the filtering proxy for the FastMCP service; a free loopback port without it.
    #[serde(default)]
    pub proxy_listen: Option<SocketAddr>,
    /// The host name or address by which the `FastMCP` service reaches that proxy, where it is not the listening address.
    #[serde(default)]
    pub proxy_host: Option<String>,
    /// Our own services (`NATS`, `PostgreSQL`, the `FastMCP` service), as `scheme://host:port`: closed
    /// to tenants wherever they are and whatever is open. Known from their own variables.
    #[serde(skip)]
    pub own: Vec<Url>,
}

/// The parsed lists.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    names: Vec<(String, u16)>,
    ranges: Vec<(IpNet, Option<u16>)>,
    denied_names: Vec<String>,
    denied_ranges: Vec<IpNet>,
    own_names: Vec<String>,
    own_addresses: Vec<SocketAddr>,
}

impl Rules {
    pub(super) fn parse(config: &EgressConfig) -> anyhow::Result<Self> {
        let mut rules = Self::default();
        for entry in &config.allow {
            rules.allow(entry).with_context(|| format!("EGRESS_ALLOW: `{entry}`"))?;
        }
        for entry in &config.deny {
            rules.deny(entry).with_context(|| format!("EGRESS_DENY: `{entry}`"))?;
        }
        for url in &config.own {
            rules.own(url);
        }
        Ok(rules)
    }

    /// A name is closed whole; an address, which others may share, on the port that is ours.
    fn own(&mut self, url: &Url) {
        // Hosts of schemes that the parser does not know are texts to it.
        let Some(Ok(host)) = url.host_str().map(Host::parse) else { return };
        let port =
            url.port_or_known_default().unwrap_or(if url.scheme().starts_with("postgres") { 5432 } else { 4222 });
        match host {
            Host::Domain(name) => self.own_names.extend(normal_name(&name)),
            Host::Ipv4(address) => self.own_addresses.push(SocketAddr::new(address.into(), port)),
            Host::Ipv6(address) => self.own_addresses.push(SocketAddr::new(address.to_canonical(), port)),
        }
    }

    /// Whether one of our own services is there.
    pub(super) fn is_own(&self, address: IpAddr, port: u16) -> bool {
        self.own_addresses.contains(&SocketAddr::new(address, port))
    }

    fn allow(&mut self, entry: &str) -> anyhow::Result<()> {
        if entry.parse::<Ipv6Addr>().is_ok() {
            // `::1:9001` is an address, but hardly the one that was meant.
            bail!("an IPv6 address stands in brackets before a port, or with /128 without one");
        }
        if let Some(range) = range(entry) {
            self.ranges.push((range, None));
            return Ok(());
        }
        let Some((host, port)) = entry.rsplit_once(':') else {
            bail!("a name needs a port");
        };
        let port: u16 = port.parse().context("the port is no number")?;
        let bare = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(host);
        match range(bare) {
            Some(IpNet::V6(_)) if bare == host => bail!("an IPv6 address with a port stands in brackets"),
            Some(range) => self.ranges.push((range, Some(port))),
            None => self.names.push((name(host)?, port)),
        }
        Ok(())
    }

    fn deny(&mut self, entry: &str) -> anyhow::Result<()> {
        match range(entry) {
            Some(range) => self.denied_ranges.push(range),
            None => self.denied_names.push(name(entry)?),
        }
        Ok(())
    }

    /// The ports on which the operator opened this name; empty where the name is not listed.
    pub(super) fn ports_of(&self, name: &str) -> impl Iterator<Item = u16> {
        self.names.iter().filter(move |(listed, _)| listed == name).map(|(_, port)| *port)
    }

    pub(super) fn denies_name(&self, name: &str) -> bool {
        self.denied_names.iter().any(|domain| ranges::within(name, domain))
            || self.own_names.iter().any(|own| own == name)
    }

    pub(super) fn denies(&self, address: IpAddr) -> bool {
        self.denied_ranges.iter().any(|range| range.contains(&address))
    }

    /// Whether the operator opened this address on this port by name of both.
    pub(super) fn opens_port(&self, address: IpAddr, port: u16) -> bool {
        let metadata = ranges::is_metadata(address);
        self.ranges.iter().any(|(range, open)| {
            *open == Some(port)
                && range.contains(&address)
                && (!metadata || range.prefix_len() == range.max_prefix_len())
        })
    }

    /// Whether the operator opened this address for every open port.
    pub(super) fn opens(&self, address: IpAddr) -> bool {
        !ranges::is_metadata(address)
            && self.ranges.iter().any(|(range, port)| port.is_none() && range.contains(&address))
    }
}

fn range(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from)).map(|net: IpNet| net.trunc())
}

fn name(text: &str) -> anyhow::Result<String> {
    match Host::parse(text) {
        Ok(Host::Domain(name)) => normal_name(&name).context("this is no host name"),
        _ => bail!("this is neither a host name, an address nor a network"),
    }
}

/// The name as rules compare it: lower case, without the final dot of a rooted name. None where
/// it is no host name: an empty or overlong label or name (RFC 1035 section 2.3.4), or characters
/// that no host name has.
pub(super) fn normal_name(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let labels_fit = name.split('.').all(|label| (1..=63).contains(&label.len()));
    let letters_fit = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    (name.len() <= 253 && labels_fit && letters_fit).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(allow: &str, deny: &str) -> anyhow::Result<Rules> {
        let items = |text: &str| text.split(',').filter(|item| !item.is_empty()).map(str::to_owned).collect();
        Rules::parse(&EgressConfig { allow: items(allow), deny: items(deny), ..EgressConfig::default() })
    }

    #[test]
    fn an_entry_with_a_port_opens_that_port_alone() {
        let rules = rules("127.0.0.1:9001,[::1]:9002,10.0.0.0/8:8443,[fd00::/8]:8443", "").unwrap();
        for (address, port, open) in [
            ("127.0.0.1", 9001, true),
            ("127.0.0.1", 5432, false),
            ("127.0.0.2", 9001, false),
            ("::1", 9002, true),
            ("::1", 9001, false),
            ("10.9.9.9", 8443, true),
            ("10.9.9.9", 443, false),
            ("fd00::9", 8443, true),
        ] {
            assert_eq!(rules.opens_port(address.parse().unwrap(), port), open, "{address} {port}");
            assert!(!rules.opens(address.parse().unwrap()));
        }
    }

    #[test]
    fn our_own_services_are_closed_whatever_is_open() {
        let own = ["nats://10.0.0.5:4222", "tls://[fd00::5]:443", "postgres://u:p@db.example.com/x", "http://10.0.0.6"];
        let own = own.map(|url| url.parse().unwrap()).to_vec();
        let allow = vec!["10.0.0.0/8:4222".to_owned(), "10.0.0.0/8".to_owned(), "db.example.com:5432".to_owned()];
        let rules = Rules::parse(&EgressConfig { allow, own, ..EgressConfig::default() }).unwrap();
        for (address, port, closed) in [
            ("10.0.0.5", 4222, true),
            ("10.0.0.5", 443, false),
            ("10.0.0.7", 4222, false),
            ("fd00::5", 443, true),
            ("10.0.0.6", 80, true),
        ] {
            assert_eq!(rules.is_own(address.parse().unwrap(), port), closed, "{address} {port}");
        }
        assert!(rules.denies_name("db.example.com") && !rules.denies_name("mcp.example.com"));
        assert!(!rules.denies_name("other.db.example.com"), "a name below it is another host");
    }

    #[test]
    fn a_range_does_not_open_the_metadata_service_within_it() {
        let rules = rules("169.254.0.0/16,169.254.0.0/16:80", "").unwrap();
        let metadata = "169.254.169.254".parse().unwrap();
        assert!(!rules.opens(metadata) && !rules.opens_port(metadata, 80));
        assert!(rules.opens("169.254.9.9".parse().unwrap()));
        assert!(self::rules("169.254.169.254:80", "").unwrap().opens_port(metadata, 80));
    }

    #[test]
    fn what_is_not_an_entry_stops_the_start() {
        for wrong in [
            "demo.internal",
            "demo.internal:http",
            "demo:99999",
            "::1:9001",
            "a b:80",
            "10.0.0.0/33:1",
            ":443",
            "*:443",
        ] {
            let error = format!("{:#}", rules(wrong, "").expect_err(wrong));
            assert!(error.contains(&format!("EGRESS_ALLOW: `{wrong}`")), "{error}");
        }
        assert!(rules("", "not a name").is_err());
    }

    #[test]
    fn the_variables_are_read() {
        let config: EgressConfig = serde_json::from_value(serde_json::json!({
            "allow": "127.0.0.1:9001, demo.internal:8443", "allow_http": "true", "deny": "", "proxy_listen": "127.0.0.1:0",
        })).unwrap();
        assert_eq!(config.allow, ["127.0.0.1:9001", "demo.internal:8443"]);
        assert!(config.allow_http && config.deny.is_empty() && config.proxy_listen.is_some());
    }
}
