//! What a stage takes of a GPU's memory, told before it runs: the question, and the answer.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Serialize;
use serde_json::{Map, Value};

/// What is known when [`Kind::memory`](crate::Kind::memory) is asked.
#[derive(Debug, Clone, Default)]
pub struct MemoryQuery {
    /// The memory of the card, in bytes; `None` leaves open which card it is.
    pub device_bytes: Option<u64>,
    /// The command that runs the pipeline: `pipe run FILE`.
    pub run: String,
    /// The inputs that the stage has, by name; of one that takes a list, the first.
    pub inputs: BTreeMap<String, Foreseen>,
}

/// An input that may still have to be made.
#[derive(Debug, Clone, Default)]
pub struct Foreseen {
    /// The stage that makes it.
    pub stage: String,
    /// The artifact, if it is there; else the nearest one in front of it that is, along the first input of each stage.
    pub folder: Option<PathBuf>,
    /// The stages between that artifact and the input, each with its configuration; the nearest to the input first. Empty
    /// if the artifact is the input. Where no artifact is there, all stages in front.
    pub through: Vec<(&'static str, Value)>,
    /// Without an artifact: the fields of the `config.json` that the first of these stages will write, as far as
    /// [`Kind::model`](crate::Kind::model) says.
    pub model: Option<Map<String, Value>>,
}

/// What a stage takes of a GPU's memory.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MemoryReport {
    /// The most that is allocated at a time, in bytes.
    pub peak_bytes: u64,
    /// When that is, in words.
    pub peak_in: String,
    /// What is allocated then; together the peak.
    pub components: Vec<MemoryPart>,
    /// The most of each part of the run.
    pub phases: Vec<MemoryPart>,
    /// What the process takes with all that it has beside what it allocates.
    pub process_bytes: u64,
    /// What the process may take, if that is known.
    pub limit_bytes: Option<u64>,
    /// What was chosen, and what was supposed.
    pub notes: Vec<String>,
    /// Why the stage will refuse to begin.
    pub refusal: Option<MemoryRefusal>,
}

/// A use of memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MemoryPart {
    /// What it is for.
    pub name: String,
    /// How much.
    pub bytes: u64,
}

/// Why a stage does not fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MemoryRefusal {
    /// The error.
    pub message: String,
    /// What to do.
    pub hint: String,
}

impl MemoryReport {
    /// A table for people: a heading, a line for each component, and what was chosen.
    pub fn lines(&self) -> Vec<String> {
        let limit = match self.limit_bytes {
            Some(bytes) => format!(" of {}", gigabytes(bytes)),
            None => String::new(),
        };
        let (peak, process) = (gigabytes(self.peak_bytes), gigabytes(self.process_bytes));
        let mut lines =
            vec![format!("GPU memory: {peak} at the peak ({}), the process {process}{limit}", self.peak_in)];
        let width = self.components.iter().map(|part| part.name.chars().count()).max().unwrap_or(0);
        for MemoryPart { name, bytes } in &self.components {
            lines.push(format!("  {name:width$}  {:>10}", gigabytes(*bytes)));
        }
        lines.extend(self.notes.iter().map(|note| format!("  {note}")));
        lines
    }
}

/// In units of 10^9 bytes.
fn gigabytes(bytes: u64) -> String {
    format!("{:.3} GB", bytes as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_a_table() {
        let part = |name: &str, bytes| MemoryPart { name: name.to_owned(), bytes };
        let report = MemoryReport {
            peak_bytes: 1_234_500_000,
            peak_in: "backward pass".to_owned(),
            components: vec![part("weights", 1_000_000_000), part("adapters", 234_500_000)],
            phases: Vec::new(),
            process_bytes: 1_800_000_000,
            limit_bytes: Some(8_000_000_000),
            notes: vec!["all 28 layers are computed again".to_owned()],
            refusal: None,
        };
        assert_eq!(
            report.lines(),
            [
                "GPU memory: 1.234 GB at the peak (backward pass), the process 1.800 GB of 8.000 GB",
                "  weights     1.000 GB",
                "  adapters    0.234 GB",
                "  all 28 layers are computed again",
            ]
        );
    }
}
