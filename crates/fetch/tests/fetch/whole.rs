//! What is right comes in, from every kind of source.

use std::{fs, sync::atomic::Ordering};

use pipe_fetch::Digest;

use crate::{
    harness::{Desk, TOKEN},
    hub::{COMMIT, Hub, noise, sha256},
};

fn files() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("config.json", b"{}".to_vec()),
        ("empty", Vec::new()),
        ("model.safetensors", noise(1, 950_001)),
        ("data/第一 #1?.jsonl", noise(2, 5000)),
        ("small", noise(3, 999)),
    ]
}

#[test]
fn a_repository_comes_whole_from_either_hub() {
    for source in ["hf://org/name", "ms://org/name", "hf://datasets/org/name@main", "ms://datasets/org/name"] {
        let hub = Hub::new(&files());
        let desk = Desk::new(&hub.address);
        let (listed, report) = desk.fetch(source).unwrap();
        assert_eq!(listed.len(), 5, "{source}");
        for (name, bytes) in files() {
            assert!(fs::read(desk.out(name)).unwrap() == bytes, "{source}: {name}");
        }
        assert_eq!(report.bytes, 950_001 + 5000 + 999 + 2);
        let asked = hub.asked_for("model.safetensors");
        let with_bytes = asked.iter().filter(|asked| asked.sent.load(Ordering::Relaxed) > 0).count();
        assert_eq!(with_bytes, 10, "{source}: pieces of 100,000 bytes");
        assert_eq!(fs::read_dir(desk.partial()).unwrap().count(), 0, "{source}: something was left");
        let fetcher = desk.fetcher();
        assert_eq!(fetcher.resolve(&source.parse().unwrap(), &desk.watch).unwrap(), COMMIT, "{source}");
    }
}

#[test]
fn a_path_takes_a_file_or_a_folder() {
    let hub = Hub::new(&files());
    let desk = Desk::new(&hub.address);
    let (listed, _) = desk.fetch("hf://org/name/data/第一 #1?.jsonl").unwrap();
    assert_eq!(listed.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), ["第一 #1?.jsonl"]);
    assert!(fs::read(desk.out("第一 #1?.jsonl")).unwrap() == noise(2, 5000));
    let (listed, _) = desk.fetch("ms://org/name/data").unwrap();
    assert_eq!(listed[0].path, "第一 #1?.jsonl");
}

#[test]
fn an_address_of_the_web_is_verified_by_what_the_caller_says() {
    let hub = Hub::new(&files());
    let desk = Desk::new(&hub.address);
    let source = format!("{}/web/model.safetensors?token=x", hub.address);
    let right = sha256(&noise(1, 950_001));
    desk.fetch_with(&source, |files| files[0].digest = Digest::sha256(&right)).unwrap();
    assert!(fs::read(desk.out("model.safetensors")).unwrap() == noise(1, 950_001));
    assert!(hub.asked_for("model.safetensors").iter().all(|asked| asked.headers.get("authorization").is_none()));

    let wrong = "0".repeat(64);
    let error = desk.fetch_with(&source, |files| files[0].digest = Digest::sha256(&wrong)).unwrap_err();
    assert_eq!(error.to_string(), format!("model.safetensors has the SHA-256 {right}, the list of files says {wrong}"));
}

#[test]
fn the_token_goes_to_the_hub_and_nowhere_else() {
    for source in ["hf://org/name", "ms://org/name"] {
        let hub = Hub::new(&files());
        Desk::new(&hub.address).fetch(source).unwrap();
        let log = hub.content.log.lock().unwrap();
        let has_token = |asked: &crate::hub::Asked| format!("{:?}", asked.headers).contains(TOKEN);
        assert!(log.iter().filter(|asked| !asked.from_store).all(has_token), "{source}");
        assert!(!log.iter().filter(|asked| asked.from_store).any(has_token), "{source}");
        assert!(source.starts_with("ms") || log.iter().any(|asked| asked.from_store));
    }
}
