//! A clock that is set back, between runs and within one: what is done stays done, and the order of runs is kept.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use pipe::{
    cache::Home,
    runs::{Retention, RunId, Runs, Stays},
};
use pipe_testkit::{Project, Ran};

use crate::project;

/// Sets the clock of a process a day back as soon as a file is there. Files keep the times of the kernel's clock: to
/// that process they are of tomorrow.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t id, struct timespec *time) {
    int result = syscall(SYS_clock_gettime, id, time);
    const char *file = getenv("CLOCK_IS_BACK");
    if (id == CLOCK_REALTIME && file && access(file, F_OK) == 0) time->tv_sec -= 86400;
    return result;
}
"#;

const THREE: &str = "
name: three
stages:
  a: { kind: write, with: { text: one two } }
  b: { kind: first_word, inputs: { text: a } }
  c: { kind: write, with: { text: other } }
";

/// A clock that goes back when it is told to.
struct Clock {
    library: String,
    back: String,
}

impl Clock {
    /// `None`, said aloud, where there is no compiler for it.
    fn new(project: &Project) -> Option<Self> {
        let place = |name: &str| project.folder().join(name).display().to_string();
        project.write("clock.c", SHIM).unwrap();
        let library = place("clock.so");
        let compiled = Command::new("cc").args(["-shared", "-fPIC", "-o", &library, &place("clock.c")]).output();
        if !compiled.is_ok_and(|compiled| compiled.status.success()) {
            #[expect(clippy::print_stderr, reason = "a test that does nothing says so")]
            {
                eprintln!("skipped: there is no C compiler to make another clock with");
            }
            return None;
        }
        Some(Self { library, back: place("back") })
    }

    fn set_back(&self) {
        File::create(&self.back).unwrap();
    }

    fn environment(&self) -> [(&str, &str); 2] {
        [("LD_PRELOAD", &self.library), ("CLOCK_IS_BACK", &self.back)]
    }

    fn run(&self, project: &Project, arguments: &[&str]) -> Ran {
        project.start_in(&self.environment(), arguments).unwrap().finish().unwrap()
    }
}

fn runs(project: &Project) -> Runs {
    Runs::new(&Home::open(project.home()).unwrap())
}

fn id(ran: &Ran) -> RunId {
    ran.events_of("run_started").next().unwrap()["run"].as_str().unwrap().parse().unwrap()
}

#[test]
fn between_runs_nothing_is_rerun_or_missed_and_the_last_run_is_the_last() {
    let project = project(THREE);
    let Some(clock) = Clock::new(&project) else { return };
    let first = clock.run(&project, &[]);
    assert_eq!(first.started().len(), 3);

    clock.set_back();
    assert_eq!(clock.run(&project, &[]).hits().len(), 3);
    project.write("pipeline.yaml", &THREE.replace("one two", "one three")).unwrap();
    let edited = clock.run(&project, &[]);
    assert_eq!((edited.code(), edited.started()), (0, vec!["a".to_owned(), "b".to_owned()]), "{edited:?}");
    project.write("pipeline.yaml", &THREE.replace("one two", "two")).unwrap();
    let last = clock.run(&project, &[]);
    assert_eq!((last.code(), last.started()), (0, vec!["a".to_owned(), "b".to_owned()]), "{last:?}");
    assert_eq!(clock.run(&project, &[]).hits().len(), 3);

    let ids = runs(&project).ids();
    assert_eq!((ids.len(), ids[4] == id(&first), ids[1] == id(&last)), (5, true, true), "{ids:?}");
    let record = runs(&project).get(&ids[1]).unwrap();
    assert!(record.started < runs(&project).get(&ids[4]).unwrap().started, "the clock was set back: {record:?}");
    // The clock is right again.
    assert_eq!(project.run(&[]).unwrap().hits().len(), 3);
}

#[test]
fn within_a_run_it_ends_well_and_is_the_last() {
    let project = project("name: one\nstages: {}\n");
    let Some(clock) = Clock::new(&project) else { return };
    let gate = project.gate("gate").unwrap();
    let folder = gate.folder().display();
    let text = format!("name: one\nstages:\n  a: {{ kind: write, with: {{ text: a, gate: '{folder}' }} }}\n");
    project.write("pipeline.yaml", &text).unwrap();
    let running = project.start_in(&clock.environment(), &[]).unwrap();
    let worker = gate.wait_for_worker().unwrap();
    clock.set_back();

    // To whoever cleans up by the wrong clock, it is a run that goes on, and it is not old.
    let retention = Retention { keep_last: None, older_than: Some(Duration::ZERO) };
    let yesterday = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(24);
    let judged = retention.judge(&runs(&project), yesterday).unwrap();
    assert_eq!((judged.stay.len(), judged.stay[0].1, judged.go.len()), (1, Stays::Live, 0));
    assert!(Home::open(project.home()).unwrap().exclusive(false).unwrap().is_none(), "nothing is removed meanwhile");

    worker.open().unwrap();
    let ran = running.finish().unwrap();
    assert_eq!(ran.code(), 0, "{ran:?}");
    let record = runs(&project).get(&id(&ran)).unwrap();
    assert!(record.ended.unwrap() < record.started && record.duration_seconds > 0.0, "{record:?}");
    let next = clock.run(&project, &[]);
    assert_eq!(next.hits(), ["a"]);
    assert_eq!(runs(&project).ids(), [id(&next), id(&ran)]);
}

#[test]
fn files_from_the_future_are_what_they_are() {
    let text = format!("{THREE}  data: {{ kind: copy_file, with: {{ path: data }} }}\n");
    let project = project(&text);
    fs::create_dir(project.folder().join("data")).unwrap();
    project.write("data/file", "1").unwrap();
    assert_eq!(project.run(&[]).unwrap().started().len(), 4);
    let future = SystemTime::now() + Duration::from_secs(365 * 86400);
    date(&project.folder().join("data"), future);
    date(&project.home(), future);

    let again = project.run(&[]).unwrap();
    assert_eq!((again.code(), again.hits().len()), (0, 4), "{again:?}");
    project.write("data/file", "2").unwrap();
    date(&project.folder().join("data"), future);
    let changed = project.run(&[]).unwrap();
    assert_eq!((changed.code(), changed.started()), (0, vec!["data".to_owned()]), "{changed:?}");
    assert_eq!(project.run(&[]).unwrap().hits().len(), 4);
}

/// Gives all that lies in a folder, and the folder, this time.
fn date(folder: &Path, time: SystemTime) {
    let entries: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    for path in entries {
        if path.is_dir() {
            date(&path, time);
        } else {
            File::open(&path).unwrap().set_modified(time).unwrap();
        }
    }
    File::open(folder).unwrap().set_modified(time).unwrap();
}
