//! The stack's generated secrets: made once, kept in one file that only its owner reads, never printed.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Write as _};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context as _, Result, anyhow};
use base64::Engine as _;

use shared::hex;

/// Named secrets of one stack. `Debug` shows none of them.
pub(crate) struct Secrets {
    file: PathBuf,
    values: Mutex<BTreeMap<String, String>>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Secrets").finish_non_exhaustive()
    }
}

impl Secrets {
    /// Reads the file, or starts with none when there is no file.
    pub(crate) fn open(file: PathBuf) -> Result<Self> {
        let values = match fs::read_to_string(&file) {
            Ok(text) => text
                .lines()
                .filter_map(|line| line.split_once('='))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error).context("the file of secrets cannot be read"),
        };
        Ok(Self { file, values: Mutex::new(values) })
    }

    /// A password of 192 random bits. It begins with a letter: the configuration parser of nats-server would read a
    /// leading digit as a number.
    pub(crate) fn password(&self, name: &str) -> Result<String> {
        self.get_or_make(name, || format!("sb_{}", hex(&rand::random::<[u8; 24]>())))
    }

    /// A key-encryption key, `<id>:<base64 of 32 bytes>`.
    pub(crate) fn vault_key(&self, name: &str) -> Result<String> {
        self.get_or_make(name, || {
            let key = base64::engine::general_purpose::STANDARD.encode(rand::random::<[u8; 32]>());
            format!("dev-{}:{key}", hex(&rand::random::<[u8; 4]>()))
        })
    }

    fn get_or_make(&self, name: &str, make: impl FnOnce() -> String) -> Result<String> {
        let mut values = self.values.lock().map_err(|_| anyhow!("the secrets are poisoned"))?;
        if let Some(value) = values.get(name) {
            return Ok(value.clone());
        }
        let value = make();
        values.insert(name.to_owned(), value.clone());
        write_private(&self.file, &lines(values.iter()))?;
        Ok(value)
    }
}

/// `name=value` lines.
pub(crate) fn lines<N: Display, V: Display>(entries: impl IntoIterator<Item = (N, V)>) -> String {
    entries.into_iter().fold(String::new(), |mut text, (name, value)| {
        let _ = writeln!(text, "{name}={value}");
        text
    })
}

/// Replaces a file in one step; nobody but its owner can read it, at no moment.
pub(crate) fn write_private(file: &Path, text: &str) -> Result<()> {
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let new = file.with_file_name(format!("{name}.{}.new", std::process::id()));
    let mut open = fs::OpenOptions::new();
    let written = open.write(true).create(true).truncate(true).mode(0o600).open(&new).and_then(|mut out| {
        out.write_all(text.as_bytes())?;
        out.sync_all()?;
        fs::rename(&new, file)
    });
    written.with_context(|| format!("{} cannot be written", file.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn a_secret_is_made_once_kept_for_its_owner_only_and_never_shown() {
        let scratch = Scratch::new().unwrap();
        let file = scratch.path().join("secrets");
        let secrets = Secrets::open(file.clone()).unwrap();
        let password = secrets.password("nats-gateway").unwrap();
        assert!(password.starts_with("sb_") && password.len() == 51);
        assert_ne!(password, secrets.password("nats-tool").unwrap());
        assert!(!format!("{secrets:?}").contains(&password));
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Secrets::open(file).unwrap().password("nats-gateway").unwrap(), password);
    }

    #[test]
    fn a_vault_key_has_an_id_and_32_bytes() {
        let scratch = Scratch::new().unwrap();
        let secrets = Secrets::open(scratch.path().join("secrets")).unwrap();
        let key = secrets.vault_key("vault").unwrap();
        let (id, encoded) = key.split_once(':').unwrap();
        assert!(id.starts_with("dev-"));
        assert_eq!(base64::engine::general_purpose::STANDARD.decode(encoded).unwrap().len(), 32);
    }
}
