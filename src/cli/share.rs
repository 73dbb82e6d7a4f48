//! `pipe share`: a run in one file.

use std::{
    env,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use clap::Args;
use owo_colors::OwoColorize;
use serde_json::json;

use super::{
    CliError, Exit, Format, candidates, get::say_that_it_waits, pipeline::print, pipeline::print_json, recorded::Scope,
    said::say,
};
use crate::{
    bundle::{Artifacts, Gathered, Request},
    registry, report,
};

/// Arguments of `pipe share`.
#[derive(Args)]
#[command(after_help = "\
A bundle holds the resolved pipeline, the user's own input files, keys, digests, figures, logs and what the run ran on. \
It is a tar archive compressed by zstd. It never holds the value of an environment variable.")]
pub(super) struct Share {
    /// The run: `last`, `last~1`, an id or the beginning of one
    run: String,
    /// The file to write [default: PIPELINE-RUN.pipe]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Take the files of artifacts along: of all stages, or of those that are named
    #[arg(long, value_name = "STAGE", num_args = 0.., add = candidates::recorded_stages())]
    with_artifacts: Option<Vec<String>>,
    /// Share a run that did not finish
    #[arg(long)]
    partial: bool,
    /// The value of this environment variable may be seen
    #[arg(long, value_name = "NAME")]
    not_secret: Vec<String>,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    scope: Scope,
    /// How to write the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Share {
    pub(super) fn execute(self) -> Result<Exit, CliError> {
        let scoped = self.scope.open()?;
        let mut run = scoped.choose(&self.run)?;
        scoped.runs.complete(&mut run);
        let output =
            self.output.unwrap_or_else(|| PathBuf::from(format!("{}-{}.pipe", file_name(&run.pipeline), run.id)));
        if !self.force && output.symlink_metadata().is_ok() {
            let help = "name another file with -o, or say --force".to_owned();
            return Err(CliError::usage(format!("`{}` exists already", output.display()), help));
        }
        let _in_use = scoped.home.share(say_that_it_waits)?;
        let request = Request {
            home: &scoped.home,
            run: &run,
            artifacts: match self.with_artifacts {
                None => Artifacts::None,
                Some(stages) if stages.is_empty() => Artifacts::All,
                Some(stages) => Artifacts::Of(stages),
            },
            not_secret: &self.not_secret,
            partial: self.partial,
        };
        let gathered = Gathered::new(&request, registry::KINDS, |name| env::var_os(name))?;
        let bytes = write(&gathered, &output)?;
        for note in gathered.notes() {
            say!("{} {note}", "note:".yellow());
        }
        let (entries, total) = (gathered.contents().entries().len(), gathered.contents().total_bytes());
        match self.format {
            Format::Text => print(&format!(
                "{}: {} of run {}, {} ({} unpacked)\nexperiment {}\n",
                output.display(),
                report::plural(entries, "file"),
                run.id,
                report::bytes(bytes),
                report::bytes(total),
                gathered.name(),
            ))?,
            Format::Json => print_json(&json!({
                "file": output, "experiment": gathered.name(), "run": run.id, "pipeline": run.pipeline,
                "bytes": bytes, "files": entries, "unpacked_bytes": total, "notes": gathered.notes(),
            }))?,
        }
        Ok(Exit::Done)
    }
}

/// Writes the bundle beside its place, and puts it there once it is complete. Gives its size in bytes.
fn write(gathered: &Gathered, output: &Path) -> Result<u64, CliError> {
    let failed = |source| CliError::Write { target: output.display().to_string(), source };
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    let beside = tempfile::Builder::new().prefix(".pipe-share-").permissions(permissions).tempfile_in(folder);
    let mut beside = beside.map_err(failed)?;
    gathered.write(BufWriter::new(beside.as_file_mut()))?.flush().map_err(failed)?;
    beside.as_file().sync_all().map_err(failed)?;
    let bytes = beside.as_file().metadata().map_err(failed)?.len();
    beside.persist(output).map_err(|error| failed(error.error))?;
    Ok(bytes)
}

/// The name of a pipeline, which may be any line, as a part of the name of a file.
fn file_name(pipeline: &str) -> String {
    let safe = |c: char| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let name: String = pipeline.chars().map(safe).take(80).collect();
    name.trim_start_matches(['.', '-']).to_owned()
}
