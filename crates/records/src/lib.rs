//! Rows of data as people have them, in one record type, streaming.
//!
//! [`find`] says which files of some folders hold data and in which [`Format`]; [`read`] reads them in order, in
//! [`Batch`]es of bounded size. Reading only cuts: what a row says is found out by [`Batch::records`], which any thread
//! may do. Memory is bounded by the batches that are under way, whatever the size of a file.
//!
//! What is wrong with one row is a [`Fault`] in its place; what is wrong with a file, so that the rest of it cannot be
//! trusted, is an [`Error`].
//!
//! A format is one file in `formats/` and one line in its table.

mod batch;
mod columns;
mod elements;
mod error;
mod find;
mod formats;
mod lines;
mod source;
mod value;

pub use batch::{Batch, Limits, ROW_LIMIT_BYTES, read};
pub use error::{Error, Fault, Reason};
pub use find::{DataFile, Found, find};
pub use formats::{Format, Options, TextDocument, Unit};
pub use value::{describe, parse as parse_json, parse_text as parse_json_text};

/// A row: its fields by name, in the order in which the file has them.
pub type Record = serde_json::Map<String, serde_json::Value>;
