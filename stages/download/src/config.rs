//! The fields of `with:` of a `download` stage.

use std::collections::BTreeSet;

use pipe_stage::{Problems, Validate};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Source, SourceError, digests::is_hex_digest};

/// What to bring in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where it comes from: `file://PATH`, a file or a folder, absolute or relative to the pipeline's folder. A folder is
    /// taken whole, hidden files included. `hf://OWNER/NAME`, `ms://OWNER/NAME`, `https://` and `s3://` are recognised,
    /// and not built yet.
    pub source: String,
    /// The SHA-256 that a single file must have, 64 hexadecimal digits. Default: not checked.
    #[serde(default)]
    pub sha256: Option<String>,
    /// The BLAKE3 that a single file must have, 64 hexadecimal digits; for a folder, the digest that pipe shows for it.
    /// Default: not checked.
    #[serde(default)]
    pub blake3: Option<String>,
}

impl Validate for Config {
    fn validate(&self, _inputs: &BTreeSet<String>, problems: &mut Problems) {
        if let Err(SourceError { message, help }) = self.source.parse::<Source>() {
            problems.at_with_help("source", message, help);
        }
        for (field, digest) in [("sha256", &self.sha256), ("blake3", &self.blake3)] {
            let valid = digest.as_deref().is_none_or(is_hex_digest);
            problems.require(valid, field, "must be 64 hexadecimal digits");
        }
    }
}
