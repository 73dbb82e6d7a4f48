//! The folders of a stage that is being run.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use pipe_stage::Output;

use super::{Acquired, CacheError, Home, Key, KeyLock, error::Trying, folders, orphans, removal::remove_folder};

/// A temporary file that nobody wrote to for so long is left over from a crash.
const STALE_TEMPORARY: Duration = Duration::from_hours(24);

/// Between the key and the rest of the name of an attempt's scratch.
const AFTER_KEY: char = '.';

/// One attempt at making a key's artifacts. Its scratch goes when it is dropped; what it can resume from stays until
/// it succeeds.
#[derive(Debug)]
pub struct Attempt {
    home: Home,
    /// Of a name that no attempt had before: whoever is left of a dead one cannot write into it.
    scratch: PathBuf,
    resume: PathBuf,
    // Dropped last, so that nobody else has the key while the scratch goes.
    lock: KeyLock,
}

impl Attempt {
    /// Begins an attempt: empty folders, among them one for each of `outputs`, and the resume folder as it was left.
    ///
    /// # Errors
    /// If the folders cannot be made.
    pub fn begin(home: &Home, lock: KeyLock, outputs: &[Output]) -> Result<Self, CacheError> {
        clear(home, lock.key())?;
        let outputs: Vec<&str> = outputs.iter().map(|output| output.name.as_str()).collect();
        let folder = home.scratch_folder();
        fs::create_dir_all(&folder).trying("create the folder", &folder)?;
        let name = format!("{}{AFTER_KEY}", lock.key());
        let made = tempfile::Builder::new()
            .prefix(&name)
            .make_in(&folder, |place| folders::set_up(home, place, &outputs))
            .and_then(|made| Ok(made.into_temp_path().keep()?));
        let scratch = made.trying("make the folders of an attempt in", &folder)?;
        let resume = home.resume(lock.key());
        folders::take_out(&resume, &scratch);
        Ok(Self { home: home.clone(), scratch, resume, lock })
    }

    /// The lock of the key.
    pub fn lock(&self) -> &KeyLock {
        &self.lock
    }

    /// Where the inputs are laid out: an empty folder.
    pub fn inputs(&self) -> PathBuf {
        self.scratch.join(folders::INPUTS)
    }

    /// The folder that holds one empty folder for each output.
    pub fn output(&self) -> PathBuf {
        self.scratch.join(folders::OUTPUT)
    }

    /// An empty folder for the worker to work in.
    pub fn work(&self) -> PathBuf {
        self.scratch.join(folders::WORK)
    }

    /// For the worker's `TMPDIR`.
    pub fn temporary(&self) -> PathBuf {
        self.scratch.join(folders::TEMPORARY)
    }

    /// What the attempts at this key hand on to each other: a folder, made by the worker that asks for it.
    pub fn resume(&self) -> &Path {
        &self.resume
    }

    /// Ends an attempt whose artifacts and record are stored: there is nothing left to resume.
    pub fn succeed(self) {
        if !folders::put_in(&self.resume, &self.scratch) {
            discard(&self.resume);
        }
        folders::put_aside(&self.home, &self.scratch);
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        discard(&self.scratch);
        // A stage that left nothing to resume from leaves no folder either.
        let _ = fs::remove_dir(&self.resume);
    }
}

/// Removes what killed runs left: scratch that nobody works in, files of locks that nobody holds, what a stage could
/// resume that has ended since, and old temporary files. Never what can be resumed.
///
/// # Errors
/// If the home cannot be read. What cannot be removed is left for the next time.
pub fn sweep(home: &Home) -> Result<(), CacheError> {
    let mut keys = BTreeSet::new();
    for folder in ["scratch", "resume", "locks"] {
        keys.extend(names(&home.root().join(folder))?.iter().filter_map(|name| key_of(name)));
    }
    for key in keys {
        // Whoever works on it holds the lock; whoever gets it finds nobody at work.
        if let Acquired::Held(_lock) = KeyLock::acquire(home, &key)? {
            drop(clear(home, &key));
            if is_done_with(home, &key) {
                discard(&home.resume(&key));
            }
        }
    }
    for name in names(&home.tmp())? {
        let path = home.tmp().join(name);
        let age = |modified| SystemTime::now().duration_since(modified).unwrap_or_default();
        let modified = fs::symlink_metadata(&path).and_then(|metadata| metadata.modified());
        if modified.is_ok_and(|modified| age(modified) > STALE_TEMPORARY) {
            discard(&path);
        }
    }
    Ok(())
}

/// Whether the stage came to its end after it last left something to resume.
fn is_done_with(home: &Home, key: &Key) -> bool {
    let modified = |path: PathBuf| fs::symlink_metadata(path).and_then(|metadata| metadata.modified());
    match (modified(home.action(key)), modified(home.resume(key))) {
        (Ok(recorded), Ok(left)) => recorded >= left,
        _ => false,
    }
}

fn names(folder: &Path) -> Result<Vec<String>, CacheError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.trying("read", folder)?,
    };
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
}

/// The key in the name of a folder or file: all of it, or what stands before the part that makes it unique.
fn key_of(name: &str) -> Option<Key> {
    name.split(AFTER_KEY).next()?.parse().ok()
}

/// Removes the scratch of a key's dead attempts, and what is left of their processes.
fn clear(home: &Home, key: &Key) -> Result<(), CacheError> {
    let folder = home.scratch_folder();
    for name in names(&folder)?.iter().filter(|name| key_of(name) == Some(*key)) {
        let scratch = folder.join(name);
        orphans::end_users(&scratch);
        remove(&scratch)?;
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), CacheError> {
    let removed = match fs::symlink_metadata(path) {
        Err(error) => Err(error),
        Ok(metadata) if metadata.is_dir() => remove_folder(path),
        Ok(_) => fs::remove_file(path),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.trying("remove", path),
    }
}

fn discard(path: &Path) {
    if let Err(error) = remove(path) {
        tracing::debug!(%error, "left for the next sweep");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::{super::key::tests::key, *};

    fn begin(home: &Home) -> Attempt {
        let Acquired::Held(lock) = KeyLock::acquire(home, &key(1)).unwrap() else { panic!("the lock is free") };
        Attempt::begin(home, lock, &["train", "held_out"].map(Output::folder)).unwrap()
    }

    #[test]
    fn a_failed_attempt_hands_its_checkpoints_to_the_next_and_a_good_one_leaves_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::open(temp.path()).unwrap();
        let first = begin(&home);
        assert!(first.output().join("train").is_dir() && first.output().join("held_out").is_dir());
        fs::write(first.output().join("train/half"), "x").unwrap();
        fs::create_dir_all(first.resume()).unwrap();
        fs::write(first.resume().join("checkpoint"), "x").unwrap();
        drop(first);
        assert_eq!(names(&home.scratch_folder()).unwrap(), [""; 0]);

        let second = begin(&home);
        assert!(second.resume().join("checkpoint").exists());
        assert!(!second.output().join("train/half").exists());
        second.succeed();
        assert_eq!(names(&home.scratch_folder()).unwrap(), [""; 0]);
        assert!(!home.resume(&key(1)).exists());
    }

    #[test]
    fn a_sweep_takes_dead_scratch_and_spares_what_is_alive_or_can_be_resumed() {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::open(temp.path()).unwrap();
        let alive = begin(&home);
        let dead = home.scratch_folder().join(format!("{}.dead", key(2)));
        fs::create_dir_all(dead.join("output/out")).unwrap();
        fs::create_dir_all(home.resume(&key(2))).unwrap();
        fs::create_dir_all(home.tmp()).unwrap();
        let (old, new) = (home.tmp().join("old"), home.tmp().join("new"));
        let file = fs::File::create(&old).unwrap();
        file.set_modified(SystemTime::now() - STALE_TEMPORARY * 2).unwrap();
        fs::write(&new, "").unwrap();

        // Killed between its record and the end of its attempt.
        fs::create_dir_all(home.resume(&key(3))).unwrap();
        fs::write(home.lock(&key(3)), "").unwrap();
        home.write(&home.action(&key(3)), b"{}").unwrap();

        sweep(&home).unwrap();
        assert!(!home.resume(&key(3)).exists() && !home.lock(&key(3)).exists());
        assert!(home.lock(&key(1)).exists());
        assert!(alive.output().join("train").exists());
        assert!(!dead.exists());
        assert!(home.resume(&key(2)).exists());
        assert!(!old.exists() && new.exists());
    }

    #[test]
    fn an_attempt_begins_afresh_where_a_killed_one_left_its_scratch() {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::open(temp.path()).unwrap();
        let dead = home.scratch_folder().join(format!("{}.dead", key(1)));
        fs::create_dir_all(dead.join("output/train/half")).unwrap();
        let attempt = begin(&home);
        assert!(!dead.exists());
        assert_eq!(fs::read_dir(attempt.output().join("train")).unwrap().count(), 0);
    }
}
