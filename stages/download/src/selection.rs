//! Which files of a source are taken.
//!
//! Of a model, by default: the weights as safetensors, what a tokenizer and a configuration consist of, code that the
//! configuration may name, and the texts that say what it is and what one may do with it. Not the same weights in other
//! formats, nor weights below folders: `original/`, `onnx/` and the like hold the same once more.

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};
use pipe_fetch::{RemoteFile, Source};

use crate::Config;

/// What is taken of a model if the pipeline does not say. `*` does not cross a `/` here: only the top of a repository.
const MODEL: &[&str] = &[
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "configuration.json",
    "generation_config.json",
    "adapter_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "*.tiktoken",
    "chat_template*",
    "*.jinja",
    "additional_chat_templates/*.jinja",
    "*.py",
    "README*",
    "LICENSE*",
    "NOTICE*",
    "USE_POLICY*",
];

/// The same weights as others have beside them, under names that fit the list above.
const NOT_OF_A_MODEL: &[&str] =
    &["consolidated*.safetensors", "*.fp16.safetensors", "*.bf16.safetensors", "*.fp32.safetensors"];

/// What nobody wants of a data set.
const NOT_OF_DATA: &[&str] = &[".gitattributes", ".gitignore"];

/// Why nothing can be taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{name} has no safetensors; its weights are in {}", others.join(", "))]
    OtherWeights { name: String, others: Vec<String> },
    #[error("{name} has no file that is to be taken; it has {}", some(files))]
    Nothing { name: String, files: Vec<String> },
    #[error("`{pattern}` of `include` takes no file of {name}; it has {}", some(files))]
    Unmatched { name: String, pattern: String, files: Vec<String> },
    #[error(transparent)]
    Pattern(#[from] globset::Error),
}

impl Error {
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::OtherWeights { .. } => {
                "pipe trains on safetensors: take another revision or a converted copy of the model; to bring the files in \
                 as they are, name them with `include`"
            }
            _ => "correct `include` and `exclude`: patterns are compared with the whole path",
        }
    }
}

fn some(files: &[String]) -> String {
    const SHOWN: usize = 8;
    if files.is_empty() {
        return "none".to_owned();
    }
    let more = if files.len() > SHOWN { format!(" and {} more", files.len() - SHOWN) } else { String::new() };
    files[..files.len().min(SHOWN)].join(", ") + &more
}

/// A pattern as the hubs' own tools understand it: `*` takes any text, and a pattern that ends in `/` all below.
pub(crate) fn glob(pattern: &str) -> Result<Glob, globset::Error> {
    let all_below = if pattern.ends_with('/') { "*" } else { "" };
    GlobBuilder::new(&format!("{pattern}{all_below}")).literal_separator(false).build()
}

fn set(patterns: &[&str], crosses: bool) -> Result<GlobSet, globset::Error> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        set.add(if crosses { glob(pattern)? } else { GlobBuilder::new(pattern).literal_separator(true).build()? });
    }
    set.build()
}

/// The files to take, of all that `source` has.
pub(crate) fn select(config: &Config, source: &Source, files: Vec<RemoteFile>) -> Result<Vec<RemoteFile>, Error> {
    let name = || config.source.clone();
    let names: Vec<_> = files.iter().map(|file| file.path.clone()).collect();
    let exclude: Vec<_> = config.exclude.iter().map(String::as_str).collect();
    let exclude = set(&exclude, true)?;
    let (is_model, is_part) = match source {
        Source::Repository(repository) => (!repository.is_dataset, repository.path.is_some()),
        _ => (false, true),
    };
    let taken: Vec<_> = if let Some(include) = &config.include {
        for pattern in include {
            let matcher = glob(pattern)?.compile_matcher();
            if !names.iter().any(|name| matcher.is_match(name)) {
                return Err(Error::Unmatched { name: name(), pattern: pattern.clone(), files: names });
            }
        }
        let include: Vec<_> = include.iter().map(String::as_str).collect();
        let include = set(&include, true)?;
        files.into_iter().filter(|file| include.is_match(&file.path) && !exclude.is_match(&file.path)).collect()
    } else if is_model && !is_part {
        let (default, not) = (set(MODEL, false)?, set(NOT_OF_A_MODEL, false)?);
        let is_taken = |name: &str| default.is_match(name) && !not.is_match(name) && !exclude.is_match(name);
        let taken: Vec<_> = files.into_iter().filter(|file| is_taken(&file.path)).collect();
        if !taken.iter().any(|file| file.path.ends_with(".safetensors")) {
            let others: Vec<_> = names.iter().filter(|name| is_weights(name)).cloned().collect();
            if !others.is_empty() {
                return Err(Error::OtherWeights { name: name(), others });
            }
        }
        taken
    } else {
        let not = set(NOT_OF_DATA, true)?;
        let is_taken = |name: &str| (is_part || !not.is_match(name)) && !exclude.is_match(name);
        files.into_iter().filter(|file| is_taken(&file.path)).collect()
    };
    if taken.is_empty() { Err(Error::Nothing { name: name(), files: names }) } else { Ok(taken) }
}

fn is_weights(name: &str) -> bool {
    let endings = [".bin", ".pt", ".pth", ".h5", ".msgpack", ".onnx", ".gguf", ".ckpt", ".nemo", ".safetensors"];
    endings.iter().any(|ending| name.ends_with(ending))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn default_excludes(name: &str) -> bool {
        !set(MODEL, false).unwrap().is_match(name) || set(NOT_OF_A_MODEL, false).unwrap().is_match(name)
    }

    #[test]
    fn the_default_takes_a_model_once() {
        for name in [
            "model.safetensors",
            "model-00001-of-00002.safetensors",
            "model.safetensors.index.json",
            "config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "vocab.json",
            "merges.txt",
            "chat_template.jinja",
            "README.md",
            "LICENSE",
            "adapter_model.safetensors",
            "modeling_custom.py",
        ] {
            assert!(!default_excludes(name), "{name}");
        }
        for name in [
            "pytorch_model.bin",
            "pytorch_model.bin.index.json",
            "tf_model.h5",
            "flax_model.msgpack",
            "model.gguf",
            "onnx/model.onnx",
            "original/consolidated.00.pth",
            "consolidated.safetensors",
            "model.fp16.safetensors",
            "original/model.safetensors",
            ".gitattributes",
            "training_args.bin",
            "images/a.png",
        ] {
            assert!(default_excludes(name), "{name}");
        }
    }

    #[test]
    fn stars_cross_folders_and_a_slash_takes_all_below() {
        let is_match = |pattern: &str, name: &str| glob(pattern).unwrap().compile_matcher().is_match(name);
        assert!(is_match("*.parquet", "data/train/0.parquet"));
        assert!(is_match("data/", "data/train/0.parquet"));
        assert!(!is_match("data", "data/train/0.parquet"));
        assert!(is_match("{train,test}-*", "test-1"));
        assert!(glob("a{b").is_err());
    }
}
