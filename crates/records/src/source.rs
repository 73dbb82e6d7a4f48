//! A file that was opened: what its first bytes are, and its text, whatever it is packed in.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use flate2::bufread::MultiGzDecoder;

use crate::Error;

const BUFFER_BYTES: usize = 1 << 20;
/// How much of a file's (unpacked) beginning is looked at to see what it is.
const HEAD_BYTES: usize = 64 << 10;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// An open file.
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    file: File,
    packed: Option<Packing>,
}

/// How a text file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    Gzip,
    Zstd,
}

/// The text of a file, unpacked, without a byte order mark.
pub(crate) struct Text {
    pub(crate) path: PathBuf,
    /// The first bytes: 64 KiB, or all if there are fewer.
    pub(crate) head: Vec<u8>,
    reader: Box<dyn BufRead + Send>,
    position_bytes: Arc<AtomicU64>,
}

impl Source {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Io { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(failed)?;
        let bytes = file.metadata().map_err(failed)?.len();
        let magic = first_bytes(&mut file, 4).map_err(failed)?;
        file.rewind().map_err(failed)?;
        let packed = match magic.as_slice() {
            [0x1f, 0x8b, ..] => Some(Packing::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd] => Some(Packing::Zstd),
            _ => None,
        };
        Ok(Self { path: path.to_owned(), bytes, file, packed })
    }

    /// The file itself, for formats that are not read packed.
    pub(crate) fn into_file(self, format: &'static str) -> Result<File, Error> {
        if self.packed.is_some() {
            let detail = "it is gzip or zstd; unpack it first, only text formats are read packed".to_owned();
            return Err(Error::WrongFormat { path: self.path, format, detail });
        }
        Ok(self.file)
    }

    /// The text, from its beginning.
    pub(crate) fn into_text(self) -> Result<Text, Error> {
        let position_bytes = Arc::new(AtomicU64::new(0));
        let counted = Counted { file: self.file, position_bytes: Arc::clone(&position_bytes) };
        let failed = |source| unpacking(&self.path, source);
        let mut reader: Box<dyn BufRead + Send> = match self.packed {
            None => Box::new(BufReader::with_capacity(BUFFER_BYTES, counted)),
            Some(Packing::Gzip) => {
                let packed = MultiGzDecoder::new(BufReader::with_capacity(BUFFER_BYTES, counted));
                Box::new(BufReader::with_capacity(BUFFER_BYTES, packed))
            }
            Some(Packing::Zstd) => {
                let packed = zstd::stream::read::Decoder::new(counted).map_err(failed)?;
                Box::new(BufReader::with_capacity(BUFFER_BYTES, packed))
            }
        };
        let mut head = first_bytes(&mut reader, HEAD_BYTES).map_err(failed)?;
        if is_utf16(&head) {
            return Err(Error::Utf16 { path: self.path });
        }
        if head.starts_with(b"version https://git-lfs") {
            let detail = "it is a pointer of Git LFS instead of the file; get the data (git lfs pull)".to_owned();
            return Err(Error::Broken { path: self.path, place: String::new(), detail });
        }
        if head.starts_with(BYTE_ORDER_MARK) {
            head.drain(..BYTE_ORDER_MARK.len());
        }
        let reader = Box::new(BufReader::with_capacity(BUFFER_BYTES, io::Cursor::new(head.clone()).chain(reader)));
        Ok(Text { path: self.path, head, reader, position_bytes })
    }

    /// The first bytes of the file, or of what is packed in it.
    pub(crate) fn head(path: &Path) -> Result<Vec<u8>, Error> {
        let mut source = Self::open(path)?;
        if source.packed.is_some() {
            return Ok(source.into_text()?.head);
        }
        let mut head =
            first_bytes(&mut source.file, HEAD_BYTES).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        if head.starts_with(BYTE_ORDER_MARK) {
            head.drain(..BYTE_ORDER_MARK.len());
        }
        Ok(head)
    }
}

impl Text {
    pub(crate) fn reader(&mut self) -> &mut dyn BufRead {
        &mut self.reader
    }

    /// How many bytes of the file were read so far.
    pub(crate) fn position_bytes(&self) -> u64 {
        self.position_bytes.load(Ordering::Relaxed)
    }

    /// Why reading failed, behind line or row `number` of what `unit` counts.
    pub(crate) fn failed(&self, unit: &str, number: u64, source: io::Error) -> Error {
        match unpacking(&self.path, source) {
            Error::Broken { path, detail, .. } => {
                Error::Broken { path, place: format!("behind {unit} {number}: "), detail }
            }
            error => error,
        }
    }
}

/// An error of the operating system is one of reading; any other says that what is packed is damaged.
fn unpacking(path: &Path, source: io::Error) -> Error {
    let path = path.to_owned();
    if source.raw_os_error().is_some() {
        return Error::Io { path, source };
    }
    let detail = match source.kind() {
        io::ErrorKind::UnexpectedEof => "the compressed file ends too early; get it again".to_owned(),
        _ => format!("the compressed file is damaged ({source}); get it again"),
    };
    Error::Broken { path, place: String::new(), detail }
}

/// By its mark, or by the zeros that stand between ASCII characters.
fn is_utf16(head: &[u8]) -> bool {
    match *head {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => true,
        [a, b, c, d, ..] => (a == 0 && b != 0 && c == 0 && d != 0) || (a != 0 && b == 0 && c != 0 && d == 0),
        _ => false,
    }
}

fn first_bytes(reader: &mut impl Read, count: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(count as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

struct Counted {
    file: File,
    position_bytes: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.position_bytes.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}
