//! Checkpoints: whole or not there, and everything comes back.

use std::{collections::BTreeMap, fs, path::Path};

use pipe_nn::{
    Parameters,
    checkpoint::{Checkpoints, Progress},
    optimizer::{AdamW, AdamWOptions, States},
};

use super::{parameters, values};

/// In 8 bits, of one block, of several, and of a short last one.
const SHAPES: &[(&str, &[i64])] = &[("a", &[3, 4]), ("b", &[7]), ("c", &[20, 33])];

fn options(states: States) -> AdamWOptions {
    AdamWOptions {
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: 0.1,
        max_grad_norm: 1.0,
        states,
        scales_loss: false,
    }
}

fn progress(updates: u64) -> Progress {
    let files = BTreeMap::from([("metrics.jsonl".to_owned(), format!("line {updates}\n").into_bytes())]);
    Progress { updates, threads: 3, device: "cpu".to_owned(), files }
}

/// A run that saves after each of `updates` updates.
fn run(folder: &Path, updates: u64, keep: usize) -> (Parameters, AdamW) {
    run_with(States::Float32, folder, updates, keep)
}

fn run_with(states: States, folder: &Path, updates: u64, keep: usize) -> (Parameters, AdamW) {
    let checkpoints = Checkpoints::new(folder, keep);
    let mut parameters = Parameters::new(parameters(SHAPES)).unwrap();
    let mut optimizer = AdamW::new(options(states), &parameters).unwrap();
    for done in 1..=updates {
        update(&mut parameters, &mut optimizer);
        checkpoints.save(&progress(done), &parameters, &optimizer).unwrap();
    }
    (parameters, optimizer)
}

fn update(parameters: &mut Parameters, optimizer: &mut AdamW) {
    for parameter in parameters.list_mut() {
        let grad = parameter.value().unwrap() * 0.3 + optimizer.updates() as f64;
        parameter.set_grad(&grad).unwrap();
    }
    optimizer.update(parameters, 1e-2).unwrap();
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_run_goes_on_with_the_same_bytes() {
    goes_on(States::Float32);
    goes_on(States::EightBit);
}

/// The scale, and which update it was, come back too.
#[test]
fn a_run_with_a_scaled_loss_goes_on_with_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let options = AdamWOptions { scales_loss: true, ..options(States::Float32) };
    let mut expected = Parameters::new(parameters(SHAPES)).unwrap();
    let mut optimizer = AdamW::new(options, &expected).unwrap();
    for overflows in [false, true, false, false] {
        let grad = expected.list()[0].value().unwrap() * if overflows { f64::INFINITY } else { 1.0 };
        expected.list_mut()[0].set_grad(&grad).unwrap();
        optimizer.update(&mut expected, 1e-2).unwrap();
    }
    Checkpoints::new(folder.path(), 2).save(&progress(4), &expected, &optimizer).unwrap();
    let checkpoint = Checkpoints::new(folder.path(), 2).latest().unwrap().checkpoint.unwrap();
    let mut restored = Parameters::new(parameters(SHAPES)).unwrap();
    let mut fresh = AdamW::new(options, &restored).unwrap();
    checkpoint.restore(&mut restored, &mut fresh).unwrap();
    assert_eq!((fresh.updates(), fresh.applied()), (4, 3));
    assert_eq!(fresh.loss_scale(), optimizer.loss_scale());
    assert_eq!(fresh.loss_scale().unwrap().good_updates(), 2);
    update(&mut expected, &mut optimizer);
    update(&mut restored, &mut fresh);
    for (one, other) in expected.list().iter().zip(restored.list()) {
        assert_eq!(values(one), values(other));
    }
    let mut unscaled = AdamW::new(AdamWOptions { scales_loss: false, ..options }, &restored).unwrap();
    assert!(checkpoint.restore(&mut restored, &mut unscaled).is_err());
}

fn goes_on(states: States) {
    let folder = tempfile::tempdir().unwrap();
    let (mut expected, mut optimizer) = run_with(states, folder.path(), 3, 2);
    let found = Checkpoints::new(folder.path(), 2).latest().unwrap();
    assert!(found.damaged.is_empty());
    let checkpoint = found.checkpoint.unwrap();
    assert_eq!(checkpoint.progress, progress(3));

    let mut restored = Parameters::new(parameters(SHAPES)).unwrap();
    let mut fresh = AdamW::new(options(states), &restored).unwrap();
    checkpoint.restore(&mut restored, &mut fresh).unwrap();
    assert_eq!(fresh.updates(), 3);
    update(&mut expected, &mut optimizer);
    update(&mut restored, &mut fresh);
    for (one, other) in expected.list().iter().zip(restored.list()) {
        assert_eq!(values(one), values(other));
    }
}

#[test]
fn only_so_many_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), 11, 2);
    let names = names(folder.path());
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names[0].starts_with("checkpoint-00000010-") && names[1].starts_with("checkpoint-00000011-"));
}

/// A name, and what it does to a file.
type Damage = (&'static str, fn(&Path));

/// Every file of the newest checkpoint, changed, cut or missing: the one before is taken.
#[test]
fn a_damaged_checkpoint_gives_way_to_the_one_before() {
    let damages: [Damage; 3] = [
        ("flipped", |path| {
            let mut bytes = fs::read(path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(path, bytes).unwrap();
        }),
        ("cut", |path| {
            let bytes = fs::read(path).unwrap();
            fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
        }),
        ("missing", |path| fs::remove_file(path).unwrap()),
    ];
    for file in ["manifest.json", "tensors.f32", "metrics.jsonl"] {
        for (damage, apply) in damages {
            let folder = tempfile::tempdir().unwrap();
            run(folder.path(), 2, 2);
            let newest = names(folder.path()).pop().unwrap();
            apply(&folder.path().join(&newest).join(file));
            let checkpoints = Checkpoints::new(folder.path(), 2);
            let found = checkpoints.latest().unwrap();
            assert_eq!(found.checkpoint.unwrap().progress, progress(1), "{file} {damage}");
            assert_eq!(found.damaged.len(), 1, "{file} {damage}");
            assert_eq!(found.damaged[0].0, newest);
            assert!(checkpoints.latest().unwrap().damaged.is_empty(), "it is gone");
        }
    }
}

#[test]
fn an_unfinished_checkpoint_is_none_and_does_not_stand_in_the_way() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), 1, 2);
    let unfinished = folder.path().join("unfinished-checkpoint");
    fs::create_dir(&unfinished).unwrap();
    fs::write(unfinished.join("tensors.f32"), "half").unwrap();
    let checkpoints = Checkpoints::new(folder.path(), 2);
    assert_eq!(checkpoints.latest().unwrap().checkpoint.unwrap().progress, progress(1));
    run(folder.path(), 2, 2);
    assert_eq!(checkpoints.latest().unwrap().checkpoint.unwrap().progress, progress(2));
    assert!(!unfinished.exists());
}

#[test]
fn another_model_is_refused_and_nothing_is_touched() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), 1, 1);
    let checkpoint = Checkpoints::new(folder.path(), 1).latest().unwrap().checkpoint.unwrap();
    let mut other = Parameters::new(parameters(&[("a", &[3, 4]), ("b", &[8]), ("c", &[20, 33])])).unwrap();
    let before = values(&other.list()[0]);
    let mut optimizer = AdamW::new(options(States::Float32), &other).unwrap();
    let message = checkpoint.restore(&mut other, &mut optimizer).unwrap_err().to_string();
    assert!(message.contains("is of another model"), "{message}");
    assert_eq!(values(&other.list()[0]), before);
}

#[test]
fn other_states_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), 1, 1);
    let checkpoint = Checkpoints::new(folder.path(), 1).latest().unwrap().checkpoint.unwrap();
    let mut parameters = Parameters::new(parameters(SHAPES)).unwrap();
    let mut optimizer = AdamW::new(options(States::EightBit), &parameters).unwrap();
    let message = checkpoint.restore(&mut parameters, &mut optimizer).unwrap_err().to_string();
    assert!(message.contains("is of another model or optimizer"), "{message}");
}

#[test]
fn clearing_leaves_none() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), 2, 2);
    let checkpoints = Checkpoints::new(folder.path(), 2);
    checkpoints.clear().unwrap();
    assert!(checkpoints.latest().unwrap().checkpoint.is_none());
}
