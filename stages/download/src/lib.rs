//! The kind `download`: brings data and models from outside into the pipeline.
//!
//! The only kind that may look outside of its inputs. Today it takes files and folders of this machine; sources on a
//! network are recognised, checked, and refused when they run.

mod config;
mod copy;
mod digests;
mod source;

pub use config::Config;
use pipe_stage::{Context, Failure, Kind, Port, Stage, UserFile};
pub use source::{Source, SourceError};

/// The kind `download`.
pub struct Download;

impl Kind for Download {
    type Config = Config;
    const KIND: &'static str = "download";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Brings a file or a folder into the pipeline";
    const INPUTS: &'static [Port] = &[];

    fn user_files(config: &Config) -> Vec<UserFile> {
        match config.source.parse() {
            Ok(Source::File(path)) => vec![UserFile { field: "source".to_owned(), path }],
            // Nothing of the user's, or an error that `validate` reports.
            Ok(Source::Remote { .. }) | Err(_) => Vec::new(),
        }
    }
}

/// Why a source cannot be brought in.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot fetch {source_text}: {scheme}:// sources are not built yet")]
    NotBuilt { source_text: String, scheme: &'static str },
}

impl Stage for Download {
    fn run(config: &Config, context: &Context) -> Result<(), Failure> {
        match config.source.parse::<Source>()? {
            Source::File(_) => copy::run(config, context),
            Source::Remote { scheme, .. } => {
                let error = Error::NotBuilt { source_text: config.source.clone(), scheme };
                Err(Failure::from(error).hint("fetch it yourself, and name the file or folder as file://PATH"))
            }
        }
    }
}
