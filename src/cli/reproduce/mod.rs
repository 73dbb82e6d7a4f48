//! `pipe reproduce`: run what a bundle holds, and compare.

mod text;

use std::{
    fs,
    io::{BufRead, IsTerminal, Write},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, ValueEnum};
use owo_colors::OwoColorize;
use pipe_stage::{Declaration, Program};
use serde_json::json;

use super::{
    CliError, Exit, Format,
    count::{at_least_one, size},
    pipeline::print,
    pipeline::print_json,
    said,
    said::say,
};
use crate::{
    bundle::{BundleError, Contents, Limits, Unpacked},
    cache::Home,
    config::{Pipeline, StageName},
    registry,
    report::{self, Human, Outcome},
    reproduce::{Compared, DEFAULT_TOLERANCE, Verdict, compare},
    runs::{RunRecord, Runs},
    scheduler::{self, Offer, Options},
    selection::Request,
};

/// A bundle that asks for more than this needs the user's word for it, in bytes.
const LARGE_BYTES: u64 = 1 << 30;

/// Or one that grows by more than this when it is unpacked.
const LARGE_RATIO: u64 = 1000;

/// Arguments of `pipe reproduce`.
#[derive(Args)]
#[command(after_help = "\
The stages run in a cache of their own, so that nothing is taken from earlier runs. Exit codes: 0 every artifact has the \
recorded digest (or, where another device computed it, all figures are within a --tolerance that was given); 1 something \
differs; 2 the bundle is not sound; 3 the machine lacks something.")]
pub(super) struct Reproduce {
    /// The bundle, as `pipe share` wrote it
    bundle: PathBuf,
    /// Unpack and run in this folder, which must be new or empty, and leave it there [default: a temporary folder]
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    /// Leave the temporary folder there
    #[arg(long)]
    keep: bool,
    /// How many stages may run at a time [default: as many as there are CPUs for]
    #[arg(long, short, value_name = "N", value_parser = at_least_one)]
    jobs: Option<NonZeroUsize>,
    /// Run the commands that the bundle brings without asking
    #[arg(long)]
    allow_commands: bool,
    /// Compute on this kind of device instead of the recorded one
    #[arg(long, value_enum)]
    device: Option<Device>,
    /// Where bytes cannot be compared because another device computed them: figures that differ by at most this part of
    /// the larger one count as equal [default for the report: 0.01]
    #[arg(long, value_name = "FRACTION", value_parser = fraction)]
    tolerance: Option<f64>,
    /// Unpack up to this many bytes (`8GB`, `512MiB`) [default: 1 GiB, or 1000 times the size of the bundle]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_size: Option<u64>,
    /// How to write the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Where stages compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Device {
    /// On the CPU, whatever was recorded.
    Cpu,
    /// On one GPU, for kinds that can.
    Cuda,
}

/// Where a run is made again.
struct Place {
    folder: PathBuf,
    /// Removed with this.
    _temporary: Option<tempfile::TempDir>,
    kept: bool,
}

impl Reproduce {
    pub(super) fn execute(self) -> Result<Exit, CliError> {
        let (bundle, beside) = self.unpack()?;
        let pipeline = |bundle: &Unpacked| bundle.pipeline(registry::KINDS).map_err(|error| self.refused(error));
        self.allow(&pipeline(&bundle)?)?;
        refuse_empty(&bundle)?;
        lacks(&bundle)?;
        // From here on it is to be trusted as far as anything from elsewhere is.
        let (bundle, place) = self.settle(bundle, beside)?;
        let mut pipeline = pipeline(&bundle)?;
        recorded_resources(&mut pipeline, &bundle, self.device);
        let experiment = bundle.experiment();
        let short = |digest: pipe_stage::Digest| digest.short();
        say!(
            "experiment {}: run {} of `{}` by pipe {}\nin {}",
            short(bundle.name()),
            experiment.run,
            report::printable(&experiment.pipeline),
            report::printable(&experiment.version),
            place.folder.display()
        );
        let home = Home::open(place.folder.join(".pipe"))?;
        let (run, outcome) = self.run(&pipeline, &home, &bundle)?;
        let compared = Compared { bundle: &bundle, pipeline: &pipeline, home: &home, run: &run };
        let report =
            compare(&compared, self.tolerance.unwrap_or(DEFAULT_TOLERANCE)).map_err(|error| self.refused(error))?;
        match self.format {
            Format::Text => print(&text::of(&report, self.tolerance.is_some()))?,
            Format::Json => print_json(&json!({
                "bundle": self.bundle, "experiment": bundle.name(), "run": experiment.run, "pipeline": experiment.pipeline,
                "reproduced_by": run.id, "folder": place.kept.then_some(&place.folder), "report": report,
            }))?,
        }
        if place.kept {
            say!("what was made is in {}", place.folder.display());
        }
        Ok(match report.verdict {
            _ if outcome == Outcome::EnvironmentLacks => Exit::Environment,
            Verdict::Equal => Exit::Done,
            Verdict::WithinTolerance if self.tolerance.is_some() => Exit::Done,
            _ => Exit::Code(ExitCode::FAILURE),
        })
    }

    /// Unpacks into a temporary folder, in the file system that the run is to be made again in.
    fn unpack(&self) -> Result<(Unpacked, tempfile::TempDir), CliError> {
        let beside = match &self.into {
            Some(folder) => {
                let folder = std::path::absolute(folder).map_err(unwritable(folder))?;
                refuse_taken(&folder)?;
                let parent = folder.parent().unwrap_or(&folder);
                fs::create_dir_all(parent).map_err(unwritable(parent))?;
                tempfile::Builder::new().prefix(".pipe-reproduce-").tempdir_in(parent).map_err(unwritable(parent))?
            }
            None => {
                let parent = std::env::temp_dir();
                tempfile::Builder::new().prefix("pipe-reproduce-").tempdir().map_err(unwritable(&parent))?
            }
        };
        let size = self.size()?;
        let total_bytes = self.max_size.unwrap_or_else(|| size.saturating_mul(LARGE_RATIO).max(LARGE_BYTES));
        let limits = Limits { total_bytes, ..Limits::default() };
        // The temporary folder is for its owner alone; this one is as every folder.
        let unpacked = beside.path().join("bundle");
        fs::create_dir(&unpacked).map_err(unwritable(&unpacked))?;
        let room = |contents: &Contents| has_room(contents, beside.path());
        let bundle = Unpacked::new(&self.bundle, &unpacked, &limits, room).map_err(|error| self.refused(error))?;
        Ok((bundle, beside))
    }

    /// The size of the bundle, in bytes.
    fn size(&self) -> Result<u64, CliError> {
        let path = self.bundle.display();
        match fs::metadata(&self.bundle) {
            Ok(metadata) if metadata.is_file() => Ok(metadata.len()),
            Ok(_) => {
                let help = "name a bundle, as `pipe share` writes it".to_owned();
                Err(CliError::usage(format!("`{path}` is no file"), help))
            }
            Err(error) => Err(CliError::usage(format!("`{path}` cannot be read: {error}"), None)),
        }
    }

    /// Puts what was unpacked where the run is to be made again.
    fn settle(&self, bundle: Unpacked, beside: tempfile::TempDir) -> Result<(Unpacked, Place), CliError> {
        let unpacked = bundle.folder().to_owned();
        let place = match &self.into {
            Some(folder) => {
                let folder = std::path::absolute(folder).map_err(unwritable(folder))?;
                // Over an empty folder too.
                fs::rename(&unpacked, &folder).map_err(unwritable(&folder))?;
                Place { folder, _temporary: None, kept: true }
            }
            None if self.keep => {
                let _ = beside.keep();
                Place { folder: unpacked, _temporary: None, kept: true }
            }
            None => Place { folder: unpacked, _temporary: Some(beside), kept: false },
        };
        Ok((bundle.moved_to(&place.folder), place))
    }

    fn refused(&self, error: BundleError) -> CliError {
        CliError::Bundle { path: self.bundle.clone(), source: error }
    }

    /// Programs that came with a bundle do whatever they like: somebody must have said that they may.
    fn allow(&self, pipeline: &Pipeline) -> Result<(), CliError> {
        let commands: Vec<(&StageName, String)> =
            pipeline.stages.values().filter_map(|spec| Some((&spec.name, spec.command.clone()?))).collect();
        if commands.is_empty() {
            return Ok(());
        }
        say!("{} this bundle runs programs, which can do whatever you can:", "attention:".yellow());
        for (stage, command) in &commands {
            let mut lines = command.lines().map(report::printable);
            say!("  {stage}: {}", lines.next().unwrap_or_default());
            for line in lines {
                say!("  {:width$}  {line}", "", width = report::width(stage.as_str()));
            }
        }
        if self.allow_commands {
            return Ok(());
        }
        let stdin = std::io::stdin();
        if stdin.is_terminal() && std::io::stderr().is_terminal() {
            said::write(format_args!("run them? [y/N] "));
            let mut answer = String::new();
            let _ = std::io::stderr().flush();
            if stdin.lock().read_line(&mut answer).is_ok() && matches!(answer.trim(), "y" | "Y" | "yes") {
                return Ok(());
            }
        }
        Err(CliError::usage(
            "the programs of the bundle were not allowed to run",
            "read them, and the scripts in the bundle (`tar --zstd -xf BUNDLE`); then say --allow-commands".to_owned(),
        ))
    }

    fn run(&self, pipeline: &Pipeline, home: &Home, bundle: &Unpacked) -> Result<(RunRecord, Outcome), CliError> {
        let recorded = bundle.experiment().stages.iter().filter(|(_, stage)| !stage.outputs.is_empty());
        let targets = recorded.filter_map(|(name, _)| StageName::new(name)).collect();
        // A thread more than there are CPUs costs time; another number of threads could cost the last bit of a sum.
        let threads = pipeline.stages.values().filter_map(|spec| spec.resources.cpus).max();
        let here = std::thread::available_parallelism().map_or(1, usize::from);
        let options = Options {
            request: Request { targets, ..Request::default() },
            refresh: Vec::new(),
            runners: registry::runners(),
            jobs: self.jobs,
            resources: Offer { cpus: threads.filter(|threads| *threads > here), ..Offer::default() },
            // The more stages are made, the more can be said of what differs.
            keep_going: true,
            again: super::typed::again(),
        };
        let summary = scheduler::run(pipeline, home, &options, &mut Human::stderr())?;
        let runs = Runs::new(home);
        let id = summary.run.parse().ok();
        let mut run = id
            .and_then(|id| runs.get(&id))
            .ok_or_else(|| CliError::usage(format!("the record of the run {} cannot be read", summary.run), None))?;
        runs.complete(&mut run);
        Ok((run, summary.outcome))
    }
}

fn unwritable(path: &Path) -> impl FnOnce(std::io::Error) -> CliError + use<> {
    let target = path.display().to_string();
    move |source| CliError::Write { target, source }
}

/// A run that made nothing would be equal to any other.
fn refuse_empty(bundle: &Unpacked) -> Result<(), CliError> {
    let experiment = bundle.experiment();
    if experiment.stages.values().any(|stage| !stage.outputs.is_empty()) {
        return Ok(());
    }
    let message = format!("the bundle's run {} made nothing that could be compared", experiment.run);
    Err(CliError::usage(message, "share a run in which a stage came to its end".to_owned()))
}

/// A machine without the variables that a stage was given cannot make it again.
fn lacks(bundle: &Unpacked) -> Result<(), CliError> {
    for (stage, of) in bundle.experiment().stages.iter().filter(|(_, stage)| !stage.outputs.is_empty()) {
        let set = of.variables.iter().filter(|(_, set)| **set).map(|(name, _)| name);
        let missing: Vec<&str> = set.filter(|name| std::env::var_os(name).is_none()).map(String::as_str).collect();
        if !missing.is_empty() {
            let names = report::printable(&missing.join(", "));
            return Err(CliError::Lacks {
                message: format!("the stage `{stage}` was given {names} of the environment, which is not set here"),
                help: format!("set {names} to what it was: a bundle never holds such values"),
            });
        }
    }
    Ok(())
}

/// Lets the stages run with as many threads as the record says, and on the device that was asked for.
fn recorded_resources(pipeline: &mut Pipeline, bundle: &Unpacked, device: Option<Device>) {
    for (name, spec) in &mut pipeline.stages {
        let recorded = bundle.experiment().stages.get(name.as_str());
        if let Some(threads) = recorded.and_then(|stage| stage.environment.threads) {
            spec.resources.cpus = Some(threads);
        }
        match device {
            Some(Device::Cpu) => spec.resources.gpus = 0,
            Some(Device::Cuda) if on_device(spec.declaration) => spec.resources.gpus = spec.resources.gpus.max(1),
            Some(Device::Cuda) | None => {}
        }
    }
}

fn on_device(declaration: &Declaration) -> bool {
    declaration.program == Program::PipeTorch
}

fn has_room(contents: &Contents, folder: &Path) -> Result<(), BundleError> {
    let Ok(figures) = rustix::fs::statvfs(folder) else { return Ok(()) };
    let (needs, free) = (contents.total_bytes(), figures.f_bavail.saturating_mul(figures.f_frsize));
    if needs > free { Err(BundleError::Room { needs, free }) } else { Ok(()) }
}

fn refuse_taken(folder: &Path) -> Result<(), CliError> {
    let taken = match fs::symlink_metadata(folder) {
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
        Ok(metadata) => !metadata.is_dir() || fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()),
    };
    if taken {
        let help = "name a folder that is new or empty with --into".to_owned();
        return Err(CliError::usage(format!("`{}` is taken", folder.display()), help));
    }
    Ok(())
}

fn fraction(text: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().ok().filter(|value| (0.0..=1.0).contains(value));
    value.ok_or_else(|| "write a number from 0 to 1, like 0.01".to_owned())
}
