//! `pipe get`: copy an artifact out of the cache.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::{CliError, Exit, Format, pipeline::print, pipeline::print_json, recorded::Recorded};
use crate::{
    cache::{Holder, Store},
    report,
};

/// Arguments of `pipe get`.
#[derive(Args)]
pub(super) struct Get {
    /// The stage, or one of its outputs (`parts.train`)
    #[arg(value_name = "STAGE[.OUTPUT]")]
    output: String,
    /// A folder that does not exist yet, or is empty
    destination: PathBuf,
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
        let manifest = Store::new(&home).checkout(&digest, &self.destination)?;
        let (files, bytes) = (manifest.entries().len(), manifest.total_bytes());
        match self.format {
            Format::Text => {
                let what = format!("{}, {}", report::plural(files, "file"), report::bytes(bytes));
                print(&format!("{} ({what}) of run {} is in {}\n", self.output, run.id, self.destination.display()))?;
            }
            Format::Json => print_json(&json!({
                "stage": stage, "output": output, "digest": digest, "run": run.id,
                "destination": self.destination, "files": files, "bytes": bytes,
            }))?,
        }
        Ok(Exit::Done)
    }
}
