//! What a person sees of a run.
#![expect(clippy::unwrap_used, reason = "a test may panic")]
use std::sync::{Arc, Mutex};

use super::*;

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn told(events: &[Event]) -> String {
    let buffer = Buffer::default();
    let mut human = Human::plain(buffer.clone());
    for event in events {
        human.event(event);
    }
    let bytes = buffer.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

fn run_started() -> Event {
    let stages = vec!["corpus".to_owned(), "tokens".to_owned(), "kept".to_owned()];
    Event::RunStarted { run: "r1".to_owned(), pipeline: "中文-sft".to_owned(), stages }
}

fn hit(stage: &str) -> Event {
    Event::StageHit { stage: stage.to_owned() }
}

fn started(stage: &str) -> Event {
    Event::StageStarted {
        stage: stage.to_owned(),
        kind: "tokenize".to_owned(),
        reasons: vec!["config `max_length` changed from 384 to 128".to_owned()],
        log: "a.log".into(),
    }
}

fn finished(outcome: Outcome, ran: usize, hits: usize, unfinished: usize) -> Event {
    let go_on = (outcome != Outcome::Done).then(|| "pipe run sft.yaml".to_owned());
    Event::RunFinished(Summary {
        run: "r1".to_owned(),
        outcome,
        ran,
        hits,
        unfinished,
        failed: Vec::new(),
        skipped: Vec::new(),
        seconds: 0.004,
        go_on,
    })
}

#[test]
fn a_run_with_nothing_to_do_is_one_line() {
    let text = told(&[run_started(), hit("corpus"), hit("tokens"), hit("kept"), finished(Outcome::Done, 0, 3, 0)]);
    assert_eq!(text, "up to date: 3 stages (4 ms)\n");
}

#[test]
fn a_run_with_something_to_do_tells_of_every_stage() {
    let text = told(&[
        run_started(),
        hit("corpus"),
        started("tokens"),
        Event::StageProgress { stage: "tokens".to_owned(), unit: "rows".to_owned(), done: 1200, total: Some(1200) },
        Event::StageMetric { stage: "tokens".to_owned(), step: 1, values: [("loss".to_owned(), 1.23456)].into() },
        Event::StageFinished { stage: "tokens".to_owned(), seconds: 1.25, outputs: [].into() },
        hit("kept"),
        finished(Outcome::Done, 1, 2, 0),
    ]);
    assert_eq!(
        text,
        "中文-sft: 3 stages, run r1\n\
         = corpus  up to date\n\
         > tokens  tokenize: config `max_length` changed from 384 to 128\n\
         ✓ tokens  done in 1.25 s · 1,200 rows · loss 1.235\n\
         = kept    up to date\n\
         done: 1 stage run, 2 up to date (4 ms)\n"
    );
}

#[test]
fn a_failure_shows_the_log_then_the_causes_then_the_way_on() {
    let failure = StageFailure {
        class: FailureClass::Stage,
        chain: vec!["no rows".to_owned(), "the file is empty".to_owned()],
        hint: Some("look at the data".to_owned()),
        log: Some("tokens.log".into()),
        tail: vec!["reading".to_owned()],
    };
    let kind = "tokenize".to_owned();
    let text = told(&[
        run_started(),
        started("tokens"),
        Event::StageFailed { stage: "tokens".to_owned(), kind, failure, seconds: 2.0 },
        finished(Outcome::StageFailed, 0, 1, 2),
    ]);
    let end = text.split_once("384 to 128\n").unwrap().1;
    assert_eq!(
        end,
        "✗ tokens  failed after 2.00 s\n\
         \x20 last lines of tokens.log:\n\
         \x20 | reading\n\
         error: stage `tokens` (tokenize): no rows\n\
         \x20 caused by: the file is empty\n\
         \x20 help: look at the data\n\
         failed: 0 stages run, 1 up to date, 2 to do (4 ms)\n\
         to go on from here: pipe run sft.yaml\n"
    );
}

#[test]
fn an_attempt_that_failed_says_why_and_what_follows() {
    let failure = StageFailure {
        class: FailureClass::Stage,
        chain: vec!["no rows".to_owned(), "the file is empty".to_owned()],
        hint: None,
        log: None,
        tail: vec![],
    };
    let stage = "tokens".to_owned();
    let text = told(&[
        run_started(),
        started("tokens"),
        Event::StageRetrying { stage, attempt: 1, retries: 3, failure, seconds: 2.0, delay_seconds: 0.25 },
    ]);
    let end = text.split_once("384 to 128\n").unwrap().1;
    assert_eq!(
        end,
        "! tokens  attempt 1 of 4 failed after 2.00 s: no rows: the file is empty\n\
         ! tokens  again in 250 ms\n"
    );
}

#[test]
fn a_run_that_went_on_says_what_failed_and_what_was_skipped_for_it() {
    let skipped = |stage: &str, because: &str| Skipped { stage: stage.to_owned(), because: because.to_owned() };
    let mut stages: Vec<Skipped> = (0..12).map(|number| skipped(&format!("s{number}"), "a")).collect();
    stages.insert(3, skipped("t", "b"));
    let text = told(&[
        run_started(),
        started("tokens"),
        Event::RunFinished(Summary {
            run: "r1".to_owned(),
            outcome: Outcome::StageFailed,
            ran: 1,
            hits: 0,
            unfinished: 15,
            failed: vec!["a".to_owned(), "b".to_owned()],
            skipped: stages,
            seconds: 0.004,
            go_on: None,
        }),
    ]);
    let end = text.split_once("384 to 128\n").unwrap().1;
    assert_eq!(
        end,
        "failed: 1 stage run, 0 up to date, 15 to do (4 ms)\n\
         \x20 failed: a, b\n\
         \x20 skipped because `a` failed: s0, s1, s2, s3, s4, s5, s6, s7 and 4 more\n\
         \x20 skipped because `b` failed: t\n"
    );
}

#[test]
fn a_message_cannot_steer_the_terminal() {
    let text = told(&[
        run_started(),
        Event::StageLog { stage: "kept".to_owned(), level: Level::Warn, message: "\u{1b}[2Jgone\u{7}".to_owned() },
    ]);
    assert_eq!(text, "- kept    warning: gone\n");
    let failure = StageFailure {
        class: FailureClass::Stage,
        chain: vec!["two\nlines\u{1b}[1A".to_owned(), "\u{9b}2Jcause".to_owned()],
        hint: Some("\u{1b}]0;title\u{7}try again".to_owned()),
        log: None,
        tail: Vec::new(),
    };
    let text = told(&[
        run_started(),
        started("kept"),
        Event::StageMetric { stage: "kept".to_owned(), step: 1, values: [("\u{1b}[31mloss".to_owned(), 1.0)].into() },
        Event::StageProgress { stage: "kept".to_owned(), unit: "ro\u{8}ws".to_owned(), done: 1, total: None },
        Event::StageFinished { stage: "kept".to_owned(), seconds: 1.0, outputs: Default::default() },
        Event::StageFailed { stage: "kept".to_owned(), kind: "filter".to_owned(), failure, seconds: 1.0 },
    ]);
    let shown = text.lines().skip(2).collect::<Vec<_>>();
    assert_eq!(
        shown,
        [
            "✓ kept    done in 1.00 s · 1 rows · loss 1",
            "✗ kept    failed after 1.00 s",
            "error: stage `kept` (filter): two",
            "    lines",
            "  caused by: 2Jcause",
            "  help: try again",
        ]
    );
}

#[test]
fn progress_is_put_in_words() {
    let start = Instant::now();
    let mut meter = Meter::new("steps", 0, Some(400), start);
    meter.advance("steps", 100, Some(400), start + Duration::from_secs(25));
    let metrics = [
        ("cuda_allocated_bytes", 3.2e9),
        ("loss", 1.2345),
        ("grad_norm", 0.5),
        ("learning_rate", 1e-4),
        ("eval_loss", 1.5),
        ("nvml_used_bytes", 4e9),
    ];
    let metrics = metrics.map(|(name, value)| (name.to_owned(), value)).into();
    let running = Running { kind: "train".to_owned(), meter: Some(meter), metrics, shown: start };
    assert_eq!(
        running.text(),
        "100/400 steps · 4.00/s · 1m 15s left · loss 1.234 · eval_loss 1.500 · grad_norm 0.5000 · \
         cuda_allocated 2.98 GiB · nvml_used 3.73 GiB"
    );
}
