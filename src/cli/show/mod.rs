//! `pipe show`: what a stage made, as the stage that takes it sees it.
//!
//! Samples are shown token by token with what the loss counts (`samples`), everything else by its files (`folder`).

mod folder;
mod histogram;
mod samples;
mod tokens;

use std::{collections::VecDeque, path::Path};

use clap::Args;
use serde_json::Value;

use super::{
    CliError, Exit, Format, candidates, count,
    get::say_that_it_waits,
    pipeline::{print, print_json},
    recorded::{Chosen, Recorded, pipeline_of},
};
use crate::{
    cache::{Home, Store},
    config::Pipeline,
    runs::{RunRecord, Runs},
};

/// The width of text where there is no terminal.
const WIDTH: usize = 100;

/// Arguments of `pipe show`.
#[derive(Args)]
pub(super) struct Show {
    /// The stage, or one of its outputs (`parts.train`)
    #[arg(value_name = "STAGE[.OUTPUT]", add = candidates::recorded_outputs())]
    output: String,
    /// The sample to show, counted from 0
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = count::whole)]
    row: usize,
    /// Show the tokens of the sample as a list with their ids
    #[arg(long)]
    ids: bool,
    #[command(flatten)]
    recorded: Recorded,
    /// How to write the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// A stage of a recorded run, and what is known of those before it.
struct Shown<'a> {
    stage: &'a str,
    output: &'a str,
    run: &'a RunRecord,
    pipeline: Option<Pipeline>,
    store: Store,
    /// For the views of artifacts.
    folder: tempfile::TempDir,
}

impl Show {
    pub(super) fn execute(self) -> Result<Exit, CliError> {
        let Chosen { home, mut run, stage, output, digest } = self.recorded.output(&self.output)?;
        let _in_use = home.share(say_that_it_waits)?;
        Runs::new(&home).complete(&mut run);
        let shown = Shown::new(&home, &run, stage, &output)?;
        let artifact = shown.folder.path().join("artifact");
        shown.store.materialise(&digest, &artifact)?;
        let view = if artifact.join(pipe_samples::FILE_NAME).exists() {
            samples::view(&shown, &artifact, self.row, self.ids)?
        } else {
            folder::view(&artifact, &shown)?
        };
        match self.format {
            Format::Text => print(&view.text)?,
            Format::Json => print_json(&view.json)?,
        }
        Ok(Exit::Done)
    }
}

/// Both forms of what is shown.
struct View {
    text: String,
    json: Value,
}

impl<'a> Shown<'a> {
    fn new(home: &Home, run: &'a RunRecord, stage: &'a str, output: &'a str) -> Result<Self, CliError> {
        let folder = tempfile::tempdir().map_err(|source| {
            let target = std::env::temp_dir().display().to_string();
            CliError::Write { target, source }
        })?;
        Ok(Self { stage, output, run, pipeline: pipeline_of(home, run), store: Store::new(home), folder })
    }

    /// As the command line names it.
    fn name(&self) -> String {
        if self.output == "out" { self.stage.to_owned() } else { format!("{}.{}", self.stage, self.output) }
    }

    /// The stage and all before it whose samples it got, the nearest first.
    fn lineage(&self) -> Vec<&str> {
        let mut found: Vec<&str> = vec![self.stage];
        let mut next: VecDeque<&str> = [self.stage].into();
        while let Some(spec) = next.pop_front().and_then(|stage| self.pipeline.as_ref()?.stages.get(stage)) {
            // A stage that takes a model makes samples of something else, or looks at their text.
            let taken = spec.inputs.iter().filter(|(name, _)| spec.declaration.kind != "tokenize" && *name != "model");
            for reference in taken.flat_map(|(_, references)| references) {
                let stage = reference.stage.as_str();
                if !found.contains(&stage) {
                    found.push(stage);
                    next.push_back(stage);
                }
            }
        }
        found
    }

    /// A field of the configuration of the nearest stage that says it.
    fn configured(&self, field: &str) -> Option<u64> {
        let stages = &self.pipeline.as_ref()?.stages;
        self.lineage().into_iter().find_map(|stage| stages.get(stage)?.config.get(field)?.as_u64())
    }

    /// The tokenizer that made the samples: that of the nearest `model`.
    fn tokenizer(&self) -> Option<pipe_text::Tokenizer> {
        let stages = &self.pipeline.as_ref()?.stages;
        self.lineage().into_iter().enumerate().find_map(|(index, stage)| {
            let model = stages.get(stage)?.inputs.get("model")?.first()?;
            let digest = self.run.artifact(model.stage.as_str(), &model.output)?;
            let folder = self.folder.path().join(format!("model-{index}"));
            self.store.materialise(&digest, &folder).ok()?;
            pipe_text::Tokenizer::load(Path::new(&folder)).ok()
        })
    }
}
