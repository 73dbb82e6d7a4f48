//! `pipe get`: copy an artifact out of the cache.

use std::path::PathBuf;

use clap::Args;
use pipe_stage::Form;
use serde_json::json;

use super::{CliError, Exit, Format, candidates, pipeline::print, pipeline::print_json, recorded::Recorded};
use crate::{
    cache::{Checkout, Holder, Home, Store},
    config, registry, report,
    runs::{RunRecord, Runs},
};

/// Arguments of `pipe get`.
#[derive(Args)]
pub(super) struct Get {
    /// The stage, or one of its outputs (`parts.train`)
    #[arg(value_name = "STAGE[.OUTPUT]", add = candidates::recorded_stages())]
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
    anstream::eprintln!("waiting for {holder}, which cleans the cache up (pipe cache gc)");
}

impl Get {
    pub(super) fn execute(self) -> Result<Exit, CliError> {
        let (stage, output) = self.output.split_once('.').unwrap_or((&self.output, "out"));
        let (home, run) = self.recorded.run_with(stage, |stage| !stage.outputs.is_empty())?;
        let outputs = &run.stages[stage].outputs;
        let digest = *outputs.get(output).ok_or_else(|| {
            let known: Vec<String> = outputs.keys().map(|output| format!("{stage}.{output}")).collect();
            CliError::usage(
                format!("the stage `{stage}` has several outputs, none called `{output}`"),
                format!("name one: {}", known.join(", ")),
            )
        })?;
        let _in_use = home.share(say_that_it_waits)?;
        let form = form(&home, &run, stage, output);
        let options = Checkout { form, force: self.force };
        let done = Store::new(&home).checkout_to(&digest, &self.destination, options)?;
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
