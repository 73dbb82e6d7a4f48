//! A run made again, held against the record of the first.
//!
//! Nothing here runs anything, and nothing is taken from the bundle but what it is compared with.

mod compare;
mod figures;
mod files;
mod tensors;
mod values;

use std::collections::BTreeMap;

use pipe_stage::Digest;
use serde::Serialize;

pub use compare::{Compared, compare};
pub use figures::{DEFAULT_TOLERANCE, FigureChange};
pub use files::{FileChange, FileDetail, FileSide};
pub use tensors::{TensorChange, TensorDiff};
pub use values::{ValueChange, ValueDiff};

/// What came of making a run again.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// In one word.
    pub verdict: Verdict,
    /// The relative difference up to which figures count as equal where bytes cannot be.
    pub tolerance: f64,
    /// The first stage that differs and does not only follow another.
    pub first_difference: Option<String>,
    /// Every recorded stage, in the order of the record.
    pub stages: Vec<StageReport>,
}

/// What came of all stages together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every artifact has the digest that was recorded.
    Equal,
    /// Bytes cannot be compared, because other devices computed them; all figures are within the tolerance.
    WithinTolerance,
    /// Something differs.
    Differs,
    /// A stage did not come to its end.
    Unfinished,
}

/// What came of one stage.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StageReport {
    /// Its name.
    pub stage: String,
    /// Its kind.
    pub kind: String,
    /// In one word.
    pub verdict: StageVerdict,
    /// Its artifacts, by output.
    pub outputs: BTreeMap<String, OutputReport>,
    /// The figures that differ, without those that measure how it ran.
    pub figures: Vec<FigureChange>,
    /// Why it may differ, as far as that can be told.
    pub notes: Vec<String>,
    /// What it failed of.
    pub error: Vec<String>,
}

/// How a stage compares with its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StageVerdict {
    /// Every artifact has the digest that was recorded.
    Same,
    /// It was computed on another device, or from what another device computed; its figures are within the tolerance.
    WithinTolerance,
    /// It differs, though what it took is the same.
    Differs,
    /// It differs, and so does what it took.
    Follows,
    /// It did not come to its end.
    NotMade,
    /// The record has no artifact to compare with.
    NotRecorded,
}

/// How an artifact compares with its record.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OutputReport {
    /// Its digest in the record.
    pub recorded: Digest,
    /// Its digest now.
    pub now: Option<Digest>,
    /// The files that differ; none if the bundle does not list the files.
    pub files: Vec<FileChange>,
}
