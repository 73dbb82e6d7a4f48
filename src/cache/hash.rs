//! Hashing files.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use pipe_stage::Digest;

/// Above this, the bytes of one file are hashed by several threads.
const PARALLEL_BYTES: u64 = 4 << 20;
/// What is read at once of a large file.
const LARGE_BUFFER_BYTES: usize = 8 << 20;
/// What is read at once of a small file.
const SMALL_BUFFER_BYTES: usize = 64 << 10;

/// The digest of a file's bytes.
pub(super) fn hash_file(path: &Path) -> io::Result<Digest> {
    let file = File::open(path)?;
    let large = file.metadata()?.len() >= PARALLEL_BYTES;
    hash_reader(file, large)
}

fn hash_reader(mut reader: impl Read, large: bool) -> io::Result<Digest> {
    let mut buffer = vec![0; if large { LARGE_BUFFER_BYTES } else { SMALL_BUFFER_BYTES }];
    let mut hasher = blake3::Hasher::new();
    loop {
        let filled = fill(&mut reader, &mut buffer)?;
        let bytes = &buffer[..filled];
        if large {
            hasher.update_rayon(bytes);
        } else {
            hasher.update(bytes);
        }
        if filled < buffer.len() {
            return Ok(hasher.finalize().into());
        }
    }
}

/// Reads until the buffer is full or the end is reached: threads share large pieces better than small ones.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn both_ways_of_reading_give_blake3_at_the_edges_of_the_buffers() {
        for length in [
            0,
            1,
            SMALL_BUFFER_BYTES - 1,
            SMALL_BUFFER_BYTES,
            SMALL_BUFFER_BYTES + 1,
            LARGE_BUFFER_BYTES,
            LARGE_BUFFER_BYTES + 1,
        ] {
            let bytes: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            for large in [false, true] {
                assert_eq!(hash_reader(&bytes[..], large).unwrap(), Digest::of(&bytes), "{length} {large}");
            }
        }
    }
}
