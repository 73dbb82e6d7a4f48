//! What the file system of the cache can do. Tried out in a folder that is gone afterwards.

use std::{
    env,
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::Path,
};

use super::{Finding, State};
use crate::{cache::Home, report};

/// With less room than this, a run soon has none.
const LITTLE_BYTES: u64 = 1 << 30;

/// Looks at the cache of the pipelines in the current folder, and at the file system that it is or would be in.
pub(super) fn findings() -> Vec<Finding> {
    let folder = env::current_dir().unwrap_or_default();
    match Home::locate(&folder) {
        Ok(home) => inspect(&home),
        Err(error) => vec![bad("cache", error.to_string(), "set PIPE_HOME to another folder")],
    }
}

fn inspect(home: &Home) -> Vec<Finding> {
    let root = home.root();
    let existing = root.ancestors().find(|folder| folder.is_dir()).unwrap_or(root);
    let note = if home.exists() { "" } else { " (made by the first run)" };
    let free = free_bytes(existing);
    let room = free.map_or_else(String::new, |free| format!(", {} free", report::bytes(free)));
    let found = format!("{}{note}{room}", root.display());
    let little = free.is_some_and(|free| free < LITTLE_BYTES);
    let cache = match little {
        true => bad("cache", found, "there is little room left: free some, or set PIPE_HOME to another disk"),
        false => ok("cache", found),
    };
    vec![cache].into_iter().chain(abilities(existing)).collect()
}

/// What can be done in a folder.
fn abilities(folder: &Path) -> Vec<Finding> {
    let trial = match tempfile::Builder::new().prefix(".pipe-doctor-").tempdir_in(folder) {
        Ok(trial) => trial,
        Err(error) => {
            let found = format!("nothing can be written to {}: {error}", folder.display());
            return vec![bad("storage", found, "pipelines whose stages are all up to date still run; others need it")];
        }
    };
    let storage = match write(trial.path()) {
        Ok(()) => ok("storage", "files are written, flushed and renamed".to_owned()),
        Err(error) => bad("storage", format!("a file cannot be kept: {error}"), "set PIPE_HOME to another disk"),
    };
    vec![storage, locks(trial.path()), copies(trial.path())]
}

/// Keeps a file as the cache does.
fn write(folder: &Path) -> io::Result<()> {
    let (before, after) = (folder.join("before"), folder.join("名 字"));
    let mut file = File::create(&before)?;
    file.write_all(b"kept")?;
    file.sync_all()?;
    fs::rename(&before, &after)?;
    File::open(folder)?.sync_all()?;
    match fs::read(&after)? == b"kept" {
        true => Ok(()),
        false => Err(io::Error::other("it is not what was written")),
    }
}

/// Whether a lock keeps others out, also of the same process: a second description of the file counts as another.
fn locks(folder: &Path) -> Finding {
    let path = folder.join("lock");
    let held = || {
        let first = File::create(&path)?;
        first.lock()?;
        Ok(match File::open(&path)?.try_lock() {
            Err(TryLockError::WouldBlock) => true,
            Err(TryLockError::Error(error)) => return Err(error),
            Ok(()) => false,
        })
    };
    let advice = "two runs at once could do the same work twice: set PIPE_HOME to a local disk";
    match held() {
        Ok(true) => ok("locks", "a locked file is locked for everyone else".to_owned()),
        Ok(false) => bad("locks", "a file can be locked twice".to_owned(), advice),
        Err::<_, io::Error>(error) => bad("locks", format!("a file cannot be locked: {error}"), advice),
    }
}

/// Whether a copy costs nothing.
fn copies(folder: &Path) -> Finding {
    let (original, copy) = (folder.join("original"), folder.join("copy"));
    let shares = fs::write(&original, [1; 4096]).and_then(|()| reflink_copy::reflink(&original, &copy));
    match shares {
        Ok(()) => ok("copies", "share their blocks with the original until they are changed".to_owned()),
        Err(_) => Finding {
            name: "copies",
            state: State::Absent,
            found: "take their own space: the file system cannot share blocks".to_owned(),
            advice: Some("only costs time and space with large files; btrfs and XFS can".to_owned()),
        },
    }
}

/// Free space of the file system that holds `folder`.
fn free_bytes(folder: &Path) -> Option<u64> {
    let figures = rustix::fs::statvfs(folder).ok()?;
    figures.f_bavail.checked_mul(figures.f_frsize)
}

fn ok(name: &'static str, found: String) -> Finding {
    Finding { name, state: State::Ok, found, advice: None }
}

fn bad(name: &'static str, found: String, advice: &str) -> Finding {
    Finding { name, state: State::Bad, found, advice: Some(advice.to_owned()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn states(findings: &[Finding]) -> Vec<(&str, bool)> {
        findings.iter().map(|finding| (finding.name, finding.state == State::Bad)).collect()
    }

    #[test]
    fn a_folder_that_will_do_is_found_so_and_left_as_it_was() {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::open(temp.path().join("project/.pipe")).unwrap();
        let findings = inspect(&home);
        assert_eq!(states(&findings), [("cache", false), ("storage", false), ("locks", false), ("copies", false)]);
        assert!(findings[0].found.contains("(made by the first run)"), "{}", findings[0].found);
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_bad() {
        // In /proc, not even root can.
        let home = Home::open("/proc/self/.pipe").unwrap();
        let findings = inspect(&home);
        let storage = findings.iter().find(|finding| finding.name == "storage").unwrap();
        assert!(storage.state == State::Bad && storage.found.contains("/proc/self: "), "{}", storage.found);
    }
}
