//! Hashing files.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    path::Path,
};

use blake3::hazmat::{ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root};
use pipe_stage::Digest;
use rayon::prelude::*;

/// From this size on, one file is hashed by several threads, in bytes.
const LARGE_BYTES: u64 = 4 << 20;
/// What is read at once, in bytes. Small, so that it is still in the core's own cache when it is hashed: a seventh faster
/// than 1 MiB. A power of two.
const BUFFER_BYTES: usize = 64 << 10;
/// What one thread hashes at a time of a large file, in bytes: a power of two, at least 1024. Each piece leaves 40 bytes in
/// memory until the end.
const PIECE_BYTES: u64 = 1 << 20;

/// The digest of a file's bytes.
pub(super) fn hash_file(path: &Path) -> io::Result<Digest> {
    hash_file_telling(path, &|_| ())
}

/// The same; `tell` is called with the number of bytes that were read since it was called last, by any thread.
pub(super) fn hash_file_telling(path: &Path, tell: &(dyn Fn(u64) + Sync)) -> io::Result<Digest> {
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    if bytes >= LARGE_BYTES {
        match hash_pieces(&file, bytes, PIECE_BYTES, tell) {
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

/// The digest of the first `bytes` bytes, which are more than one piece. Threads take the pieces in their order, so that
/// the file is read from front to back; what each piece comes to is put together as the tree that BLAKE3 is.
fn hash_pieces(file: &File, bytes: u64, piece_bytes: u64, tell: &(dyn Fn(u64) + Sync)) -> io::Result<Digest> {
    let piece = |buffer: &mut Vec<u8>, number: u64| {
        let (start, end) = (number * piece_bytes, bytes.min((number + 1) * piece_bytes));
        let mut hasher = blake3::Hasher::new();
        hasher.set_input_offset(start);
        for at in (start..end).step_by(BUFFER_BYTES) {
            let read = &mut buffer[..BUFFER_BYTES.min((end - at) as usize)];
            file.read_exact_at(read, at)?;
            tell(read.len() as u64);
            hasher.update(read);
        }
        Ok((number, hasher.finalize_non_root()))
    };
    let pieces = (0..bytes.div_ceil(piece_bytes)).par_bridge();
    let pieces = pieces.map_init(|| vec![0; BUFFER_BYTES], piece);
    let mut pieces = pieces.collect::<io::Result<Vec<(u64, ChainingValue)>>>()?;
    pieces.sort_unstable_by_key(|(number, _)| *number);
    let (left, right) = halves(&pieces, bytes, piece_bytes);
    Ok(merge_subtrees_root(&left, &right, Mode::Hash).into())
}

fn halves(pieces: &[(u64, ChainingValue)], bytes: u64, piece_bytes: u64) -> (ChainingValue, ChainingValue) {
    let half = left_subtree_len(bytes);
    let (left, right) = pieces.split_at((half / piece_bytes) as usize);
    (branch(left, half, piece_bytes), branch(right, bytes - half, piece_bytes))
}

fn branch(pieces: &[(u64, ChainingValue)], bytes: u64, piece_bytes: u64) -> ChainingValue {
    if let [(_, only)] = pieces {
        return *only;
    }
    let (left, right) = halves(pieces, bytes, piece_bytes);
    merge_subtrees_non_root(&left, &right, Mode::Hash)
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
    fn pieces_of_any_size_make_the_same_tree() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("file");
        for length in [1025, 2048, 2049, 4096, 5000, 65_536, 100_000] {
            let bytes = bytes(length);
            fs::write(&path, &bytes).unwrap();
            let file = File::open(&path).unwrap();
            for piece_bytes in [1024, 2048, 4096, 65_536] {
                if length as u64 > piece_bytes {
                    let digest = hash_pieces(&file, length as u64, piece_bytes, &|_| ()).unwrap();
                    assert_eq!(digest, Digest::of(&bytes), "{length} {piece_bytes}");
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
