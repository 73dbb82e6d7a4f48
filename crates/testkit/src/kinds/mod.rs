//! Kinds whose artifacts are one line of text and whose behaviour a pipeline chooses.

use std::{collections::BTreeSet, fs, io, path::PathBuf};

use pipe_stage::{Context, Declaration, Failure, Kind, Port, Problems, Program, Runner, Stage, Validate};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::gate;

mod copy;
mod elsewhere;
mod scheduled;
mod wild;
mod work;

pub use wild::LINGER_SUBCOMMAND;
pub use work::MEETINGS;

/// What a pipeline of tests may use.
pub static KINDS: &[Declaration] = &[
    Declaration::of::<Write>(),
    Declaration::of::<Concat>(),
    Declaration::of::<FirstWord>(),
    Declaration::of::<Halves>(),
    Declaration::of::<Count>(),
    Declaration::of::<copy::CopyFile>(),
    Declaration::of::<copy::MeasureFile>(),
    Declaration::of::<OnTorch>(),
    Declaration::of::<elsewhere::Branch>(),
    Declaration::of::<scheduled::Flaky>(),
    Declaration::of::<scheduled::Surroundings>(),
    Declaration::of::<wild::Wild>(),
    Declaration::of::<work::Work>(),
    Declaration::of::<work::Fork>(),
    Declaration::of::<work::Steps>(),
];

/// What `fake-pipe worker` runs.
pub fn runners() -> Vec<Runner> {
    vec![
        Runner::of::<Write>(),
        Runner::of::<Concat>(),
        Runner::of::<FirstWord>(),
        Runner::of::<Halves>(),
        Runner::of::<Count>(),
        Runner::of::<copy::CopyFile>(),
        Runner::of::<copy::MeasureFile>(),
        Runner::of::<elsewhere::Branch>(),
        Runner::of::<scheduled::Flaky>(),
        Runner::of::<scheduled::Surroundings>(),
        Runner::of::<wild::Wild>(),
        Runner::of::<work::Work>(),
        Runner::of::<work::Fork>(),
        Runner::of::<work::Steps>(),
    ]
}

/// The name of the file in every artifact.
const FILE: &str = "text.txt";

fn read(folder: &std::path::Path) -> io::Result<String> {
    fs::read_to_string(folder.join(FILE))
}

/// How a stage behaves. Not in any key: the same stage can fail now and work later.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Behaviour {
    /// Does its work.
    #[default]
    Work,
    /// Ends with an error that has a cause and a hint.
    Fail,
    /// Says that the machine lacks something.
    LackSomething,
    /// Ends like a crash in foreign code.
    Abort,
    /// Ends by a bug of ours.
    Panic,
    /// Ends without a word and with success.
    Vanish,
    /// Says that it is done and writes nothing.
    WriteNothing,
    /// Writes lines to standard output that are no events, and works.
    Babble,
    /// Stays until it is told to stop.
    WaitForStop,
    /// Stays even then.
    Ignore,
}

/// An error with a cause.
#[derive(Debug, thiserror::Error)]
#[error("the fake stage was told to fail")]
struct Told(#[source] io::Error);

/// Writes `text`.
struct Write;

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WriteConfig {
    /// The text.
    text: String,
    /// Numbers that only count for the key.
    #[serde(default)]
    options: Options,
    /// How to behave.
    #[serde(default)]
    #[schemars(extend("x-execution-only" = true))]
    behaviour: Behaviour,
    /// A gate to pass or to stand at.
    #[serde(default)]
    #[schemars(extend("x-execution-only" = true))]
    gate: Option<PathBuf>,
}

#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Options {
    /// A number.
    rate: f64,
}

impl Kind for Write {
    type Config = WriteConfig;
    const KIND: &'static str = "write";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Writes a text";
    const INPUTS: &'static [Port] = &[];
}

impl Validate for WriteConfig {
    fn validate(&self, _inputs: &BTreeSet<String>, problems: &mut Problems) {
        problems.require(!self.text.is_empty(), "text", "the text is empty");
    }
}

impl Stage for Write {
    #[expect(clippy::print_stdout, clippy::print_stderr, reason = "a stage that breaks the protocol is what is tested")]
    fn run(config: &WriteConfig, context: &Context) -> Result<(), Failure> {
        eprintln!("about to {:?}", config.behaviour);
        if let Some(folder) = &config.gate {
            match config.behaviour {
                Behaviour::WaitForStop => gate::stand(folder, || context.cancelled())?,
                Behaviour::Ignore => gate::stand(folder, || false)?,
                _ => gate::pass(folder)?,
            }
        }
        match config.behaviour {
            Behaviour::Work | Behaviour::Ignore => {}
            Behaviour::Fail => {
                let failure = Failure::from(Told(io::Error::other("because of the test")));
                return Err(failure.hint("tell it to work"));
            }
            Behaviour::LackSomething => return Err(Failure::environment("there is no accelerator")),
            Behaviour::Abort => std::process::abort(),
            Behaviour::Panic => panic!("a bug in the fake stage"),
            Behaviour::Vanish => std::process::exit(0),
            Behaviour::WriteNothing => return Ok(()),
            Behaviour::Babble => {
                println!("not an event");
                println!("{{\"event\":\"unheard_of\"}}");
            }
            Behaviour::WaitForStop => return Err(Failure::cancelled()),
        }
        context.figure("length", config.text.len());
        fs::write(context.output().join(FILE), &config.text)?;
        Ok(())
    }
}

/// Joins the texts of its inputs.
struct Concat;

#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct ConcatConfig {
    /// Between two texts.
    separator: String,
}

impl Kind for Concat {
    type Config = ConcatConfig;
    const KIND: &'static str = "concat";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Joins texts";
    const INPUTS: &'static [Port] = &[Port::required("parts", "texts").list()];
}

impl Validate for ConcatConfig {
    fn validate(&self, _inputs: &BTreeSet<String>, _problems: &mut Problems) {}
}

impl Stage for Concat {
    fn run(config: &ConcatConfig, context: &Context) -> Result<(), Failure> {
        let parts = context.inputs("parts").map(read).collect::<io::Result<Vec<_>>>()?;
        fs::write(context.output().join(FILE), parts.join(&config.separator))?;
        Ok(())
    }
}

/// Keeps the first word, so that a change behind it changes nothing downstream.
struct FirstWord;

#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Nothing {}

impl Validate for Nothing {
    fn validate(&self, _inputs: &BTreeSet<String>, _problems: &mut Problems) {}
}

impl Kind for FirstWord {
    type Config = Nothing;
    const KIND: &'static str = "first_word";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Keeps the first word";
    const INPUTS: &'static [Port] = &[Port::required("text", "a text")];
}

impl Stage for FirstWord {
    fn run(_config: &Nothing, context: &Context) -> Result<(), Failure> {
        let text = read(context.input("text")?)?;
        let word = text.split_whitespace().next().unwrap_or_default();
        fs::write(context.output().join(FILE), word)?;
        Ok(())
    }
}

/// Has two outputs.
struct Halves;

impl Kind for Halves {
    type Config = Nothing;
    const KIND: &'static str = "halves";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Cuts a text in two";
    const INPUTS: &'static [Port] = &[Port::required("text", "a text")];
    const OUTPUTS: &'static [&'static str] = &["left", "right"];
}

impl Stage for Halves {
    fn run(_config: &Nothing, context: &Context) -> Result<(), Failure> {
        let text = read(context.input("text")?)?;
        let (left, right) = text.split_at(text.len() / 2);
        fs::write(context.output_named("left").join(FILE), left)?;
        fs::write(context.output_named("right").join(FILE), right)?;
        Ok(())
    }
}

/// Counts to `steps`, keeps count in its resume folder, and writes where this attempt began.
struct Count;

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CountConfig {
    /// The last number.
    steps: u64,
    /// The number at which to stand at the gate.
    #[serde(default)]
    #[schemars(extend("x-execution-only" = true))]
    stand_at: Option<u64>,
    /// A gate to stand at.
    #[serde(default)]
    #[schemars(extend("x-execution-only" = true))]
    gate: Option<PathBuf>,
}

impl Kind for Count {
    type Config = CountConfig;
    const KIND: &'static str = "count";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Counts, and goes on where it was stopped";
    const INPUTS: &'static [Port] = &[];
}

impl Validate for CountConfig {
    fn validate(&self, _inputs: &BTreeSet<String>, _problems: &mut Problems) {}
}

impl Stage for Count {
    fn run(config: &CountConfig, context: &Context) -> Result<(), Failure> {
        let checkpoint = context.resume().join("count");
        let begun = match fs::read_to_string(&checkpoint) {
            Ok(text) => text.parse()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error.into()),
        };
        for step in begun + 1..=config.steps {
            context.metric(step, [("loss", 1.0 / step as f64)]);
            context.progress("steps", step, Some(config.steps));
            fs::write(&checkpoint, step.to_string())?;
            if let (Some(folder), true) = (&config.gate, config.stand_at == Some(step)) {
                gate::stand(folder, || context.cancelled())?;
            }
            if context.cancelled() {
                return Err(Failure::cancelled());
            }
        }
        context.figure("begun_at", begun);
        fs::write(context.output().join(FILE), config.steps.to_string())?;
        Ok(())
    }
}

/// Needs the other program.
struct OnTorch;

impl Kind for OnTorch {
    type Config = Nothing;
    const KIND: &'static str = "on_torch";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Would need libtorch";
    const PROGRAM: Program = Program::PipeTorch;
    const INPUTS: &'static [Port] = &[];
}
