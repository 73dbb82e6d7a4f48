//! `pipe get`: copy an artifact out of the cache.

use std::path::PathBuf;

use clap::Args;
use pipe_stage::Form;
use serde_json::json;

use super::{
    CliError, Exit, Format, candidates,
    pipeline::print,
    pipeline::print_json,
    recorded::{Chosen, Recorded, pipeline_of},
    said::say,
};
use crate::{
    cache::{Checkout, Holder, Home, Store},
    report,
    runs::RunRecord,
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
        let Chosen { home, run, stage, output, digest } = self.recorded.output(&self.output)?;
        let _in_use = home.share(say_that_it_waits)?;
        let form = form(&home, &run, stage, &output);
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
    let pipeline = pipeline_of(home, run);
    let outputs = pipeline.as_ref().and_then(|pipeline| pipeline.stages.get(stage)).map(|spec| &spec.outputs[..]);
    outputs.into_iter().flatten().find(|known| known.name == output).map_or(Form::Folder, |output| output.form)
}
