//! Hashing files.

use std::{
    cell::RefCell,
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    path::Path,
};

use blake3::hazmat::{ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root};
use pipe_stage::Digest;

/// From this size on, one file is hashed by several threads, in bytes.
const LARGE_BYTES: u64 = 4 << 20;
/// What is read at once of a small file, in bytes.
const BUFFER_BYTES: usize = 64 << 10;
/// What one thread reads and hashes at a time of a large file, in bytes: little enough to stay in the processor's cache
/// in between.
const PIECE_BYTES: u64 = 128 << 10;
/// The threads keep within so many bytes of each other, so that the disk is read from front to back.
const WINDOW_BYTES: u64 = 64 << 20;

/// The digest of a file's bytes.
pub(super) fn hash_file(path: &Path) -> io::Result<Digest> {
    hash_file_telling(path, &|_| ())
}

/// The same; `tell` is called with the number of bytes that were read since it was called last, by any thread.
pub(super) fn hash_file_telling(path: &Path, tell: &(dyn Fn(u64) + Sync)) -> io::Result<Digest> {
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    if bytes >= LARGE_BYTES {
        let tree = Tree { file: &file, piece_bytes: PIECE_BYTES, window_bytes: WINDOW_BYTES, tell };
        match tree.hash(bytes) {
            // It has become shorter. What it is now, the other way tells.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            hashed => return hashed,
        }
    }
    hash_reader(file, tell)
}

fn hash_reader(mut reader: impl Read, tell: &(dyn Fn(u64) + Sync)) -> io::Result<Digest> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut hasher = blake3::Hasher::new();
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finalize().into()),
            Ok(count) => {
                hasher.update(&buffer[..count]);
                tell(count as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A file as the tree of hashes that BLAKE3 is: each thread reads its own branches, and none waits for another's.
struct Tree<'file> {
    file: &'file File,
    /// A power of two, at least 1024.
    piece_bytes: u64,
    window_bytes: u64,
    tell: &'file (dyn Fn(u64) + Sync),
}

impl Tree<'_> {
    /// The digest of the first `bytes` bytes, which are more than one piece.
    fn hash(&self, bytes: u64) -> io::Result<Digest> {
        let (left, right) = self.halves(0, bytes)?;
        Ok(merge_subtrees_root(&left, &right, Mode::Hash).into())
    }

    fn halves(&self, start: u64, bytes: u64) -> io::Result<(ChainingValue, ChainingValue)> {
        let half = left_subtree_len(bytes);
        let left = || self.branch(start, half);
        let right = || self.branch(start + half, bytes - half);
        let (left, right) = if bytes > self.window_bytes { (left(), right()) } else { rayon::join(left, right) };
        Ok((left?, right?))
    }

    fn branch(&self, start: u64, bytes: u64) -> io::Result<ChainingValue> {
        if bytes <= self.piece_bytes {
            return self.piece(start, bytes);
        }
        let (left, right) = self.halves(start, bytes)?;
        Ok(merge_subtrees_non_root(&left, &right, Mode::Hash))
    }

    fn piece(&self, start: u64, bytes: u64) -> io::Result<ChainingValue> {
        thread_local!(static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) });
        BUFFER.with_borrow_mut(|buffer| {
            buffer.resize(bytes as usize, 0);
            self.file.read_exact_at(buffer, start)?;
            (self.tell)(bytes);
            Ok(blake3::Hasher::new().set_input_offset(start).update(buffer).finalize_non_root())
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::{
        fs,
        sync::atomic::{AtomicU64, Ordering},
    };

    use super::*;

    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|i| (i % 251) as u8).collect()
    }

    #[test]
    fn every_way_gives_the_digest_of_the_bytes() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("file");
        let large = LARGE_BYTES as usize;
        let piece = PIECE_BYTES as usize;
        let lengths =
            [0, 1, BUFFER_BYTES, BUFFER_BYTES + 1, large - 1, large, large + 1, large + piece, large + piece + 1025];
        for length in lengths {
            let bytes = bytes(length);
            fs::write(&path, &bytes).unwrap();
            let told = AtomicU64::new(0);
            let tell = |count| {
                told.fetch_add(count, Ordering::Relaxed);
            };
            let digest = hash_file_telling(&path, &tell).unwrap();
            assert_eq!(digest, Digest::of(&bytes), "{length}");
            assert_eq!(told.into_inner(), length as u64, "every byte is told of once");
        }
    }

    #[test]
    fn pieces_and_windows_of_any_size_make_the_same_tree() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("file");
        for length in [1025, 2048, 2049, 4096, 5000, 65_536, 100_000] {
            let bytes = bytes(length);
            fs::write(&path, &bytes).unwrap();
            let file = File::open(&path).unwrap();
            for (piece_bytes, window_bytes) in [(1024, 1), (1024, 4096), (1024, 1 << 20), (2048, 8192), (4096, 4096)] {
                if length as u64 > piece_bytes {
                    let tree = Tree { file: &file, piece_bytes, window_bytes, tell: &|_| () };
                    assert_eq!(tree.hash(length as u64).unwrap(), Digest::of(&bytes), "{length} {piece_bytes}");
                }
            }
        }
    }

    #[test]
    fn a_file_that_became_shorter_is_hashed_as_it_is_now() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("file");
        fs::write(&path, bytes(2 * LARGE_BYTES as usize)).unwrap();
        let cut = |_| fs::write(&path, bytes(1000)).unwrap();
        assert_eq!(hash_file_telling(&path, &cut).unwrap(), Digest::of(&bytes(1000)));
    }
}
