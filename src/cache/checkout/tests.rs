//! Tests of copies, told as what happens to a place of the user's.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
};

use super::*;
use crate::cache::Home;

const FOLDER: Checkout = Checkout { form: Form::Folder, force: false };
const FILE: Checkout = Checkout { form: Form::File, force: false };

struct Fixture {
    temp: tempfile::TempDir,
    store: Store,
    place: PathBuf,
}

impl Fixture {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::open(temp.path().join("home")).unwrap();
        home.create().unwrap();
        let place = temp.path().join("user/place");
        Self { store: Store::new(&home), place, temp }
    }

    fn artifact(&self, files: &[(&str, &str)]) -> Digest {
        let folder = self.temp.path().join("out");
        for (path, text) in files {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let digest = self.store.ingest(&folder).unwrap();
        fs::remove_dir_all(folder).unwrap();
        digest
    }

    fn put(&self, artifact: &Digest, options: Checkout) -> Result<CheckedOut, CacheError> {
        self.store.checkout_to(artifact, &self.place, options)
    }

    /// How many files were written and removed.
    fn changes(&self, artifact: &Digest, options: Checkout) -> (usize, usize) {
        let done = self.put(artifact, options).unwrap();
        (done.written, done.removed)
    }

    fn refused(&self, artifact: &Digest, options: Checkout) -> String {
        let before = self.there();
        let error = self.put(artifact, options).unwrap_err();
        assert_eq!(self.there(), before, "what is refused changes nothing");
        error.to_string()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.place.join(name), text).unwrap();
    }

    /// All files of the user's, with what they hold; links with where they lead.
    fn there(&self) -> BTreeMap<String, String> {
        let mut files = BTreeMap::new();
        let mut folders = vec![(self.place.parent().unwrap().to_owned(), String::new())];
        while let Some((folder, prefix)) = folders.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten().map(Result::unwrap) {
                let (name, kind) = (format!("{prefix}{}", entry.file_name().display()), entry.file_type().unwrap());
                if kind.is_dir() {
                    folders.push((entry.path(), format!("{name}/")));
                } else if kind.is_symlink() {
                    files.insert(name, format!("-> {}", fs::read_link(entry.path()).unwrap().display()));
                } else {
                    files.insert(name, fs::read_to_string(entry.path()).unwrap());
                }
            }
        }
        files
    }
}

fn files(files: &[(&str, &str)]) -> BTreeMap<String, String> {
    files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
}

const ONE: &[(&str, &str)] = &[("a", "alpha"), ("sub/b", "beta"), ("sub/deep/c", "gamma")];
const TWO: &[(&str, &str)] = &[("a", "alpha"), ("sub/b", "BETA"), ("d", "delta")];

#[test]
fn a_later_copy_writes_only_what_changed_and_removes_what_is_gone() {
    let fixture = Fixture::new();
    let (one, two) = (fixture.artifact(ONE), fixture.artifact(TWO));
    assert_eq!(fixture.changes(&one, FOLDER), (3, 0));
    let kept = fs::metadata(fixture.place.join("a")).unwrap().ino();
    assert_eq!(fixture.changes(&one, FOLDER), (0, 0));
    assert_eq!(fixture.changes(&two, FOLDER), (2, 1));
    assert_eq!(fixture.there(), files(&[("place/a", "alpha"), ("place/sub/b", "BETA"), ("place/d", "delta")]));
    assert_eq!(fs::metadata(fixture.place.join("a")).unwrap().ino(), kept);
    assert!(!fixture.place.join("sub/deep").exists(), "an empty folder of the first copy is gone");
    assert_eq!(fixture.changes(&one, FOLDER), (2, 1));
}

#[test]
fn a_copy_that_is_there_is_not_even_looked_for_in_the_cache() {
    let fixture = Fixture::new();
    let one = fixture.artifact(ONE);
    fixture.put(&one, FOLDER).unwrap();
    fs::remove_dir_all(fixture.temp.path().join("home/objects")).unwrap();
    assert_eq!(fixture.put(&one, FOLDER).unwrap(), CheckedOut { files: 3, bytes: 14, written: 0, removed: 0 });
    fs::remove_file(fixture.place.join("a")).unwrap();
    assert!(matches!(fixture.put(&one, FOLDER), Err(CacheError::Artifact { .. })));
}

#[test]
fn what_the_user_edited_is_not_overwritten_unless_told_to() {
    let fixture = Fixture::new();
    let (one, two) = (fixture.artifact(ONE), fixture.artifact(TWO));
    fixture.put(&one, FOLDER).unwrap();
    fixture.write("sub/b", "edited");
    fixture.write("sub/deep/c", "edited");
    let place = fixture.place.display();
    let refused = format!(
        "`{place}` was changed since pipe wrote it (`sub/b`, `sub/deep/c`): move the changes away, or overwrite them \
         with `pipe get --force`"
    );
    assert_eq!(fixture.refused(&one, FOLDER), refused);
    assert_eq!(fixture.refused(&two, FOLDER), refused);
    assert_eq!(fixture.changes(&two, Checkout { force: true, ..FOLDER }), (2, 1));
    assert_eq!(fixture.there(), files(&[("place/a", "alpha"), ("place/sub/b", "BETA"), ("place/d", "delta")]));
}

#[test]
fn an_edit_of_the_same_size_and_time_is_seen_and_a_touched_file_is_not_edited() {
    let fixture = Fixture::new();
    let (one, two) = (fixture.artifact(ONE), fixture.artifact(TWO));
    fixture.put(&one, FOLDER).unwrap();
    let path = fixture.place.join("sub/b");
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    fixture.write("sub/b", "Beta");
    fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    assert!(fixture.refused(&two, FOLDER).contains("`sub/b`"));
    fixture.write("sub/b", "beta");
    assert_eq!(fixture.changes(&two, FOLDER), (2, 1));
}

#[test]
fn other_files_of_the_user_stay_and_one_in_the_way_is_refused() {
    let fixture = Fixture::new();
    let (one, two) = (fixture.artifact(ONE), fixture.artifact(TWO));
    fixture.put(&one, FOLDER).unwrap();
    fixture.write("notes.txt", "mine");
    fixture.write("sub/deep/more", "mine");
    assert_eq!(fixture.changes(&two, FOLDER), (2, 1));
    let there = fixture.there();
    assert_eq!((there["place/notes.txt"].as_str(), there["place/sub/deep/more"].as_str()), ("mine", "mine"));

    let three = fixture.artifact(&[("notes.txt", "theirs")]);
    assert!(fixture.refused(&three, FOLDER).contains("(`notes.txt`)"));
    assert_eq!(fixture.changes(&three, Checkout { force: true, ..FOLDER }), (1, 3));
    assert_eq!(fixture.there(), files(&[("place/notes.txt", "theirs"), ("place/sub/deep/more", "mine")]));
}

#[test]
fn a_place_that_pipe_did_not_write_is_taken_unless_it_is_empty_or_the_same() {
    let fixture = Fixture::new();
    let one = fixture.artifact(ONE);
    fs::create_dir_all(&fixture.place).unwrap();
    fixture.write("mine", "mine");
    let refused = fixture.refused(&one, FOLDER);
    assert!(
        refused.ends_with(
            "exists already, and pipe did not write it: name another place, or overwrite it with `pipe get --force`"
        ),
        "{refused}"
    );
    assert_eq!(fixture.changes(&one, Checkout { force: true, ..FOLDER }), (3, 0));
    assert_eq!(fixture.there()["place/mine"], "mine", "what is in nobody's way stays");

    for same in [&[][..], &ONE[..2], ONE] {
        let fixture = Fixture::new();
        let one = fixture.artifact(ONE);
        fs::create_dir_all(fixture.place.join("sub/deep")).unwrap();
        for (name, text) in same {
            fixture.write(name, text);
        }
        assert_eq!(fixture.changes(&one, FOLDER), (3 - same.len(), 0));
        assert_eq!(fixture.there().len(), 3);
    }
}

#[test]
fn links_are_never_written_through() {
    let fixture = Fixture::new();
    let one = fixture.artifact(ONE);
    let elsewhere = fixture.temp.path().join("user/elsewhere");
    fs::create_dir_all(&elsewhere).unwrap();
    symlink(&elsewhere, &fixture.place).unwrap();
    assert!(fixture.refused(&one, FOLDER).contains("exists already"));
    fs::remove_file(&fixture.place).unwrap();

    fixture.put(&one, FOLDER).unwrap();
    fs::remove_dir_all(fixture.place.join("sub")).unwrap();
    symlink(&elsewhere, fixture.place.join("sub")).unwrap();
    assert!(fixture.refused(&one, FOLDER).contains("(`sub`)"));
    assert_eq!(fixture.changes(&one, Checkout { force: true, ..FOLDER }), (2, 0));
    assert_eq!(fixture.there().len(), 3);
    assert_eq!(fs::read_dir(elsewhere).unwrap().count(), 0);
}

#[test]
fn a_file_becomes_a_folder_and_back() {
    let fixture = Fixture::new();
    let (flat, deep) = (fixture.artifact(&[("x", "1"), ("y/z", "2")]), fixture.artifact(&[("x/x", "3"), ("y", "4")]));
    fixture.put(&flat, FOLDER).unwrap();
    fixture.put(&deep, FOLDER).unwrap();
    assert_eq!(fixture.there(), files(&[("place/x/x", "3"), ("place/y", "4")]));
    fixture.write("x/mine", "mine");
    assert!(fixture.refused(&flat, FOLDER).contains("(`x/mine`)"));
    fixture.put(&flat, Checkout { force: true, ..FOLDER }).unwrap();
    assert_eq!(fixture.there(), files(&[("place/x", "1"), ("place/y/z", "2")]));
}

#[test]
fn an_output_that_is_a_file_is_put_out_as_one() {
    let fixture = Fixture::new();
    let (one, two) = (fixture.artifact(&[("report.json", "1")]), fixture.artifact(&[("report.json", "2")]));
    assert_eq!(fixture.changes(&one, FILE), (1, 0));
    assert_eq!(fixture.changes(&one, FILE), (0, 0));
    assert_eq!(fixture.changes(&two, FILE), (1, 0));
    assert_eq!(fixture.there(), files(&[("place", "2")]));
    fs::write(&fixture.place, "edited").unwrap();
    assert!(fixture.refused(&one, FILE).contains("was changed since"));
    assert_eq!(fixture.changes(&one, Checkout { force: true, ..FILE }), (1, 0));

    assert_eq!(fixture.changes(&one, FOLDER), (1, 0), "the file was pipe's own");
    assert_eq!(fixture.there(), files(&[("place/report.json", "1")]));
    assert!(fixture.refused(&one, Checkout { force: true, ..FILE }).contains("is a folder"));
    let several = fixture.artifact(ONE);
    assert!(fixture.refused(&several, FILE).contains("holds 3 files"));
}

#[test]
fn copies_can_be_edited_and_executed_and_are_not_tied_to_the_cache() {
    let fixture = Fixture::new();
    let folder = fixture.temp.path().join("out");
    fs::create_dir(&folder).unwrap();
    for (name, mode) in [("run.sh", 0o755), ("data", 0o600)] {
        fs::write(folder.join(name), name).unwrap();
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let digest = fixture.store.ingest(&folder).unwrap();
    fixture.put(&digest, FOLDER).unwrap();
    let mode = |name: &str| fs::metadata(fixture.place.join(name)).unwrap().mode() & 0o700;
    assert_eq!((mode("run.sh"), mode("data")), (0o700, 0o600));
    fs::set_permissions(fixture.place.join("run.sh"), fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(fixture.changes(&digest, FOLDER), (1, 0), "the executable bit is content");
    fixture.write("data", "edited");
    assert!(fixture.store.verify(&digest).is_ok());
}

#[test]
fn no_copy_goes_into_the_cache_or_over_everything() {
    let fixture = Fixture::new();
    let one = fixture.artifact(ONE);
    fs::create_dir_all(fixture.temp.path().join("user")).unwrap();
    symlink("../home", fixture.temp.path().join("user/link")).unwrap();
    let places = ["home/objects/x", "user/../home/x", "user/link/new/x", "home", "home/", "home/objects/.."];
    for place in places.map(|place| fixture.temp.path().join(place)).into_iter().chain(["/".into()]) {
        let error = fixture.store.checkout_to(&one, &place, Checkout { force: true, ..FOLDER }).unwrap_err();
        assert!(matches!(error, CacheError::DestinationForbidden { .. }), "{}: {error}", place.display());
    }
    let error = fixture.store.checkout_to(&one, &fixture.temp.path().join("none/../x"), FOLDER).unwrap_err();
    assert!(matches!(error, CacheError::Io { .. }), "{error}");
}

#[test]
fn a_place_is_the_same_by_whatever_path_it_is_named() {
    let fixture = Fixture::new();
    let (one, two) = (fixture.artifact(ONE), fixture.artifact(TWO));
    fixture.put(&one, FOLDER).unwrap();
    symlink("user", fixture.temp.path().join("link")).unwrap();
    for path in ["link/place", "user/./place/", "user/place/sub/.."] {
        let done = fixture.store.checkout_to(&one, &fixture.temp.path().join(path), FOLDER).unwrap();
        assert_eq!((done.written, done.removed), (0, 0), "{path}");
    }
    assert_eq!(fixture.store.checkout_to(&two, &fixture.temp.path().join("link/place"), FOLDER).unwrap().written, 2);
}

#[test]
fn a_home_that_cannot_be_written_still_gives_copies() {
    let fixture = Fixture::new();
    let (one, two) = (fixture.artifact(ONE), fixture.artifact(TWO));
    // A file where the notes would go: for root, permissions mean nothing.
    fs::write(fixture.temp.path().join("home/checkouts"), "").unwrap();
    assert_eq!(fixture.changes(&one, FOLDER), (3, 0));
    assert_eq!(fixture.changes(&one, FOLDER), (0, 0));
    assert!(fixture.refused(&two, FOLDER).contains("pipe did not write it"));
}

/// Dies while it puts a second copy over a first; a test of its own only in the child process.
#[test]
fn crashing_copier() {
    let Some(folder) = std::env::var_os("PIPE_TEST_FOLDER").map(PathBuf::from) else { return };
    let store = Store::new(&Home::open(folder.join("home")).unwrap());
    let two: Digest = fs::read_to_string(folder.join("two")).unwrap().parse().unwrap();
    let _ = store.checkout_to(&two, &folder.join("user/place"), FOLDER);
    unreachable!("the crash point was not reached");
}

#[test]
fn a_copy_that_was_cut_short_is_taken_for_what_it_is_and_ended_by_the_next() {
    for (existing, point) in
        [(false, "checkout.staged"), (true, "checkout.staged"), (true, "checkout.half"), (true, "checkout.half:2")]
    {
        let fixture = Fixture::new();
        let artifacts = [ONE, TWO, &[("e", "epsilon")]].map(|files| fixture.artifact(files));
        if existing {
            fixture.put(&artifacts[0], FOLDER).unwrap();
        }
        fs::write(fixture.temp.path().join("two"), artifacts[1].to_string()).unwrap();
        assert!(crash::child("cache::checkout::tests::crashing_copier", point, fixture.temp.path()), "{point}");
        fixture.put(&artifacts[2], FOLDER).unwrap();
        assert_eq!(fixture.there(), files(&[("place/e", "epsilon")]), "after {point}");
    }
}
