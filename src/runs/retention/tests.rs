//! Tests of which runs stay.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, fs::File, io::Write};

use pipe_stage::Digest;

use super::*;
use crate::{
    cache::{Home, Key},
    runs::{Asked, Counts, Header, Machine, Outcome, StageBegan, StageEnded, journal::RunEnded},
};

const DAY: Duration = Duration::from_hours(24);

/// A run of a pipeline that began so many days ago and ended like this.
fn run(pipeline: &str, days_ago: u32, status: RunStatus) -> (bool, RunSummary) {
    let started = jiff::Timestamp::UNIX_EPOCH - DAY * days_ago;
    let summary = RunSummary {
        id: format!("20260101-000000-{:03}-0000", 999 - days_ago).parse().unwrap(),
        pipeline: pipeline.to_owned(),
        file: format!("/{pipeline}.yaml").into(),
        status,
        started,
        ended: None,
        duration_seconds: None,
        counts: Counts::default(),
        measure: None,
    };
    (status == RunStatus::Running, summary)
}

/// Why each of these runs stays, where the file of the pipeline `gone` is gone.
fn reasons(keep_last: Option<usize>, older_than_days: Option<u32>, runs: &[(bool, RunSummary)]) -> Vec<Option<Stays>> {
    let keep_last = keep_last.map(|last| NonZeroUsize::new(last).unwrap());
    let retention = Retention { keep_last, older_than: older_than_days.map(|days| DAY * days) };
    retention.reasons(runs, jiff::Timestamp::UNIX_EPOCH, |file| file != Path::new("/gone.yaml"))
}

#[test]
fn without_a_rule_every_run_stays() {
    use RunStatus::{Done, Failed, Running};
    let runs = [run("a", 0, Running), run("a", 1, Failed), run("a", 2, Done), run("a", 3, Done), run("gone", 9, Done)];
    let (no_rule, last) = (Some(Stays::NoRule), Some(Stays::LastOfPipeline));
    assert_eq!(reasons(None, None, &runs), [Some(Stays::Live), no_rule, last, no_rule, no_rule]);
}

#[test]
fn of_each_pipeline_the_last_run_and_the_last_good_one_stay_whatever_the_rules_say() {
    use RunStatus::{Cancelled, Done, Failed, Killed};
    let runs = [
        run("a", 30, Failed),
        run("b", 31, Done),
        run("a", 32, Killed),
        run("a", 33, Done),
        run("b", 34, Failed),
        run("a", 35, Done),
        run("b", 36, Done),
        run("c", 37, Cancelled),
    ];
    let last = Some(Stays::LastOfPipeline);
    let expected = [last, last, None, last, None, None, None, last];
    assert_eq!(reasons(None, Some(1), &runs), expected);
    assert_eq!(reasons(Some(1), None, &runs), expected);
}

#[test]
fn a_run_goes_only_if_both_rules_let_it() {
    use RunStatus::Done;
    let runs: Vec<_> = (0..6).map(|day| run("a", day * 10, Done)).collect();
    let (last, among, recent) = (Some(Stays::LastOfPipeline), Some(Stays::AmongLast), Some(Stays::Recent));
    assert_eq!(reasons(Some(3), None, &runs), [last, among, among, None, None, None]);
    assert_eq!(reasons(None, Some(15), &runs), [last, recent, None, None, None, None]);
    assert_eq!(reasons(Some(2), Some(25), &runs), [last, among, recent, None, None, None]);
    assert_eq!(reasons(None, Some(10), &runs)[1], None, "as old as that is old enough");
}

#[test]
fn pipelines_of_one_name_in_two_files_are_two_and_one_without_its_file_is_judged_by_the_rules_alone() {
    use RunStatus::Done;
    let mut runs = [run("a", 20, Done), run("a", 30, Done), run("gone", 40, Done), run("gone", 50, Done)];
    runs[1].1.file = "/other/a.yaml".into();
    let last = Some(Stays::LastOfPipeline);
    assert_eq!(reasons(None, Some(1), &runs), [last, last, None, None]);
    assert_eq!(reasons(Some(1), None, &runs), [last, last, Some(Stays::AmongLast), None]);
}

#[test]
fn a_run_from_the_future_is_not_old() {
    let mut runs = [run("a", 0, RunStatus::Done), run("a", 1, RunStatus::Done)];
    runs[1].1.started = jiff::Timestamp::UNIX_EPOCH + DAY * 400;
    assert_eq!(reasons(None, Some(1), &runs)[1], Some(Stays::Recent));
}

fn key(text: &str) -> Key {
    Digest::of(text.as_bytes()).to_string().parse().unwrap()
}

fn lines(id: &RunId) -> [Line; 5] {
    let began = |stage: &str| StageBegan {
        stage: stage.to_owned(),
        at: jiff::Timestamp::UNIX_EPOCH,
        key: key(stage),
        reasons: Vec::new(),
        because: Vec::new(),
        log: "logs/x".into(),
    };
    let outputs = BTreeMap::from([("out".to_owned(), Digest::of(b"made"))]);
    [
        Line::RunBegan(Header {
            id: id.clone(),
            pipeline: "数据".to_owned(),
            file: "/p.yaml".into(),
            started: jiff::Timestamp::UNIX_EPOCH,
            version: "1".to_owned(),
            set: Vec::new(),
            asked: Asked::default(),
            resolved: Digest::of(b"yaml"),
            machine: Machine::here(),
        }),
        Line::StageHit { stage: "hit".to_owned(), key: key("hit"), outputs },
        Line::StageBegan(began("failed")),
        Line::StageEnded(StageEnded {
            stage: "failed".to_owned(),
            outcome: Outcome::Failed,
            duration_seconds: 1.0,
            outputs: BTreeMap::new(),
            figures: Default::default(),
            metrics: Default::default(),
            environment: None,
            error: vec!["it broke".to_owned()],
        }),
        Line::RunEnded(RunEnded {
            status: RunStatus::Failed,
            at: jiff::Timestamp::UNIX_EPOCH,
            duration_seconds: 1.0,
            counts: Counts::default(),
            measure: None,
        }),
    ]
}

#[test]
fn a_run_that_stays_needs_what_it_made_what_it_found_and_what_it_did_not_end() {
    let temp = tempfile::tempdir().unwrap();
    let runs = Runs::new(&Home::open(temp.path()).unwrap());
    let (id, mut journal) = runs.begin().unwrap();
    lines(&id).iter().for_each(|line| journal.push(line));
    journal.write().unwrap();
    drop(journal);
    let judged = Retention::default().judge(&runs, jiff::Timestamp::UNIX_EPOCH).unwrap();
    let needed = judged.needed(&runs).unwrap();
    assert_eq!(needed.runs, [id.to_string()].into());
    assert_eq!(needed.pipelines, ["数据".to_owned()].into());
    assert_eq!(needed.resolved, [Digest::of(b"yaml")].into());
    assert_eq!(needed.keys, [key("hit"), key("failed")].into());
    assert_eq!(needed.artifacts, [Digest::of(b"made")].into());
}

#[test]
fn a_journal_that_cannot_be_read_is_an_error_but_for_the_cut_end_of_a_killed_run() {
    let temp = tempfile::tempdir().unwrap();
    let runs = Runs::new(&Home::open(temp.path()).unwrap());
    let (id, journal) = runs.begin().unwrap();
    drop(journal);
    let judge = || Retention::default().judge(&runs, jiff::Timestamp::UNIX_EPOCH);
    assert_eq!(judge().unwrap().go, std::slice::from_ref(&id), "it was killed before it wrote anything");

    let text = lines(&id).map(|line| serde_json::to_string(&line).unwrap() + "\n").concat();
    let keys = |bytes: &str| {
        fs::write(runs.path(&id), bytes).unwrap();
        judge().and_then(|judged| judged.needed(&runs)).map(|needed| needed.keys.len())
    };
    assert_eq!(keys(&text).unwrap(), 2);
    assert_eq!(keys(&text[..text.len() - 20]).unwrap(), 2);
    let unclear = keys(&text.replace("\"event\":\"stage_began\"", "\"event\":\"stage_flew\"")).unwrap_err();
    assert_eq!((unclear.line, &unclear.id), (3, &id));
    assert_eq!(keys(&format!("x{text}")).unwrap_err().line, 1);
    let text = unclear.to_string();
    assert!(text.starts_with(&format!("the record of the run {id} cannot be read (line 3 of ")), "{text}");
}

#[test]
fn a_run_that_goes_on_stays_whatever_the_rules_say() {
    let temp = tempfile::tempdir().unwrap();
    let runs = Runs::new(&Home::open(temp.path()).unwrap());
    let (id, mut journal) = runs.begin().unwrap();
    let retention = Retention { keep_last: None, older_than: Some(Duration::ZERO) };
    let far = jiff::Timestamp::UNIX_EPOCH + DAY * 1000;
    let none = retention.judge(&runs, far).unwrap();
    assert!(none.stay.is_empty() && none.go.is_empty(), "it has written nothing yet");
    journal.push(&lines(&id)[0]);
    journal.write().unwrap();
    assert_eq!(retention.judge(&runs, far).unwrap().stay[0].1, Stays::Live);
    drop(journal);
    assert_eq!(retention.judge(&runs, far).unwrap().go, std::slice::from_ref(&id));
    File::options().append(true).open(runs.path(&id)).unwrap().write_all(b"{").unwrap();
    assert_eq!(retention.judge(&runs, far).unwrap().go, [id]);
}
