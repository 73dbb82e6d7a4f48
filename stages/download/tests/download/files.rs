//! Files and folders of this machine.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use pipe_stage::Digest;
use stage_download::Config;

use crate::{config, download, message};

const TEXT: &[u8] = "{\"text\": \"你好\"}\n".as_bytes();
/// Of TEXT, by `sha256sum`.
const TEXT_SHA256: &str = "8351a041cc73624cd6ab7537b1a3104e2a63fa234338d7634417b804be08d00a";

fn file(dir: &Path) -> PathBuf {
    let path = dir.join("数据.jsonl");
    fs::write(&path, TEXT).unwrap();
    path
}

/// A folder as users have them: nested, with a hidden file, a program, and a link.
fn folder(dir: &Path) -> (PathBuf, Digest) {
    let root = dir.join("model");
    fs::create_dir_all(root.join("tools/more")).unwrap();
    fs::create_dir_all(root.join("empty")).unwrap();
    fs::write(root.join("config.json"), "{}").unwrap();
    fs::write(root.join(".hidden"), "h").unwrap();
    fs::write(root.join("two\nlines 🎉"), "2").unwrap();
    fs::write(root.join("tools/run.sh"), "#!").unwrap();
    fs::set_permissions(root.join("tools/run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(dir.join("blob"), vec![7; 10_000_000]).unwrap();
    symlink(dir.join("blob"), root.join("tools/more/weights")).unwrap();
    let line = |mode: char, name: &str| {
        let bytes = fs::read(root.join(name)).unwrap();
        format!("{} {mode} {} {name}\n", Digest::of(&bytes), bytes.len())
    };
    let manifest = format!(
        "pipe manifest 1\n{}{}{}{}\\{} - 1 two\\nlines 🎉\n",
        line('-', ".hidden"),
        line('-', "config.json"),
        line('-', "tools/more/weights"),
        line('x', "tools/run.sh"),
        Digest::of(b"2")
    );
    (root, Digest::of(manifest.as_bytes()))
}

#[test]
fn a_file_becomes_a_folder_with_that_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
    download(&config("file://数据.jsonl"), &path, Digest::of(TEXT), dir.path()).unwrap();
    let names: Vec<_> = fs::read_dir(dir.path().join("out")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["数据.jsonl"]);
    assert_eq!(fs::read(dir.path().join("out/数据.jsonl")).unwrap(), TEXT);
}

#[test]
fn a_folder_is_taken_whole_and_links_are_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (root, digest) = folder(dir.path());
    let config = Config { blake3: Some(digest.to_string()), ..config("file://model") };
    download(&config, &root, digest, dir.path()).unwrap();
    let out = dir.path().join("out");
    assert_eq!(fs::read(out.join(".hidden")).unwrap(), b"h");
    let weights = fs::symlink_metadata(out.join("tools/more/weights")).unwrap();
    assert!(weights.is_file() && weights.len() == 10_000_000);
    let is_executable = |name| fs::metadata(out.join(name)).unwrap().permissions().mode() & 0o100 != 0;
    assert!(is_executable("tools/run.sh") && !is_executable("config.json"));
}

#[test]
fn digests_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path());
    let run = |config: Config| {
        let _ = fs::remove_dir_all(dir.path().join("out"));
        download(&config, &path, Digest::of(TEXT), dir.path())
    };
    let blake3 = Digest::of(TEXT).to_string();
    run(Config { sha256: Some(TEXT_SHA256.to_owned()), blake3: Some(blake3.clone()), ..config("file://x") }).unwrap();
    run(Config { sha256: Some(TEXT_SHA256.to_uppercase()), ..config("file://x") }).unwrap();

    let other = "0".repeat(64);
    let wrong = message(run(Config { sha256: Some(other.clone()), ..config("file://x") }));
    assert!(wrong.contains(&format!("has the SHA-256 {TEXT_SHA256}, the pipeline asks for {other}")), "{wrong}");
    let wrong = message(run(Config { blake3: Some(other.clone()), ..config("file://x") }));
    assert!(wrong.contains(&format!("has the BLAKE3 {blake3}, the pipeline asks for {other}")), "{wrong}");
}

#[test]
fn a_change_since_the_engine_looked_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path());
    let changed = message(download(&config("file://x"), &path, Digest::of(b"before"), dir.path()));
    assert!(changed.contains("changed while it was read"), "{changed}");

    let (root, digest) = folder(dir.path());
    let run = || {
        fs::remove_dir_all(dir.path().join("out")).unwrap();
        download(&config("file://model"), &root, digest, dir.path())
    };
    run().unwrap();
    fs::rename(root.join("config.json"), root.join("config2.json")).unwrap();
    assert!(message(run()).contains("changed while it was read"));
    fs::rename(root.join("config2.json"), root.join("config.json")).unwrap();
    run().unwrap();
    fs::set_permissions(root.join("config.json"), fs::Permissions::from_mode(0o755)).unwrap();
    assert!(message(run()).contains("changed while it was read"));
}

#[test]
fn what_cannot_be_taken_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let digest = Digest::of(b"");
    let missing = message(download(&config("file://x"), &dir.path().join("gone"), digest, dir.path()));
    assert!(missing.contains("cannot read") && missing.contains("gone"), "{missing}");

    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    assert!(message(download(&config("file://x"), &empty, digest, dir.path())).contains("empty holds no file"));

    let (root, _) = folder(dir.path());
    let with_sha256 = Config { sha256: Some("0".repeat(64)), ..config("file://model") };
    assert!(message(download(&with_sha256, &root, digest, dir.path())).contains("`sha256` is for a single file"));

    symlink("nowhere", root.join("broken")).unwrap();
    let broken = message(download(&config("file://model"), &root, digest, dir.path()));
    assert!(broken.contains("cannot read") && broken.contains("broken"), "{broken}");

    let special = message(download(&config("file://x"), Path::new("/dev/null"), digest, dir.path()));
    assert!(special.contains("/dev/null is neither a file nor a folder"), "{special}");
}
