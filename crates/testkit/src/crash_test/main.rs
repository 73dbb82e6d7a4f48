//! `crash-test`: kills `pipe` at every named crash point and at random moments, two runs at work, and looks whether a
//! plain rerun ends as if nothing had happened.
//!
//! Each round has a home of its own. What must hold afterwards: the rerun succeeds with no flag; its outputs are those
//! of an undisturbed run; no committed stage ran again and no step that was done is done again; no partial object is
//! visible; nothing valid is lost; no lock blocks; no two workers of one stage were ever at work at once; no worker is
//! left.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the edge of a program for tests")]

mod disturbance;
mod home;
mod pipeline;
mod points;
mod process;
mod random;
mod round;

use std::{
    collections::VecDeque,
    io::{self, IsTerminal},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Mutex, PoisonError},
    thread,
    time::{Instant, SystemTime},
};

use clap::Parser;

use disturbance::Disturbance;
use points::{ELSEWHERE, POINTS};
use random::Random;
use round::{Reached, Reference};

/// A point is tried this often before it counts as one that is never reached: the other run may have done the work.
const TRIES: usize = 5;

/// Kills pipe in many ways and looks whether a plain rerun ends as if nothing had happened.
#[derive(Parser)]
struct Arguments {
    /// How many rounds with kills at random moments
    #[arg(long, default_value_t = 20)]
    random: usize,
    /// What the random moments follow from; by default the time
    #[arg(long)]
    seed: Option<u64>,
    /// Only this round of random kills, counted from 0
    #[arg(long)]
    only: Option<usize>,
    /// No rounds at crash points
    #[arg(long)]
    no_points: bool,
    /// How many rounds at a time
    #[arg(long)]
    jobs: Option<NonZeroUsize>,
    /// Where the homes are; by default in memory, where there is such a folder
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Print the names of the crash points
    #[arg(long)]
    list: bool,
}

/// Why a round did not end well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Something that must hold does not.
    #[error("{0}")]
    Broken(String),
    /// The test itself could not go on.
    #[error("the crash test cannot go on")]
    System(#[from] io::Error),
}

/// A round to play.
struct Round {
    name: String,
    disturbances: Vec<Disturbance>,
    /// Whether its crash point must be reached.
    must_be_reached: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        POINTS.iter().map(|point| point.name).chain(ELSEWHERE.iter().copied()).for_each(|name| println!("{name}"));
        return ExitCode::SUCCESS;
    }
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("crash-test: {failure}{}", cause(&failure));
            ExitCode::from(3)
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool, Failure> {
    let clock = Instant::now();
    let seed = arguments
        .seed
        .unwrap_or_else(|| SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs()));
    let memory = Path::new("/dev/shm");
    let parent = match &arguments.folder {
        Some(folder) => std::path::absolute(folder)?,
        None if memory.is_dir() => memory.to_owned(),
        None => std::env::temp_dir(),
    };
    let folder = tempfile::Builder::new().prefix("pipe-crash-test-").tempdir_in(parent)?;
    let program = std::env::current_exe()?.with_file_name("fake-pipe");
    let reference = round::undisturbed(&program, &folder.path().join("undisturbed"))?;

    let rounds = rounds(arguments, seed);
    let count = rounds.len();
    let jobs = arguments.jobs.or_else(|| thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
    let progress = Progress { done: Mutex::new(0), count, shown: io::stderr().is_terminal() };
    let queue = Mutex::new(VecDeque::from(rounds));
    let stage = Stage { program: &program, folder: folder.path(), reference: &reference };
    let failures: Vec<String> = thread::scope(|scope| {
        let players: Vec<_> = (0..jobs).map(|_| scope.spawn(|| play_all(&queue, &stage, &progress))).collect();
        players
            .into_iter()
            .flat_map(|player| player.join().unwrap_or_else(|_| vec!["a thread failed".to_owned()]))
            .collect()
    });

    let seconds = clock.elapsed().as_secs_f64();
    let points = if arguments.no_points { 0 } else { POINTS.len() };
    let random = count - points * 3;
    if failures.is_empty() {
        println!("{points} points, {random} random kills: all survived (seed {seed}, {count} rounds, {seconds:.0} s)");
        return Ok(true);
    }
    for failure in &failures {
        eprintln!("{failure}");
    }
    println!(
        "{points} points, {random} random kills: {} of {count} rounds failed (seed {seed}, {seconds:.0} s)",
        failures.len()
    );
    println!("their folders are kept in {}", folder.keep().display());
    Ok(false)
}

/// Each point three times: in one run, in one run later on, in both; and then the random moments.
fn rounds(arguments: &Arguments, seed: u64) -> Vec<Round> {
    let mut rounds = Vec::new();
    let points = if arguments.no_points { &[][..] } else { POINTS };
    for (number, &point) in points.iter().enumerate() {
        let mut random = Random::stream(seed, u64::MAX - number as u64);
        rounds.push(Round {
            name: format!("{} first", point.name),
            disturbances: vec![Disturbance::first_passing(point)],
            must_be_reached: true,
        });
        for (name, both) in [("later", false), ("both", true)] {
            rounds.push(Round {
                name: format!("{} {name}", point.name),
                disturbances: vec![Disturbance::some_passing(point, both, &mut random)],
                must_be_reached: false,
            });
        }
    }
    for number in (0..arguments.random).filter(|number| arguments.only.is_none_or(|only| only == *number)) {
        let mut random = Random::stream(seed, number as u64);
        // Every third home is disturbed twice.
        let times = 1 + u64::from(random.below(3) == 0);
        rounds.push(Round {
            name: format!("random {number}"),
            disturbances: (0..times).map(|_| Disturbance::some_moment(&mut random)).collect(),
            must_be_reached: false,
        });
    }
    rounds
}

/// Where rounds are played.
struct Stage<'test> {
    program: &'test Path,
    folder: &'test Path,
    reference: &'test Reference,
}

/// Plays rounds until there are none, and tells of those that failed.
fn play_all(queue: &Mutex<VecDeque<Round>>, stage: &Stage<'_>, progress: &Progress) -> Vec<String> {
    let mut failures = Vec::new();
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    while let Some(round) = next() {
        if let Err((failure, folder)) = play(&round, stage) {
            let disturbances: Vec<String> = round.disturbances.iter().map(ToString::to_string).collect();
            let (what, how, cause) = (&round.name, disturbances.join(", then "), cause(&failure));
            failures.push(format!("{what} ({how}): {failure}{cause}; see {}", folder.display()));
        }
        progress.round();
    }
    failures
}

fn play(round: &Round, stage: &Stage<'_>) -> Result<(), (Failure, PathBuf)> {
    let mut folder = PathBuf::new();
    let mut disturbances = round.disturbances.clone();
    for attempt in 0..TRIES {
        folder = stage.folder.join(format!("{} {attempt}", round.name));
        let reached = round::play(stage.program, &folder, &disturbances, stage.reference)
            .map_err(|failure| (failure, folder.clone()))?;
        std::fs::remove_dir_all(&folder).map_err(|error| (error.into(), folder.clone()))?;
        if reached == Reached::Yes || !round.must_be_reached {
            return Ok(());
        }
        disturbances = disturbances.into_iter().map(Disturbance::of_both).collect();
    }
    Err((Failure::Broken(format!("the crash point was not reached in {TRIES} rounds")), folder))
}

/// A line that counts, on a terminal.
struct Progress {
    done: Mutex<usize>,
    count: usize,
    shown: bool,
}

impl Progress {
    fn round(&self) {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        *done += 1;
        if self.shown {
            eprint!("\r{} of {} rounds{}", done, self.count, if *done == self.count { "\n" } else { "" });
        }
    }
}

fn cause(failure: &Failure) -> String {
    std::error::Error::source(failure).map_or_else(String::new, |cause| format!(": {cause}"))
}
