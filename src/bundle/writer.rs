//! Writing a bundle.

use std::io::{self, Read, Write};

use pipe_stage::Digest;
use zstd::stream::{raw::CParameter, write::Encoder};

use super::{BundleError, Contents, MANIFEST, tar_head};

/// How hard zstd tries. Fixed: the same run gives the same bytes.
const LEVEL: i32 = 3;

/// How far back zstd looks, as a power of two: what a reader needs memory for.
pub(super) const WINDOW_LOG: u32 = 22;

/// How much is copied at once, in bytes.
const BUFFER_BYTES: usize = 256 << 10;

/// Writes the entries of a manifest, in its order.
pub struct Writer<'contents, W: Write> {
    output: Encoder<'static, W>,
    contents: &'contents Contents,
    next: usize,
    buffer: Vec<u8>,
}

impl<'contents, W: Write> Writer<'contents, W> {
    /// Begins a bundle: writes the manifest.
    ///
    /// # Errors
    /// If `output` cannot be written.
    pub fn new(output: W, contents: &'contents Contents) -> Result<Self, BundleError> {
        let mut output = Encoder::new(output, LEVEL).map_err(BundleError::Write)?;
        output.set_parameter(CParameter::WindowLog(WINDOW_LOG)).map_err(BundleError::Write)?;
        let mut writer = Self { output, contents, next: 0, buffer: vec![0; BUFFER_BYTES] };
        let text = contents.to_text();
        writer.put(&tar_head::of(MANIFEST, text.len() as u64, false))?;
        writer.put(text.as_bytes())?;
        writer.pad(text.len() as u64)?;
        Ok(writer)
    }

    /// Writes the bytes of the next entry.
    ///
    /// # Errors
    /// If they cannot be read or written, or are not those that the manifest promises.
    pub fn entry(&mut self, mut bytes: impl Read) -> Result<(), BundleError> {
        let Some(entry) = self.contents.entries().get(self.next) else {
            return Err(BundleError::Changed { path: MANIFEST.to_owned() });
        };
        self.next += 1;
        let changed = || BundleError::Changed { path: entry.path.clone() };
        self.put(&tar_head::of(&entry.path, entry.size, entry.executable))?;
        let mut hasher = blake3::Hasher::new();
        let mut left = entry.size;
        loop {
            let read = match bytes.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(BundleError::Read(error)),
            };
            left = left.checked_sub(read as u64).ok_or_else(changed)?;
            hasher.update(&self.buffer[..read]);
            self.output.write_all(&self.buffer[..read]).map_err(BundleError::Write)?;
        }
        if left != 0 || Digest::from(hasher.finalize()) != entry.digest {
            return Err(changed());
        }
        self.pad(entry.size)
    }

    /// Ends the bundle.
    ///
    /// # Errors
    /// If an entry is missing, or `output` cannot be written.
    pub fn finish(mut self) -> Result<W, BundleError> {
        if let Some(entry) = self.contents.entries().get(self.next) {
            return Err(BundleError::Changed { path: entry.path.clone() });
        }
        self.put(&tar_head::END)?;
        self.output.finish().map_err(BundleError::Write)
    }

    fn pad(&mut self, size: u64) -> Result<(), BundleError> {
        self.put(&tar_head::END[..tar_head::padding(size)])
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), BundleError> {
        self.output.write_all(bytes).map_err(BundleError::Write)
    }
}
