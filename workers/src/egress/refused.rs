//! Why an address was refused, as a closed set: a label for metrics and logs, and a sentence that
//! tells a tenant what to change without telling them anything about our network.

use std::error::Error;

use shared::Fault;

/// A refusal of the egress guard. It never carries an address: it travels to tenants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refused {
    /// The scheme is not `https` (or `http` where the deployment allows it).
    Scheme,
    /// The URL carries a user name or a password.
    UserInfo,
    /// The host is missing or is no host name (RFC 1123 section 2.1, RFC 1035 section 2.3.4).
    Host,
    /// The port is closed.
    Port,
    /// The name can only be private: one label, or a domain reserved for private use (RFC 6761, RFC 6762, RFC 8375).
    PrivateName,
    /// The host is known to hand out credentials to whoever asks.
    Metadata,
    /// The address is not on the public internet.
    Address,
    /// The operator closed this host.
    Denied,
    /// The name resolves to nothing, or to nothing in time.
    Unresolved,
    /// The answer redirects elsewhere, or by a status that changes the method.
    Redirect,
    /// The answer redirects too often.
    RedirectLoop,
}

impl Refused {
    /// Every reason.
    pub const ALL: [Self; 11] = [
        Self::Scheme,
        Self::UserInfo,
        Self::Host,
        Self::Port,
        Self::PrivateName,
        Self::Metadata,
        Self::Address,
        Self::Denied,
        Self::Unresolved,
        Self::Redirect,
        Self::RedirectLoop,
    ];

    /// The label in metrics, logs and the proxy's `X-Switchboard-Refused` header.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Scheme => "scheme",
            Self::UserInfo => "userinfo",
            Self::Host => "host",
            Self::Port => "port",
            Self::PrivateName => "private_name",
            Self::Metadata => "metadata",
            Self::Address => "address",
            Self::Denied => "denied",
            Self::Unresolved => "unresolved",
            Self::Redirect => "redirect",
            Self::RedirectLoop => "redirect_loop",
        }
    }

    /// Tells operators of it, wherever it ends something.
    pub(super) fn count(self) {
        metrics::counter!("switchboard_egress_refused_total", "reason" => self.reason()).increment(1);
    }

    /// The reason with this label.
    pub fn from_reason(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|refused| refused.reason() == label)
    }

    /// The sentence for the tenant. A name that resolves to a private address and one that
    /// resolves to nothing read the same: otherwise the guard would answer questions about our DNS.
    pub const fn message(self) -> &'static str {
        match self {
            Self::Scheme => "The address must start with https://.",
            Self::UserInfo => "The address must not contain a user name or password.",
            Self::Host => "The address does not name a valid host.",
            Self::Port => "The address uses a port that is not open to MCP servers.",
            Self::PrivateName | Self::Metadata | Self::Address | Self::Denied | Self::Unresolved => {
                "The address does not lead to a host on the public internet."
            }
            Self::Redirect => "The server redirects elsewhere; register the address it redirects to.",
            Self::RedirectLoop => "The server redirects too often.",
        }
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.message())
    }
}

impl Error for Refused {}

impl From<Refused> for Fault {
    fn from(refused: Refused) -> Self {
        refused.count();
        Self::invalid("endpoint", refused.message())
    }
}

/// The refusal behind a failed request, if the guard was what failed it.
pub fn refusal_in(error: &(dyn Error + 'static)) -> Option<Refused> {
    std::iter::successors(Some(error), |&error| error.source()).find_map(|cause| cause.downcast_ref().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_label_of_its_own() {
        for refused in Refused::ALL {
            assert_eq!(Refused::from_reason(refused.reason()), Some(refused));
        }
    }

    #[test]
    fn what_ends_a_request_is_counted_and_so_is_what_the_proxy_refuses() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            let _ = Fault::from(Refused::Metadata);
            let _ = crate::egress::proxy::refusal(Refused::Metadata);
        });
        let said = recorder.handle().render();
        assert!(said.contains("switchboard_egress_refused_total{reason=\"metadata\"} 2"), "{said}");
    }

    #[test]
    fn a_private_name_and_a_missing_name_read_the_same() {
        assert_eq!(Refused::Address.message(), Refused::Unresolved.message());
    }

    #[test]
    fn a_refusal_is_a_fault_of_the_endpoint() {
        let fault = Fault::from(Refused::Metadata);
        assert_eq!((fault.code, fault.field.as_deref()), (shared::Code::Invalid, Some("endpoint")));
    }
}
