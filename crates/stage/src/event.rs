//! What a worker says while it works: one JSON object a line on its standard output.

use serde::{Deserialize, Deserializer, Serialize};

use crate::FailureClass;

/// One line from a worker to the scheduler.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// How far the work is.
    Progress {
        /// What is counted: `rows`, `bytes`, `tensors`, `steps`.
        unit: String,
        /// Done so far.
        done: u64,
        /// All there is to do, where that is known.
        total: Option<u64>,
    },
    /// Measurements of one step of training or evaluation.
    Metric {
        /// The step, counted from 1.
        step: u64,
        /// Name to value, in the order in which they should be shown. JSON knows no NaN and no infinity: both are written
        /// as `null`, which is read as NaN.
        #[serde(deserialize_with = "values")]
        values: indexmap::IndexMap<String, f64>,
    },
    /// A figure of the finished work, kept in the action record: `rows_dropped`, `held_out_loss`.
    Figure {
        /// Its name, with its unit where it has one.
        name: String,
        /// A number or a short text.
        value: serde_json::Value,
    },
    /// Something a person should read.
    Log {
        /// How important it is.
        level: Level,
        /// A sentence.
        message: String,
    },
    /// The last line of every worker that ended by itself.
    Result(Status),
}

fn values<'de, D: Deserializer<'de>>(deserializer: D) -> Result<indexmap::IndexMap<String, f64>, D::Error> {
    let values = indexmap::IndexMap::<String, Option<f64>>::deserialize(deserializer)?;
    Ok(values.into_iter().map(|(name, value)| (name, value.unwrap_or(f64::NAN))).collect())
}

/// The importance of an [`Event::Log`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Good to know.
    Info,
    /// Likely not what the user meant.
    Warn,
}

/// How a worker ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case", deny_unknown_fields)]
pub enum Status {
    /// The output is complete.
    Done,
    /// It is not.
    Failed {
        /// Whose fault it is, which decides the exit code.
        class: FailureClass,
        /// The error and its causes, outermost first.
        chain: Vec<String>,
        /// What to do about it.
        hint: Option<String>,
    },
}
