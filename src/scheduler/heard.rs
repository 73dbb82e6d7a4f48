//! What a worker has said, as far as the record of its stage or the judgement of its end will need it.
//!
//! A worker is a program like any other and may say anything, without end. What is kept of it has bounds, and so has
//! what others hear; where one is met, that is said once.

use indexmap::IndexMap;
use pipe_stage::{Event as Word, Status};
use serde_json::Value;

/// So many figures of a stage are kept, and the measurements of so many names.
const NAMES: usize = 1000;

/// Longer names are none, in bytes.
const NAME_BYTES: usize = 200;

/// A longer value is no figure, in bytes of JSON.
const VALUE_BYTES: usize = 16 << 10;

/// So many messages of a stage are shown; the rest is only in its log.
const MESSAGES_SHOWN: usize = 1000;

/// A longer message is cut, in bytes.
const MESSAGE_BYTES: usize = 16 << 10;

/// A longer chain of causes is cut.
const CAUSES: usize = 64;

/// More lines that are no events are only counted.
pub(super) const NOISE_SHOWN: usize = 10;

/// The words of one worker.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub(super) last_word: Option<Status>,
    pub(super) figures: IndexMap<String, Value>,
    /// The newest of each name.
    pub(super) metrics: IndexMap<String, f64>,
    /// Lines on standard output that were no events.
    pub(super) noise: usize,
    messages: usize,
    figures_left_out: bool,
    metrics_left_out: bool,
}

/// Who is to hear a word.
#[derive(Debug, PartialEq)]
pub(super) enum Passed {
    /// All who listen.
    To(Word),
    /// Only the stage's log.
    ToLog(Word),
    /// Nobody.
    On,
}

impl Heard {
    /// Keeps what is to be kept of a word, and cuts what is too long. Gives who is to hear it, and a warning where a bound
    /// is met for the first time.
    pub(super) fn note(&mut self, word: Word) -> (Passed, Option<String>) {
        match word {
            Word::Metric { step, values } => self.metric(step, values),
            Word::Figure { name, value } => self.figure(name, value),
            Word::Result(status) => {
                self.last_word = Some(cut_status(status));
                (Passed::On, None)
            }
            Word::Progress { unit, done, total } => {
                (Passed::To(Word::Progress { unit: cut(unit, NAME_BYTES), done, total }), None)
            }
            Word::Log { level, message } => {
                let word = Word::Log { level, message: cut(message, MESSAGE_BYTES) };
                self.messages += 1;
                let first = self.messages == MESSAGES_SHOWN + 1;
                let warning =
                    first.then(|| format!("it says more than {MESSAGES_SHOWN} things: the rest is only in its log"));
                (if self.messages > MESSAGES_SHOWN { Passed::ToLog(word) } else { Passed::To(word) }, warning)
            }
        }
    }

    /// A step of training and an evaluation in between report different names. What is no number any more has no newest
    /// value.
    fn metric(&mut self, step: u64, mut values: IndexMap<String, f64>) -> (Passed, Option<String>) {
        let all = values.len();
        values.retain(|name, value| {
            let known = self.metrics.contains_key(name);
            let has_room = known || (self.metrics.len() < NAMES && name.len() <= NAME_BYTES);
            if has_room && value.is_finite() {
                self.metrics.insert(name.clone(), *value);
            } else if known {
                self.metrics.shift_remove(name);
            }
            has_room
        });
        let first = values.len() < all && !std::mem::replace(&mut self.metrics_left_out, true);
        (Passed::To(Word::Metric { step, values }), first.then(|| left_out("measurements")))
    }

    fn figure(&mut self, name: String, value: Value) -> (Passed, Option<String>) {
        let known = self.figures.contains_key(&name);
        if (known || self.figures.len() < NAMES) && name.len() <= NAME_BYTES && is_short(&value) {
            self.figures.insert(name.clone(), value.clone());
            return (Passed::To(Word::Figure { name, value }), None);
        }
        let first = !std::mem::replace(&mut self.figures_left_out, true);
        (Passed::On, first.then(|| left_out("figures")))
    }
}

fn left_out(what: &str) -> String {
    format!(
        "some of its {what} are left out: of a stage at most {NAMES} are kept, with names of {NAME_BYTES} bytes and \
         values of {VALUE_BYTES} at most"
    )
}

fn is_short(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
        Value::String(text) => text.len() <= VALUE_BYTES,
        Value::Array(_) | Value::Object(_) => value.to_string().len() <= VALUE_BYTES,
    }
}

fn cut_status(status: Status) -> Status {
    match status {
        Status::Done => Status::Done,
        Status::Failed { class, mut chain, hint } => {
            chain.truncate(CAUSES);
            let chain = chain.into_iter().map(|message| cut(message, MESSAGE_BYTES)).collect();
            Status::Failed { class, chain, hint: hint.map(|hint| cut(hint, MESSAGE_BYTES)) }
        }
    }
}

/// The beginning of a text that is too long.
fn cut(mut text: String, bytes: usize) -> String {
    if text.len() > bytes {
        let all = text.len();
        text.truncate(text.floor_char_boundary(bytes));
        text += &format!("... ({} bytes left out)", all - text.len());
    }
    text
}

#[cfg(test)]
mod tests {
    use pipe_stage::{FailureClass, Level};

    use super::*;

    fn figure(name: &str, value: impl Into<Value>) -> Word {
        Word::Figure { name: name.to_owned(), value: value.into() }
    }

    #[test]
    fn figures_without_end_are_kept_up_to_a_bound_and_that_is_said_once() {
        let mut heard = Heard::default();
        let warnings = (0..3000).filter_map(|number| heard.note(figure(&number.to_string(), number)).1).count();
        assert_eq!((heard.figures.len(), warnings), (1000, 1));
        assert_eq!(heard.note(figure("7", "new")), (Passed::To(figure("7", "new")), None));
        assert_eq!(heard.figures["7"], "new");
    }

    #[test]
    fn long_names_and_values_are_no_figures() {
        let deep = vec![vec!["x".repeat(100); 100]; 10];
        for word in [figure(&"n".repeat(201), 1), figure("long", "x".repeat(20_000)), figure("deep", deep)] {
            let mut heard = Heard::default();
            let (passed, warning) = heard.note(word);
            assert_eq!((passed, warning.is_some(), heard.figures.len()), (Passed::On, true, 0));
        }
    }

    #[test]
    fn measurements_have_a_bound_on_their_names_and_what_is_no_number_is_not_kept() {
        let mut heard = Heard::default();
        let step = |step: u64, values: &[(&str, f64)]| Word::Metric {
            step,
            values: values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
        };
        heard.note(step(1, &[("loss", 1.0), ("norm", 2.0)]));
        let (passed, warning) = heard.note(step(2, &[("loss", f64::NAN), ("norm", 3.0)]));
        let Passed::To(Word::Metric { values, .. }) = passed else { panic!("{passed:?}") };
        assert!(values["loss"].is_nan() && warning.is_none(), "what happened is shown");
        assert_eq!(heard.metrics, [("norm".to_owned(), 3.0)].into());

        let mut warnings = 0;
        for number in 0..3000 {
            warnings += usize::from(heard.note(step(3, &[(&format!("name {number}"), 1.0)])).1.is_some());
        }
        assert_eq!((heard.metrics.len(), warnings), (1000, 1));
    }

    #[test]
    fn many_messages_go_to_the_log_alone_and_long_ones_are_cut() {
        let mut heard = Heard::default();
        let log = |message: &str| Word::Log { level: Level::Info, message: message.to_owned() };
        let mut warnings = Vec::new();
        let mut shown = 0;
        for number in 0..5000 {
            let (passed, warning) = heard.note(log(&number.to_string()));
            shown += usize::from(matches!(passed, Passed::To(_)));
            warnings.extend(warning);
        }
        assert_eq!(
            (shown, &warnings[..]),
            (1000, &["it says more than 1000 things: the rest is only in its log".to_owned()][..])
        );

        let (Passed::To(Word::Log { message, .. }), _) = Heard::default().note(log(&"数".repeat(10_000))) else {
            panic!("a long message is shown")
        };
        assert!(message.ends_with("数... (13617 bytes left out)"), "{}", &message[16_000..]);
    }

    #[test]
    fn the_reason_of_a_failure_is_cut_too() {
        let mut heard = Heard::default();
        let chain = vec!["x".repeat(1 << 20); 100];
        heard.note(Word::Result(Status::Failed { class: FailureClass::Stage, chain, hint: None }));
        let Some(Status::Failed { chain, .. }) = heard.last_word else { panic!("the last word is kept") };
        assert_eq!(chain.len(), 64);
        assert!(chain.iter().all(|message| message.len() < 17_000));
    }
}
