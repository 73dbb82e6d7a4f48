//! Who may be in a home: any number of processes that use it, or one that removes things from it.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Write},
};

use super::{CacheError, Holder, Home, error::Trying, lock::read_holder};

/// A right to use what is in a home: nothing is removed from it meanwhile. The kernel takes it back when the process
/// dies, however that happens.
#[derive(Debug)]
pub struct Shared {
    // Held open: closing it gives the right up. `None` where there is nothing that could be removed.
    _file: Option<File>,
}

/// The right to remove what is in a home: nobody uses it meanwhile.
#[derive(Debug)]
pub struct Exclusive {
    _file: File,
}

impl Home {
    /// The right to use the home. While another process removes things from it, this waits, and calls `waits` first
    /// with that process, as far as it is known.
    ///
    /// A home that cannot be written has no lock unless somebody made one before: nothing is removed from it either.
    ///
    /// # Errors
    /// If the lock cannot be taken.
    pub fn share(&self, waits: impl FnOnce(Option<Holder>)) -> Result<Shared, CacheError> {
        let path = self.guard();
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                match OpenOptions::new().read(true).append(true).create(true).open(&path) {
                    Err(error) if is_out_of_reach(&error) => return Ok(Shared { _file: None }),
                    created => created,
                }
            }
            opened => opened,
        };
        let mut file = file.trying("open", &path)?;
        match file.try_lock_shared() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                waits(read_holder(&mut file));
                file.lock_shared().trying("lock", &path)?;
            }
            Err(TryLockError::Error(error)) => return Err(error).trying("lock", &path),
        }
        Ok(Shared { _file: Some(file) })
    }

    /// The right to remove things from the home; `None` if somebody uses it and `wait` is not set.
    ///
    /// # Errors
    /// If the lock cannot be taken.
    pub fn exclusive(&self, wait: bool) -> Result<Option<Exclusive>, CacheError> {
        let path = self.guard();
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = open.trying("open", &path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) if !wait => return Ok(None),
            Err(TryLockError::WouldBlock) => file.lock().trying("lock", &path)?,
            Err(TryLockError::Error(error)) => return Err(error).trying("lock", &path),
        }
        let holder = serde_json::to_vec(&Holder::this_process()).map_err(io::Error::from);
        file.set_len(0).and_then(|()| file.write_all(&holder?)).trying("write", &path)?;
        Ok(Some(Exclusive { _file: file }))
    }
}

/// Whether a file cannot be made because its folder is not there, or must not be written.
fn is_out_of_reach(error: &io::Error) -> bool {
    use io::ErrorKind::{NotFound, PermissionDenied, ReadOnlyFilesystem};
    matches!(error.kind(), NotFound | PermissionDenied | ReadOnlyFilesystem)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::sync::mpsc;

    use super::*;

    fn home(temp: &tempfile::TempDir) -> Home {
        let home = Home::open(temp.path().join("home")).unwrap();
        home.create().unwrap();
        home
    }

    #[test]
    fn many_may_use_a_home_but_only_one_may_empty_it() {
        let temp = tempfile::tempdir().unwrap();
        let home = home(&temp);
        let one = home.share(|_| panic!("nobody removes anything")).unwrap();
        let two = home.share(|_| panic!("nobody removes anything")).unwrap();
        assert!(home.exclusive(false).unwrap().is_none());
        drop(one);
        assert!(home.exclusive(false).unwrap().is_none());
        drop(two);
        let alone = home.exclusive(false).unwrap().unwrap();
        assert!(home.exclusive(false).unwrap().is_none());
        drop(alone);
        assert!(home.exclusive(true).unwrap().is_some());
    }

    #[test]
    fn a_user_waits_until_the_removal_is_over_and_is_told_for_whom() {
        let temp = tempfile::tempdir().unwrap();
        let home = home(&temp);
        let alone = home.exclusive(false).unwrap().unwrap();
        let (sender, receiver) = mpsc::channel();
        std::thread::scope(|scope| {
            let user = scope.spawn(|| home.share(|holder| sender.send(holder).unwrap()).map(drop));
            let holder = receiver.recv().unwrap().unwrap();
            assert_eq!(holder.pid, std::process::id());
            assert!(!user.is_finished());
            drop(alone);
            user.join().unwrap().unwrap();
        });
    }

    #[test]
    fn where_there_is_no_home_there_is_nothing_to_guard() {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::open(temp.path().join("none")).unwrap();
        assert!(home.share(|_| unreachable!()).unwrap()._file.is_none());
        assert!(!home.root().exists());
        assert!(home.exclusive(false).is_err());
    }
}
