//! Why a request is not let in: a closed set, so that the answer, the metric and the log cannot
//! drift apart, and so that nothing of a token can leak through a library's error text.

use std::time::Duration;

use shared::fault::{Code, Fault};

/// Why a token was refused. Every one is a 401, except [`Denied::KeysUnavailable`], a 503.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{}", self.reason())]
pub enum Denied {
    /// There is no bearer token.
    Missing,
    /// It is no JWS in compact form, is too large, or its header or claims have the wrong shape.
    Malformed,
    /// `exp` has passed.
    Expired,
    /// `nbf` lies ahead.
    NotYetValid,
    /// `iss` is absent or another issuer's.
    Issuer,
    /// `aud` is absent or names none of ours.
    Audience,
    /// `alg` is not allowed, or does not fit the key.
    Algorithm,
    /// The signature is not the key's.
    Signature,
    /// No published key has this `kid`.
    UnknownKey,
    /// It speaks for no organization: no tenant claim, or a database role instead of a person.
    NoTenant,
    /// The issuer's keys could not be fetched, so nothing can be said about the token.
    KeysUnavailable,
}

/// How long a caller waits before asking again while the issuer's keys are out of reach.
const KEYS_RETRY_AFTER: Duration = Duration::from_secs(5);

impl Denied {
    /// Every reason, in the order of the checks.
    pub const ALL: [Self; 11] = [
        Self::Missing,
        Self::Malformed,
        Self::Expired,
        Self::NotYetValid,
        Self::Issuer,
        Self::Audience,
        Self::Algorithm,
        Self::Signature,
        Self::UnknownKey,
        Self::NoTenant,
        Self::KeysUnavailable,
    ];

    /// The label of `switchboard_authentication_refused_total`.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Algorithm => "algorithm",
            Self::Signature => "signature",
            Self::UnknownKey => "unknown_key",
            Self::NoTenant => "no_tenant",
            Self::KeysUnavailable => "keys_unavailable",
        }
    }

    /// One sentence for people outside: plain ASCII without quotation marks, so that it may also
    /// stand in `error_description` (RFC 6750 section 3).
    pub const fn message(self) -> &'static str {
        match self {
            Self::Missing => "A bearer token is required.",
            Self::Malformed => "The token is not a well-formed JWT.",
            Self::Expired => "The token has expired.",
            Self::NotYetValid => "The token is not valid yet.",
            Self::Issuer => "The token comes from another issuer.",
            Self::Audience => "The token is meant for another audience.",
            Self::Algorithm => "The token is signed with an algorithm that is not accepted.",
            Self::Signature => "The signature of the token is wrong.",
            Self::UnknownKey => "The token is signed with a key that the issuer does not publish.",
            Self::NoTenant => "The token does not speak for a member of an organization.",
            Self::KeysUnavailable => "The keys of the identity provider cannot be fetched right now. Try again.",
        }
    }

    /// The `error` of a `WWW-Authenticate: Bearer` challenge (RFC 6750 section 3.1): none when no
    /// token was sent, and none for a 503, which challenges nobody.
    pub const fn challenge_error(self) -> Option<&'static str> {
        match self {
            Self::Missing | Self::KeysUnavailable => None,
            _ => Some("invalid_token"),
        }
    }

    /// The fault that is answered.
    pub fn fault(self) -> Fault {
        match self {
            Self::KeysUnavailable => Fault::new(Code::Unavailable, self.message()).after(KEYS_RETRY_AFTER),
            _ => Fault::new(Code::Unauthenticated, self.message()),
        }
    }
}
