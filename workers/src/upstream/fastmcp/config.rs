//! `FASTMCP_*`: where the `FastMCP` service is, if there is one. `FASTMCP_STDIO_*`: the same for its
//! stdio mode, which is a service of its own.

use serde::Deserialize;
use shared::{config::flag, secret::Secret};
use url::Url;

/// The shortest key that is accepted, in bytes; the service holds it to the same.
const MIN_KEY_BYTES: usize = 32;

/// The `FastMCP` service.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Variables")]
pub struct FastMcpConfig {
    /// `FASTMCP_URL`: scheme, host and port; the service has no path before its endpoints.
    pub url: Url,
    /// `FASTMCP_KEY`: shared with the service, at least 32 bytes.
    pub key: Secret<String>,
    /// `FASTMCP_FORCE`: every configuration goes through the service, whatever it asks for.
    pub force: bool,
}

/// As it stands in the environment.
#[derive(Deserialize)]
struct Variables {
    url: Url,
    key: Secret<String>,
    #[serde(default, deserialize_with = "flag")]
    force: bool,
}

impl TryFrom<Variables> for FastMcpConfig {
    type Error = &'static str;

    fn try_from(Variables { url, key, force }: Variables) -> Result<Self, Self::Error> {
        if !matches!(url.scheme(), "http" | "https") || url.path() != "/" || url.query().is_some() {
            return Err("FASTMCP_URL is not http(s)://host:port");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("FASTMCP_URL may not hold credentials");
        }
        if key.reveal().len() < MIN_KEY_BYTES {
            return Err("FASTMCP_KEY is shorter than 32 bytes");
        }
        Ok(Self { url, key, force })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str, key: &str) -> Result<FastMcpConfig, String> {
        let given = serde_json::json!({ "url": url, "key": key, "force": "1" });
        serde_json::from_value(given).map_err(|error| error.to_string())
    }

    #[test]
    fn a_service_has_a_plain_address_and_a_long_key() {
        let long = "k".repeat(32);
        assert!(read("http://127.0.0.1:1", &long).unwrap().force);
        read("http://127.0.0.1:1", &long[1..]).unwrap_err();
        for url in ["ftp://h:1", "http://h:1/below", "http://h:1/?a=b", "http://u:p@h:1", "h:1"] {
            read(url, &long).unwrap_err();
        }
    }
}
