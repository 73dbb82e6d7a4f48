//! `pipe get`: copy an artifact out of the cache.

use std::{collections::BTreeMap, path::PathBuf};

use clap::Args;
use pipe_stage::{Digest, Form};
use serde_json::json;

use super::{CliError, Exit, Format, candidates, pipeline::print, pipeline::print_json, recorded::Recorded, said::say};
use crate::{
    cache::{Checkout, Holder, Home, Store},
    config, registry, report,
    runs::{RunRecord, Runs},
};

/// Arguments of `pipe get`.
#[derive(Args)]
pub(super) struct Get {
    /// The stage, or one of its outputs (`parts.train`)
    #[arg(value_name = "STAGE[.OUTPUT]", add = candidates::recorded_outputs())]
    output: String,
    /// Where to put it: a folder, or a file if the output is one. It may hold an earlier copy that nobody changed
    destination: PathBuf,
    /// Overwrite what somebody changed, or what was there before. Other files of a folder stay
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    recorded: Recorded,
    /// How to write the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Says why nothing happens for a while.
pub(super) fn say_that_it_waits(holder: Option<Holder>) {
    let holder = holder.map_or_else(|| "another process".to_owned(), |holder| holder.to_string());
    say!("waiting for {holder}, which cleans the cache up (pipe cache gc)");
}

impl Get {
    pub(super) fn execute(self) -> Result<Exit, CliError> {
        let (home, run, stage, output) = self.find()?;
        let outputs = &run.stages[stage].outputs;
        let found = match output {
            Some(output) => outputs.get_key_value(output),
            None => outputs.iter().next().filter(|_| outputs.len() == 1),
        };
        let (output, digest) = found.ok_or_else(|| none_such(stage, output, outputs))?;
        let _in_use = home.share(say_that_it_waits)?;
        let form = form(&home, &run, stage, output);
        let options = Checkout { form, force: self.force };
        let done = Store::new(&home).checkout_to(digest, &self.destination, options)?;
        match self.format {
            Format::Text => {
                let what = format!("{}, {}", report::plural(done.files, "file"), report::bytes(done.bytes));
                let already = if done.written == 0 && done.removed == 0 { " already" } else { "" };
                let place = self.destination.display();
                print(&format!("{} ({what}) of run {} is in {place}{already}\n", self.output, run.id))?;
            }
            Format::Json => print_json(&json!({
                "stage": stage, "output": output, "digest": digest, "run": run.id, "form": form,
                "destination": self.destination, "files": done.files, "bytes": done.bytes,
                "written": done.written, "removed": done.removed,
            }))?,
        }
        Ok(Exit::Done)
    }

    /// The run to take from, the stage and, if it is named, the output.
    fn find(&self) -> Result<(Home, RunRecord, &str, Option<&str>), CliError> {
        let run_with = |stage: &str| self.recorded.run_with(stage, |stage| !stage.outputs.is_empty());
        let whole = self.output.as_str();
        let Some((stage, output)) = whole.rsplit_once('.') else {
            let (home, run) = run_with(whole)?;
            return Ok((home, run, whole, None));
        };
        // The values in the name of a stage of a matrix may hold dots; other names of stages hold none.
        if stage.contains('@')
            && let Ok((home, run)) = run_with(whole)
        {
            return Ok((home, run, whole, None));
        }
        let (home, run) = run_with(stage)?;
        Ok((home, run, stage, Some(output)))
    }
}

fn none_such(stage: &str, output: Option<&str>, outputs: &BTreeMap<String, Digest>) -> CliError {
    let message = match output {
        Some(output) => format!("the stage `{stage}` has no output `{output}`"),
        None => format!("the stage `{stage}` has {} outputs", outputs.len()),
    };
    let known: Vec<String> = outputs.keys().map(|output| format!("{stage}.{output}")).collect();
    let help = match known.len() {
        1 => format!("it has one: name `{stage}`"),
        _ => format!("name one: {}", known.join(", ")),
    };
    CliError::usage(message, help)
}

/// What an output is to those who take it, by the pipeline as the run meant it.
fn form(home: &Home, run: &RunRecord, stage: &str, output: &str) -> Form {
    let folder = run.file.parent().unwrap_or(&run.file).to_owned();
    let resolved = Runs::new(home).resolved(&run.resolved);
    let pipeline = resolved.and_then(|text| {
        let source = config::Source::new(&run.file, text);
        config::parse(source, folder, &[], registry::KINDS).ok()
    });
    let outputs = pipeline.as_ref().and_then(|pipeline| pipeline.stages.get(stage)).map(|spec| &spec.outputs[..]);
    outputs.into_iter().flatten().find(|known| known.name == output).map_or(Form::Folder, |output| output.form)
}
