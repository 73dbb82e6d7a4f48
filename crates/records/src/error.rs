//! What can be wrong with a file, and with a row.

use std::path::PathBuf;

/// Why data could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder cannot be read.
    #[error("cannot read {}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Nothing there is data.
    #[error("there is no data: no {wanted} file; found {found}")]
    NoFiles {
        /// The names that would be read.
        wanted: String,
        /// Some of what there is instead.
        found: String,
    },
    /// The bytes are not what the name or the pipeline says.
    #[error("{} is not {format}: {detail}", .path.display())]
    WrongFormat {
        /// The file.
        path: PathBuf,
        /// The format that it should have.
        format: &'static str,
        /// What it is instead, and what to do.
        detail: String,
    },
    /// The file is damaged.
    #[error("{}: {place}{detail}", .path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// Where, as far as that is known: `behind row 7: `.
        place: String,
        /// What is wrong, and what to do.
        detail: String,
    },
    /// The text is in another encoding.
    #[error("{} is UTF-16; write it as UTF-8 (iconv -f UTF-16 -t UTF-8)", .path.display())]
    Utf16 {
        /// The file.
        path: PathBuf,
    },
    /// Parquet cannot be read.
    #[error("cannot read {} as Parquet", .path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: parquet::errors::ParquetError,
    },
    /// Arrow cannot be read.
    #[error("cannot read {} as Arrow", .path.display())]
    Arrow {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: arrow::error::ArrowError,
    },
}

/// Why a row gives no record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What to count it under.
    pub reason: Reason,
    /// What is wrong with this one.
    pub detail: String,
}

/// The kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// More bytes than a row may have.
    RowTooLong,
    /// Bytes that are no UTF-8.
    NotUtf8,
    /// JSON text with half of a surrogate pair.
    LoneSurrogate,
    /// No JSON.
    BrokenJson,
    /// JSON with the same key twice in an object.
    DuplicateKey,
    /// JSON, but no object.
    NotAnObject,
    /// More or fewer cells than the header has.
    WrongCells,
    /// A cell of a type that no record can hold.
    UnknownType,
}

impl Reason {
    /// The name in figures.
    pub fn name(self) -> &'static str {
        match self {
            Self::RowTooLong => "row_too_long",
            Self::NotUtf8 => "not_utf8",
            Self::LoneSurrogate => "lone_surrogate",
            Self::BrokenJson => "broken_json",
            Self::DuplicateKey => "duplicate_key",
            Self::NotAnObject => "not_an_object",
            Self::WrongCells => "wrong_cells",
            Self::UnknownType => "unknown_type",
        }
    }

    pub(crate) fn because(self, detail: impl Into<String>) -> Fault {
        Fault { reason: self, detail: detail.into() }
    }
}

impl Fault {
    pub(crate) fn too_long() -> Self {
        Reason::RowTooLong.because(format!("the row is longer than {} MiB", crate::ROW_LIMIT_BYTES >> 20))
    }
}
