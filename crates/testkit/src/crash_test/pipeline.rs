//! The pipeline under test: thirty stages in layers, with fan-out and fan-in, two outputs, steps that are resumed, slow
//! stages and stubborn ones.

use std::{fmt::Write as _, path::Path};

/// How many stages it has.
pub(crate) const STAGES: usize = 30;

/// So many files of one output that the store notes how they look.
const MANY: usize = 500;

const NOTHING: &[&str] = &[];

/// Its text. Workers of one stage meet in `ledger`.
pub(crate) fn text(ledger: &Path) -> String {
    let mut pipeline = Pipeline { text: "name: crash\nstages:\n".to_owned(), ledger, stages: 0 };
    // Sources, of which one is slow and one does not want to die.
    for number in 0..6 {
        let more = match number {
            2 => "milliseconds: 60",
            4 => "milliseconds: 40, stubborn: true",
            _ => "milliseconds: 5",
        };
        pipeline.stage(&format!("s{number}"), "work", NOTHING, 1 + number % 3, more);
    }
    pipeline.stage("t0", "steps", NOTHING, 2, "milliseconds: 80");
    pipeline.stage("t1", "steps", &["s0"], 1, "milliseconds: 50, stubborn: true");
    for number in 0..4 {
        let from = [format!("s{number}"), format!("s{}", number + 2)];
        pipeline.stage(&format!("f{number}"), "fork", &from, 3, "milliseconds: 10");
    }
    for number in 0..8 {
        let side = if number % 2 == 0 { "left" } else { "right" };
        let from = [format!("f{}.{side}", number / 2), format!("f{}.{side}", (number / 2 + 1) % 4), "t0".to_owned()];
        let more = if number == 5 { "milliseconds: 40, stubborn: true" } else { "milliseconds: 8" };
        pipeline.stage(&format!("m{number}"), "work", &from[..2 + number % 2], 2, more);
    }
    for number in 0..6 {
        let from = [format!("m{number}"), format!("m{}", number + 2), "t1".to_owned()];
        pipeline.stage(&format!("n{number}"), "work", &from, 1 + number % 2, "milliseconds: 8");
    }
    pipeline.stage("u0", "steps", &["n0", "n1", "n2"], 1, "milliseconds: 60");
    pipeline.stage("u1", "fork", &["n3", "n4", "n5"], 1, "milliseconds: 10");
    pipeline.stage("j0", "work", &["u0", "u1.left"], MANY, "milliseconds: 10");
    pipeline.stage("end", "work", &["j0", "u1.right", "s0"], 1, "milliseconds: 10");
    assert_eq!(pipeline.stages, STAGES);
    pipeline.text
}

struct Pipeline<'ledger> {
    text: String,
    ledger: &'ledger Path,
    stages: usize,
}

impl Pipeline<'_> {
    fn stage(&mut self, name: &str, kind: &str, parts: &[impl AsRef<str>], files: usize, more: &str) {
        self.stages += 1;
        let parts: Vec<&str> = parts.iter().map(AsRef::as_ref).collect();
        let inputs =
            if parts.is_empty() { String::new() } else { format!("inputs: {{ parts: [{}] }}, ", parts.join(", ")) };
        let ledger = self.ledger.display();
        // Writing to a string cannot fail.
        let _ = writeln!(
            self.text,
            "  {name}: {{ kind: {kind}, {inputs}with: {{ text: {name}, files: {files}, ledger: '{ledger}', {more} }} }}"
        );
    }
}
