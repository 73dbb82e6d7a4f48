//! What stands before the bytes of an entry in the archive. It follows from the manifest alone, so that a reader need not
//! believe a header: it knows every byte that must be there.

use pipe_stage::Digest;
use tar::{EntryType, Header};

/// Tar counts in blocks of this many bytes.
pub(super) const BLOCK: usize = 512;

/// What ends an archive.
pub(crate) const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// The bytes before an entry: a header, and before that the long path where the header has no room for it.
pub(crate) fn of(path: &str, size: u64, executable: bool) -> Vec<u8> {
    let mode = if executable { 0o755 } else { 0o644 };
    let mut header = Header::new_ustar();
    if header.set_path(path).is_ok() {
        return finished(header, EntryType::Regular, size, mode).to_vec();
    }
    // POSIX: an extended header, which counts its own digits.
    let mut record = String::new();
    let mut length = path.len() + " path=\n".len();
    while record.len() != length {
        length = length.max(record.len());
        record = format!("{length} path={path}\n");
    }
    let mut bytes = finished(named("PaxHeader"), EntryType::XHeader, record.len() as u64, 0o644).to_vec();
    bytes.extend_from_slice(record.as_bytes());
    bytes.resize(bytes.len() + padding(record.len() as u64), 0);
    let short = format!("long-path-{}", Digest::of(path.as_bytes()).short());
    bytes.extend_from_slice(&finished(named(&short), EntryType::Regular, size, mode));
    bytes
}

/// How many zeros follow the bytes of an entry.
pub(crate) fn padding(size: u64) -> usize {
    let rest = (size % BLOCK as u64) as usize;
    if rest == 0 { 0 } else { BLOCK - rest }
}

fn named(path: &str) -> Header {
    let mut header = Header::new_ustar();
    // Short, so that it cannot fail.
    let _ = header.set_path(path);
    header
}

fn finished(mut header: Header, entry_type: EntryType, size: u64, mode: u32) -> [u8; BLOCK] {
    header.set_entry_type(entry_type);
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    *header.as_bytes()
}

/// In words, what a block is that should have been another header.
pub(super) fn describe(block: &[u8; BLOCK]) -> String {
    if block.iter().all(|&byte| byte == 0) {
        return "the end".to_owned();
    }
    let header = Header::from_byte_slice(block);
    let what = match header.entry_type() {
        EntryType::Regular | EntryType::Continuous => "another file",
        EntryType::Directory => "a folder",
        EntryType::Symlink => "a symbolic link",
        EntryType::Link => "a hard link",
        EntryType::Char | EntryType::Block => "a device",
        EntryType::Fifo => "a named pipe",
        EntryType::GNUSparse => "a sparse file",
        EntryType::GNULongName | EntryType::GNULongLink => "a long name in the way of GNU",
        EntryType::XHeader | EntryType::XGlobalHeader => "an extended header",
        _ => "an entry of a kind that pipe does not write",
    };
    let name: String = String::from_utf8_lossy(&header.path_bytes()).chars().take(100).collect();
    let size = header.size().map_or_else(|_| "of no size".to_owned(), |size| format!("of {size} bytes"));
    format!("{what} {name:?} {size}")
}
