//! What a kind of stage is: a declaration and, elsewhere, the work.

use std::{collections::BTreeSet, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{Context, Failure, MemoryQuery, MemoryReport};

/// Marks a configuration field that must not change a byte of the output, and so is not in the key:
/// `#[schemars(extend("x-execution-only" = true))]`. Every other field is semantic.
pub const EXECUTION_ONLY: &str = "x-execution-only";

/// The program that runs a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// `pipe worker`
    Pipe,
    /// `pipe-torch worker`, which links libtorch.
    PipeTorch,
}

/// A named input of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// Its name under `inputs:`.
    pub name: &'static str,
    /// Whether a stage must have it.
    pub required: bool,
    /// Whether it takes a list of stages.
    pub list: bool,
    /// What it should hold, for schemas and errors: "a Hugging Face model folder".
    pub holds: &'static str,
}

impl Port {
    /// An input that must be given.
    pub const fn required(name: &'static str, holds: &'static str) -> Self {
        Self { name, required: true, list: false, holds }
    }

    /// An input that may be left out.
    pub const fn optional(name: &'static str, holds: &'static str) -> Self {
        Self { name, required: false, list: false, holds }
    }

    /// The same input, taking one stage or a list of stages.
    #[must_use]
    pub const fn list(mut self) -> Self {
        self.list = true;
        self
    }
}

/// A named output of a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// Its name: `STAGE.NAME` in a pipeline, `out` where there is only one.
    pub name: String,
    /// What it is.
    pub form: Form,
}

/// What an output is to those who take it. In the cache, every artifact is a folder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// A folder of files.
    #[default]
    Folder,
    /// One file: an artifact that holds nothing else.
    File,
}

impl Output {
    /// A folder of files.
    pub fn folder(name: &str) -> Self {
        Self { name: name.to_owned(), form: Form::Folder }
    }
}

/// A file or folder of the user's that a stage names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserFile {
    /// The top-level field of the configuration that names it, the place in a list (`scripts.0`), or the input that it
    /// is (`inputs.NAME`).
    pub field: String,
    /// The path, absolute or relative to the pipeline file.
    pub path: PathBuf,
}

/// A name for something outside of this machine that may come to stand for other bytes: a branch on a hub, a folder in a
/// bucket. The engine has it resolved once ([`Stage::resolve`]) and keeps the pin that came of it, a commit or a digest,
/// beside the pipeline: until somebody asks for a newer one, the name stands for the same bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The top-level field of the configuration that holds it.
    pub field: String,
    /// The name, in the form in which all who mean the same write it.
    pub name: String,
}

/// The declaration of a kind: all that the engine must know. Needs no libtorch.
pub trait Kind: 'static {
    /// The fields of `with:`.
    type Config: DeserializeOwned + Serialize + JsonSchema + Validate;
    /// The name, in YAML and as the folder under `stages/`.
    const KIND: &'static str;
    /// Raised whenever the same input and configuration may give other bytes than before. Part of the key.
    const VERSION: u32;
    /// One line for help texts and the schema.
    const SUMMARY: &'static str;
    /// The program that runs it.
    const PROGRAM: Program = Program::Pipe;
    /// The inputs it takes.
    const INPUTS: &'static [Port];
    /// The outputs it makes. A single one is called `out` and needs no name in a pipeline.
    const OUTPUTS: &'static [&'static str] = &["out"];
    /// Whether it takes inputs of any name beside [`Kind::INPUTS`], and files of the user's (`file://PATH`) among them.
    /// Such names are relative paths, of which none lies in another. An output that is one file comes as that file.
    /// The configuration must not have a field called `inputs`.
    const OPEN_INPUTS: bool = false;
    /// Whether the outputs follow from the configuration, by [`Kind::outputs`], instead of from [`Kind::OUTPUTS`].
    const OPEN_OUTPUTS: bool = false;

    /// The environment variables that tell where and how to reach what is outside: addresses, proxies, tokens. They reach
    /// the workers of this kind and of no other, and no key: they must not change a byte of the output.
    const SURROUNDINGS: &'static [&'static str] = &[];

    /// The outputs that a stage with this configuration makes.
    fn outputs(_config: &Self::Config) -> Vec<Output> {
        Self::OUTPUTS.iter().map(|name| Output::folder(name)).collect()
    }

    /// The names of the environment variables that reach the stage. Their values are in the key.
    fn environment(_config: &Self::Config) -> Vec<String> {
        Vec::new()
    }

    /// The program of the user's that the stage runs, in words: shown before a pipeline that came from elsewhere is run.
    /// None where a kind only does what it is made for.
    fn command(_config: &Self::Config) -> Option<String> {
        None
    }

    /// The names in the configuration that must be pinned. The pins stand in the key, and reach the stage by
    /// [`Context::pin`](crate::Context::pin).
    fn references(_config: &Self::Config) -> Vec<Reference> {
        Vec::new()
    }

    /// The user's own files that the configuration names. The engine resolves them against the pipeline's folder
    /// and hashes them; in the key the content and the last part of the path stand in for the value of a top-level
    /// field.
    fn user_files(_config: &Self::Config) -> Vec<UserFile> {
        Vec::new()
    }

    /// What a stage takes of a GPU's memory, worked out without one, before it runs. `None` for kinds that take none.
    ///
    /// # Errors
    /// What is not known yet, as a fragment.
    fn memory(_config: &Self::Config, _query: &MemoryQuery) -> Option<Result<MemoryReport, String>> {
        None
    }

    /// The fields of the `config.json` of the model that a stage makes, where they follow from its configuration alone.
    fn model(_config: &Self::Config) -> Option<serde_json::Map<String, serde_json::Value>> {
        None
    }
}

/// The work of a kind, done in a worker process.
pub trait Stage: Kind {
    /// Reads the inputs, writes the outputs, reports on the way.
    ///
    /// # Errors
    /// Anything that keeps the output from being complete and right.
    fn run(config: &Self::Config, context: &Context) -> Result<(), Failure>;

    /// Finds what one of [`Kind::references`] stands for now: a commit, or a digest. Asked by `pipe` itself before a run
    /// begins, and only for what is not pinned yet.
    ///
    /// # Errors
    /// Why that cannot be found out.
    fn resolve(_config: &Self::Config, reference: &Reference) -> Result<String, Failure> {
        Err(Failure::environment(format!("a `{}` stage cannot resolve `{}`", Self::KIND, reference.name)))
    }
}

/// Checks that a type alone cannot express: ranges, and fields that depend on each other or on the inputs.
pub trait Validate {
    /// Reports every problem. `inputs` are the names of the inputs that the stage has.
    fn validate(&self, inputs: &BTreeSet<String>, problems: &mut Problems);
}

/// Collects what [`Validate`] finds.
#[derive(Debug, Default)]
pub struct Problems(Vec<(String, String, Option<String>)>);

impl Problems {
    /// The field at `path` (dots between the parts: `lora.r`) is wrong: `message`, a lower-case fragment.
    pub fn at(&mut self, path: &str, message: impl Into<String>) {
        self.0.push((path.to_owned(), message.into(), None));
    }

    /// The same, with what would be right.
    pub fn at_with_help(&mut self, path: &str, message: impl Into<String>, help: impl Into<String>) {
        self.0.push((path.to_owned(), message.into(), Some(help.into())));
    }

    /// Reports `message` unless `holds`.
    pub fn require(&mut self, holds: bool, path: &str, message: impl Into<String>) {
        if !holds {
            self.at(path, message);
        }
    }

    /// Path, message and help of everything reported.
    pub fn into_inner(self) -> Vec<(String, String, Option<String>)> {
        self.0
    }
}
