//! Tests of the digests of the user's files.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs::FileTimes, os::unix::fs::symlink, time::Duration};

use super::*;

struct Fixture {
    temp: tempfile::TempDir,
    files: UserFiles,
}

impl Fixture {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::open(temp.path().join("home")).unwrap();
        home.create().unwrap();
        Self { temp, files: UserFiles::new(&home) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    fn digest(&self, name: &str) -> Digest {
        self.files.identify(&self.path(name)).unwrap().digest
    }

    fn error(&self, name: &str) -> String {
        self.files.identify(&self.path(name)).unwrap_err().to_string()
    }
}

fn put_back(path: &Path, time: SystemTime) {
    fs::File::options().write(true).open(path).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
}

#[test]
fn a_file_is_its_bytes_and_its_last_name() {
    let fixture = Fixture::new();
    fs::write(fixture.path("chat.jsonl"), "{}").unwrap();
    let identity = fixture.files.identify(&fixture.path("chat.jsonl")).unwrap();
    assert_eq!(identity, FileIdentity { name: "chat.jsonl".into(), folder: false, digest: Digest::of(b"{}") });
}

#[test]
fn touched_is_the_same_and_changed_is_not_though_size_and_time_agree() {
    let fixture = Fixture::new();
    let path = fixture.path("data");
    fs::write(&path, "one").unwrap();
    let before = fixture.digest("data");
    assert_eq!(fixture.digest("data"), before);
    put_back(&path, SystemTime::now() + Duration::from_secs(1000));
    assert_eq!(fixture.digest("data"), before, "touched");
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, "two").unwrap();
    put_back(&path, modified);
    assert_eq!(fixture.digest("data"), Digest::of(b"two"), "same size, same time");
}

/// A file changed within the tick in which it was hashed looks as it did: it must not have been remembered.
#[test]
fn no_change_is_missed_however_fast_it_comes() {
    let fixture = Fixture::new();
    let path = fixture.path("data");
    for round in 0..300_u32 {
        let text = format!("{round:04}");
        fs::write(&path, &text).unwrap();
        assert_eq!(fixture.digest("data"), Digest::of(text.as_bytes()));
    }
}

#[test]
fn an_old_file_is_read_once() {
    let fixture = Fixture::new();
    let path = fixture.path("data");
    fs::write(&path, "one").unwrap();
    Stamp::of(&fs::metadata(&path).unwrap()).settle();
    fixture.digest("data");
    let known = fs::read_dir(fixture.path("home/files")).unwrap().next().unwrap().unwrap().path();
    let stamp = Stamp::of(&fs::metadata(&path).unwrap());
    // What stands in the memory is believed, so it was not read.
    let mut stamps = Stamps::default();
    stamps.insert(String::new(), stamp, Digest::of(b"remembered"));
    fs::write(&known, "").unwrap();
    stamps.save(&fixture.files.home, &known);
    assert_eq!(fixture.digest("data"), Digest::of(b"remembered"));
}

#[test]
fn a_folder_is_all_its_files() {
    let fixture = Fixture::new();
    fs::create_dir_all(fixture.path("data/deep")).unwrap();
    fs::write(fixture.path("data/a"), "a").unwrap();
    fs::write(fixture.path("data/deep/b"), "b").unwrap();
    let before = fixture.digest("data");
    let store = super::super::Store::new(&fixture.files.home);
    fs::create_dir_all(fixture.path("copy/deep")).unwrap();
    fs::copy(fixture.path("data/a"), fixture.path("copy/a")).unwrap();
    fs::copy(fixture.path("data/deep/b"), fixture.path("copy/deep/b")).unwrap();
    assert_eq!(store.ingest(&fixture.path("copy")).unwrap(), before, "the digest that it has as an artifact");

    fs::rename(fixture.path("data/deep/b"), fixture.path("data/deep/c")).unwrap();
    let renamed = fixture.digest("data");
    assert_ne!(renamed, before);
    fs::write(fixture.path("data/deep/c"), "B").unwrap();
    assert_ne!(fixture.digest("data"), renamed);
    fs::remove_file(fixture.path("data/deep/c")).unwrap();
    fs::write(fixture.path("data/deep/b"), "b").unwrap();
    assert_eq!(fixture.digest("data"), before);
}

#[test]
fn links_are_followed_but_not_in_circles() {
    let fixture = Fixture::new();
    fs::create_dir_all(fixture.path("plain/sub")).unwrap();
    fs::write(fixture.path("plain/sub/a"), "a").unwrap();
    fs::create_dir(fixture.path("data")).unwrap();
    symlink("../plain/sub", fixture.path("data/sub")).unwrap();
    assert_eq!(fixture.digest("data"), fixture.digest("plain"));
    symlink("..", fixture.path("plain/sub/up")).unwrap();
    assert!(fixture.error("plain").contains("leads back"), "{}", fixture.error("plain"));
}

#[test]
fn twenty_thousand_files_have_one_digest() {
    let fixture = Fixture::new();
    for folder in 0..20 {
        let folder = fixture.path(&format!("data/{folder}"));
        fs::create_dir_all(&folder).unwrap();
        for file in 0..1000 {
            fs::write(folder.join(file.to_string()), "").unwrap();
        }
    }
    let before = fixture.digest("data");
    assert_eq!(fixture.digest("data"), before);
    fs::write(fixture.path("data/7/777"), "x").unwrap();
    assert_ne!(fixture.digest("data"), before);
}

#[test]
fn errors_name_the_path_and_what_is_near() {
    let fixture = Fixture::new();
    fs::create_dir(fixture.path("data")).unwrap();
    assert!(fixture.error("data").ends_with("data` holds no files"));
    fs::write(fixture.path("data/chat.jsonl"), "").unwrap();
    assert!(fixture.error("data/chat.json").ends_with("did you mean `chat.jsonl`?"));
    let error = fixture.error("dta/chat.jsonl");
    assert!(error.contains("there is no `dta` in") && error.ends_with("did you mean `data`?"), "{error}");
    assert!(!fixture.error("data/chat.jsonl/x").contains("did you mean"), "{}", fixture.error("data/chat.jsonl/x"));
    symlink("gone", fixture.path("data/broken")).unwrap();
    assert!(fixture.error("data").contains("broken"));
}
