//! Tests of the store, told as what happens to a folder.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    fs::{File, FileTimes, Permissions},
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt},
    },
};

use super::*;
use crate::cache::{
    CheckedOut, Checkout,
    stamp::Stamp,
    tree::{Links, walk},
};

struct Fixture {
    temp: tempfile::TempDir,
    home: Home,
    store: Store,
}

impl Fixture {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::open(temp.path().join("home")).unwrap();
        home.create().unwrap();
        let store = Store::new(&home);
        Self { temp, home, store }
    }

    /// A folder with these files.
    fn folder(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let folder = self.temp.path().join(name);
        fs::create_dir_all(&folder).unwrap();
        for (path, text) in files {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    fn ingest(&self, files: &[(&str, &str)]) -> Digest {
        let folder = self.folder("out", files);
        let digest = self.store.ingest(&folder).unwrap();
        fs::remove_dir_all(folder).unwrap();
        digest
    }

    fn checkout(&self, artifact: &Digest, path: &Path) -> Result<CheckedOut, CacheError> {
        self.store.checkout_to(artifact, path, Checkout::default())
    }

    fn object(&self, text: &str) -> PathBuf {
        self.home.object(&Digest::of(text.as_bytes()))
    }
}

fn read(folder: &Path) -> BTreeMap<String, String> {
    let found = walk(folder, Links::Follow).unwrap();
    found.into_iter().map(|file| (file.name, fs::read_to_string(file.path).unwrap())).collect()
}

fn files(files: &[(&str, &str)]) -> BTreeMap<String, String> {
    files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
}

/// Writes to a file behind the back of the cache, keeping its size and putting its modification time back.
fn flip(path: &Path) {
    let metadata = fs::metadata(path).unwrap();
    let mut bytes = fs::read(path).unwrap();
    bytes[0] ^= 1;
    fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
    fs::write(path, bytes).unwrap();
    let file = File::options().write(true).open(path).unwrap();
    file.set_times(FileTimes::new().set_modified(metadata.modified().unwrap())).unwrap();
    fs::set_permissions(path, metadata.permissions()).unwrap();
    let after = fs::metadata(path).unwrap();
    assert_eq!((metadata.len(), metadata.modified().unwrap()), (after.len(), after.modified().unwrap()));
}

const FILES: &[(&str, &str)] = &[("a.txt", "alpha"), ("sub/名前.txt", "beta"), ("twin.txt", "alpha")];

#[test]
fn a_folder_goes_in_and_comes_out_by_its_digest() {
    let fixture = Fixture::new();
    let digest = fixture.ingest(FILES);
    assert_eq!(fixture.ingest(FILES), digest, "the same content has the same digest");
    assert_ne!(fixture.ingest(&[("b.txt", "alpha")]), digest);

    let view = fixture.temp.path().join("view");
    fixture.store.materialise(&digest, &view).unwrap();
    assert_eq!(read(&view), files(FILES));

    let copy = fixture.temp.path().join("some/where/copy");
    fixture.checkout(&digest, &copy).unwrap();
    assert_eq!(read(&copy), files(FILES));
}

#[test]
fn any_name_of_utf_8_is_stored_and_comes_back() {
    let fixture = Fixture::new();
    let odd = [
        ("two\nlines", "1"),
        ("a b/ c ", "2"),
        ("🎉\t\u{1b}[2J", "3"),
        (r"back\nslash", "4"),
        ("数据/训练 集.jsonl", "5"),
        ("\"q\"", "6"),
    ];
    let digest = fixture.ingest(&odd);
    let (view, copy) = (fixture.temp.path().join("view"), fixture.temp.path().join("copy"));
    fixture.store.materialise(&digest, &view).unwrap();
    fixture.checkout(&digest, &copy).unwrap();
    assert_eq!((read(&view), read(&copy)), (files(&odd), files(&odd)));

    fs::remove_file(fixture.object("1")).unwrap();
    let flaw = fixture.store.verify(&digest).unwrap_err();
    assert_eq!(flaw.to_string(), r"its file `two\nlines` is missing from the cache");
}

#[test]
fn objects_are_read_only_and_a_copy_is_not_tied_to_them() {
    let fixture = Fixture::new();
    let digest = fixture.ingest(FILES);
    assert_eq!(fs::metadata(fixture.object("alpha")).unwrap().mode() & 0o777, 0o444);
    let copy = fixture.temp.path().join("copy");
    fixture.checkout(&digest, &copy).unwrap();
    fs::write(copy.join("a.txt"), "changed by the user").unwrap();
    assert!(fixture.store.verify(&digest).is_ok());
    assert_eq!(fs::read_to_string(fixture.object("alpha")).unwrap(), "alpha");
}

#[test]
fn the_executable_bit_is_content_and_survives() {
    let fixture = Fixture::new();
    let plain = fixture.ingest(&[("run.sh", "true")]);
    let folder = fixture.folder("out", &[("run.sh", "true")]);
    fs::set_permissions(folder.join("run.sh"), Permissions::from_mode(0o755)).unwrap();
    let digest = fixture.store.ingest(&folder).unwrap();
    assert_ne!(plain, digest);
    let (view, copy) = (fixture.temp.path().join("view"), fixture.temp.path().join("copy"));
    fixture.store.materialise(&digest, &view).unwrap();
    fixture.checkout(&digest, &copy).unwrap();
    for folder in [view, copy] {
        assert_ne!(fs::metadata(folder.join("run.sh")).unwrap().mode() & 0o100, 0);
    }
}

#[test]
fn a_flipped_byte_of_the_same_size_and_time_is_found_and_mended_by_the_next_run() {
    let fixture = Fixture::new();
    let digest = fixture.ingest(FILES);
    assert!(fixture.store.verify(&digest).is_ok());
    flip(&fixture.object("beta"));
    let flaw = fixture.store.verify(&digest).unwrap_err();
    let short = Digest::of(b"beta").short();
    assert_eq!(
        flaw.to_string(),
        format!(
            "its file `sub/名前.txt` is damaged in the cache (its bytes have changed; object {short} is now in quarantine)"
        )
    );
    assert!(!fixture.object("beta").exists(), "nothing can use it any more");
    let again = fixture.store.verify(&digest).unwrap_err();
    assert!(matches!(&again, Flaw::Damaged { file: Some(file), .. } if file == "sub/名前.txt"), "{again}");
    assert!(again.to_string().contains(&format!("object {short} is in quarantine")), "{again}");
    let error = fixture.checkout(&digest, &fixture.temp.path().join("copy")).unwrap_err();
    assert!(matches!(error, CacheError::Artifact { .. }), "{error}");
    assert!(fixture.store.materialise(&digest, &fixture.temp.path().join("view")).is_err());

    assert_eq!(fixture.ingest(FILES), digest);
    assert!(fixture.store.verify(&digest).is_ok());
}

#[test]
fn an_emptied_and_a_truncated_object_are_refused_with_their_sizes() {
    for (length, why) in [(0, "it is empty instead of 4 bytes long"), (3, "it is cut to 3 of 4 bytes")] {
        let fixture = Fixture::new();
        let digest = fixture.ingest(FILES);
        let object = fixture.object("beta");
        fs::set_permissions(&object, Permissions::from_mode(0o644)).unwrap();
        File::options().write(true).open(&object).unwrap().set_len(length).unwrap();
        let flaw = fixture.store.verify(&digest).unwrap_err();
        assert!(flaw.to_string().contains(why), "{flaw}");
        assert!(fixture.home.is_quarantined(&Digest::of(b"beta")));
        assert_eq!(fixture.ingest(FILES), digest);
        assert!(fixture.store.verify(&digest).is_ok());
    }
}

#[test]
fn a_folder_in_place_of_an_object_is_refused_and_moved_away() {
    let fixture = Fixture::new();
    let digest = fixture.ingest(FILES);
    fs::remove_file(fixture.object("alpha")).unwrap();
    fs::create_dir(fixture.object("alpha")).unwrap();
    let flaw = fixture.store.verify(&digest).unwrap_err();
    assert!(
        flaw.to_string().contains("it is no longer a file") || flaw.to_string().contains("in quarantine"),
        "{flaw}"
    );
    assert_eq!(fixture.ingest(FILES), digest);
    assert!(fixture.store.verify(&digest).is_ok());
}

#[test]
fn a_list_of_files_that_lies_about_a_size_takes_no_object_from_others() {
    let fixture = Fixture::new();
    let digest = fixture.ingest(FILES);
    let mut entries = fixture.store.verify(&digest).unwrap().entries().to_vec();
    entries[0].size += 1;
    let text = Manifest::new(entries).to_text();
    let forged = Digest::of(text.as_bytes());
    fixture.home.write_object(&fixture.home.object(&forged), text.as_bytes()).unwrap();
    let flaw = fixture.store.verify(&forged).unwrap_err();
    assert!(flaw.to_string().contains("its size was forged"), "{flaw}");
    assert!(fixture.store.verify(&digest).is_ok());
}

#[test]
fn a_damaged_list_of_files_goes_to_quarantine_too() {
    let fixture = Fixture::new();
    let digest = fixture.ingest(FILES);
    flip(&fixture.home.object(&digest));
    let flaw = fixture.store.verify(&digest).unwrap_err();
    assert!(matches!(&flaw, Flaw::Damaged { file: None, .. }), "{flaw}");
    assert!(fixture.home.is_quarantined(&digest) && !fixture.home.object(&digest).exists());
}

#[test]
fn missing_and_damaged_objects_are_told_apart() {
    let fixture = Fixture::new();
    let digest = fixture.ingest(FILES);
    fs::remove_file(fixture.object("alpha")).unwrap();
    assert_eq!(fixture.store.verify(&digest), Err(Flaw::Missing { file: Some("a.txt".to_owned()) }));
    fs::remove_file(fixture.home.object(&digest)).unwrap();
    assert_eq!(fixture.store.verify(&digest), Err(Flaw::Missing { file: None }));
    let file = Digest::of(b"beta");
    assert!(matches!(fixture.store.verify(&file), Err(Flaw::Damaged { file: None, .. })), "a file is no artifact");
}

#[test]
fn an_untouched_artifact_is_not_hashed_twice() {
    let fixture = Fixture::new();
    let digest = fixture.ingest(&[("large", &"x".repeat(SMALL_BYTES as usize + 1)), ("b", "beta")]);
    let verified = fixture.home.verified(&digest);
    // Objects this young are hashed once more.
    fixture.store.manifest(&digest).unwrap().entries().iter().for_each(|entry| {
        Stamp::of(&fs::metadata(fixture.home.object(&entry.digest)).unwrap()).settle();
    });
    assert!(fixture.store.verify(&digest).is_ok());
    let written = fs::metadata(&verified).unwrap().ino();
    assert!(fixture.store.verify(&digest).is_ok());
    assert_eq!(fs::metadata(&verified).unwrap().ino(), written, "nothing was hashed, so nothing was written");

    fs::remove_file(&verified).unwrap();
    assert!(fixture.store.verify(&digest).is_ok());
    assert!(verified.exists(), "everything was hashed, and that is remembered");
    fs::write(&verified, "rubbish").unwrap();
    assert!(fixture.store.verify(&digest).is_ok());
}

#[test]
fn what_is_known_of_a_small_artifact_is_not_kept_and_yet_it_can_be_vouched_for() {
    let fixture = Fixture::new();
    let digest = fixture.ingest(FILES);
    let young = fixture.store.manifest(&digest).unwrap();
    let objects = young.entries().iter().map(|entry| entry.digest).chain([digest]);
    objects.for_each(|object| Stamp::of(&fs::metadata(fixture.home.object(&object)).unwrap()).settle());
    assert!(fixture.store.verify(&digest).is_ok());
    assert!(!fixture.home.verified(&digest).exists());
    assert_eq!(fixture.store.looks(&digest).unwrap().len(), 1 + FILES.len());
    flip(&fixture.object("alpha"));
    assert_eq!(fixture.store.looks(&digest), None);
}

#[test]
fn what_is_no_artifact_is_refused_with_its_name() {
    let fixture = Fixture::new();
    let refused = |folder: &Path| fixture.store.ingest(folder).unwrap_err().to_string();
    let folder = fixture.temp.path().join("out");
    assert!(refused(&folder).starts_with("the output `out` is missing"));
    symlink(fixture.folder("elsewhere", FILES), &folder).unwrap();
    assert!(refused(&folder).starts_with("the output `out` is missing"));
    fs::remove_file(&folder).unwrap();
    fs::create_dir_all(folder.join("only/folders")).unwrap();
    assert!(refused(&folder).starts_with("the output `out` is empty"));

    symlink("/etc/passwd", folder.join("only/link")).unwrap();
    assert!(refused(&folder).starts_with("the output file `only/link` is a symbolic link"));
    fs::remove_file(folder.join("only/link")).unwrap();
    symlink("/etc", folder.join("only/link")).unwrap();
    assert!(refused(&folder).starts_with("the output file `only/link` is a symbolic link"));
    fs::remove_file(folder.join("only/link")).unwrap();

    let _socket = std::os::unix::net::UnixListener::bind(folder.join("socket")).unwrap();
    assert!(refused(&folder).starts_with("the output file `socket` is neither"));
    fs::remove_file(folder.join("socket")).unwrap();

    symlink("/etc", folder.join("two\nlines")).unwrap();
    assert!(refused(&folder).starts_with("the output file `two\\nlines` is a symbolic link"));
    fs::remove_file(folder.join("two\nlines")).unwrap();
    fs::write(folder.join(std::ffi::OsStr::from_bytes(b"\xff")), "x").unwrap();
    assert!(refused(&folder).contains("has a name that cannot be stored"));
}

#[test]
fn a_second_name_of_a_file_is_not_taken_into_the_cache() {
    let fixture = Fixture::new();
    let mine = fixture.temp.path().join("mine");
    fs::write(&mine, "the user's").unwrap();
    let folder = fixture.folder("out", &[]);
    fs::hard_link(&mine, folder.join("linked")).unwrap();
    let digest = fixture.store.ingest(&folder).unwrap();
    fs::write(&mine, "changed").unwrap();
    assert!(fixture.store.verify(&digest).is_ok());
    assert_ne!(fs::metadata(&mine).unwrap().mode() & 0o200, 0, "the user's file stays writable");
}
