//! The order of accelerate's sampler, and windows.

use pipe_samples::Sampler;
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    seed: u64,
    n: usize,
    epoch: u64,
    order: Option<Vec<u32>>,
    first20: Vec<u32>,
    last20: Vec<u32>,
}

#[test]
fn orders_are_those_of_torch() {
    for case in super::json::<Vec<Case>>("sampler.json") {
        let mut sampler = Sampler::new(case.n, case.n as u64, Some(case.seed)).unwrap();
        let order = sampler.rows(case.epoch).to_vec();
        assert_eq!(order.len(), case.n);
        if let Some(expected) = case.order.filter(|order| !order.is_empty()) {
            assert_eq!(order, expected, "seed {} epoch {}", case.seed, case.epoch);
        }
        assert_eq!(order[..case.first20.len()], case.first20);
        assert_eq!(order[case.n - case.last20.len()..], case.last20);
    }
}

#[test]
fn windows_never_cross_an_epoch() {
    let mut sampler = Sampler::new(46, 4, Some(7)).unwrap();
    assert_eq!(sampler.updates_per_epoch(), 12);
    let epoch: Vec<u32> = (0..12).flat_map(|update| sampler.rows(update).to_vec()).collect();
    assert_eq!(sampler.rows(11).len(), 2, "the last window of an epoch is short, and a full update");
    let mut sorted = epoch.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..46).collect::<Vec<_>>());
    assert_eq!(sampler.rows(12).len(), 4);
    let next: Vec<u32> = (12..24).flat_map(|update| sampler.rows(update).to_vec()).collect();
    assert_ne!(epoch, next);
    // Any update can be asked for, as a resumed run does.
    assert_eq!(Sampler::new(46, 4, Some(7)).unwrap().rows(13), &next[4..8]);
}

#[test]
fn a_fraction_of_an_epoch_is_rounded_up() {
    let sampler = Sampler::new(46, 4, None).unwrap();
    assert_eq!(sampler.updates_in(3.0), 36);
    assert_eq!(sampler.updates_in(0.1), 2);
}

#[test]
fn without_a_seed_the_order_is_kept() {
    let mut sampler = Sampler::new(5, 2, None).unwrap();
    assert_eq!(
        [sampler.rows(0).to_vec(), sampler.rows(1).to_vec(), sampler.rows(2).to_vec()].concat(),
        [0, 1, 2, 3, 4]
    );
    assert_eq!(sampler.rows(3), [0, 1]);
}

#[test]
fn an_update_larger_than_the_data_takes_all_of_it() {
    let mut sampler = Sampler::new(3, 1000, None).unwrap();
    assert_eq!(sampler.updates_per_epoch(), 1);
    assert_eq!(sampler.rows(5), [0, 1, 2]);
    let message = Sampler::new(0, 8, None).unwrap_err().to_string();
    assert_eq!(message, "there are 0 samples; training takes from 1 to 214748364");
}
