//! The one HTTP client of the stack's own errands: readiness checks and seeding. Loopback only, so no proxy is asked.

use std::sync::OnceLock;
use std::time::Duration;

/// A shared client; the cryptography provider is installed on the way, since none is compiled in as default.
pub(crate) fn client() -> reqwest::Client {
    static CLIENT: OnceLock<reqwest::Client> = OnceLock::new();
    CLIENT
        .get_or_init(|| {
            // Fails only when the binary has installed one already, which serves as well.
            let _ = rustls::crypto::ring::default_provider().install_default();
            reqwest::Client::builder()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .timeout(Duration::from_secs(30))
                // A pooled connection belongs to the runtime that opened it; tests may run several.
                .pool_max_idle_per_host(0)
                .build()
                .unwrap_or_default()
        })
        .clone()
}
