//! The digests of what is brought in: computed while it is copied, compared when it is complete.

use pipe_stage::Digest;
use sha2::{Digest as _, Sha256};

/// Whether text is a 256-bit digest in hexadecimal digits.
pub(crate) fn is_hex_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Hashes the bytes of one file, as they come.
pub(crate) struct FileHasher {
    blake3: blake3::Hasher,
    sha256: Option<Sha256>,
}

impl FileHasher {
    pub(crate) fn new(with_sha256: bool) -> Self {
        Self { blake3: blake3::Hasher::new(), sha256: with_sha256.then(Sha256::new) }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.blake3.update_rayon(bytes);
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(bytes);
        }
    }

    /// Hashes a whole file. Returns its length.
    pub(crate) fn read(&mut self, path: &std::path::Path) -> std::io::Result<u64> {
        let (mut file, mut buffer, mut bytes) = (std::fs::File::open(path)?, vec![0; 1 << 20], 0);
        loop {
            match std::io::Read::read(&mut file, &mut buffer) {
                Ok(0) => return Ok(bytes),
                Ok(count) => {
                    self.update(&buffer[..count]);
                    bytes += count as u64;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The BLAKE3, and the SHA-256 in hexadecimal digits if it was asked for.
    pub(crate) fn finish(self) -> (Digest, Option<String>) {
        let sha256 = self.sha256.map(|sha256| sha256.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        (self.blake3.finalize().into(), sha256)
    }
}
