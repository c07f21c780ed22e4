//! Identifiers. One type per noun, so that a user cannot be passed where an organization belongs.

use sha2::{Digest, Sha256};

identifier!(
    /// An organization (tenant).
    OrganizationId
);
identifier!(
    /// A member's row within one organization; the person is the token's subject.
    UserId
);
identifier!(
    /// An MCP server that an organization or a user registered.
    ConfigurationId
);
identifier!(
    /// A session: one agent's run on behalf of one member.
    SessionId
);
identifier!(
    /// A system prompt of an organization, of a member or of the platform.
    PromptId
);
identifier!(
    /// One command on its way: a direct command or a queued call.
    CallId
);
identifier!(
    /// One audit event. Derived, so that a repeated publication is the same event.
    EventId
);

/// How many `CALLS_<n>` streams there are. Acknowledging in a work-queue stream costs a scan of
/// its consumers, so tenants are spread. Changing the number is a migration.
pub const PARTITIONS: u16 = 16;

impl OrganizationId {
    /// The platform itself: owner of global prompts and the home of operators.
    pub const PLATFORM: Self = Self(uuid::Uuid::nil());

    /// The stream partition: first 8 bytes of SHA-256 of the UUID's bytes, big-endian, modulo
    /// [`PARTITIONS`].
    pub fn partition(self) -> u16 {
        let digest = Sha256::digest(self.0.as_bytes());
        let mut head = [0_u8; 8];
        head.copy_from_slice(&digest[..8]);
        u16::try_from(u64::from_be_bytes(head) % u64::from(PARTITIONS)).unwrap_or_default()
    }
}

impl EventId {
    /// The event of one attempt at one call: UUIDv5 (RFC 9562 section 5.5) in the call's namespace.
    pub fn of_attempt(call: CallId, attempt: u64) -> Self {
        Self(uuid::Uuid::new_v5(&call.0, &attempt.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_stable_and_spread() {
        let fixed: OrganizationId = "0190d8f2-0000-7000-8000-000000000001".parse().unwrap();
        assert_eq!(fixed.partition(), fixed.partition());
        let used: std::collections::HashSet<u16> = (0..400).map(|_| OrganizationId::new().partition()).collect();
        assert_eq!(used.len(), usize::from(PARTITIONS));
    }

    #[test]
    fn an_attempt_has_one_event() {
        let call = CallId::new();
        assert_eq!(EventId::of_attempt(call, 1), EventId::of_attempt(call, 1));
        assert_ne!(EventId::of_attempt(call, 1), EventId::of_attempt(call, 2));
    }
}
