//! A tenant's data key, unwrapped, for as long as it is used.

use shared::{id::OrganizationId, secret::Secret};
use uuid::Uuid;

use super::{DekId, HEADER, KeyBytes, NONCE_BYTES, Place, TAG_BYTES, VaultError, decrypt, encrypt_into};

/// Length of what stands before the nonce: version, algorithm, name of the data key.
const PREFIX_BYTES: usize = HEADER.len() + 16;

/// Seals and opens the values of one organization. Wiped when dropped.
pub struct DataKey {
    organization: OrganizationId,
    dek_id: DekId,
    key: KeyBytes,
}

impl std::fmt::Debug for DataKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DataKey").field("dek_id", &self.dek_id).finish_non_exhaustive()
    }
}

impl DataKey {
    pub(super) fn new(organization: OrganizationId, dek_id: DekId, key: KeyBytes) -> Self {
        Self { organization, dek_id, key }
    }

    /// Its name.
    pub fn dek_id(&self) -> DekId {
        self.dek_id
    }

    /// Seals a value for its place: version (1 byte), algorithm (1), name of the data key (16),
    /// nonce (12), ciphertext, tag (16). 46 bytes longer than the value.
    pub fn seal(&self, place: &Place<'_>, plain: &[u8]) -> Result<Vec<u8>, VaultError> {
        self.owns(place)?;
        let mut sealed = Vec::with_capacity(PREFIX_BYTES + NONCE_BYTES + plain.len() + TAG_BYTES);
        sealed.extend_from_slice(&HEADER);
        sealed.extend_from_slice(self.dek_id.0.as_bytes());
        encrypt_into(&mut sealed, &self.key, plain, &place.aad(self.dek_id))?;
        Ok(sealed)
    }

    /// Opens a value at its place.
    pub fn open(&self, place: &Place<'_>, sealed: &[u8]) -> Result<Secret<Vec<u8>>, VaultError> {
        self.owns(place)?;
        if sealed_with(sealed)? != self.dek_id {
            return Err(VaultError::OtherKey);
        }
        let body = sealed.get(PREFIX_BYTES..).ok_or(VaultError::Malformed)?;
        decrypt(&self.key, body, &place.aad(self.dek_id)).map(Secret::new)
    }

    fn owns(&self, place: &Place<'_>) -> Result<(), VaultError> {
        if place.organization == self.organization { Ok(()) } else { Err(VaultError::OtherOrganization) }
    }
}

/// The data key that a value was sealed with, read from the value.
pub fn sealed_with(sealed: &[u8]) -> Result<DekId, VaultError> {
    let named = sealed.strip_prefix(&HEADER).and_then(|rest| rest.first_chunk::<16>());
    named.map(|bytes| DekId(Uuid::from_bytes(*bytes))).ok_or(VaultError::Malformed)
}
