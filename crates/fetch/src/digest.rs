//! What a list of files promises of the bytes of a file, and the computing of it as they come.

use std::fmt::Write as _;

use sha1::Sha1;
use sha2::{Digest as _, Sha256};

/// A digest of a file's bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Digest {
    /// SHA-256, as large files have it on the hubs.
    Sha256(String),
    /// The name that git gives a file: SHA-1 of `blob LENGTH NUL BYTES`. Small files on the Hugging Face hub have it.
    GitBlob(String),
}

impl Digest {
    /// A SHA-256, if `text` is one.
    pub fn sha256(text: &str) -> Option<Self> {
        is_hex(text, 64).then(|| Self::Sha256(text.to_ascii_lowercase()))
    }

    /// A git blob's name, if `text` is one.
    pub fn git_blob(text: &str) -> Option<Self> {
        is_hex(text, 40).then(|| Self::GitBlob(text.to_ascii_lowercase()))
    }

    /// Either, by its length.
    pub(crate) fn of_either(text: &str) -> Option<Self> {
        Self::sha256(text).or_else(|| Self::git_blob(text))
    }

    /// Its hexadecimal digits.
    pub fn hex(&self) -> &str {
        match self {
            Self::Sha256(hex) | Self::GitBlob(hex) => hex,
        }
    }

    /// Its name.
    pub fn algorithm(&self) -> &'static str {
        match self {
            Self::Sha256(_) => "SHA-256",
            Self::GitBlob(_) => "git blob SHA-1",
        }
    }
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Computes a [`Digest`] of a file of a known length.
pub(crate) enum Hasher {
    Sha256(Sha256),
    GitBlob(Sha1),
    Nothing,
}

impl Hasher {
    pub(crate) fn new(like: Option<&Digest>, bytes: u64) -> Self {
        match like {
            Some(Digest::Sha256(_)) => Self::Sha256(Sha256::new()),
            Some(Digest::GitBlob(_)) => Self::GitBlob(Sha1::new_with_prefix(format!("blob {bytes}\0"))),
            None => Self::Nothing,
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::GitBlob(hasher) => hasher.update(bytes),
            Self::Nothing => {}
        }
    }

    pub(crate) fn finish(self) -> String {
        match self {
            Self::Sha256(hasher) => hex(&hasher.finalize()),
            Self::GitBlob(hasher) => hex(&hasher.finalize()),
            Self::Nothing => String::new(),
        }
    }
}

/// The SHA-256 of some bytes.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_the_tools() {
        // `printf hello | sha256sum`, `printf hello | git hash-object --stdin`
        let hash = |like: Digest| {
            let mut hasher = Hasher::new(Some(&like), 5);
            hasher.update(b"hel");
            hasher.update(b"lo");
            assert_eq!(hasher.finish(), like.hex());
        };
        hash(Digest::sha256("2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824").unwrap());
        hash(Digest::git_blob("b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0").unwrap());
        assert_eq!(Digest::of_either("b6fc"), None);
    }
}
