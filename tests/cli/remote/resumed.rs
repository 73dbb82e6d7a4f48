//! A killed download goes on at the byte where it stood.

use std::{
    fs,
    process::Stdio,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use super::{Hub, Site, noise};

const BYTES: usize = 6_000_000;

#[test]
fn after_kill_9_only_the_missing_bytes_are_asked_for() {
    let bytes = noise(7, BYTES);
    let hub = Hub::new(&[("config.json", b"{}".to_vec()), ("model.safetensors", bytes.clone())]);
    hub.content.rate_bytes.store(1_500_000, Ordering::Relaxed);
    let site = Site::new("stages:\n  model: { kind: download, with: { source: 'hf://org/name' } }\n", hub);
    let mut killed = site.command(&["run", "p.yaml"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let started = Instant::now();
    while site.hub.sent("model.safetensors") < 3_000_000 {
        assert!(started.elapsed() < Duration::from_mins(1), "nothing comes");
        std::thread::sleep(Duration::from_millis(20));
    }
    killed.kill().unwrap();
    assert_eq!(killed.wait().unwrap().code(), None, "it ended before it was killed");

    // The worker ends with the program that started it.
    let mut sent = 0;
    while sent != site.hub.sent("model.safetensors") {
        sent = site.hub.sent("model.safetensors");
        std::thread::sleep(Duration::from_millis(400));
    }
    assert!(sent < BYTES as u64, "the worker went on");

    site.hub.content.rate_bytes.store(0, Ordering::Relaxed);
    let before = site.hub.asked_for("model.safetensors").len();
    let ran = site.run(&["run", "p.yaml"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let later = site.hub.asked_for("model.safetensors").split_off(before);
    let came: u64 = later.iter().map(|asked| asked.sent.load(Ordering::Relaxed)).sum();
    let resumed = site.figures("model")["resumed_bytes"].as_u64().unwrap();
    assert!(resumed >= 2_000_000, "{resumed} of {sent} bytes were kept");
    // What was resumed counts the 2 bytes of the other file too.
    assert_eq!(came, BYTES as u64 + 2 - resumed, "{later:?}");
    assert!(later.iter().all(|asked| asked.range.as_deref().is_some_and(|range| !range.starts_with("bytes=0-"))));
    assert_eq!(site.run(&["get", "model", "got"]).code, 0);
    assert!(fs::read(site.project.path("got/model.safetensors")).unwrap() == bytes);
}
