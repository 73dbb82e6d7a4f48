//! Copies of outputs where the pipeline wants them (`outputs: PATH`), made by the crew: a large one takes long.
//!
//! What takes from the stage need not wait for its copies, but the stage has not ended before they are there: its end is
//! in the journal once, with the outcome that it has in the end.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Instant,
};

use pipe_stage::{Digest, FailureClass, Level};

use super::{Crew, Engine, Message};
use crate::{
    cache::{ActionRecord, CacheError, CheckedOut, Checkout, Key},
    config::StageSpec,
    report::{self, Event},
    scheduler::{RunError, Shared, ending::Ending},
};

/// How a stage came to be up to date.
pub(super) enum Came {
    /// Its artifacts were there.
    Found { key: Key },
    /// It ran. `log`: relative to the home.
    Ran { record: Box<ActionRecord>, seconds: f64, log: PathBuf },
}

/// A stage that is up to date but for its copies.
pub(super) struct Copying {
    came: Came,
    outputs: BTreeMap<String, Digest>,
    /// Whether the crew has been told.
    given: bool,
}

/// What came of the copies of a stage.
pub(in crate::scheduler) struct Copied {
    /// In words, what was written.
    messages: Vec<String>,
    result: Result<(), Ending>,
    seconds: f64,
}

impl<'run> Engine<'run> {
    /// A stage is up to date: it ends, now or when its copies are there.
    pub(super) fn come(&mut self, index: usize, came: Came, outputs: BTreeMap<String, Digest>) {
        if self.stages[index].spec.checkout.is_empty() {
            self.end_well(index, came, &outputs);
        } else {
            self.copying.insert(index, Copying { came, outputs: outputs.clone(), given: false });
        }
        self.up_to_date(index, outputs);
    }

    /// Has the crew make the copies of stages that have become up to date.
    pub(super) fn copy_what_is_there<'scope>(&mut self, crew: &mut Crew<'scope, '_>) -> Result<(), RunError>
    where
        'run: 'scope,
    {
        for (&index, copying) in self.copying.iter_mut().filter(|(_, copying)| !copying.given) {
            copying.given = true;
            let (shared, spec, outputs) = (self.shared, self.stages[index].spec, copying.outputs.clone());
            crew.give(move || Message::Copied(index, copy(shared, spec, &outputs)))?;
        }
        Ok(())
    }

    /// The copies of a stage are there, or refused. Then the stage fails, but its artifacts stay in the cache, and what
    /// takes from it may go on.
    pub(super) fn copied(&mut self, index: usize, copied: Copied) {
        let Some(Copying { came, outputs, .. }) = self.copying.remove(&index) else { return };
        let stage = self.name(index);
        for message in copied.messages {
            self.report.event(&Event::StageLog { stage: stage.clone(), level: Level::Info, message });
        }
        let Err(ending) = copied.result else { return self.end_well(index, came, &outputs) };
        let (key, log, seconds) = match came {
            Came::Found { key } => (Some(key), None, copied.seconds),
            Came::Ran { log, seconds, .. } => (None, Some(log), seconds),
        };
        let spec = self.stages[index].spec;
        let mut failure = self.failure(ending, log.as_deref());
        // What it printed has nothing to do with it.
        failure.tail.clear();
        self.failed.push((index, failure.class));
        self.books.failed_copy(&spec.name, key.as_ref(), &outputs, &failure, seconds);
        let kind = spec.declaration.kind.to_owned();
        self.report.event(&Event::StageFailed { stage, kind, failure, seconds });
    }

    fn end_well(&mut self, index: usize, came: Came, outputs: &BTreeMap<String, Digest>) {
        let (name, stage) = (&self.stages[index].spec.name, self.name(index));
        match came {
            Came::Found { key } => {
                self.books.hit(name, &key, outputs);
                self.report.event(&Event::StageHit { stage });
            }
            Came::Ran { record, seconds, .. } => {
                self.books.ran(name, &record);
                self.report.event(&Event::StageFinished { stage, seconds, outputs: outputs.clone() });
            }
        }
    }
}

/// Brings the copies of a stage up to date. One that nobody touched costs a look at each file; what somebody edited is
/// left alone.
fn copy(shared: &Shared<'_>, spec: &StageSpec, outputs: &BTreeMap<String, Digest>) -> Copied {
    let clock = Instant::now();
    let mut messages = Vec::new();
    let mut one = |name: &str, form, artifact: &Digest, place: &Path| -> Result<(), CacheError> {
        let options = Checkout { form, force: false };
        let CheckedOut { written, removed, .. } =
            shared.store.checkout_to(artifact, &shared.pipeline.folder.join(place), options)?;
        if written > 0 || removed > 0 {
            messages.push(format!("`{name}` is in {} ({} written)", place.display(), report::plural(written, "file")));
        }
        Ok(())
    };
    let mut wanted = spec
        .outputs
        .iter()
        .filter_map(|output| Some((output, outputs.get(&output.name)?, spec.checkout.get(&output.name)?)));
    let result = wanted.try_for_each(|(output, artifact, place)| one(&output.name, output.form, artifact, place));
    let result = result.map_err(|error| refused(&error));
    Copied { messages, result, seconds: clock.elapsed().as_secs_f64() }
}

/// What is wrong with the place is for the user to settle; what the system refuses is the machine's fault.
fn refused(error: &CacheError) -> Ending {
    let ending = Ending::environment(error, None);
    match error {
        CacheError::Io { .. } => ending,
        _ => Ending { class: FailureClass::Stage, ..ending },
    }
}
