//! Reading a bundle that may come from anyone.

use std::io::{self, BufRead, Read};

use pipe_stage::Digest;
use tar::Header;
use zstd::stream::{raw::DParameter, read::Decoder};

use super::{BundleError, Contents, Entry, Limits, MANIFEST, tar_head, tar_head::BLOCK};

/// A bundle whose manifest has been read and found sound.
pub struct Reader<R: BufRead> {
    input: Decoder<'static, R>,
    contents: Contents,
    name: Digest,
}

impl<R: BufRead> Reader<R> {
    /// Reads the manifest.
    ///
    /// # Errors
    /// If it is not sound, or asks for more than `limits`.
    pub fn new(input: R, limits: &Limits) -> Result<Self, BundleError> {
        let mut input = Decoder::with_buffer(input).map_err(BundleError::Read)?.single_frame();
        input.set_parameter(DParameter::WindowLogMax(limits.window_log)).map_err(BundleError::Read)?;
        let mut block = [0; BLOCK];
        fill(&mut input, &mut block, MANIFEST)?;
        let size = Header::from_byte_slice(&block).size().unwrap_or_default();
        if block[..] != tar_head::of(MANIFEST, size, false)[..] {
            return Err(BundleError::Foreign);
        }
        if size > limits.manifest_bytes {
            let (what, limit) = ("bytes of manifest", limits.manifest_bytes);
            return Err(BundleError::Limit { what, found: size, limit });
        }
        // Grows with what is there, not with what is promised.
        let mut text = Vec::new();
        (&mut input).take(size).read_to_end(&mut text).map_err(|error| unreadable(error, MANIFEST))?;
        if (text.len() as u64) < size {
            return Err(BundleError::Cut { within: MANIFEST.to_owned() });
        }
        skip_padding(&mut input, size, MANIFEST)?;
        let contents = Contents::parse(&text, limits)?;
        Ok(Self { input, contents, name: Digest::of(&text) })
    }

    /// What is in it.
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// The digest of the manifest: the name of the experiment.
    pub fn name(&self) -> Digest {
        self.name
    }

    /// Reads everything, and gives each entry with its bytes to `take`, in the order of the manifest. What `take` leaves
    /// is skipped.
    ///
    /// Until this returns without an error, nothing that was given out may be trusted: the digest of an entry is known
    /// only behind its last byte. Its path is safe from the beginning, and no entry gives more bytes than the manifest
    /// says.
    ///
    /// # Errors
    /// If the bundle is anything else than what its manifest promises, or `take` fails.
    pub fn read(
        mut self,
        mut take: impl FnMut(&Entry, &mut dyn Read) -> io::Result<()>,
    ) -> Result<Contents, BundleError> {
        for entry in self.contents.entries() {
            expect_head(&mut self.input, entry)?;
            let mut body = Body {
                input: &mut self.input,
                left: entry.size,
                hasher: blake3::Hasher::new(),
                failure: None,
                path: &entry.path,
            };
            let taken = take(entry, &mut body).and_then(|()| io::copy(&mut body, &mut io::sink()).map(drop));
            if let Some(failure) = body.failure {
                return Err(failure);
            }
            taken.map_err(|source| BundleError::Unpack { path: entry.path.clone(), source })?;
            if Digest::from(body.hasher.finalize()) != entry.digest {
                return Err(BundleError::Digest { path: entry.path.clone() });
            }
            skip_padding(&mut self.input, entry.size, &entry.path)?;
        }
        self.expect_end()?;
        Ok(self.contents)
    }

    /// Nothing may follow: neither in the archive, nor behind the compressed archive.
    fn expect_end(&mut self) -> Result<(), BundleError> {
        for _ in 0..tar_head::END.len() / BLOCK {
            let mut block = [0; BLOCK];
            fill(&mut self.input, &mut block, "the end of the archive")?;
            if block != [0; BLOCK] {
                let found = tar_head::describe(&block);
                return Err(BundleError::Unexpected { expected: "the end".to_owned(), found });
            }
        }
        let mut more = [0];
        let behind = self.input.read(&mut more).map_err(|error| unreadable(error, "the end of the archive"))?;
        let raw = self.input.get_mut().fill_buf().map_err(BundleError::Read)?;
        if behind > 0 || !raw.is_empty() { Err(BundleError::Trailing) } else { Ok(()) }
    }
}

/// The bytes of one entry, hashed on their way.
struct Body<'reader, R> {
    input: &'reader mut R,
    left: u64,
    hasher: blake3::Hasher,
    /// Why reading failed, which is not the fault of who reads.
    failure: Option<BundleError>,
    path: &'reader str,
}

impl<R: Read> Read for Body<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        if room == 0 {
            return Ok(0);
        }
        let read = match self.input.read(&mut buffer[..room]) {
            Ok(0) => Err(BundleError::Cut { within: format!("`{}`", self.path) }),
            Ok(read) => Ok(read),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => Err(unreadable(error, self.path)),
        };
        let read = read.map_err(|failure| {
            self.failure = Some(failure);
            io::Error::other("the bundle cannot be read on")
        })?;
        self.hasher.update(&buffer[..read]);
        self.left -= read as u64;
        Ok(read)
    }
}

fn expect_head(input: &mut impl Read, entry: &Entry) -> Result<(), BundleError> {
    let expected = tar_head::of(&entry.path, entry.size, entry.executable);
    for wanted in expected.chunks_exact(BLOCK) {
        let mut block = [0; BLOCK];
        fill(input, &mut block, &entry.path)?;
        if block[..] != *wanted {
            let mut found = tar_head::describe(&block);
            let expected = format!("a file {:?} of {} bytes", entry.path, entry.size);
            if found.ends_with(&expected["a file ".len()..]) {
                found.push_str(" with another mode, owner or time");
            }
            return Err(BundleError::Unexpected { expected, found });
        }
    }
    Ok(())
}

fn skip_padding(input: &mut impl Read, size: u64, path: &str) -> Result<(), BundleError> {
    let mut padding = [0; BLOCK];
    let padding = &mut padding[..tar_head::padding(size)];
    fill(input, padding, path)?;
    if padding.iter().all(|&byte| byte == 0) {
        Ok(())
    } else {
        let expected = format!("the end of `{path}`");
        Err(BundleError::Unexpected { expected, found: "more bytes than it should have".to_owned() })
    }
}

fn fill(input: &mut impl Read, buffer: &mut [u8], within: &str) -> Result<(), BundleError> {
    input.read_exact(buffer).map_err(|error| unreadable(error, within))
}

/// What an error of the decoder means. It makes its own up, without a code of the system.
fn unreadable(error: io::Error, within: &str) -> BundleError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => BundleError::Cut { within: format!("`{within}`") },
        _ if error.raw_os_error().is_some() => BundleError::Read(error),
        _ => BundleError::Compression(error),
    }
}
