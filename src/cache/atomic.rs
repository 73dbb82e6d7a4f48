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
        publish(file, path)?;
        sync(&[parent(path)?])
    }

    /// The same for a file that can be made again, and is checked when it is read: a power cut may lose it.
    pub(super) fn write_hint(&self, path: &Path, bytes: &[u8]) -> Result<(), CacheError> {
        publish(self.filled(path, bytes, 0o666)?, path)
    }

    /// Puts an object in its place, for tests of what happens to it there.
    #[cfg(test)]
    pub(super) fn write_object(&self, path: &Path, bytes: &[u8]) -> Result<(), CacheError> {
        publish(self.filled(path, bytes, 0o444)?, path)
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

/// Renames a finished temporary file into place, creating the folder if need be.
pub(super) fn publish(file: NamedTempFile, path: &Path) -> Result<(), CacheError> {
    crash::point("file.before-rename");
    let file = match file.persist(path) {
        Err(error) if error.error.kind() == io::ErrorKind::NotFound => {
            let folder = parent(path)?;
            fs::create_dir_all(folder).trying("create the folder", folder)?;
            error.file.persist(path)
        }
        persisted => persisted,
    };
    file.map_err(|error| error.error).trying("write", path)?;
    crash::point("file.after-rename");
    Ok(())
}

/// Moves a file of the same file system into place, creating the folder if need be.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), CacheError> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let folder = parent(to)?;
            fs::create_dir_all(folder).trying("create the folder", folder)?;
            fs::rename(from, to)
        }
        renamed => renamed,
    }
    .trying("write", to)
}

/// Makes files, or the names in folders, survive a power cut. All of them are in the same file system.
pub(super) fn sync(paths: &[&Path]) -> Result<(), CacheError> {
    match paths {
        [first, ..] if paths.len() > MANY => {
            let synced = File::open(first).and_then(|file| Ok(rustix::fs::syncfs(file)?));
            synced.trying("write", first)
        }
        few => sync_each(few),
    }
}

/// A disk makes many files sure in about the time that it needs for one, if it is asked for all at once.
fn sync_each(paths: &[&Path]) -> Result<(), CacheError> {
    let next = AtomicUsize::new(0);
    let some = || {
        while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
            File::open(path).and_then(|file| file.sync_all()).trying("write", path)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let helpers = 1..paths.len().min(AT_ONCE);
        // Where there is no thread to have, this one does it all.
        let helpers: Vec<_> = helpers.map_while(|_| thread::Builder::new().spawn_scoped(scope, some).ok()).collect();
        let results = std::iter::once(some()).chain(
            helpers.into_iter().map(|helper| helper.join().unwrap_or_else(|bug| std::panic::resume_unwind(bug))),
        );
        results.collect()
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
