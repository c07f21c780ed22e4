//! The keys of the deployment as the operator writes them, and why some are refused at the start:
//! a weak key looks exactly like a strong one until somebody tries it.

use std::collections::{HashMap, HashSet};

use anyhow::{Context as _, bail, ensure};
use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::Deserialize;
use shared::secret::Secret;
use zeroize::Zeroizing;

use super::{KEY_BYTES, KeyBytes};

/// The key that stands in documentation. A vault does not start with it.
pub const EXAMPLE_KEY: &str = "c3dpdGNoYm9hcmQtZXhhbXBsZS1rZXktZG8tbm90LXU=";

/// A random key of 32 bytes has about 30 different ones; fewer than this come about by chance once
/// in more than 10^15 keys.
const FEWEST_DISTINCT_BYTES: usize = 20;

/// Padding is what copying loses first.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// `VAULT_*`.
#[derive(Clone, Debug, Deserialize)]
pub struct VaultConfig {
    /// `id:base64 of 32 bytes`, several separated by commas: the first wraps new data keys, all open old ones.
    pub keys: Secret<String>,
    /// The key that wraps new data keys, where it is not the first.
    #[serde(default)]
    pub active: Option<String>,
}

pub(super) struct Keys {
    pub(super) active: String,
    pub(super) keks: HashMap<String, KeyBytes>,
}

impl VaultConfig {
    pub(super) fn parse(&self) -> anyhow::Result<Keys> {
        let mut keks: HashMap<String, KeyBytes> = HashMap::new();
        let mut first = None;
        for entry in self.keys.reveal().split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            // The entry is never quoted: what stands where an id is expected may be the key.
            let (id, text) = entry.split_once(':').context("VAULT_KEYS: every entry is id:base64")?;
            ensure!(is_id(id), "VAULT_KEYS: an id has 1 to 32 letters, digits, `-` or `_`");
            let key = decoded(text).with_context(|| format!("VAULT_KEYS: key `{id}`"))?;
            ensure!(!keks.values().any(|other| **other == *key), "VAULT_KEYS: key `{id}` stands under two ids");
            ensure!(keks.insert(id.to_owned(), key).is_none(), "VAULT_KEYS: id `{id}` stands twice");
            first.get_or_insert_with(|| id.to_owned());
        }
        let first = first.context("VAULT_KEYS: no key")?;
        let active = self.active.clone().unwrap_or(first);
        if !keks.contains_key(&active) {
            bail!("VAULT_ACTIVE: no key has the id `{active}`");
        }
        Ok(Keys { active, keks })
    }
}

fn is_id(id: &str) -> bool {
    (1..=32).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

fn decoded(text: &str) -> anyhow::Result<KeyBytes> {
    let Ok(bytes) = BASE64.decode(text).map(Zeroizing::new) else {
        // The decoder's own error quotes a byte of the key.
        bail!("not base64");
    };
    ensure!(bytes.len() == KEY_BYTES, "{} bytes instead of {KEY_BYTES}", bytes.len());
    ensure!(
        text.trim_end_matches('=') != EXAMPLE_KEY.trim_end_matches('='),
        "this is the example from the documentation"
    );
    ensure!(!is_weak(&bytes), "too regular to be random: draw 32 bytes from the operating system");
    let mut key = Zeroizing::new([0_u8; KEY_BYTES]);
    key.copy_from_slice(&bytes);
    Ok(key)
}

/// Text, repetitions and even steps. (All zeros are the plainest repetition.)
fn is_weak(bytes: &[u8]) -> bool {
    let distinct: HashSet<u8> = bytes.iter().copied().collect();
    let text = bytes.iter().all(|byte| (0x20..0x7f).contains(byte));
    let steps: HashSet<u8> = bytes.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
    distinct.len() < FEWEST_DISTINCT_BYTES || text || steps.len() == 1
}
