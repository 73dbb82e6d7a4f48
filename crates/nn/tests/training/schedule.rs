//! The schedules of Transformers.

use pipe_nn::schedule::{Decay, Schedule, WarmUp};
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    kind: String,
    warmup: f64,
    total: u64,
    warmup_steps: u64,
    multiplier_at_step: Vec<f64>,
}

#[test]
fn multipliers_are_those_of_transformers() {
    let cases: Vec<Case> = super::json("sched.json");
    assert!(cases.len() >= 14);
    for case in cases {
        let decay = if case.kind == "linear" { Decay::Linear } else { Decay::Cosine };
        let warm_up =
            if case.warmup < 1.0 { WarmUp::Ratio(case.warmup) } else { WarmUp::Steps(case.warmup.round() as u64) };
        let schedule = Schedule::new(decay, 1.0, warm_up, case.total);
        assert_eq!(schedule.warm_up(), case.warmup_steps, "{} {} of {}", case.kind, case.warmup, case.total);
        for (update, expected) in (0..).zip(case.multiplier_at_step) {
            let found = schedule.learning_rate(update);
            assert!((found - expected).abs() < 1e-15, "{} update {update}: {found}, expected {expected}", case.kind);
        }
    }
}

#[test]
fn the_peak_scales_and_the_first_update_with_warm_up_has_no_rate() {
    let schedule = Schedule::new(Decay::Linear, 1e-4, WarmUp::Ratio(0.1), 375);
    assert_eq!(schedule.warm_up(), 38, "375 x 0.1 is rounded up");
    assert_eq!(schedule.learning_rate(0), 0.0);
    assert_eq!(schedule.learning_rate(38), 1e-4);
    assert_eq!(schedule.learning_rate(375), 0.0);
}
