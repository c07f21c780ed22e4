//! Sealing of everything a tenant entrusts to us: tokens, client secrets, stored arguments and
//! results. AES-256-GCM (NIST SP 800-38D), a data key per tenant, wrapped by a key-encryption key
//! of the deployment. A sealed value is bound to its place: moved to another row, column or
//! tenant, or kept past its generation, it does not open.
//!
//! Pure: no database, no clock, no configuration but the keys. Only the token and tool pools hold one.

mod cache;
mod config;
mod data_key;
mod place;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use aes_gcm::{
    Aes256Gcm, KeyInit as _, Nonce,
    aead::{Aead as _, Payload},
};
use rand::{TryRng as _, rngs::SysRng};
use shared::{Fault, id::OrganizationId};
use uuid::Uuid;
use zeroize::{Zeroize, Zeroizing};

pub use cache::DataKeys;
pub use config::{EXAMPLE_KEY, VaultConfig};
pub use data_key::{DataKey, sealed_with};
pub use place::Place;

use config::Keys;

/// Length of every key, in bytes.
const KEY_BYTES: usize = 32;
/// Length of a nonce, in bytes: drawn at random for each sealing, which is sound for 2^32
/// sealings under one key (NIST SP 800-38D section 8.3); data keys are replaced long before.
const NONCE_BYTES: usize = 12;
/// Length of an authentication tag, in bytes.
const TAG_BYTES: usize = 16;
/// First bytes of every sealed value: version 1, algorithm 1 (AES-256-GCM).
const HEADER: [u8; 2] = [1, 1];

/// Key material that wipes itself and cannot be printed.
type KeyBytes = Zeroizing<[u8; KEY_BYTES]>;

/// Names a data key (row `tenant_keys.dek_id`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DekId(pub Uuid);

/// A tenant's data key as it is stored: useless without the key-encryption key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedKey {
    /// Its name.
    pub dek_id: DekId,
    /// The key-encryption key that wraps it.
    pub kek_id: String,
    /// Version, algorithm, nonce, ciphertext and tag: 62 bytes.
    pub wrapped: Vec<u8>,
}

/// What can go wrong. No variant carries material, and all ways in which a value does not open
/// look the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// This deployment holds no such key-encryption key: it was retired too early, or the row is foreign.
    #[error("no key-encryption key `{0}` is configured")]
    UnknownKek(String),
    /// The value names another data key.
    #[error("the value is sealed with another data key")]
    OtherKey,
    /// The data key belongs to another organization than the place.
    #[error("the data key belongs to another organization")]
    OtherOrganization,
    /// Not a sealed value, or of a version that this build does not know.
    #[error("this is no sealed value")]
    Malformed,
    /// The wrong key, the wrong place, or changed bytes.
    #[error("the value does not open")]
    Closed,
    /// The operating system gave no random numbers.
    #[error("no random numbers")]
    NoRandomness,
}

impl From<VaultError> for Fault {
    fn from(error: VaultError) -> Self {
        Self::internal(error)
    }
}

/// The key-encryption keys of the deployment.
pub struct Vault {
    active: String,
    keks: HashMap<String, KeyBytes>,
    /// Data keys that were opened a short while ago.
    pub(crate) at_hand: DataKeys,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault").field("active", &self.active).finish_non_exhaustive()
    }
}

impl Vault {
    /// Reads the keys; refuses what is malformed, weak or published.
    pub fn new(config: &VaultConfig) -> anyhow::Result<Self> {
        let Keys { active, keks } = config.parse()?;
        Ok(Self { active, keks, at_hand: DataKeys::default() })
    }

    /// Whether a key-encryption key is configured.
    pub fn knows(&self, kek_id: &str) -> bool {
        self.keks.contains_key(kek_id)
    }

    /// The configured key-encryption keys by id, in order.
    pub fn known(&self) -> Vec<String> {
        let mut ids: Vec<_> = self.keks.keys().cloned().collect();
        ids.sort();
        ids
    }

    /// The key-encryption key that wraps new data keys.
    pub fn active(&self) -> &str {
        &self.active
    }

    /// Draws a data key for an organization and wraps it with the active key.
    pub fn new_tenant_key(&self, organization: OrganizationId) -> Result<WrappedKey, VaultError> {
        self.wrap(organization, DekId(Uuid::now_v7()), &random::<KEY_BYTES>()?)
    }

    /// Wraps a stored data key with the active key instead. The data key stays the same, and with it
    /// everything that it sealed.
    pub fn rewrap_tenant_key(
        &self,
        organization: OrganizationId,
        dek_id: DekId,
        kek_id: &str,
        wrapped: &[u8],
    ) -> Result<WrappedKey, VaultError> {
        self.wrap(organization, dek_id, &self.unwrapped(organization, dek_id, kek_id, wrapped)?)
    }

    fn wrap(&self, organization: OrganizationId, dek_id: DekId, dek: &KeyBytes) -> Result<WrappedKey, VaultError> {
        let kek = self.keks.get(&self.active).ok_or_else(|| VaultError::UnknownKek(self.active.clone()))?;
        let mut wrapped = HEADER.to_vec();
        encrypt_into(&mut wrapped, kek, dek.as_slice(), &place::wrapping(organization, dek_id, &self.active))?;
        Ok(WrappedKey { dek_id, kek_id: self.active.clone(), wrapped })
    }

    /// Opens a stored data key. The organization is the one whose row it was read from.
    pub fn unwrap_tenant_key(
        &self,
        organization: OrganizationId,
        dek_id: DekId,
        kek_id: &str,
        wrapped: &[u8],
    ) -> Result<DataKey, VaultError> {
        Ok(DataKey::new(organization, dek_id, self.unwrapped(organization, dek_id, kek_id, wrapped)?))
    }

    fn unwrapped(
        &self,
        organization: OrganizationId,
        dek_id: DekId,
        kek_id: &str,
        wrapped: &[u8],
    ) -> Result<KeyBytes, VaultError> {
        let kek = self.keks.get(kek_id).ok_or_else(|| VaultError::UnknownKek(kek_id.to_owned()))?;
        let body = wrapped.strip_prefix(&HEADER).ok_or(VaultError::Malformed)?;
        let opened = Zeroizing::new(decrypt(kek, body, &place::wrapping(organization, dek_id, kek_id))?);
        let mut key = Zeroizing::new([0_u8; KEY_BYTES]);
        if opened.len() != KEY_BYTES {
            return Err(VaultError::Malformed);
        }
        key.copy_from_slice(&opened);
        Ok(key)
    }
}

/// Appends nonce, ciphertext and tag.
fn encrypt_into(out: &mut Vec<u8>, key: &KeyBytes, plain: &[u8], aad: &[u8]) -> Result<(), VaultError> {
    let nonce = random::<NONCE_BYTES>()?;
    let sealed =
        cipher(key).encrypt(&Nonce::from(*nonce), Payload { msg: plain, aad }).map_err(|_| VaultError::Malformed)?;
    out.extend_from_slice(nonce.as_slice());
    out.extend_from_slice(&sealed);
    Ok(())
}

/// Opens nonce, ciphertext and tag.
fn decrypt(key: &KeyBytes, sealed: &[u8], aad: &[u8]) -> Result<Vec<u8>, VaultError> {
    if sealed.len() < NONCE_BYTES + TAG_BYTES {
        return Err(VaultError::Malformed);
    }
    let (nonce, msg) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or(VaultError::Malformed)?;
    cipher(key).decrypt(&Nonce::from(*nonce), Payload { msg, aad }).map_err(|_| VaultError::Closed)
}

/// The key schedule is built for each use: measured at 2 % of a sealing, against one more copy of
/// the key in memory for as long as it is cached.
fn cipher(key: &KeyBytes) -> Aes256Gcm {
    let mut copy = (**key).into();
    let cipher = Aes256Gcm::new(&copy);
    copy.zeroize();
    cipher
}

/// Bytes from the operating system's generator.
fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, VaultError>
where
    [u8; N]: Zeroize,
{
    let mut bytes = Zeroizing::new([0_u8; N]);
    SysRng.try_fill_bytes(bytes.as_mut_slice()).map_err(|_| VaultError::NoRandomness)?;
    Ok(bytes)
}
