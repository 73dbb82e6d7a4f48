//! What can be wrong with a samples folder.

use std::path::PathBuf;

use arrow::error::ArrowError;
use parquet::errors::ParquetError;

/// Why samples could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder has no [`FILE_NAME`](crate::FILE_NAME).
    #[error("{} is not a samples folder: it has no {}; give the output of tokenize, filter, split or mix", .folder.display(), crate::FILE_NAME)]
    NotSamples {
        /// The folder.
        folder: PathBuf,
    },
    /// The file cannot be opened, created or flushed.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// What was tried: `open`, `create`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is Parquet, but not of samples.
    #[error(
        "{} does not hold samples: it needs the columns input_ids (list of uint32), labels (list of int32) and length \
         (uint32), and has {found}", .path.display()
    )]
    Columns {
        /// The file.
        path: PathBuf,
        /// Its columns with their types.
        found: String,
    },
    /// A row contradicts itself.
    #[error("{} is damaged: row {row} has {ids} ids, {labels} labels and a length of {length}", .path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// The row, counted from 0.
        row: u64,
        /// Number of ids.
        ids: usize,
        /// Number of labels.
        labels: usize,
        /// What the column `length` says.
        length: u32,
    },
    /// A row lacks a value.
    #[error("{} is damaged: there are empty cells (null) among rows {first} to {last}", .path.display())]
    Null {
        /// The file.
        path: PathBuf,
        /// First row that may be meant, counted from 0.
        first: u64,
        /// Last such row.
        last: u64,
    },
    /// A sample that must not be written.
    #[error("a sample has {ids} ids and {labels} labels; there must be one label an id, and at most {limit} ids")]
    Sample {
        /// Number of ids.
        ids: usize,
        /// Number of labels.
        labels: usize,
        /// Most ids that a sample may have.
        limit: usize,
    },
    /// The file is no readable Parquet, or could not be written.
    #[error("cannot {action} {}", .path.display())]
    Parquet {
        /// What was tried: `read`, `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: ParquetError,
    },
    /// A batch could not be decoded or built.
    #[error("cannot {action} {}", .path.display())]
    Arrow {
        /// What was tried: `read`, `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: ArrowError,
    },
}
