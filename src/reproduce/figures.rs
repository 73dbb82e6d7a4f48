//! The figures of a stage, then and now.

use indexmap::IndexMap;
use serde::Serialize;
use serde_json::Value;

use super::values::ValueDiff;

/// Figures that differ by less than this part of the larger one count as equal where another device computed them.
/// Ten times what losses in bfloat16 differ by between devices.
pub const DEFAULT_TOLERANCE: f64 = 0.01;

/// A figure that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FigureChange {
    /// Its name.
    pub name: String,
    /// What it was; `None` if it is new.
    pub recorded: Option<Value>,
    /// What it is; `None` if it is gone.
    pub now: Option<Value>,
    /// The difference, if both are numbers.
    pub difference: Option<f64>,
    /// The difference over the larger of the two.
    pub relative: Option<f64>,
}

impl FigureChange {
    /// Whether it is no more than `tolerance` away.
    pub fn is_within(&self, tolerance: f64) -> bool {
        self.relative.is_some_and(|relative| relative <= tolerance)
    }
}

/// The figures that differ, without those that measure the run instead of its result.
pub(super) fn compare(recorded: &IndexMap<String, Value>, now: &IndexMap<String, Value>) -> Vec<FigureChange> {
    let of = |figures: &IndexMap<String, Value>| {
        let results = figures.iter().filter(|(name, _)| !is_about_the_run(name));
        Value::Object(results.map(|(name, value)| (name.clone(), value.clone())).collect())
    };
    let mut diff = ValueDiff::default();
    diff.compare("", Some(&of(recorded)), Some(&of(now)));
    diff.shown
        .into_iter()
        .map(|change| {
            let size = [&change.recorded, &change.now].map(|value| value.as_ref().and_then(Value::as_f64));
            let larger = size[0].zip(size[1]).map(|(one, other)| one.abs().max(other.abs()));
            let relative = change.difference.zip(larger).map(|(difference, larger)| difference.abs() / larger);
            FigureChange {
                name: change.place,
                recorded: change.recorded,
                now: change.now,
                difference: change.difference,
                relative,
            }
        })
        .collect()
}

/// Times, speeds, memory and devices are other each time, and say nothing about the result.
fn is_about_the_run(name: &str) -> bool {
    let words: Vec<&str> = name.split('_').collect();
    let measures_time = words.iter().any(|word| matches!(*word, "seconds" | "second" | "milliseconds" | "ms"));
    let measures_memory = matches!(words.first(), Some(&("cuda" | "nvml" | "resident")));
    measures_time || measures_memory || name == "device"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn figures(value: Value) -> IndexMap<String, Value> {
        value.as_object().cloned().unwrap_or_default().into_iter().collect()
    }

    #[test]
    fn results_count_and_the_course_of_the_run_does_not() {
        let recorded = json!({
            "loss": 2.0, "rows": 10, "seconds_per_update": 1.0, "tokens_per_second": 5, "resident_peak_bytes": 1,
            "cuda_allocated_bytes": 1, "device": "cpu", "best": "a"
        });
        let now = json!({
            "loss": 2.01, "rows": 10, "seconds_per_update": 9.0, "tokens_per_second": 1, "resident_peak_bytes": 2,
            "cuda_allocated_bytes": 2, "device": "cuda", "best": "b", "more": 0
        });
        let changes = compare(&figures(recorded), &figures(now));
        assert_eq!(changes.iter().map(|change| change.name.as_str()).collect::<Vec<_>>(), ["loss", "best", "more"]);
        assert!(changes[0].is_within(0.005) && !changes[0].is_within(0.004), "{:?}", changes[0]);
        assert!(!changes[1].is_within(1.0) && !changes[2].is_within(1.0));
    }
}
