//! The small files beside the weights: tokenizer, template, licence.

use std::{fs, path::Path};

use crate::Error;

/// Files that make a tokenizer.
const TOKENIZER: &[&str] = &[
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
];

/// Files that belong to a model and hold no weights.
const MODEL: &[&str] = &["generation_config.json", "LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE"];

/// Copies the tokenizer's files (vocabulary, settings, chat template) that `from` has into `to`. Returns their names.
///
/// # Errors
/// If a file cannot be copied.
pub fn copy_tokenizer_files(from: &Path, to: &Path) -> Result<Vec<&'static str>, Error> {
    copy(from, to, TOKENIZER)
}

/// Copies all small files of a model: the tokenizer's, the generation settings and the licence. Returns their names.
///
/// # Errors
/// If a file cannot be copied.
pub fn copy_side_files(from: &Path, to: &Path) -> Result<Vec<&'static str>, Error> {
    let mut copied = copy(from, to, TOKENIZER)?;
    copied.extend(copy(from, to, MODEL)?);
    Ok(copied)
}

fn copy(from: &Path, to: &Path, names: &[&'static str]) -> Result<Vec<&'static str>, Error> {
    let mut copied = Vec::new();
    for name in names {
        let source = from.join(name);
        if !source.is_file() {
            continue;
        }
        // Not fs::copy, which would carry over the read-only mode of a stored artifact.
        let content = fs::read(&source).map_err(Error::read(&source))?;
        let target = to.join(name);
        fs::write(&target, content).map_err(Error::write(&target))?;
        copied.push(*name);
    }
    Ok(copied)
}
