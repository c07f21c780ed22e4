//! Bytes in hexadecimal.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

/// Adds one byte.
pub(super) fn append(mut digits: String, byte: u8) -> String {
    let _ = write!(digits, "{byte:02x}");
    digits
}

/// Of any bytes.
pub(super) fn of(bytes: &[u8]) -> String {
    bytes.iter().copied().fold(String::with_capacity(bytes.len() * 2), append)
}

/// SHA-256 of a text.
pub(super) fn sha256(text: &str) -> String {
    of(&Sha256::digest(text.as_bytes()))
}
