//! The kinds of the crash test's pipeline: their texts depend on nothing but their inputs, they take their time, and
//! they notice when two workers of one stage are at work at once.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use pipe_stage::{Context, Failure, Kind, Port, Problems, Stage, Validate, crash};
use rustix::process::set_parent_process_death_signal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::FILE;

/// The file of a ledger that tells of workers that met.
pub const MEETINGS: &str = "meetings";

/// How often a slow stage looks whether it should stop.
const NAP: Duration = Duration::from_millis(1);

const INPUTS: &[Port] = &[Port::optional("parts", "texts").list()];

/// What the three kinds are told.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Stands in the text.
    text: String,
    /// How many files an output has.
    #[serde(default = "one")]
    files: usize,
    /// How long the work takes.
    #[serde(default)]
    #[schemars(extend("x-execution-only" = true))]
    milliseconds: u64,
    /// Whether the worker lives on when its scheduler dies, and does not listen when it is asked to stop.
    #[serde(default)]
    #[schemars(extend("x-execution-only" = true))]
    stubborn: bool,
    /// The folder in which workers of one stage meet.
    #[schemars(extend("x-execution-only" = true))]
    ledger: PathBuf,
}

fn one() -> usize {
    1
}

impl Validate for Config {
    fn validate(&self, _inputs: &BTreeSet<String>, _problems: &mut Problems) {}
}

/// Writes a text made of those of its inputs.
pub(super) struct Work;

impl Kind for Work {
    type Config = Config;
    const KIND: &'static str = "work";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Writes a text made of those of its inputs";
    const INPUTS: &'static [Port] = INPUTS;
}

impl Stage for Work {
    fn run(config: &Config, context: &Context) -> Result<(), Failure> {
        let _presence = begin(config, context)?;
        let text = text(config, context)?;
        work(config, context, config.milliseconds)?;
        write(&context.output(), &text, config.files)
    }
}

/// The same with two outputs.
pub(super) struct Fork;

impl Kind for Fork {
    type Config = Config;
    const KIND: &'static str = "fork";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Writes two texts made of those of its inputs";
    const INPUTS: &'static [Port] = INPUTS;
    const OUTPUTS: &'static [&'static str] = &["left", "right"];
}

impl Stage for Fork {
    fn run(config: &Config, context: &Context) -> Result<(), Failure> {
        let _presence = begin(config, context)?;
        let text = text(config, context)?;
        for output in Self::OUTPUTS {
            work(config, context, config.milliseconds / 2)?;
            write(&context.output_named(output), &format!("{output} of {text}"), config.files)?;
        }
        Ok(())
    }
}

/// The same in steps, of which none is done twice.
pub(super) struct Steps;

/// How many steps the work has.
const STEPS: u64 = 10;

impl Kind for Steps {
    type Config = Config;
    const KIND: &'static str = "steps";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Writes a text in steps, and goes on where it was stopped";
    const INPUTS: &'static [Port] = INPUTS;
}

impl Stage for Steps {
    fn run(config: &Config, context: &Context) -> Result<(), Failure> {
        let _presence = begin(config, context)?;
        let checkpoint = context.resume().join("step");
        let begun = match fs::read_to_string(&checkpoint) {
            Ok(text) => text.parse()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error.into()),
        };
        context.figure("begun_at", begun);
        let beside = context.resume().join("step.new");
        for step in begun + 1..=STEPS {
            work(config, context, config.milliseconds / STEPS)?;
            fs::write(&beside, step.to_string())?;
            fs::rename(&beside, &checkpoint)?;
        }
        write(&context.output(), &text(config, context)?, config.files)
    }
}

/// A worker that is at work on a stage. The kernel notices when it is gone.
struct Presence {
    _file: File,
}

fn begin(config: &Config, context: &Context) -> Result<Presence, Failure> {
    if config.stubborn {
        set_parent_process_death_signal(None)?;
    }
    let stage = &context.job().stage;
    let file = OpenOptions::new().create(true).append(true).open(config.ledger.join(stage))?;
    if file.try_lock().is_err() {
        let mut meetings = OpenOptions::new().create(true).append(true).open(config.ledger.join(MEETINGS))?;
        writeln!(meetings, "process {} began stage {stage} while another was at work", std::process::id())?;
    }
    Ok(Presence { _file: file })
}

/// Takes its time.
fn work(config: &Config, context: &Context, milliseconds: u64) -> Result<(), Failure> {
    let end = std::time::Instant::now() + Duration::from_millis(milliseconds);
    while std::time::Instant::now() < end {
        if context.cancelled() && !config.stubborn {
            return Err(Failure::cancelled());
        }
        thread::sleep(NAP);
    }
    Ok(())
}

fn text(config: &Config, context: &Context) -> io::Result<String> {
    let parts = context.inputs("parts").map(super::read).collect::<io::Result<Vec<_>>>()?;
    // Hashed, or the texts would double from layer to layer.
    Ok(format!("{} of {}", config.text, pipe_stage::Digest::of(parts.join("\n").as_bytes())))
}

fn write(folder: &Path, text: &str, files: usize) -> Result<(), Failure> {
    fs::write(folder.join(FILE), text)?;
    for number in 1..files {
        crash::point("worker.mid-output");
        let deep = folder.join(format!("part {number}"));
        fs::create_dir(&deep)?;
        fs::write(deep.join(FILE), format!("part {number} of {text}\n").repeat(1 + number % 50))?;
    }
    Ok(())
}
