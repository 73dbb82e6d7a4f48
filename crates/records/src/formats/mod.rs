//! The table of formats. Adding one is a file here and a line in the table.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Error, batch::Chunks, source::Source};

/// Lists formats as `module: Name`; each module has a unit struct `Reader`. Where several claim a file, the first counts.
macro_rules! formats {
    ($($(#[$doc:meta])* $module:ident: $name:ident,)*) => {
        $(mod $module;)*

        /// How rows are written in a file.
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema
        )]
        #[serde(rename_all = "snake_case")]
        pub enum Format {
            $($(#[$doc])* $name,)*
        }

        impl Format {
            /// Every format.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// Its name in pipelines and figures.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($module),)*
                }
            }

            pub(crate) fn reader(self) -> &'static dyn Reader {
                match self {
                    $(Self::$name => &$module::Reader,)*
                }
            }
        }
    };
}

formats! {
    /// One JSON object a line.
    jsonl: Jsonl,
    /// A JSON array of objects; an object that begins with such an array; objects one after the other.
    json: Json,
    /// Comma-separated values with a header.
    csv: Csv,
    /// Tab-separated values with a header.
    tsv: Tsv,
    /// Parquet.
    parquet: Parquet,
    /// Arrow IPC, as a file (Feather 2) or as a stream (as `datasets` saves it).
    arrow: Arrow,
    /// Plain text.
    text: Text,
}

/// What a pipeline may say about reading.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// The format of every file; none if it is found out.
    pub format: Option<Format>,
    /// What a document is in text files.
    pub text_document: TextDocument,
}

/// What one document is in a text file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TextDocument {
    /// The whole file.
    #[default]
    File,
    /// Each line that is not blank.
    Line,
}

/// What the number of a record counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// The line where it begins, blank lines and headers counted.
    Line,
    /// Rows, or elements of an array.
    Row,
}

/// A format.
pub(crate) trait Reader: Sync {
    /// The ends of names that it usually has.
    fn extensions(&self) -> &'static [&'static str];

    /// Whether a file is of this format, by the end of its name (in lower case, empty if it is none of any format's) and
    /// its first bytes, unpacked, without a byte order mark.
    fn claims(&self, extension: &str, head: &[u8]) -> bool;

    /// What the numbers of its records count.
    fn unit(&self) -> Unit;

    /// Begins to read.
    fn open(&self, source: Source, options: &Options) -> Result<Box<dyn Chunks>, Error>;
}

impl Format {
    /// What the numbers of its records count.
    pub fn unit(self) -> Unit {
        self.reader().unit()
    }

    /// Finds a format by name and content.
    pub(crate) fn detect(extension: &str, head: &[u8]) -> Option<Self> {
        Self::ALL.iter().copied().find(|format| format.reader().claims(extension, head))
    }
}

/// The first byte that is not blank.
fn first_mark(head: &[u8]) -> Option<u8> {
    head.iter().copied().find(|byte| !byte.is_ascii_whitespace())
}
