//! What the hubs' own tools have fetched is used, once it is found right.

use std::{fs, os::unix::fs::symlink, path::PathBuf};

use crate::{
    harness::{Desk, chain},
    hub::{COMMIT, Hub, git_blob, noise, sha256},
};

fn files() -> Vec<(&'static str, Vec<u8>)> {
    vec![("config.json", b"{}".to_vec()), ("model.safetensors", noise(4, 250_000))]
}

/// A cache of huggingface_hub with both files.
fn cache(desk: &Desk) -> PathBuf {
    let repository = desk.dir.path().join("home/.cache/huggingface/hub/models--org--name");
    let snapshot = repository.join("snapshots").join(COMMIT);
    for folder in [&snapshot, &repository.join("blobs"), &repository.join("refs")] {
        fs::create_dir_all(folder).unwrap();
    }
    fs::write(repository.join("refs/main"), COMMIT).unwrap();
    for ((name, bytes), digest) in files().into_iter().zip([git_blob(b"{}"), sha256(&noise(4, 250_000))]) {
        fs::write(repository.join("blobs").join(&digest), bytes).unwrap();
        symlink(format!("../../blobs/{digest}"), snapshot.join(name)).unwrap();
    }
    repository
}

#[test]
fn what_the_cache_has_is_not_fetched() {
    let hub = Hub::new(&files());
    let desk = Desk::new(&hub.address);
    let repository = cache(&desk);
    let (_, report) = desk.fetch("hf://org/name").unwrap();
    assert_eq!((report.bytes, report.cached_bytes), (250_002, 250_002));
    assert!(hub.asked_for("model.safetensors").is_empty() && hub.asked_for("config.json").is_empty());
    let blob = repository.join("blobs").join(sha256(&noise(4, 250_000)));
    // A change of either is no change of the other.
    fs::write(&blob, "changed").unwrap();
    assert!(fs::read(desk.out("model.safetensors")).unwrap() == noise(4, 250_000));
}

#[test]
fn what_is_damaged_in_the_cache_is_fetched() {
    let hub = Hub::new(&files());
    let desk = Desk::new(&hub.address);
    let blob = cache(&desk).join("blobs").join(sha256(&noise(4, 250_000)));
    fs::write(&blob, noise(5, 250_000)).unwrap();
    let (_, report) = desk.fetch("hf://org/name").unwrap();
    assert_eq!(report.cached_bytes, 2);
    assert!(fs::read(desk.out("model.safetensors")).unwrap() == noise(4, 250_000));
    assert!(fs::read(&blob).unwrap() == noise(5, 250_000), "the cache is not ours to change");
}

#[test]
fn the_cache_of_modelscope_is_used() {
    let hub = Hub::new(&files());
    let desk = Desk::new(&hub.address);
    let folder = desk.dir.path().join("home/.cache/modelscope/hub/models/org/na___me");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("model.safetensors"), noise(4, 250_000)).unwrap();
    let (_, report) = desk.fetch("ms://org/na.me").unwrap();
    assert_eq!(report.cached_bytes, 250_000);
}

#[test]
fn offline_takes_what_the_cache_has_and_names_what_it_has_not() {
    let hub = Hub::new(&files());
    let desk = Desk::new(&hub.address).set("HF_HUB_OFFLINE", "1");
    let error = desk.fetch("hf://org/name").unwrap_err();
    assert!(chain(&error).contains("offline (HF_HUB_OFFLINE is set), and "), "{}", chain(&error));
    assert!(chain(&error).contains("models--org--name has no revision `main` of org/name"), "{}", chain(&error));

    let repository = cache(&desk);
    let (listed, report) = desk.fetch("hf://org/name").unwrap();
    assert_eq!((listed.len(), report.cached_bytes), (2, 250_002));

    fs::remove_file(repository.join("blobs").join(git_blob(b"{}"))).unwrap();
    let error = desk.fetch("hf://org/name").unwrap_err();
    assert!(chain(&error).contains("has no whole file `config.json` of org/name"), "{}", chain(&error));
    let damaged = repository.join("blobs").join(sha256(&noise(4, 250_000)));
    cache_again(&repository);
    fs::write(damaged, noise(5, 250_000)).unwrap();
    let error = desk.fetch("hf://org/name").unwrap_err();
    assert!(chain(&error).contains("has no whole file `model.safetensors` of org/name"), "{}", chain(&error));

    for source in ["ms://org/name", "s3://bucket/key", "https://host/file"] {
        let error = desk.fetch(source).unwrap_err();
        assert!(chain(&error).starts_with("offline (HF_HUB_OFFLINE is set), and "), "{}", chain(&error));
    }
    assert!(hub.content.log.lock().unwrap().is_empty());
}

fn cache_again(repository: &std::path::Path) {
    fs::write(repository.join("blobs").join(git_blob(b"{}")), "{}").unwrap();
}
