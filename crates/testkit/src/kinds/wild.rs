//! A kind that does what no stage should: stays, floods, babbles, leaves children, runs out of memory.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    io::{self, Write},
    os::unix::{ffi::OsStrExt, fs::symlink, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use pipe_stage::{Context, Failure, Kind, Port, Problems, Stage, Validate};
use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    process::{Resource, Rlimit, Signal, kill_process, set_parent_process_death_signal, setrlimit},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::FILE;
use crate::gate;

/// The subcommand of `fake-pipe` that a left child runs: it stands at a gate until it is killed.
pub const LINGER_SUBCOMMAND: &str = "linger";

/// Of a flood, this much is written at once.
const PIECE_BYTES: usize = 64 << 10;

/// What a wild stage does before it does its work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Trick {
    /// Nothing.
    #[default]
    None,
    /// Does not want to die with the scheduler, and stands at the gate until it is killed.
    Outlive,
    /// Leaves a child in its process group that keeps standard output open.
    LeaveChild,
    /// Leaves a child in a group of its own that keeps standard output and the lock.
    LeaveDaemon,
    /// Leaves a child in a group of its own that keeps nothing.
    LeaveBareDaemon,
    /// Leaves a child in a group of its own, and stays with it until it is killed.
    StayWithDaemon,
    /// The same, and the child keeps nothing.
    StayWithBareDaemon,
    /// Writes much to standard error.
    FloodErrors,
    /// Writes many lines to standard output that are no events.
    FloodOutput,
    /// Says much.
    FloodLog,
    /// Writes lines without end.
    FloodLine,
    /// Reports figure after figure.
    FloodFigures,
    /// Writes what no parser likes.
    Garbage,
    /// Closes standard output.
    CloseOutput,
    /// Writes 8 MiB beside its text.
    FillDisk,
    /// Writes a symbolic link among its files.
    Link,
    /// Writes a symbolic link that leads back.
    LinkLoop,
    /// Makes a named pipe among its files.
    Pipe,
    /// Gives a file a name that is not UTF-8.
    OddName,
    /// Dies as if the kernel had run out of memory.
    BeKilled,
    /// Asks for more memory than it may have.
    EatMemory,
    /// Writes a large file of zeros that takes no space.
    Sparse,
}

impl Trick {
    /// Whether it is over with what it has said: then it passes the gate.
    fn is_heard(self) -> bool {
        use Trick::{FloodErrors, FloodFigures, FloodLine, FloodLog, FloodOutput};
        matches!(self, FloodErrors | FloodFigures | FloodLine | FloodLog | FloodOutput)
    }
}

/// The kind.
pub(super) struct Wild;

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// The text that is written in the end.
    text: String,
    /// What comes before.
    #[serde(default)]
    #[schemars(extend("x-execution-only" = true))]
    trick: Trick,
    /// Where it, or its child, stands.
    #[serde(default)]
    #[schemars(extend("x-execution-only" = true))]
    gate: Option<PathBuf>,
    /// How much a flood is.
    #[serde(default)]
    #[schemars(extend("x-execution-only" = true))]
    megabytes: u64,
}

impl Kind for Wild {
    type Config = Config;
    const KIND: &'static str = "wild";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Writes a text after doing what no stage should";
    const INPUTS: &'static [Port] = &[];
}

impl Validate for Config {
    fn validate(&self, _inputs: &BTreeSet<String>, _problems: &mut Problems) {}
}

impl Stage for Wild {
    fn run(config: &Config, context: &Context) -> Result<(), Failure> {
        let gate = config.gate.as_deref().unwrap_or(Path::new(""));
        let bytes = config.megabytes << 20;
        match config.trick {
            Trick::None => {}
            Trick::Outlive => {
                set_parent_process_death_signal(None)?;
                gate::stand(gate, || !gate.exists())?;
            }
            Trick::LeaveChild => leave(gate, Leaving { own_group: false, bare: false })?,
            Trick::LeaveDaemon => leave(gate, Leaving { own_group: true, bare: false })?,
            Trick::LeaveBareDaemon => leave(gate, Leaving { own_group: true, bare: true })?,
            Trick::StayWithDaemon => {
                leave(gate, Leaving { own_group: true, bare: false })?;
                park();
            }
            Trick::StayWithBareDaemon => {
                leave(gate, Leaving { own_group: true, bare: true })?;
                park();
            }
            Trick::FloodErrors => flood(&mut io::stderr(), bytes, many(line))?,
            Trick::FloodOutput => flood(&mut io::stdout(), bytes, many(line))?,
            Trick::FloodLog => flood(
                &mut io::stdout(),
                bytes,
                many(|number| {
                    format!("{{\"event\":\"log\",\"level\":\"info\",\"message\":\"{}\"}}\n", line(number).trim())
                }),
            )?,
            Trick::FloodLine => flood(&mut io::stdout(), bytes, |_| "x".repeat(PIECE_BYTES))?,
            Trick::FloodFigures => flood(&mut io::stdout(), bytes, |number| {
                format!("{{\"event\":\"figure\",\"name\":\"figure {number}\",\"value\":\"{}\"}}\n", "x".repeat(1000))
            })?,
            Trick::Garbage => garbage(&mut io::stdout())?,
            Trick::CloseOutput => rustix::stdio::dup2_stdout(fs::File::open("/dev/null")?)?,
            Trick::FillDisk => fs::write(context.output().join("large"), vec![1; 8 << 20])?,
            Trick::Link => symlink("/etc/passwd", context.output().join("link"))?,
            Trick::LinkLoop => {
                fs::create_dir(context.output().join("deep"))?;
                symlink("..", context.output().join("deep/up"))?;
            }
            Trick::Pipe => mknodat(CWD, context.output().join("pipe"), FileType::Fifo, Mode::RUSR, 0)?,
            Trick::OddName => fs::write(context.output().join(OsStr::from_bytes(b"odd \xff")), "")?,
            Trick::BeKilled => kill_process(rustix::process::getpid(), Signal::KILL)?,
            Trick::EatMemory => eat_memory()?,
            Trick::Sparse => fs::File::create(context.output().join("large"))?.set_len(bytes)?,
        }
        if config.trick.is_heard() && config.gate.is_some() {
            gate::pass(gate)?;
        }
        fs::write(context.output().join(FILE), &config.text)?;
        Ok(())
    }
}

/// How a child is left behind.
struct Leaving {
    /// Out of reach of a signal to the worker's group.
    own_group: bool,
    /// Without any of the worker's open files.
    bare: bool,
}

/// Starts a child that stands at `gate`, and waits until it does.
fn leave(gate: &Path, how: Leaving) -> io::Result<()> {
    let program = std::env::current_exe()?;
    let ready = gate.join("ready");
    let arguments = [LINGER_SUBCOMMAND.as_ref(), gate.as_os_str(), ready.as_os_str()];
    let mut command = if how.bare { without_open_files(program.as_os_str()) } else { Command::new(program) };
    if how.own_group {
        command.process_group(0);
    }
    let mut child = command.args(arguments).spawn()?;
    while !ready.exists() {
        if let Some(status) = child.try_wait()? {
            return Err(io::Error::other(format!("the child ended with {status}")));
        }
        std::thread::park_timeout(std::time::Duration::from_millis(2));
    }
    Ok(())
}

/// Runs a program from a shell that has closed all that it inherited (`sh` may know descriptors up to 9 only).
fn without_open_files(program: &OsStr) -> Command {
    let mut command = Command::new("bash");
    let script = r#"for fd in $(ls /proc/self/fd); do [ "$fd" -gt 2 ] && eval "exec $fd>&-"; done; exec "$@""#;
    command.args(["-c", script, "bash"]).arg(program);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Waits for a signal that ends it.
fn park() -> ! {
    loop {
        std::thread::park();
    }
}

/// The same lines again and again: to make each anew takes longer than to write it.
fn many(line: impl Fn(u64) -> String) -> impl Fn(u64) -> String {
    let lines: String = (0..500).map(line).collect();
    move |_| lines.clone()
}

fn line(number: u64) -> String {
    format!("line {number} of a flood that says nothing and takes up space, as programs in a loop do\n")
}

/// Writes `bytes` bytes of what `piece` makes.
fn flood(stream: &mut impl Write, bytes: u64, piece: impl Fn(u64) -> String) -> io::Result<()> {
    let mut stream = io::BufWriter::with_capacity(PIECE_BYTES, stream);
    let (mut written, mut number) = (0, 0);
    while written < bytes {
        let text = piece(number);
        stream.write_all(text.as_bytes())?;
        (written, number) = (written + text.len() as u64, number + 1);
    }
    stream.write_all(b"\nthe last line of the flood\n")?;
    stream.flush()
}

fn garbage(stream: &mut impl Write) -> io::Result<()> {
    let long = "x".repeat(3 << 20);
    let deep = "[".repeat(100_000);
    let lines: [&[u8]; 11] = [
        b"{\"event\":\"unheard_of\"}",
        b"\xff\xfe invalid UTF-8 \x80",
        b"\0\0\0",
        b"\x1b[2J\x1b]0;title\x07 control characters",
        long.as_bytes(),
        deep.as_bytes(),
        b"{\"event\":\"progress\",\"unit\":\"rows\",\"done\":-1,\"total\":null}",
        b"{\"event\":\"metric\",\"step\":1,\"values\":{\"loss\":1e999}}",
        b"{\"event\":\"metric\",\"step\":1,\"values\":{\"loss\":NaN}}",
        b"{\"event\":\"result\",\"status\":\"done\",\"and\":\"more\"}",
        b"{\"event\":\"figure\",\"name\":\"half",
    ];
    for line in lines {
        stream.write_all(line)?;
        stream.write_all(b"\n")?;
    }
    stream.flush()
}

fn eat_memory() -> Result<(), Failure> {
    let limit = Some(1 << 30);
    setrlimit(Resource::As, Rlimit { current: limit, maximum: limit })?;
    let eaten: Vec<Vec<u8>> = (0..64).map(|_| vec![1; 64 << 20]).collect();
    Err(Failure::environment(format!("ate {} pieces", eaten.len())))
}
