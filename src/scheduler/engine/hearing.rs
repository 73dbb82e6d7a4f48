//! Where events go, and what of a worker's words becomes one.

use std::cmp::Ordering;

use pipe_stage::{Event as Word, Level};

use crate::{
    report::{Event, Sink, StageLogs},
    scheduler::{
        heard::{Heard, NOISE_SHOWN, Passed},
        process::Said,
    },
};

/// Of a line that is no event, this much is shown, in characters.
const NOISE_LENGTH: usize = 400;

/// Where events go: to whoever asked for the run, and into the logs of the stages.
pub(super) struct Report<'run> {
    pub(super) sink: &'run mut dyn Sink,
    pub(super) logs: StageLogs,
}

impl Report<'_> {
    pub(super) fn event(&mut self, event: &Event) {
        self.logs.event(event);
        self.sink.event(event);
    }

    pub(super) fn warn(&mut self, stage: &str, message: String) {
        self.event(&Event::StageLog { stage: stage.to_owned(), level: Level::Warn, message });
    }

    /// A worker said something: what the outside world hears of it, and what its stage's record will need.
    pub(super) fn heard(&mut self, stage: &str, heard: &mut Heard, said: Said<'_>) {
        match said {
            Said::Raw(bytes) => self.logs.raw(stage, bytes),
            Said::Event(word) => {
                let (passed, warning) = heard.note(word);
                match passed {
                    Passed::To(word) => told(stage.to_owned(), word).iter().for_each(|event| self.event(event)),
                    Passed::ToLog(word) => {
                        told(stage.to_owned(), word).iter().for_each(|event| self.logs.event(event));
                    }
                    Passed::On => {}
                }
                warning.into_iter().for_each(|warning| self.warn(stage, warning));
            }
            Said::Noise(line) => {
                heard.noise += 1;
                match heard.noise.cmp(&NOISE_SHOWN) {
                    Ordering::Less => self.event(&noise(stage.to_owned(), line)),
                    Ordering::Equal => {
                        self.warn(stage, "its worker goes on writing lines that are no events".to_owned())
                    }
                    Ordering::Greater => {}
                }
            }
        }
    }
}

/// What the outside world hears of a worker's word.
pub(in crate::scheduler) fn told(stage: String, word: Word) -> Option<Event> {
    Some(match word {
        Word::Progress { unit, done, total } => Event::StageProgress { stage, unit, done, total },
        Word::Metric { step, values } => Event::StageMetric { stage, step, values },
        Word::Figure { name, value } => Event::StageFigure { stage, name, value },
        Word::Log { level, message } => Event::StageLog { stage, level, message },
        // Not before the worker is gone and its artifacts are kept.
        Word::Result(_) => return None,
    })
}

/// A line of a worker that is no event, or the beginning of it.
pub(in crate::scheduler) fn noise(stage: String, line: &[u8]) -> Event {
    let line: String = String::from_utf8_lossy(line).chars().take(NOISE_LENGTH).collect();
    let message = format!("its worker wrote a line that is no event: {line}");
    Event::StageLog { stage, level: Level::Warn, message }
}
