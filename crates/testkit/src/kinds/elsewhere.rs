//! A kind that takes something from elsewhere by a name that can come to stand for something else.

use std::{collections::BTreeSet, env, fs, io};

use pipe_stage::{Context, Failure, Kind, Port, Problems, Reference, Stage, Validate};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::FILE;

/// Tells where elsewhere is: the folder whose files are called like branches and hold their commits.
const ELSEWHERE: &str = "FAKE_ELSEWHERE";

/// The kind. Its artifact is the pin, and whether the worker was told where elsewhere is.
pub(super) struct Branch;

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// The branch.
    branch: String,
}

impl Kind for Branch {
    type Config = Config;
    const KIND: &'static str = "branch";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Takes what a branch stands for";
    const INPUTS: &'static [Port] = &[];
    const SURROUNDINGS: &'static [&'static str] = &[ELSEWHERE];

    fn references(config: &Config) -> Vec<Reference> {
        vec![Reference { field: "branch".to_owned(), name: format!("fake://{}", config.branch) }]
    }
}

impl Validate for Config {
    fn validate(&self, _inputs: &BTreeSet<String>, _problems: &mut Problems) {}
}

/// There is no such branch.
#[derive(Debug, thiserror::Error)]
#[error("there is no branch `{branch}`")]
struct Missing {
    branch: String,
    source: io::Error,
}

impl Stage for Branch {
    fn run(_config: &Config, context: &Context) -> Result<(), Failure> {
        let reached = if env::var_os(ELSEWHERE).is_some() { "reached" } else { "not reached" };
        fs::write(context.output().join(FILE), format!("{} {reached}", context.pin("branch")?))?;
        Ok(())
    }

    fn resolve(config: &Config, _reference: &Reference) -> Result<String, Failure> {
        let elsewhere = env::var_os(ELSEWHERE);
        let elsewhere =
            elsewhere.ok_or_else(|| Failure::environment("elsewhere cannot be reached").hint("go there"))?;
        let branch = config.branch.clone();
        fs::read_to_string(std::path::Path::new(&elsewhere).join(&branch))
            .map_err(|source| Failure::from(Missing { branch, source }).hint("look which there are"))
    }
}
