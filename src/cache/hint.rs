//! The binary form of what the cache keeps only for speed: numbers, texts and digests one after the other, and a
//! checksum at the end. Damage of any kind makes it as if it were not there.

use std::{fs, path::Path};

use pipe_stage::Digest;

use super::{Home, stamp::Stamp};

/// Puts values together.
pub(super) struct Writer(Vec<u8>);

impl Writer {
    /// `magic` tells the kinds of hints apart, and their versions.
    pub(super) fn new(magic: &str) -> Self {
        Self(magic.as_bytes().to_vec())
    }

    pub(super) fn number(&mut self, number: u64) {
        self.0.extend(number.to_le_bytes());
    }

    pub(super) fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.extend(text.as_bytes());
    }

    pub(super) fn digest(&mut self, digest: &Digest) {
        self.0.extend(digest.as_bytes());
    }

    pub(super) fn stamp(&mut self, stamp: &Stamp) {
        stamp.parts().into_iter().for_each(|part| self.number(part));
    }

    /// The bytes, with their checksum.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let checksum = Digest::of(&self.0);
        self.digest(&checksum);
        self.0
    }

    /// Keeps the bytes at `path`, if the home is there and can be written.
    pub(super) fn save(self, home: &Home, path: &Path) {
        if home.exists()
            && let Err(error) = home.write_hint(path, &self.finish())
        {
            tracing::debug!(%error, "a hint is not kept");
        }
    }
}

/// Takes values apart, in the order in which they were put together.
pub(super) struct Reader<'bytes>(&'bytes [u8]);

impl<'bytes> Reader<'bytes> {
    /// The values in `bytes`, if they are whole and of this `magic`.
    pub(super) fn new(bytes: &'bytes [u8], magic: &str) -> Option<Self> {
        let (content, checksum) = bytes.split_last_chunk::<32>()?;
        let whole = Digest::of(content).as_bytes() == checksum;
        content.strip_prefix(magic.as_bytes()).filter(|_| whole).map(Self)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        self.chunk().map(|chunk| u64::from_le_bytes(*chunk))
    }

    pub(super) fn text(&mut self) -> Option<&'bytes str> {
        let length = usize::try_from(self.number()?).ok()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }

    pub(super) fn digest(&mut self) -> Option<Digest> {
        self.chunk().map(|chunk| blake3::Hash::from_bytes(*chunk).into())
    }

    pub(super) fn stamp(&mut self) -> Option<Stamp> {
        let mut parts = [0; Stamp::PARTS];
        for part in &mut parts {
            *part = self.number()?;
        }
        Some(Stamp::from_parts(parts))
    }

    fn chunk<const N: usize>(&mut self) -> Option<&'bytes [u8; N]> {
        let (chunk, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(chunk)
    }
}

/// The bytes kept at `path`; none if there is no such file.
pub(super) fn load(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_default()
}

/// A hint of any content, with the checksum that it should have.
#[cfg(any(test, fuzzing))]
pub(super) fn sealed(magic: &str, content: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new(magic);
    writer.0.extend(content);
    writer.finish()
}
