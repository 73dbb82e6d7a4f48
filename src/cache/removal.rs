//! Removing and emptying folders whose maker took the right to do so away, as the module cache of Go does.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

/// What the owner of a folder needs to list and change it.
const ALL_RIGHTS: u32 = 0o700;

/// Removes a folder with all that is in it.
pub(super) fn remove_folder(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            make_all_writable(folder)?;
            fs::remove_dir_all(folder)
        }
        removed => removed,
    }
}

/// Gives the owner of a folder the right to change it.
pub(super) fn make_writable(folder: &Path) -> io::Result<()> {
    let mode = fs::symlink_metadata(folder)?.mode();
    if mode & ALL_RIGHTS == ALL_RIGHTS {
        return Ok(());
    }
    fs::set_permissions(folder, Permissions::from_mode(mode & 0o777 | ALL_RIGHTS))
}

/// The same for the folders below it, too. Links are not followed.
fn make_all_writable(folder: &Path) -> io::Result<()> {
    make_writable(folder)?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            make_all_writable(&entry.path())?;
        }
    }
    Ok(())
}

/// For tests, in which the superuser must not be allowed more than others are.
#[cfg(test)]
pub(super) fn as_anybody<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

    std::thread::scope(|scope| {
        let limited = scope.spawn(|| {
            // Capabilities are a thread's own. Without any there is nothing to give up.
            if let Ok(mut sets) = capabilities(None) {
                sets.effective.remove(CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH);
                let _ = set_capabilities(None, sets);
            }
            work()
        });
        limited.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn folders_that_may_not_be_changed_are_removed_and_what_links_lead_to_is_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        let (folder, other) = (temp.path().join("folder"), temp.path().join("other"));
        fs::create_dir_all(folder.join("module/inner")).unwrap();
        fs::create_dir(&other).unwrap();
        fs::write(folder.join("module/inner/file"), "x").unwrap();
        symlink(&other, folder.join("module/link")).unwrap();
        for (path, mode) in [("module/inner", 0o555), ("module", 0o111), ("", 0o555)] {
            fs::set_permissions(folder.join(path), Permissions::from_mode(mode)).unwrap();
        }
        fs::set_permissions(&other, Permissions::from_mode(0o555)).unwrap();
        as_anybody(|| {
            assert!(fs::write(folder.join("more"), "").is_err(), "the test means something only where rights count");
            remove_folder(&folder).unwrap();
        });
        assert!(!folder.exists());
        assert_eq!(fs::metadata(&other).unwrap().mode() & 0o777, 0o555);
    }
}
