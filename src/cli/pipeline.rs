//! The arguments that name a pipeline, shared by the commands that read one.

use std::{io::Write, path::PathBuf};

use clap::Args;

use super::{CliError, candidates, typed::word};
use crate::{
    config::{self, Pipeline, StageName},
    registry, report,
};

/// A pipeline file and overrides.
#[derive(Args)]
pub(super) struct PipelineArguments {
    /// The pipeline file
    #[arg(add = candidates::pipeline_files())]
    pub(super) file: PathBuf,
    /// Override a parameter (`--set model=file:///m`) or a value (`--set stages.adapter.with.seed=7`)
    #[arg(long = "set", value_name = "PATH=VALUE", add = candidates::settings())]
    set: Vec<String>,
}

impl PipelineArguments {
    /// The command that runs the pipeline, with the same overrides.
    pub(super) fn run_command(&self) -> String {
        let sets = self.set.iter().map(|set| format!(" --set {}", word(set)));
        format!("pipe run {}{}", word(&self.file.to_string_lossy()), sets.collect::<String>())
    }

    /// Reads and checks the pipeline.
    pub(super) fn load(&self) -> Result<Pipeline, CliError> {
        let overrides = self
            .set
            .iter()
            .map(|given| {
                let (path, value) = given.split_once('=').ok_or_else(|| {
                    let help =
                        "write --set NAME=VALUE for a parameter, or --set stages.STAGE.with.FIELD=VALUE".to_owned();
                    CliError::usage(format!("`--set {given}` has no `=`"), help)
                })?;
                Ok((path.to_owned(), value.to_owned()))
            })
            .collect::<Result<Vec<_>, CliError>>()?;
        Ok(config::load(&self.file, &overrides, registry::KINDS)?)
    }
}

/// The stages that a command names, or an error with the nearest name that there is. The name of a stage with a matrix
/// stands for all that the matrix makes.
pub(super) fn stages_named(pipeline: &Pipeline, names: &[String]) -> Result<Vec<StageName>, CliError> {
    let mut stages = Vec::with_capacity(names.len());
    for name in names {
        match &pipeline.named(name)[..] {
            [] => stages.push(stage_named(pipeline, name)?),
            named => stages.extend(named.iter().copied().cloned()),
        }
    }
    Ok(stages)
}

/// The stage called `name`.
pub(super) fn stage_named(pipeline: &Pipeline, name: &str) -> Result<StageName, CliError> {
    if let Some((name, _)) = pipeline.stages.get_key_value(name) {
        return Ok(name.clone());
    }
    let list = |names: &[&StageName]| names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
    let members = pipeline.named(name);
    if !members.is_empty() {
        let count = report::plural(members.len(), "stage");
        return Err(CliError::usage(
            format!("`{name}` has a matrix of {count}"),
            format!("name one: {}", list(&members)),
        ));
    }
    let known: Vec<&StageName> = pipeline.stages.keys().collect();
    let help = match pipe_yaml::nearest(name, known.iter().map(|known| known.as_str())) {
        Some(known) => format!("did you mean `{known}`?"),
        None => format!("it has {}", list(&known)),
    };
    Err(CliError::usage(format!("the pipeline `{}` has no stage `{name}`", pipeline.name), help))
}

/// Writes a command's result to standard output. A reader that went away (`| head`) is no error.
pub(super) fn print(text: &str) -> Result<(), CliError> {
    match anstream::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(CliError::Write { target: "standard output".to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

/// Writes a command's result as JSON.
pub(super) fn print_json(value: &impl serde::Serialize) -> Result<(), CliError> {
    let mut text = serde_json::to_string_pretty(value)
        .map_err(|error| CliError::Write { target: "standard output".to_owned(), source: error.into() })?;
    text.push('\n');
    print(&text)
}
