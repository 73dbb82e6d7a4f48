//! Copying one file: shared with its original until one of them is written to, where the file system can do that.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom as Position},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use rustix::{
    fs::{SeekFrom, ioctl_ficlone, seek},
    io::Errno,
};

use super::{CacheError, Trying};

/// Copies the file `from` to `to`, which must not exist, with the permissions `mode` as far as the umask lets them be.
pub(in crate::cache) fn copy_file(from: &Path, to: &Path, mode: u32) -> Result<(), CacheError> {
    let source = File::open(from).trying("read", from)?;
    let copy = OpenOptions::new().write(true).create_new(true).mode(mode).open(to).trying("write", to)?;
    if ioctl_ficlone(&copy, &source).is_ok() {
        return Ok(());
    }
    copy_bytes(source, copy).trying("write", to)
}

/// Copies what a file holds, and leaves holes where it has some.
fn copy_bytes(mut from: File, mut to: File) -> io::Result<()> {
    let length = from.metadata()?.len();
    let mut position = 0;
    while position < length {
        let begin = match seek(&from, SeekFrom::Data(position)) {
            Ok(begin) => begin,
            // Nothing but a hole is left.
            Err(Errno::NXIO) => break,
            // The file system does not tell where holes are.
            Err(_) => position,
        };
        let end = seek(&from, SeekFrom::Hole(begin)).unwrap_or(length).max(begin + 1);
        from.seek(Position::Start(begin))?;
        to.seek(Position::Start(begin))?;
        // Lets the kernel do the work where it can.
        io::copy(&mut (&from).take(end - begin), &mut to)?;
        position = end;
    }
    to.set_len(length)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::{
        fs,
        io::Write,
        os::unix::fs::{FileExt, MetadataExt},
    };

    use super::*;

    #[test]
    fn holes_stay_holes_and_the_bytes_are_the_same() {
        let temp = tempfile::tempdir().unwrap();
        let (from, to) = (temp.path().join("from"), temp.path().join("to"));
        let mut file = File::create(&from).unwrap();
        file.write_all(b"head").unwrap();
        file.write_all_at(b"middle", 8 << 20).unwrap();
        file.set_len(64 << 20).unwrap();
        copy_bytes(File::open(&from).unwrap(), File::create_new(&to).unwrap()).unwrap();
        assert_eq!(fs::metadata(&to).unwrap().len(), 64 << 20);
        assert!(fs::read(&from).unwrap() == fs::read(&to).unwrap());
        let on_disk = |path| fs::metadata(path).unwrap().blocks() * 512;
        assert!(on_disk(&to) <= on_disk(&from) + (1 << 20), "{} of {}", on_disk(&to), on_disk(&from));
    }

    #[test]
    fn empty_and_odd_lengths_are_copied_and_nothing_is_overwritten() {
        let temp = tempfile::tempdir().unwrap();
        for length in [0, 1, 4095, 4096, 4097, 100_001] {
            let bytes: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            let (from, to) = (temp.path().join("from"), temp.path().join(format!("to {length}")));
            fs::write(&from, &bytes).unwrap();
            copy_file(&from, &to, 0o666).unwrap();
            assert_eq!(fs::read(&to).unwrap(), bytes);
            assert!(copy_file(&from, &to, 0o666).is_err());
        }
    }
}
