//! Stamps: a step of the set-up is skipped when everything it reads is as it was when it last finished.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};
use shared::hex;

/// A hash over names and contents; the order of calls matters.
#[derive(Debug, Default)]
pub(crate) struct Fingerprint(Sha256);

impl Fingerprint {
    /// Adds a value that is not a file.
    pub(crate) fn text(mut self, value: &str) -> Self {
        self.0.update(value.len().to_be_bytes());
        self.0.update(value);
        self
    }

    /// Adds a file's name and bytes.
    pub(crate) fn file(self, path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
        let mut next = self.text(&path.to_string_lossy()).text(&bytes.len().to_string());
        next.0.update(bytes);
        Ok(next)
    }

    /// Adds every file below a folder, sorted, leaving out folders of the given names.
    pub(crate) fn tree(self, folder: &Path, without: &[&str]) -> Result<Self> {
        let mut files = Vec::new();
        collect(folder, without, &mut files)?;
        files.sort();
        files.iter().try_fold(self, |hash, path| hash.file(path))
    }

    /// The hash as lowercase hex.
    pub(crate) fn finish(self) -> String {
        hex(&self.0.finalize())
    }
}

/// Whether the stamp says that this fingerprint was finished before.
pub(crate) fn matches(stamp: &Path, fingerprint: &str) -> bool {
    fs::read_to_string(stamp).is_ok_and(|found| found.trim() == fingerprint)
}

fn collect(folder: &Path, without: &[&str], files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))? {
        let entry = entry?;
        let skipped = without.iter().any(|name| entry.file_name() == *name);
        match entry.file_type()? {
            _ if skipped => {}
            kind if kind.is_dir() => collect(&entry.path(), without, files)?,
            kind if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn a_changed_byte_a_new_file_and_a_new_name_change_the_fingerprint_and_a_skipped_folder_does_not() {
        let scratch = Scratch::new().unwrap();
        let of = || Fingerprint::default().tree(scratch.path(), &["node_modules"]).unwrap().finish();
        fs::write(scratch.path().join("a"), "1").unwrap();
        let first = of();
        fs::create_dir(scratch.path().join("node_modules")).unwrap();
        fs::write(scratch.path().join("node_modules/x"), "1").unwrap();
        assert_eq!(of(), first);
        fs::write(scratch.path().join("a"), "2").unwrap();
        let second = of();
        fs::rename(scratch.path().join("a"), scratch.path().join("b")).unwrap();
        let third = of();
        fs::write(scratch.path().join("c"), "").unwrap();
        let all = [first, second, third, of()];
        for (index, one) in all.iter().enumerate() {
            assert!(!all[..index].contains(one), "fingerprint {index} repeats an earlier one");
        }
    }
}
