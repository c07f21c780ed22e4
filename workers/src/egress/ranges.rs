//! Which addresses are the public internet. Everything here is a table, so that a reader can hold
//! it against the IANA special-purpose registries (RFC 6890) line by line.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::LazyLock,
};

use ipnet::{Ipv4Net, Ipv6Net};

/// IPv4 that is not, or not reliably, a public unicast host.
const CLOSED_V4: &[&str] = &[
    "0.0.0.0/8",        // this network (RFC 791)
    "10.0.0.0/8",       // private (RFC 1918)
    "100.64.0.0/10",    // shared by carriers (RFC 6598); a cloud's metadata at 100.100.100.200
    "127.0.0.0/8",      // loopback (RFC 1122)
    "168.63.129.16/32", // a cloud's host agent, on a public address
    "169.254.0.0/16",   // link-local (RFC 3927), metadata of most clouds
    "172.16.0.0/12",    // private (RFC 1918)
    "192.0.0.0/24",     // protocol assignments (RFC 6890); a cloud's metadata at 192.0.0.192
    "192.0.2.0/24",     // documentation (RFC 5737)
    "192.31.196.0/24",  // AS112 (RFC 7535)
    "192.52.193.0/24",  // AMT (RFC 7450)
    "192.88.99.0/24",   // 6to4 relays (RFC 7526)
    "192.168.0.0/16",   // private (RFC 1918)
    "192.175.48.0/24",  // AS112 (RFC 7534)
    "198.18.0.0/15",    // benchmarks (RFC 2544)
    "198.51.100.0/24",  // documentation (RFC 5737)
    "203.0.113.0/24",   // documentation (RFC 5737)
    "224.0.0.0/4",      // multicast (RFC 5771)
    "240.0.0.0/4",      // reserved (RFC 1112) and broadcast
];

/// IPv6 that is no public host. All but [`GLOBAL_V6`] is closed anyway; the rows outside it stand
/// for the reader and for the day that the global range grows.
const CLOSED_V6: &[&str] = &[
    "::/128",            // unspecified (RFC 4291)
    "::1/128",           // loopback (RFC 4291)
    "::/96",             // IPv4-compatible (RFC 4291)
    "64:ff9b::/96",      // NAT64 (RFC 6052)
    "64:ff9b:1::/48",    // local NAT64 (RFC 8215)
    "100::/64",          // discard (RFC 6666)
    "100:0:0:1::/64",    // dummy prefix (RFC 9780)
    "2001::/23",         // protocol assignments (RFC 2928): Teredo, benchmarks, ORCHID
    "2001:db8::/32",     // documentation (RFC 3849)
    "2002::/16",         // 6to4 (RFC 3056)
    "2620:4f:8000::/48", // AS112 (RFC 7534)
    "3fff::/20",         // documentation (RFC 9637)
    "5f00::/16",         // segment routing (RFC 9602)
    "fc00::/7",          // unique local (RFC 4193); a cloud's metadata at fd00:ec2::254
    "fe80::/10",         // link-local (RFC 4291)
    "fec0::/10",         // site-local (RFC 3879)
    "ff00::/8",          // multicast (RFC 4291)
];

/// The only IPv6 range given to hosts on the internet (RFC 4291 section 2.4).
const GLOBAL_V6: &str = "2000::/3";

/// Addresses that hand out credentials or configuration to whoever asks.
const METADATA: &[&str] = &[
    "169.254.169.254",
    "169.254.170.2",
    "169.254.170.23",
    "169.254.169.123",
    "169.254.169.253",
    "168.63.129.16",
    "100.100.100.200",
    "192.0.0.192",
    "fd00:ec2::254",
    "fd00:ec2::23",
    "fd20:ce::254",
];

/// Names that lead there.
const METADATA_NAMES: &[&str] = &[
    "metadata",
    "metadata.google.internal",
    "metadata.goog",
    "metadata.azure.internal",
    "metadata.azure.com",
    "metadata.tencentyun.com",
    "metadata.packet.net",
    "metadata.platformequinix.com",
    "instance-data",
    "instance-data.ec2.internal",
    "rancher-metadata",
    "rancher-metadata.rancher.internal",
];

/// Domains that never lead to the internet, or should not.
const PRIVATE_DOMAINS: &[&str] = &[
    "localhost",
    "local",
    "localdomain",
    "internal",
    "intranet",
    "private",
    "corp",
    "home",
    "lan",
    "home.arpa",
    "invalid",
    "onion",
    "in-addr.arpa",
    "ip6.arpa",
];

/// Ports from 1024 on behind which stand our own services and others that a request line of HTTP
/// can do harm to (the Fetch standard's "bad ports" among them). Below 1024 only 443 is open, and
/// 80 with plain HTTP.
const CLOSED_PORTS: &[u16] = &[
    1433, 1521, 1719, 1720, 1723, 1883, 2049, 2375, 2376, 2377, 2379, 2380, 3306, 3389, 3659, 4045, 4190, 4222, 5060,
    5061, 5432, 5433, 5671, 5672, 5900, 6000, 6222, 6379, 6380, 6432, 6443, 6543, 6566, 6665, 6666, 6667, 6668, 6669,
    6679, 6697, 7422, 7777, 8222, 9042, 9092, 9200, 9300, 10080, 10250, 10255, 11211, 25826, 27017, 27018, 50000,
];

struct Table {
    v4: Vec<Ipv4Net>,
    v6: Vec<Ipv6Net>,
    global_v6: Ipv6Net,
    metadata: Vec<IpAddr>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| Table {
    v4: parsed(CLOSED_V4),
    v6: parsed(CLOSED_V6),
    global_v6: GLOBAL_V6.parse().expect("a constant"),
    metadata: parsed(METADATA),
});

fn parsed<T: std::str::FromStr>(rows: &[&str]) -> Vec<T>
where
    T::Err: std::fmt::Debug,
{
    rows.iter().map(|row| row.parse().expect("a constant")).collect()
}

/// Whether the address is a host on the public internet.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !TABLE.v4.iter().any(|net| net.contains(&address))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(mapped) = address.to_ipv4_mapped() {
        return is_public_v4(mapped);
    }
    TABLE.global_v6.contains(&address)
        && !TABLE.v6.iter().any(|net| net.contains(&address))
        && isatap(address).is_none_or(is_public_v4)
}

/// The IPv4 address that an ISATAP interface identifier embeds (RFC 5214 section 6.1); it may
/// stand under any prefix. The universal bit (0x0200) may be set or not.
fn isatap(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let octets = address.octets();
    let marked = matches!(octets[8..12], [0 | 2, 0, 0x5e, 0xfe]);
    marked.then(|| Ipv4Addr::from_octets([octets[12], octets[13], octets[14], octets[15]]))
}

/// Whether the address hands out credentials; an allowed range does not open it.
pub(super) fn is_metadata(address: IpAddr) -> bool {
    TABLE.metadata.contains(&address)
}

/// Whether the name leads to a metadata service. The name is in lower case without a final dot.
pub(super) fn is_metadata_name(name: &str) -> bool {
    METADATA_NAMES.contains(&name)
}

/// Whether the name can only be private. The name is in lower case without a final dot.
pub(super) fn is_private_name(name: &str) -> bool {
    !name.contains('.') || PRIVATE_DOMAINS.iter().any(|domain| within(name, domain))
}

/// Whether the name is the domain or below it.
pub(super) fn within(name: &str, domain: &str) -> bool {
    name.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Whether a port is open without being named by the operator.
pub(super) fn is_open_port(port: u16, plain_http: bool) -> bool {
    port == 443 || (port == 80 && plain_http) || (port >= 1024 && !CLOSED_PORTS.contains(&port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_closed_range_is_closed_at_both_ends_and_open_beside() {
        for row in CLOSED_V4 {
            let net: Ipv4Net = row.parse().unwrap();
            assert!(!is_public(net.network().into()) && !is_public(net.broadcast().into()), "{row}");
        }
        for row in CLOSED_V6 {
            let net: Ipv6Net = row.parse().unwrap();
            assert!(!is_public(net.network().into()) && !is_public(net.broadcast().into()), "{row}");
        }
        for neighbour in [
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2001:200::",
            "2003::",
            "2606:4700::1111",
            "2a00:1450::1",
        ] {
            assert!(is_public(neighbour.parse().unwrap()), "{neighbour}");
        }
    }

    #[test]
    fn an_embedded_address_is_judged_as_what_it_embeds() {
        for (text, open) in [
            ("::ffff:10.0.0.1", false),
            ("::ffff:8.8.8.8", true),
            ("2a00:1450:0:0:0:5efe:10.0.0.1", false),
            ("2a00:1450:0:0:200:5efe:127.0.0.1", false),
            ("2a00:1450:0:0:200:5efe:8.8.8.8", true),
            ("64:ff9b::8.8.8.8", false),
            ("2002:808:808::1", false),
        ] {
            assert_eq!(is_public(text.parse().unwrap()), open, "{text}");
        }
    }

    #[test]
    fn a_domain_is_not_a_suffix_of_letters() {
        assert!(within("a.local", "local") && within("local", "local"));
        assert!(!within("notlocal", "local") && !is_private_name("mylocalhost.example.com"));
    }

    #[test]
    fn no_metadata_address_is_public() {
        assert!(METADATA.iter().all(|text| !is_public(text.parse().unwrap())));
    }
}
