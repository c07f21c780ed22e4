//! The issuer's key on disk: made once, never readable by others, never half written.

use std::{
    fs::{self, OpenOptions, Permissions},
    io::{ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use anyhow::{Context as _, ensure};
use p256::{
    SecretKey,
    pkcs8::{EncodePrivateKey as _, LineEnding},
};
use rand::Rng as _;
use uuid::Uuid;

/// The file's name in the issuer's directory.
pub(super) const FILE: &str = "issuer.pem";
const OWNER_ONLY: u32 = 0o600;
/// The permission bits of everybody else.
const OTHERS: u32 = 0o077;

/// The PKCS#8 PEM text of the key kept in `directory`.
pub(super) fn load_or_create(directory: &Path) -> anyhow::Result<String> {
    let path = directory.join(FILE);
    if !path.exists() {
        create(directory, &path).with_context(|| format!("cannot keep the issuer's key in {}", directory.display()))?;
    }
    let mode = fs::metadata(&path)?.permissions().mode() & 0o777;
    ensure!(
        mode & OTHERS == 0,
        "{} is open to other users (mode {mode:o}): run chmod 600 on it, or remove it to have a new key made",
        path.display()
    );
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// Writes a new key beside its place and links it there: a link, unlike a rename, never replaces another's key.
fn create(directory: &Path, path: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let pem = generate()?.to_pkcs8_pem(LineEnding::LF)?;
    let draft = directory.join(format!(".{FILE}.{}", Uuid::new_v4()));
    let written = write(&draft, pem.as_bytes()).and_then(|()| fs::hard_link(&draft, path));
    let removed = fs::remove_file(&draft);
    match written {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        written => written?,
    }
    Ok(removed?)
}

fn write(draft: &Path, pem: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(OWNER_ONLY).open(draft)?;
    // The umask may have taken bits away from the owner too.
    file.set_permissions(Permissions::from_mode(OWNER_ONLY))?;
    file.write_all(pem)?;
    file.sync_all()
}

/// A uniformly random P-256 key: a number is drawn again when it is zero or not below the group's order.
fn generate() -> anyhow::Result<SecretKey> {
    let mut random = rand::rng();
    let mut bytes = [0_u8; 32];
    for _ in 0..64 {
        random.fill_bytes(&mut bytes);
        if let Ok(key) = SecretKey::from_slice(&bytes) {
            return Ok(key);
        }
    }
    anyhow::bail!("the random source gave no valid key")
}
