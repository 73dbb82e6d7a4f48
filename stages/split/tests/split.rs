//! The stage as the engine runs it: samples in, two parts out.
#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

use std::fs;

use pipe_samples::{Sample, Samples, Writer};
use pipe_stage::Failure;
use pipe_trial::Trial;
use serde_json::{Value, json};
use stage_split::Split;

/// Splits samples `0..rows`, each of one id, its number; gives the numbers of both parts.
fn split(rows: u32, config: Value) -> Result<(Vec<u32>, Vec<u32>), Failure> {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("input");
    fs::create_dir_all(&input).unwrap();
    let mut writer = Writer::create(&input).unwrap();
    for row in 0..rows {
        writer.write(Sample { input_ids: vec![row], labels: vec![-100] }.view()).unwrap();
    }
    writer.finish().unwrap();
    let ran = Trial::new(folder.path()).input("samples", &input).run::<Split>(config).done()?;
    let part = |name| {
        let samples = Samples::load(&ran.output_named(name)).unwrap();
        samples.iter().map(|sample| sample.input_ids[0]).collect()
    };
    Ok((part("train"), part("held_out")))
}

#[test]
fn every_sample_is_in_one_part_and_in_order() {
    let (train, held_out) = split(1000, json!({})).unwrap();
    assert_eq!(held_out.len(), 50);
    assert!(train.is_sorted() && held_out.is_sorted());
    let mut all = [train, held_out].concat();
    all.sort_unstable();
    assert_eq!(all, (0..1000).collect::<Vec<_>>());
}

#[test]
fn the_choice_is_the_same_everywhere() {
    // These rows are part of what the kind's version stands for.
    let (_, held_out) = split(100, json!({ "held_out": 0.1, "seed": 7 })).unwrap();
    assert_eq!(held_out, [9, 12, 20, 36, 60, 62, 73, 86, 90, 91]);
}

#[test]
fn the_seed_decides_the_choice() {
    let held_out = |seed: u64| split(200, json!({ "held_out_rows": 20, "seed": seed })).unwrap().1;
    assert_eq!(held_out(1), held_out(1));
    assert_ne!(held_out(1), held_out(2));
    assert_ne!(held_out(u64::MAX), held_out(u64::MAX - 1));
    // No part of the input is favoured: halves differ by less than four standard deviations.
    let first_half: usize = (0..100).map(|seed| held_out(seed).iter().filter(|row| **row < 100).count()).sum();
    assert!((910..1090).contains(&first_half), "{first_half} of 2000");
}

#[test]
fn more_samples_move_few_others() {
    let config = json!({ "held_out": 0.2 });
    let (_, before) = split(500, config.clone()).unwrap();
    let (_, after) = split(520, config).unwrap();
    let kept = before.iter().filter(|row| after.contains(row)).count();
    assert!(kept >= 90, "{kept} of {}", before.len());
}

#[test]
fn counts_and_shares() {
    assert_eq!(split(10, json!({ "held_out_rows": 9 })).unwrap().0.len(), 1);
    assert_eq!(split(10, json!({ "held_out": 0.25 })).unwrap().1.len(), 3);
    assert_eq!(split(10, json!({ "held_out": 0.001 })).unwrap().1.len(), 1);
}

#[test]
fn no_part_may_be_empty() {
    let error = |rows, config| split(rows, config).map(|_| ()).unwrap_err().chain().join(": ");
    let message = "cannot hold out 10 of 10 samples: one of the parts would be empty";
    assert_eq!(error(10, json!({ "held_out_rows": 10 })), message);
    assert_eq!(error(10, json!({ "held_out": 0.99 })), message);
    assert!(error(1, json!({})).starts_with("cannot hold out 1 of 1"));
    assert!(error(0, json!({})).starts_with("cannot hold out 1 of 0"));
}

#[test]
fn the_configuration_is_checked() {
    let problems = |config: Value| -> Vec<String> {
        let found = pipe_trial::problems::<Split>(config, &[]).into_iter();
        found.map(|(path, message, _)| format!("{path} {message}")).collect()
    };
    assert_eq!(problems(json!({})), [""; 0]);
    for held_out in [0.0, 1.0, -0.5, 1e300] {
        assert_eq!(problems(json!({ "held_out": held_out })), ["held_out must lie between 0 and 1, both excluded"]);
    }
    assert_eq!(problems(json!({ "held_out_rows": 0 })), ["held_out_rows must be at least 1"]);
    assert_eq!(problems(json!({ "held_out_rows": 1, "held_out": 0.5 })), ["held_out_rows held_out says it already"]);
}
