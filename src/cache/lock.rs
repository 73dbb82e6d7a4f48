//! One process works on a key at a time.

use std::{
    fmt,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{CacheError, Home, Key, error::Trying, orphans};

/// The right to work on a key. The kernel takes it back when the process dies, however that happens.
#[derive(Debug)]
pub struct KeyLock {
    key: Key,
    path: PathBuf,
    // Held open: closing it, here and in every process that it was handed to, gives the lock up.
    file: File,
}

/// What became of asking for a lock.
#[derive(Debug)]
pub enum Acquired {
    /// It is ours.
    Held(KeyLock),
    /// Another process has it; `None` if that one has only just taken it.
    Busy(Option<Holder>),
}

/// The process that holds a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holder {
    /// Its id on its host.
    pub pid: u32,
    /// Where it runs.
    pub host: String,
    /// When it took the lock.
    pub since: jiff::Timestamp,
}

impl KeyLock {
    /// Takes the lock of `key` if it is free. Never waits: a caller that wants to wait asks again, and can stop.
    ///
    /// Where the process that took it is dead and only what it started still has it, that is killed.
    ///
    /// # Errors
    /// If the lock's file cannot be written.
    pub fn acquire(home: &Home, key: &Key) -> Result<Acquired, CacheError> {
        let path = home.lock(key);
        loop {
            let mut file = open(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let holder = read_holder(&mut file);
                    if let Some(holder) = &holder {
                        // They are gone when the caller asks again.
                        orphans::end_heirs(&file, holder, || read_holder(&mut open(&path).ok()?));
                    }
                    return Ok(Acquired::Busy(holder));
                }
                Err(TryLockError::Error(error)) => return Err(error).trying("lock", &path),
            }
            // The holder before us removes the file while it still has the lock: ours may be that nameless file.
            if is_at(&file, &path) {
                let holder = serde_json::to_vec(&Holder::this_process()).map_err(io::Error::from);
                file.set_len(0).and_then(|()| file.write_all(&holder?)).trying("write", &path)?;
                return Ok(Acquired::Held(Self { key: *key, path, file }));
            }
        }
    }

    /// The key.
    pub fn key(&self) -> &Key {
        &self.key
    }
}

/// For handing the lock to a worker: the lock is held until both have ended.
impl AsFd for KeyLock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for KeyLock {
    fn drop(&mut self) {
        // Before the file is closed, and so while the lock is held.
        let _ = fs::remove_file(&self.path);
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on {}", self.pid, self.host)
    }
}

impl Holder {
    pub(super) fn this_process() -> Self {
        Self { pid: std::process::id(), host: Self::this_host(), since: jiff::Timestamp::now() }
    }

    pub(super) fn this_host() -> String {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    }
}

fn open(path: &Path) -> Result<File, CacheError> {
    let open = || OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let folder = path.parent().unwrap_or(path);
            fs::create_dir_all(folder).trying("create the folder", folder)?;
            open()
        }
        opened => opened,
    }
    .trying("open", path)
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

pub(super) fn read_holder(file: &mut File) -> Option<Holder> {
    let mut text = String::new();
    file.rewind().and_then(|()| file.read_to_string(&mut text)).ok()?;
    serde_json::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::{super::key::tests::key, *};

    #[test]
    fn a_second_taker_is_told_who_holds_the_lock() {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::open(temp.path()).unwrap();
        let Acquired::Held(lock) = KeyLock::acquire(&home, &key(1)).unwrap() else { panic!("the lock is free") };
        let Acquired::Busy(holder) = KeyLock::acquire(&home, &key(1)).unwrap() else { panic!("the lock is taken") };
        assert_eq!(holder.unwrap().pid, std::process::id());
        assert!(matches!(KeyLock::acquire(&home, &key(2)).unwrap(), Acquired::Held(_)), "another key is free");
        drop(lock);
        assert!(!home.lock(&key(1)).exists(), "a free lock leaves no file");
        assert!(matches!(KeyLock::acquire(&home, &key(1)).unwrap(), Acquired::Held(_)));
    }

    #[test]
    fn a_file_that_a_dead_process_left_is_free() {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::open(temp.path()).unwrap();
        home.write(&home.lock(&key(1)), b"{\"pid\": 1, \"host\": \"gone").unwrap();
        assert!(matches!(KeyLock::acquire(&home, &key(1)).unwrap(), Acquired::Held(_)));
    }

    #[test]
    fn two_never_hold_it_though_its_file_comes_and_goes() {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::open(temp.path()).unwrap();
        let inside = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        if let Acquired::Held(_lock) = KeyLock::acquire(&home, &key(1)).unwrap() {
                            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                            std::thread::yield_now();
                            inside.fetch_sub(1, Ordering::SeqCst);
                        }
                    }
                });
            }
        });
    }
}
