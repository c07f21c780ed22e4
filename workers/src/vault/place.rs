//! Where a sealed value belongs. The place is authenticated with the value (the AAD of AES-GCM),
//! so that the database, or whoever writes to it, cannot move a secret to where it would be used
//! for somebody else.

use shared::id::OrganizationId;
use uuid::Uuid;

use super::{DekId, HEADER};

/// One column of one row, at one generation of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// The table, as in the schema.
    pub table: &'a str,
    /// The column, as in the schema.
    pub column: &'a str,
    /// The row's organization.
    pub organization: OrganizationId,
    /// The row's identifier.
    pub row: Uuid,
    /// The row's generation when the value was sealed.
    pub generation: i64,
}

impl Place<'_> {
    /// The authenticated data of a value sealed here.
    pub(super) fn aad(&self, dek_id: DekId) -> Vec<u8> {
        joined(&[
            &HEADER,
            self.table.as_bytes(),
            self.column.as_bytes(),
            self.organization.0.as_bytes(),
            self.row.as_bytes(),
            dek_id.0.as_bytes(),
            &self.generation.to_be_bytes(),
        ])
    }
}

/// The authenticated data of a wrapped data key. One part fewer than a place has: neither can be
/// taken for the other.
pub(super) fn wrapping(organization: OrganizationId, dek_id: DekId, kek_id: &str) -> Vec<u8> {
    joined(&[&HEADER, b"tenant_keys", b"wrapped", organization.0.as_bytes(), dek_id.0.as_bytes(), kek_id.as_bytes()])
}

/// The number of parts, then each after its length (32 bits, big-endian): no two lists of parts
/// give the same bytes.
fn joined(parts: &[&[u8]]) -> Vec<u8> {
    let length = |count: usize| u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes();
    let mut bytes = length(parts.len()).to_vec();
    for part in parts {
        bytes.extend_from_slice(&length(part.len()));
        bytes.extend_from_slice(part);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_that_moves_from_table_to_column_makes_another_place() {
        let place = |table, column| Place {
            table,
            column,
            organization: OrganizationId::PLATFORM,
            row: Uuid::nil(),
            generation: 1,
        };
        let dek_id = DekId(Uuid::nil());
        assert_ne!(place("ab", "c").aad(dek_id), place("a", "bc").aad(dek_id));
    }
}
