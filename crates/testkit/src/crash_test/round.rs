//! One round: a fresh home, a disturbance or two, a plain rerun, and a look at everything that must hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use pipe_testkit::MEETINGS;

use super::{
    Failure,
    disturbance::Disturbance,
    home::{self, Committed},
    pipeline,
    process::{Ended, Process},
};

/// What an undisturbed run commits.
pub(crate) type Reference = BTreeMap<String, Committed>;

/// What a round had to do with its crash point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reached {
    Yes,
    No,
}

/// Runs the pipeline undisturbed.
pub(crate) fn undisturbed(program: &Path, folder: &Path) -> Result<Reference, Failure> {
    set_up(folder)?;
    let ran = Process::start(program, folder, None)?.finish()?;
    expect(ran.status.success(), || format!("the undisturbed run ended with {}", ran.status))?;
    let reference = home::committed(folder)?;
    expect(reference.len() == pipeline::STAGES, || format!("{} stages are committed", reference.len()))?;
    expect_sound(folder, &reference)?;
    Ok(reference)
}

/// Plays one round in `folder`, which must not exist.
pub(crate) fn play(
    program: &Path,
    folder: &Path,
    disturbances: &[Disturbance],
    reference: &Reference,
) -> Result<Reached, Failure> {
    set_up(folder)?;
    let mut reached = Reached::Yes;
    let mut ended: Vec<Ended> = Vec::new();
    for disturbance in disturbances {
        let two = disturbance.happen(program, folder)?;
        if !disturbance.was_reached(&two) {
            reached = Reached::No;
        }
        ended.extend(two);
    }

    let committed = home::committed(folder)?;
    expect_sound(folder, &committed)?;
    let steps: BTreeMap<&str, u64> = reference
        .iter()
        .filter(|(stage, _)| !committed.contains_key(*stage))
        .filter_map(|(stage, promise)| Some((stage.as_str(), home::steps_done(folder, &promise.key)?)))
        .collect();

    let rerun = Process::start(program, folder, None)?.finish()?;
    expect(rerun.status.success(), || format!("the plain rerun ended with {}", rerun.status))?;
    let again: Vec<&str> = rerun.stages("stage_started").filter(|stage| committed.contains_key(*stage)).collect();
    expect(again.is_empty(), || format!("committed stages ran again: {again:?}"))?;
    for (stage, done) in steps {
        let begun_at = begun_at(&rerun, stage);
        expect(begun_at >= Some(done), || format!("{stage} had done {done} steps and went on at {begun_at:?}"))?;
    }
    expect_all_there(folder, &committed, reference)?;
    ended.push(rerun);
    expect_nothing_twice(folder, &ended)?;

    let idle = Process::start(program, folder, None)?.finish()?;
    let hits = idle.stages("stage_hit").count();
    expect(hits == pipeline::STAGES, || format!("the run after that found {hits} stages up to date"))?;
    Ok(reached)
}

fn set_up(folder: &Path) -> Result<(), Failure> {
    let ledger = folder.join("ledger");
    fs::create_dir_all(&ledger)?;
    fs::write(folder.join("pipeline.yaml"), pipeline::text(&ledger))?;
    Ok(())
}

fn begun_at(ended: &Ended, stage: &str) -> Option<u64> {
    let figure = ended.events.iter().find(|event| event["stage"] == stage && event["name"] == "begun_at")?;
    figure["value"].as_u64()
}

/// No partial object is visible, and every promise holds.
fn expect_sound(folder: &Path, committed: &BTreeMap<String, Committed>) -> Result<(), Failure> {
    let flaws = home::flaws(folder, committed)?;
    expect(flaws.is_empty(), || flaws.join("; "))
}

/// The outputs are those of an undisturbed run, what was committed before is still what it was, and nothing is left.
fn expect_all_there(
    folder: &Path,
    committed: &BTreeMap<String, Committed>,
    reference: &Reference,
) -> Result<(), Failure> {
    let now = home::committed(folder)?;
    expect_sound(folder, &now)?;
    for (stage, promise) in reference {
        let found = now.get(stage);
        expect(found == Some(promise), || format!("{stage} should be {promise:?} and is {found:?}"))?;
    }
    let lost: Vec<&String> = committed.keys().filter(|stage| !now.contains_key(*stage)).collect();
    expect(lost.is_empty(), || format!("records were lost: {lost:?}"))?;
    for of in ["scratch", "resume", "locks"] {
        let left = home::names(folder, of)?;
        expect(left.is_empty(), || format!("{of} is not empty: {left:?}"))?;
    }
    let alive = home::workers_alive(folder);
    expect(alive.is_empty(), || format!("workers are still alive: {alive:?}"))
}

/// No stage was committed twice, and no two workers of one stage were at work at once.
fn expect_nothing_twice(folder: &Path, ended: &[Ended]) -> Result<(), Failure> {
    let mut finished = BTreeSet::new();
    for stage in ended.iter().flat_map(|ended| ended.stages("stage_finished")) {
        expect(finished.insert(stage), || format!("{stage} was committed twice"))?;
    }
    let meetings = fs::read_to_string(folder.join("ledger").join(MEETINGS)).unwrap_or_default();
    expect(meetings.is_empty(), || meetings.trim().replace('\n', "; "))
}

fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(Failure::Broken(otherwise())) }
}
