//! From the claims of a token whose signature held to a person in an organization. A pure function
//! of claims, rules and the time, so that every boundary can be tested to the second.

use std::time::Duration;

use serde_json::{Map, Value};
use shared::{
    bus::state::access_key,
    context::{Role, is_valid_subject},
    id::OrganizationId,
};

use super::{Denied, Verified};

/// The claims of one token (RFC 7519 section 4).
pub(super) type Claims = Map<String, Value>;

/// Metadata that Supabase's users edit themselves: never a source of authority.
const USER_EDITABLE: [&str; 2] = ["user_metadata", "raw_user_meta_data"];

/// Database roles of Supabase's API keys, which are JWTs too but belong to no person.
const IMPERSONAL_ROLES: [&str; 2] = ["service_role", "anon"];

/// The longest e-mail address (RFC 5321 section 4.5.3.1.3 less the brackets), in bytes.
const MAX_EMAIL_BYTES: usize = 254;

/// Where a claim is: names separated by dots, from the top of the claims.
#[derive(Clone, Debug)]
pub(super) struct ClaimPath {
    whole: String,
    names: Vec<String>,
}

impl ClaimPath {
    /// Reads a path; refuses what users may write themselves, at any depth.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let names: Vec<String> = text.split('.').map(str::to_owned).collect();
        if names.iter().any(String::is_empty) {
            return Err("is no list of names separated by dots");
        }
        if names.iter().any(|name| USER_EDITABLE.iter().any(|editable| name.eq_ignore_ascii_case(editable))) {
            return Err("lies in metadata that users edit themselves");
        }
        Ok(Self { whole: text.to_owned(), names })
    }

    /// The claim, unless absent or null. A name that itself contains dots (a URL, as namespaced
    /// claims have) is found at the top level.
    fn value<'a>(&self, claims: &'a Claims) -> Option<&'a Value> {
        let (first, rest) = self.names.split_first()?;
        claims
            .get(first)
            .and_then(|top| rest.iter().try_fold(top, |value, name| value.get(name)))
            .or_else(|| claims.get(&self.whole))
            .filter(|value| !value.is_null())
    }

    fn text<'a>(&self, claims: &'a Claims) -> Option<&'a str> {
        self.value(claims)?.as_str()
    }
}

/// What claims must say.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) issuer: String,
    pub(super) audiences: Vec<String>,
    pub(super) leeway_s: u64,
    pub(super) tenant: ClaimPath,
    pub(super) role: ClaimPath,
    pub(super) operator: ClaimPath,
}

impl Rules {
    /// Judges the claims of a token whose signature held. `now_unix_s` is in whole seconds.
    pub(super) fn judge(&self, claims: &Claims, now_unix_s: u64) -> Result<Verified, Denied> {
        if claims.get("iss").and_then(Value::as_str) != Some(self.issuer.as_str()) {
            return Err(Denied::Issuer);
        }
        if !claims.get("aud").is_some_and(|audience| self.is_for_us(audience)) {
            return Err(Denied::Audience);
        }
        let (expires_at_unix_s, _) = claims.get("exp").and_then(numeric_date).ok_or(Denied::Malformed)?;
        if self.has_expired(expires_at_unix_s, now_unix_s) {
            return Err(Denied::Expired);
        }
        if let Some(not_before) = claims.get("nbf").filter(|value| !value.is_null()) {
            let (_, not_before_unix_s) = numeric_date(not_before).ok_or(Denied::Malformed)?;
            if now_unix_s.saturating_add(self.leeway_s) < not_before_unix_s {
                return Err(Denied::NotYetValid);
            }
        }
        if claims.get("role").and_then(Value::as_str).is_some_and(|role| IMPERSONAL_ROLES.contains(&role)) {
            return Err(Denied::NoTenant);
        }
        let subject = claims.get("sub").and_then(Value::as_str).ok_or(Denied::Malformed)?;
        if !is_valid_subject(subject) {
            return Err(Denied::Malformed);
        }
        let operator = self.operator.text(claims) == Some("operator");
        let organization = self.organization(claims, operator)?;
        Ok(Verified {
            organization,
            access_key: access_key(organization, subject),
            subject: subject.to_owned(),
            email: claims.get("email").and_then(Value::as_str).filter(|text| is_email(text)).map(str::to_owned),
            role: self.role.text(claims).and_then(Role::parse).unwrap_or(Role::User),
            operator,
            expires_at_unix_s,
        })
    }

    /// True from `exp` plus the leeway on (RFC 7519 section 4.1.4: on or after).
    pub(super) const fn has_expired(&self, expires_at_unix_s: u64, now_unix_s: u64) -> bool {
        now_unix_s >= expires_at_unix_s.saturating_add(self.leeway_s)
    }

    /// RFC 7519 section 4.1.3: one string, or an array of which one must be ours.
    fn is_for_us(&self, audience: &Value) -> bool {
        let ours = |value: &Value| value.as_str().is_some_and(|name| self.audiences.iter().any(|own| own == name));
        match audience {
            Value::Array(several) => several.iter().any(ours),
            one => ours(one),
        }
    }

    /// The platform is an organization only to its operators: a tenant claim with the nil UUID
    /// makes nobody else one of them.
    fn organization(&self, claims: &Claims, operator: bool) -> Result<OrganizationId, Denied> {
        let organization = match self.tenant.value(claims) {
            Some(value) => value.as_str().and_then(|text| text.parse().ok()).ok_or(Denied::NoTenant)?,
            None => OrganizationId::PLATFORM,
        };
        if organization == OrganizationId::PLATFORM && !operator {
            return Err(Denied::NoTenant);
        }
        Ok(organization)
    }
}

/// RFC 7519 section 2, `NumericDate`: seconds since the Unix epoch, perhaps with a fraction. Gives
/// the whole second before and the one after; callers take the stricter.
fn numeric_date(value: &Value) -> Option<(u64, u64)> {
    if let Some(whole) = value.as_u64() {
        return Some((whole, whole));
    }
    let exact = Duration::try_from_secs_f64(value.as_f64()?).ok()?;
    let floor = exact.as_secs();
    Some((floor, floor.saturating_add(u64::from(exact.subsec_nanos() > 0))))
}

/// Good enough to show and to store: it is never used to decide anything.
fn is_email(text: &str) -> bool {
    text.len() <= MAX_EMAIL_BYTES
        && text.contains('@')
        && !text.chars().any(|character| character.is_whitespace() || character.is_control())
}
