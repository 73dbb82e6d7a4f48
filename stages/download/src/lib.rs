//! The kind `download`: brings data and models from outside into the pipeline.
//!
//! The only kind that may look outside of its inputs: at files of this machine, at hubs, buckets and the web. What on
//! another machine may change has a pin, which stands in the key; a worker fetches what the pin says, or fails.

mod config;
mod copy;
mod digests;
mod fetch;
mod selection;
mod source;

pub use config::Config;
use pipe_stage::{Context, Failure, Kind, Port, Reference, Stage, UserFile};
pub use source::{Source, SourceError};

/// The kind `download`.
pub struct Download;

impl Kind for Download {
    type Config = Config;
    const KIND: &'static str = "download";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str =
        "Brings models and data from hubs, buckets, the web or this machine into the pipeline";
    const INPUTS: &'static [Port] = &[];
    const SURROUNDINGS: &'static [&'static str] = pipe_fetch::VARIABLES;

    fn references(config: &Config) -> Vec<Reference> {
        match config.source.parse() {
            Ok(Source::Remote(source)) => fetch::reference(&source, &config.source).into_iter().collect(),
            Ok(Source::File(_)) | Err(_) => Vec::new(),
        }
    }

    fn user_files(config: &Config) -> Vec<UserFile> {
        match config.source.parse() {
            Ok(Source::File(path)) => vec![UserFile { field: fetch::FIELD.to_owned(), path }],
            // Nothing of the user's, or an error that `validate` reports.
            Ok(Source::Remote(_)) | Err(_) => Vec::new(),
        }
    }
}

impl Stage for Download {
    fn run(config: &Config, context: &Context) -> Result<(), Failure> {
        match config.source.parse::<Source>()? {
            Source::File(_) => copy::run(config, context),
            Source::Remote(source) => fetch::run(config, &source, context),
        }
    }

    fn resolve(config: &Config, _reference: &Reference) -> Result<String, Failure> {
        match config.source.parse::<Source>()? {
            Source::File(path) => Err(Failure::environment(format!("{} is on this machine", path.display()))),
            Source::Remote(source) => fetch::resolve(&source),
        }
    }
}
