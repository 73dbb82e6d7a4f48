//! Nothing that is there is asked for again.

use std::{fs, sync::atomic::Ordering};

use pipe_fetch::Error;

use crate::{
    harness::Desk,
    hub::{Fault, Hub, noise},
};

const BYTES: usize = 2_000_000;

#[test]
fn who_was_stopped_goes_on_at_the_next_byte() {
    let bytes = noise(5, BYTES);
    let hub = Hub::new(&[("model.safetensors", bytes.clone())]);
    hub.content.rate_bytes.store(2_000_000, Ordering::Relaxed);
    let mut desk = Desk::new(&hub.address);
    let mut before = 0;
    for stop_at in [500_000, 1_200_000] {
        desk.watch.stop_at = Some(stop_at);
        desk.watch.stop.store(false, Ordering::Relaxed);
        let error = desk.fetch("hf://org/name").unwrap_err();
        assert!(matches!(error, Error::Cancelled), "{error}");
        let there = desk.watch.done.load(Ordering::Relaxed);
        assert!(there >= stop_at && there < BYTES as u64 && there > before);
        assert_eq!(fs::read_dir(desk.dir.path().join("out")).unwrap().count(), 0, "nothing shows before all is there");
        before = there;
    }
    desk.watch = Default::default();
    hub.content.rate_bytes.store(0, Ordering::Relaxed);
    let log = hub.content.log.lock().unwrap().len();
    let (_, report) = desk.fetch("hf://org/name").unwrap();
    assert!(report.resumed_bytes >= before);
    let asked_again: u64 =
        hub.asked_for("model.safetensors").iter().map(|asked| asked.sent.load(Ordering::Relaxed)).sum();
    let later: u64 =
        hub.content.log.lock().unwrap()[log..].iter().map(|asked| asked.sent.load(Ordering::Relaxed)).sum();
    assert_eq!(later, BYTES as u64 - report.resumed_bytes, "only what was missing ({asked_again} in all)");
    assert!(fs::read(desk.out("model.safetensors")).unwrap() == bytes);
}

#[test]
fn a_cut_line_costs_nothing_that_had_come() {
    let bytes = noise(6, BYTES);
    let hub = Hub::misbehaving(&[("model.safetensors", bytes.clone())], |asked| {
        (asked.from_store && asked.number % 2 == 0).then_some(Fault::CutAfter(30_000))
    });
    let desk = Desk::new(&hub.address);
    desk.fetch("hf://org/name").unwrap();
    assert!(fs::read(desk.out("model.safetensors")).unwrap() == bytes);
    assert_eq!(hub.sent("model.safetensors"), BYTES as u64);
}
