//! The fields of `with:` of a `download` stage.

use std::collections::BTreeSet;

use pipe_stage::{Problems, Validate};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Source, SourceError, digests::is_hex_digest, selection};

/// What to bring in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where it comes from.
    ///
    /// `hf://ORG/NAME` or `ms://ORG/NAME`, a model on the Hugging Face hub or on ModelScope, and
    /// `hf://datasets/ORG/NAME`, a data set. `@REVISION` behind the name takes a branch, a tag or a commit; `/PATH` behind
    /// it takes one file, or what is below a folder.
    ///
    /// `https://HOST/PATH` or `http://HOST/PATH`, one file, with `sha256`.
    ///
    /// `s3://BUCKET/KEY`, one object, or `s3://BUCKET/PREFIX/`, all below.
    ///
    /// `file://PATH`, a file or a folder; absolute, or relative to the pipeline's folder. A folder is taken whole, hidden
    /// files included.
    ///
    /// What a branch or a bucket stands for is looked up once and kept in `pipe.lock`.
    pub source: String,
    /// Which files to take, as patterns: `*` stands for any text (also with `/`), `?` for a character, `[ab]` for one of
    /// some, `{a,b}` for one of some texts; a pattern that ends in `/` takes all below. Not for `file://`. Default: of a
    /// model what is needed to use it with safetensors, and not its weights in other formats; of anything else all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include: Option<Vec<String>>,
    /// Which files of these to leave out, as patterns. Not for `file://`. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// The SHA-256 that a single file must have, 64 hexadecimal digits. Needed for `https://` and `http://`: it says which
    /// bytes are meant. Default: not checked.
    #[serde(default)]
    pub sha256: Option<String>,
    /// The BLAKE3 that a single file must have, 64 hexadecimal digits; for a folder, the digest that pipe shows for it.
    /// Default: not checked.
    #[serde(default)]
    pub blake3: Option<String>,
}

impl Validate for Config {
    fn validate(&self, _inputs: &BTreeSet<String>, problems: &mut Problems) {
        let source = self.source.parse::<Source>();
        match &source {
            Err(SourceError { message, help }) => problems.at_with_help("source", message, help),
            Ok(Source::Remote(pipe_fetch::Source::Web(_))) if self.sha256.is_none() => problems.at_with_help(
                "sha256",
                "is needed with an address of the web: it says which bytes are meant, today and in a year",
                "take it from the page of the file, or from `curl -L ADDRESS | sha256sum`",
            ),
            Ok(_) => {}
        }
        let is_local = matches!(source, Ok(Source::File(_)));
        let patterns = self.include.iter().flatten().map(|pattern| ("include", pattern));
        let patterns = patterns.chain(self.exclude.iter().map(|pattern| ("exclude", pattern)));
        for (field, pattern) in patterns {
            if is_local {
                problems.at(field, "is not for file:// sources, which are taken whole");
                break;
            }
            if let Err(error) = selection::glob(pattern) {
                problems.at(field, format!("`{pattern}` is no pattern: {}", error.kind()));
            }
        }
        if self.include.as_ref().is_some_and(Vec::is_empty) {
            problems.at_with_help(
                "include",
                "takes nothing",
                "leave it out for the default, or write `[\"*\"]` for all",
            );
        }
        for (field, digest) in [("sha256", &self.sha256), ("blake3", &self.blake3)] {
            let valid = digest.as_deref().is_none_or(is_hex_digest);
            problems.require(valid, field, "must be 64 hexadecimal digits");
        }
    }
}
