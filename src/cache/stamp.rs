//! How a file looked when it was hashed, so that a file that looks the same need not be hashed again.
//!
//! The change time (ctime) is what makes this safe: it cannot be set by a program, so a write that keeps the size and
//! puts the modification time back still shows. What remains is a write within the same tick of the file system's
//! clock as the hashing (git calls such a file racily clean); a stamp that young is not recorded.

use std::{
    collections::BTreeMap,
    fs::Metadata,
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Duration, SystemTime},
};

use pipe_stage::Digest;

use super::{
    Home,
    hint::{self, Reader, Writer},
};

/// One tick of the clock behind file times, amply: Linux advances it 100 to 1000 times a second.
const TICK: Duration = Duration::from_millis(20);
/// The same for file systems that keep whole seconds (or, as FAT does, every other one).
const COARSE_TICK: Duration = Duration::from_secs(2);

const MAGIC: &str = "pipe stamps 1\n";

/// What `stat` says of a file, as far as a write changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified_ns: i64,
    changed_ns: i64,
}

impl Stamp {
    /// How no file looks.
    pub(super) const NONE: Self = Self { device: 0, inode: 0, size: 0, modified_ns: 0, changed_ns: 0 };

    pub(super) fn of(metadata: &Metadata) -> Self {
        let ns = |seconds: i64, ns: i64| seconds.saturating_mul(1_000_000_000).saturating_add(ns);
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether it is the same file, whatever was written to it.
    pub(super) fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// As many numbers make a stamp.
    pub(super) const PARTS: usize = 5;

    pub(super) fn parts(&self) -> [u64; Self::PARTS] {
        [self.device, self.inode, self.size, self.modified_ns.cast_unsigned(), self.changed_ns.cast_unsigned()]
    }

    pub(super) fn from_parts([device, inode, size, modified, changed]: [u64; Self::PARTS]) -> Self {
        Self { device, inode, size, modified_ns: modified.cast_signed(), changed_ns: changed.cast_signed() }
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn changed_ns(&self) -> i64 {
        self.changed_ns
    }

    /// How long after its last change the clock of the file system is sure to have moved on.
    fn tick(&self) -> Duration {
        if self.changed_ns % 1_000_000_000 == 0 { COARSE_TICK } else { TICK }
    }

    /// Whether any write that starts at `now` must change the stamp.
    pub(super) fn is_settled(&self, now: SystemTime) -> bool {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        u128::try_from(self.changed_ns).unwrap_or(0) + self.tick().as_nanos() < now
    }

    /// Waits until [`Stamp::is_settled`], where that is a matter of one fine tick.
    pub(super) fn settle(&self) {
        if self.tick() == TICK && !self.is_settled(SystemTime::now()) {
            std::thread::sleep(TICK + Duration::from_millis(1));
        }
    }
}

/// The stamps and digests of the files of one tree, by their path within it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Stamps(BTreeMap<String, (Stamp, Digest)>);

impl Stamps {
    /// The stamps kept at `path`; none if there is no such file or it is damaged.
    pub(super) fn load(path: &Path) -> Self {
        Self::decode(&hint::load(path)).unwrap_or_default()
    }

    /// Keeps them at `path`, if the home is there and can be written. It is only a matter of speed.
    pub(super) fn save(&self, home: &Home, path: &Path) {
        self.encode().save(home, path);
    }

    /// The digest of the file at `name`, if it still looks as it did when it was hashed.
    pub(super) fn find(&self, name: &str, now: Stamp) -> Option<Digest> {
        self.0.get(name).filter(|(then, _)| *then == now).map(|(_, digest)| *digest)
    }

    /// How the file at `name` looked when it was hashed.
    pub(super) fn get(&self, name: &str) -> Option<Stamp> {
        self.0.get(name).map(|(stamp, _)| *stamp)
    }

    /// The digest that the file at `name` had, whatever it looks like now.
    pub(super) fn digest(&self, name: &str) -> Option<Digest> {
        self.0.get(name).map(|(_, digest)| *digest)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, Stamp, Digest)> {
        self.0.iter().map(|(name, (stamp, digest))| (name.as_str(), *stamp, *digest))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn insert(&mut self, name: String, stamp: Stamp, digest: Digest) {
        self.0.insert(name, (stamp, digest));
    }

    fn encode(&self) -> Writer {
        let mut writer = Writer::new(MAGIC);
        for (name, (stamp, digest)) in &self.0 {
            writer.text(name);
            writer.stamp(stamp);
            writer.digest(digest);
        }
        writer
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes, MAGIC)?;
        let mut stamps = Self::default();
        while !reader.is_empty() {
            let name = reader.text()?.to_owned();
            let stamp = reader.stamp()?;
            stamps.insert(name, stamp, reader.digest()?);
        }
        Some(stamps)
    }
}

/// See `fuzzing`.
#[cfg(any(test, fuzzing))]
pub(super) fn fuzz(content: &[u8]) {
    let Some(stamps) = Stamps::decode(&hint::sealed(MAGIC, content)) else { return };
    assert_eq!(Stamps::decode(&stamps.encode().finish()), Some(stamps));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    const STAMP: Stamp = Stamp { device: 1, inode: 2, size: 3, modified_ns: -4, changed_ns: 5_000_000_001 };

    #[test]
    fn stamps_come_back_and_any_damage_is_noticed() {
        let mut stamps = Stamps::default();
        stamps.insert("数据/a.jsonl".to_owned(), STAMP, Digest::of(b"a"));
        stamps.insert(String::new(), Stamp { inode: u64::MAX, ..STAMP }, Digest::of(b"b"));
        let bytes = stamps.encode().finish();
        assert_eq!(Stamps::decode(&bytes).unwrap(), stamps);
        for i in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[i] ^= 1;
            assert_eq!(Stamps::decode(&damaged), None, "byte {i}");
            assert_eq!(Stamps::decode(&bytes[..i]), None, "cut at {i}");
        }
    }

    #[test]
    fn every_part_of_the_stamp_counts() {
        let mut stamps = Stamps::default();
        stamps.insert("a".to_owned(), STAMP, Digest::of(b"a"));
        assert_eq!(stamps.find("a", STAMP), Some(Digest::of(b"a")));
        for other in [
            Stamp { device: 9, ..STAMP },
            Stamp { inode: 9, ..STAMP },
            Stamp { size: 9, ..STAMP },
            Stamp { modified_ns: 9, ..STAMP },
            Stamp { changed_ns: 9, ..STAMP },
        ] {
            assert_eq!(stamps.find("a", other), None, "{other:?}");
        }
        assert_eq!(stamps.find("b", STAMP), None);
    }

    #[test]
    fn a_stamp_settles_one_tick_after_its_change() {
        let at = |ms: u64| SystemTime::UNIX_EPOCH + Duration::from_millis(ms);
        assert!(!STAMP.is_settled(at(5_000)));
        assert!(!STAMP.is_settled(at(5_020)));
        assert!(STAMP.is_settled(at(5_021)));
        let whole_seconds = Stamp { changed_ns: 5_000_000_000, ..STAMP };
        assert!(!whole_seconds.is_settled(at(7_000)));
        assert!(whole_seconds.is_settled(at(7_001)));
        let future = Stamp { changed_ns: i64::MAX, ..STAMP };
        assert!(!future.is_settled(at(5_021)));
    }
}
