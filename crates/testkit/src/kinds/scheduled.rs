//! Kinds that show what the scheduler does with a stage: how often it tries it, and what it gives it.

use std::{collections::BTreeSet, env, fs, io, path::PathBuf};

use pipe_stage::{Context, Failure, Kind, Port, Problems, Stage, Validate};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::FILE;
use crate::gate;

/// Fails a number of times, counted in its resume folder, and then writes which attempt it was.
pub(super) struct Flaky;

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FlakyConfig {
    /// How often it fails.
    #[schemars(extend("x-execution-only" = true))]
    failures: u64,
}

impl Validate for FlakyConfig {
    fn validate(&self, _inputs: &BTreeSet<String>, _problems: &mut Problems) {}
}

impl Kind for Flaky {
    type Config = FlakyConfig;
    const KIND: &'static str = "flaky";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Fails a few times, then writes the number of the attempt";
    const INPUTS: &'static [Port] = &[];
}

impl Stage for Flaky {
    fn run(config: &FlakyConfig, context: &Context) -> Result<(), Failure> {
        let counter = context.resume().join("attempts");
        let attempt = match fs::read_to_string(&counter) {
            Ok(text) => text.parse::<u64>()? + 1,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 1,
            Err(error) => return Err(error.into()),
        };
        fs::write(&counter, attempt.to_string())?;
        if attempt <= config.failures {
            return Err(Failure::from(io::Error::other(format!("attempt {attempt} was told to fail"))));
        }
        fs::write(context.output().join(FILE), attempt.to_string())?;
        Ok(())
    }
}

/// Writes what its environment says.
pub(super) struct Surroundings;

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SurroundingsConfig {
    /// The variables to write.
    variables: Vec<String>,
    /// Tells stages apart that write the same.
    #[serde(default)]
    label: String,
    /// A gate to pass.
    #[serde(default)]
    #[schemars(extend("x-execution-only" = true))]
    gate: Option<PathBuf>,
}

impl Validate for SurroundingsConfig {
    fn validate(&self, _inputs: &BTreeSet<String>, _problems: &mut Problems) {}
}

impl Kind for Surroundings {
    type Config = SurroundingsConfig;
    const KIND: &'static str = "surroundings";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Writes what variables of its environment say";
    const INPUTS: &'static [Port] = &[];
}

impl Stage for Surroundings {
    fn run(config: &SurroundingsConfig, context: &Context) -> Result<(), Failure> {
        if let Some(folder) = &config.gate {
            gate::pass(folder)?;
        }
        let line = |name: &String| format!("{name}={}", env::var(name).unwrap_or_else(|_| "unset".to_owned()));
        let lines: Vec<String> = config.variables.iter().map(line).collect();
        fs::write(context.output().join(FILE), lines.join(" "))?;
        Ok(())
    }
}
