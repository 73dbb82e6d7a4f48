//! The folders that an attempt works in, used again by later ones.
//!
//! To make and remove folders takes longer, on many file systems, than all else that a small stage needs. So those of an
//! attempt that ended well are emptied and put aside, and the next attempt takes them: both by renaming, so that nobody
//! else can have them. Only what is as it was made is put aside; nothing of an attempt that failed or died ever is.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::Home;

/// So many are kept for later.
const MOST: usize = 16;

/// The part with one folder for each output.
pub(super) const OUTPUT: &str = "output";
pub(super) const INPUTS: &str = "inputs";
pub(super) const TEMPORARY: &str = "tmp";
pub(super) const WORK: &str = "work";
const PARTS: [&str; 4] = [OUTPUT, INPUTS, TEMPORARY, WORK];
/// Only in folders that are put aside: the folder for what an attempt leaves to the next one, if a worker made it.
const RESUME: &str = "resume";

/// Sets folders up at `place`, which must not exist: empty ones, and in `output` one for each of `outputs`.
pub(super) fn set_up(home: &Home, place: &Path, outputs: &[&str]) -> io::Result<()> {
    if !take(home, place) {
        fs::create_dir_all(place)?;
        for part in PARTS {
            fs::create_dir(place.join(part))?;
        }
    }
    let folder = place.join(OUTPUT);
    for entry in fs::read_dir(&folder)? {
        let entry = entry?;
        if !outputs.iter().any(|output| entry.file_name() == *output) {
            fs::remove_dir(entry.path())?;
        }
    }
    for output in outputs {
        match fs::create_dir(folder.join(output)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Empties the folders at `place` and puts them aside. What cannot be used again stays for the caller to remove.
pub(super) fn put_aside(home: &Home, place: &Path) {
    let all = home.spare();
    if matches!(empty(home, place), Ok(true)) && (all.is_dir() || fs::create_dir(&all).is_ok()) {
        // Nothing is overwritten: the folders that lie there are not empty.
        let _ = (0..MOST).any(|number| fs::rename(place, spare(home, number)).is_ok());
    }
}

/// Has `resume`, a folder outside of those at `place`, put aside with them, and empties it. Says whether it could be.
pub(super) fn put_in(resume: &Path, place: &Path) -> bool {
    // Not what a link leads to.
    if !fs::symlink_metadata(resume).is_ok_and(|metadata| metadata.is_dir()) {
        return false;
    }
    let emptied = fs::read_dir(resume).and_then(|mut left| left.try_for_each(|left| remove(&left?)));
    emptied.and_then(|()| fs::rename(resume, place.join(RESUME))).is_ok()
}

/// Puts the folder that was put aside with those at `place` to `resume`, unless there is something.
pub(super) fn take_out(resume: &Path, place: &Path) {
    let _ = fs::rename(place.join(RESUME), resume);
}

fn take(home: &Home, place: &Path) -> bool {
    (0..MOST).any(|number| fs::rename(spare(home, number), place).is_ok())
}

fn spare(home: &Home, number: usize) -> PathBuf {
    home.spare().join(number.to_string())
}

/// Removes what a stage left, and says whether the folders are then as they were made.
fn empty(home: &Home, place: &Path) -> io::Result<bool> {
    let as_made = Made::of(&fs::symlink_metadata(home.scratch_folder())?);
    if Made::of(&fs::symlink_metadata(place)?) != as_made {
        return Ok(false);
    }
    let mut parts = 0;
    for entry in fs::read_dir(place)? {
        let entry = entry?;
        let part = PARTS.into_iter().chain([RESUME]).find(|part| entry.file_name() == *part);
        // Not a link to a folder either.
        if part.is_none() || Made::of(&entry.metadata()?) != as_made {
            return Ok(false);
        }
        for left in fs::read_dir(entry.path())? {
            let left = left?;
            if part == Some(OUTPUT) && Made::of(&left.metadata()?) == as_made {
                fs::read_dir(left.path())?.try_for_each(|left| remove(&left?))?;
            } else {
                remove(&left)?;
            }
        }
        parts += usize::from(part != Some(RESUME));
    }
    Ok(parts == PARTS.len())
}

fn remove(left: &fs::DirEntry) -> io::Result<()> {
    if left.file_type()?.is_dir() { fs::remove_dir_all(left.path()) } else { fs::remove_file(left.path()) }
}

/// What a stage could have changed of a folder itself.
#[derive(PartialEq)]
struct Made {
    folder: bool,
    mode: u32,
    user: u32,
    group: u32,
}

impl Made {
    fn of(metadata: &Metadata) -> Self {
        Self { folder: metadata.is_dir(), mode: metadata.mode(), user: metadata.uid(), group: metadata.gid() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn home() -> (tempfile::TempDir, Home) {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::open(temp.path().join("home")).unwrap();
        home.create().unwrap();
        (temp, home)
    }

    /// Everything at and below a folder, with the inodes of the folders.
    fn tree(folder: &Path) -> Vec<(PathBuf, u64)> {
        let mut found = Vec::new();
        let mut open = vec![PathBuf::new()];
        while let Some(path) = open.pop() {
            let metadata = fs::symlink_metadata(folder.join(&path)).unwrap();
            if metadata.is_dir() {
                let entries = fs::read_dir(folder.join(&path)).unwrap();
                open.extend(entries.map(|entry| path.join(entry.unwrap().file_name())));
            }
            found.push((path, metadata.ino()));
        }
        found.sort();
        found
    }

    fn spares(home: &Home) -> usize {
        fs::read_dir(home.spare()).map_or(0, Iterator::count)
    }

    #[test]
    fn what_was_put_aside_is_taken_again_and_empty() {
        let (_temp, home) = home();
        let (first, second) = (home.scratch_folder().join("first"), home.scratch_folder().join("second"));
        set_up(&home, &first, &["out", "other"]).unwrap();
        let made = tree(&first);
        fs::write(first.join("output/out/text"), "x").unwrap();
        fs::create_dir_all(first.join("output/out/a/b")).unwrap();
        fs::write(first.join("output/stray"), "x").unwrap();
        fs::create_dir_all(first.join("work/deep/er")).unwrap();
        fs::write(first.join("work/deep/er/file"), "x").unwrap();
        symlink("/etc", first.join("inputs/etc")).unwrap();
        put_aside(&home, &first);
        assert!(!first.exists());
        assert_eq!(spares(&home), 1);

        set_up(&home, &second, &["out", "other"]).unwrap();
        assert_eq!(tree(&second), made, "the same folders, empty");
        assert_eq!(spares(&home), 0);
        put_aside(&home, &second);
        set_up(&home, &first, &["else"]).unwrap();
        assert_eq!(fs::read_dir(first.join(OUTPUT)).unwrap().count(), 1);
        assert!(first.join("output/else").is_dir());
        assert!(Path::new("/etc/passwd").exists(), "links were not followed");
    }

    #[test]
    fn a_resume_folder_goes_with_the_others_and_never_over_one_that_holds_something() {
        let (_temp, home) = home();
        let (first, second) = (home.scratch_folder().join("first"), home.scratch_folder().join("second"));
        let (resume, other) = (home.root().join("resume/first"), home.root().join("resume/other"));
        set_up(&home, &first, &["out"]).unwrap();
        assert!(!put_in(&resume, &first), "no worker made one");
        symlink(first.join("output"), &resume).unwrap();
        assert!(!put_in(&resume, &first), "a link");
        assert!(first.join("output/out").is_dir(), "it was not followed");
        fs::remove_file(&resume).unwrap();
        fs::create_dir_all(resume.join("deep")).unwrap();
        fs::write(resume.join("deep/checkpoint"), "x").unwrap();
        let inode = fs::metadata(&resume).unwrap().ino();
        assert!(put_in(&resume, &first));
        put_aside(&home, &first);
        assert_eq!((first.exists(), resume.exists(), spares(&home)), (false, false, 1));

        set_up(&home, &second, &["out"]).unwrap();
        fs::create_dir_all(&other).unwrap();
        fs::write(other.join("checkpoint"), "x").unwrap();
        take_out(&other, &second);
        assert!(other.join("checkpoint").exists());
        take_out(&resume, &second);
        assert_eq!((fs::metadata(&resume).unwrap().ino(), fs::read_dir(&resume).unwrap().count()), (inode, 0));
    }

    #[test]
    fn folders_that_a_stage_tampered_with_are_not_used_again() {
        let tamper: [&dyn Fn(&Path); 5] = [
            &|place| fs::set_permissions(place.join("work"), PermissionsExt::from_mode(0o777)).unwrap(),
            &|place| fs::set_permissions(place, PermissionsExt::from_mode(0o700)).unwrap(),
            &|place| fs::remove_dir(place.join("tmp")).unwrap(),
            &|place| fs::create_dir(place.join("more")).unwrap(),
            &|place| {
                fs::remove_dir(place.join("work")).unwrap();
                symlink("/etc", place.join("work")).unwrap();
            },
        ];
        for (number, tamper) in tamper.into_iter().enumerate() {
            let (_temp, home) = home();
            let place = home.scratch_folder().join("attempt");
            set_up(&home, &place, &["out"]).unwrap();
            tamper(&place);
            put_aside(&home, &place);
            assert_eq!((place.exists(), spares(&home)), (true, 0), "{number}");
        }
    }

    #[test]
    fn no_more_than_some_are_kept() {
        let (_temp, home) = home();
        let places: Vec<PathBuf> = (0..=MOST).map(|number| home.scratch_folder().join(number.to_string())).collect();
        places.iter().for_each(|place| set_up(&home, place, &["out"]).unwrap());
        places.iter().for_each(|place| put_aside(&home, place));
        assert_eq!(spares(&home), MOST);
        assert_eq!(places.iter().filter(|place| place.exists()).count(), 1, "the last one is left to its owner");
    }
}
