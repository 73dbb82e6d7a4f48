//! Files that appear all at once or not at all.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};
use tempfile::NamedTempFile;

use super::{CacheError, Home, crash, error::Trying};

/// With more files than this, one call that writes the whole file system back is faster than a call for each.
const MANY: usize = 100;

/// So many files are synced at once. The threads only wait.
const AT_ONCE: usize = 16;

impl Home {
    /// Replaces `path` by a file with these bytes. After a crash at any moment the old file or the new one is there,
    /// whole; once this returns, it is the new one, even after a power cut.
    pub(crate) fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), CacheError> {
        let file = self.filled(path, bytes, 0o666)?;
        file.as_file().sync_all().trying("write", path)?;
        let folder = parent(path)?;
        match publish(file, path)? {
            Folder::Was => sync(&[folder]),
            Folder::Made => sync(&[folder, parent(folder)?]),
        }
    }

    /// The same for a file that can be made again, and is checked when it is read: a power cut may lose it.
    pub(super) fn write_hint(&self, path: &Path, bytes: &[u8]) -> Result<(), CacheError> {
        publish(self.filled(path, bytes, 0o666)?, path).map(drop)
    }

    /// Puts an object in its place, for tests of what happens to it there.
    #[cfg(test)]
    pub(super) fn write_object(&self, path: &Path, bytes: &[u8]) -> Result<(), CacheError> {
        publish(self.filled(path, bytes, 0o444)?, path).map(drop)
    }

    /// A temporary file with these bytes, to be renamed to `path`, which only stands in errors.
    pub(super) fn filled(&self, path: &Path, bytes: &[u8], mode: u32) -> Result<NamedTempFile, CacheError> {
        let mut file = self.temporary(mode)?;
        file.write_all(bytes).trying("write", path)?;
        Ok(file)
    }

    /// A new file in the same file system as everything else of the home. The umask applies to `mode`.
    pub(super) fn temporary(&self, mode: u32) -> Result<NamedTempFile, CacheError> {
        let folder = self.tmp();
        let create = || tempfile::Builder::new().permissions(Permissions::from_mode(mode)).tempfile_in(&folder);
        match create() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(&folder).trying("create the folder", &folder)?;
                create()
            }
            created => created,
        }
        .trying("write in", &folder)
    }
}

/// Whether the folder of a new file was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Folder {
    Was,
    /// Its own name, too, survives a power cut only once the folder above it is synced.
    Made,
}

/// Renames a finished temporary file into place, creating the folder if need be.
pub(super) fn publish(file: NamedTempFile, path: &Path) -> Result<Folder, CacheError> {
    crash::point("file.before-rename");
    let (file, folder) = match file.persist(path) {
        Err(error) if error.error.kind() == io::ErrorKind::NotFound => {
            let folder = parent(path)?;
            fs::create_dir_all(folder).trying("create the folder", folder)?;
            (error.file.persist(path), Folder::Made)
        }
        persisted => (persisted, Folder::Was),
    };
    file.map_err(|error| error.error).trying("write", path)?;
    crash::point("file.after-rename");
    Ok(folder)
}

/// Moves a file of the same file system into place, creating the folder if need be.
pub(super) fn rename(from: &Path, to: &Path) -> Result<Folder, CacheError> {
    let (renamed, folder) = match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let folder = parent(to)?;
            fs::create_dir_all(folder).trying("create the folder", folder)?;
            (fs::rename(from, to), Folder::Made)
        }
        renamed => (renamed, Folder::Was),
    };
    renamed.trying("write", to).map(|()| folder)
}

/// Makes files, or the names in folders, survive a power cut. All of them are in the same file system.
pub(super) fn sync(paths: &[&Path]) -> Result<(), CacheError> {
    match sync_telling(paths).into_iter().next() {
        None => Ok(()),
        Some((place, error)) => Err(error).trying("write", paths[place]),
    }
}

/// The same. Gives what failed, by its place in the list, in no particular order.
///
/// That is final: the kernel tells of a failed write only once, and whoever asks again is told that all is well.
pub(super) fn sync_telling(paths: &[&Path]) -> Vec<(usize, io::Error)> {
    match paths {
        [first, ..] if paths.len() > MANY => {
            match File::open(first).and_then(|file| Ok(rustix::fs::syncfs(file)?)) {
                Ok(()) => Vec::new(),
                // It does not say which: each may be lost.
                Err(error) => (0..paths.len()).map(|place| (place, copy_of(&error))).collect(),
            }
        }
        few => sync_each(few),
    }
}

/// An error that several are to be told of.
pub(super) fn copy_of(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

/// A disk makes many files sure in about the time that it needs for one, if it is asked for all at once.
fn sync_each(paths: &[&Path]) -> Vec<(usize, io::Error)> {
    let next = AtomicUsize::new(0);
    let some = || {
        let mut failed = Vec::new();
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(path) = paths.get(place) else { return failed };
            if let Err(error) = File::open(path).and_then(|file| file.sync_all()) {
                failed.push((place, error));
            }
        }
    };
    thread::scope(|scope| {
        let helpers = 1..paths.len().min(AT_ONCE);
        // Where there is no thread to have, this one does it all.
        let helpers: Vec<_> = helpers.map_while(|_| thread::Builder::new().spawn_scoped(scope, some).ok()).collect();
        let results = std::iter::once(some()).chain(
            helpers.into_iter().map(|helper| helper.join().unwrap_or_else(|bug| std::panic::resume_unwind(bug))),
        );
        results.flatten().collect()
    })
}

/// Renames a file unless the new name is taken. Where the file system cannot do that in one step, in two.
pub(super) fn rename_to_free(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) if to.exists() => Err(io::ErrorKind::AlreadyExists.into()),
        Err(Errno::INVAL | Errno::NOSYS) => fs::rename(from, to),
        renamed => Ok(renamed?),
    }
}

fn parent(path: &Path) -> Result<&Path, CacheError> {
    path.parent().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput)).trying("write", path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn a_write_makes_folders_and_leaves_no_temporary_file() {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::open(temp.path()).unwrap();
        let path = temp.path().join("deep/er/file");
        home.write(&path, b"one").unwrap();
        home.write(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(home.tmp()).unwrap().count(), 0);
    }

    /// Dies while it writes `$PIPE_TEST_FOLDER/file`; a test of its own only in the child process.
    #[test]
    fn crashing_writer() {
        let Some(folder) = std::env::var_os("PIPE_TEST_FOLDER") else { return };
        let home = Home::open(&folder).unwrap();
        let _ = home.write(&Path::new(&folder).join("file"), b"new");
        unreachable!("the crash point was not reached");
    }

    #[test]
    fn a_crash_leaves_the_old_file_or_the_new_one() {
        for (point, expected) in [("file.before-rename", "old"), ("file.after-rename", "new")] {
            let temp = tempfile::tempdir().unwrap();
            let home = Home::open(temp.path()).unwrap();
            home.write(&temp.path().join("file"), b"old").unwrap();
            let crashed = crash::child("cache::atomic::tests::crashing_writer", point, temp.path());
            assert!(crashed, "the child must die at the crash point `{point}`");
            assert_eq!(fs::read_to_string(temp.path().join("file")).unwrap(), expected, "{point}");
        }
    }
}
