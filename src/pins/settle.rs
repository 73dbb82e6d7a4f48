//! Asks what names stand for that nothing is known of, or that are to be refreshed.

use std::collections::BTreeSet;

use indexmap::IndexSet;
use pipe_stage::{Failure, FailureClass, Reference, Runner};

use super::{Pins, PinsError};
use crate::config::{Pipeline, StageName, StageSpec};

/// What was found out about one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The stage that names it.
    pub stage: StageName,
    /// The name.
    pub name: String,
    /// What it stood for; `None` if that was not known.
    pub from: Option<String>,
    /// What it stands for.
    pub to: String,
}

/// Why it could not be found out what a name stands for.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    /// `pipe.lock` cannot be used.
    #[error(transparent)]
    File(#[from] PinsError),
    /// A stage that is to be refreshed names nothing that could have moved.
    #[error("`{stage}` takes nothing from elsewhere that could have a newer version")]
    NothingMoves {
        /// The stage.
        stage: StageName,
    },
    /// The other machine could not be asked, or does not know the name.
    #[error("cannot find out what `{name}` of the stage `{stage}` stands for")]
    Unknown {
        /// The stage.
        stage: StageName,
        /// The name.
        name: String,
        /// Why not.
        source: Cause,
        /// What to do about it.
        hint: Option<String>,
        /// Whose fault it is.
        class: FailureClass,
    },
}

/// What a kind says of why it could not find out, with what that came from.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Cause {
    message: String,
    source: Option<Box<Cause>>,
}

impl Cause {
    /// Of a failure.
    fn of(failure: &Failure) -> Self {
        let mut messages = failure.chain().into_iter().rev();
        let innermost = Self { message: messages.next().unwrap_or_default(), source: None };
        messages.fold(innermost, |source, message| Self { message, source: Some(Box::new(source)) })
    }
}

/// What [`settle`] tells on the way.
#[derive(Debug, Clone, Copy)]
pub enum Told<'a> {
    /// It is about to ask, which may take a while.
    Asks {
        /// The stage that names it.
        stage: &'a StageName,
        /// The name.
        name: &'a str,
    },
    /// It knows.
    Knows(&'a Settled),
}

/// The pins of all that the `stages` name. What nothing is known of is asked for, and so is what the stages `refreshed`
/// name; all that was found out is told to `told` and written beside the pipeline before this returns.
///
/// # Errors
/// If a name cannot be resolved, or the file cannot be read or written. What was found out before is kept.
pub fn settle(
    pipeline: &Pipeline,
    stages: &IndexSet<StageName>,
    refreshed: &[StageName],
    runners: &[Runner],
    mut told: impl FnMut(Told<'_>),
) -> Result<Pins, SettleError> {
    let specs = || stages.iter().filter_map(|stage| pipeline.stages.get(stage));
    for stage in refreshed {
        if pipeline.stages.get(stage).is_none_or(|spec| spec.references.is_empty()) {
            return Err(SettleError::NothingMoves { stage: stage.clone() });
        }
    }
    if specs().all(|spec| spec.references.is_empty()) {
        return Ok(Pins::default());
    }
    let (mut pins, mut found) = (Pins::load(&pipeline.folder)?, Pins::default());
    let mut asked = BTreeSet::new();
    let open = specs().flat_map(|spec| spec.references.iter().map(move |reference| (spec, reference)));
    let mut ended = Ok(());
    for (spec, reference) in open {
        let from = pins.get(&reference.name).map(str::to_owned);
        let wanted = from.is_none() || refreshed.contains(&spec.name);
        if !wanted || !asked.insert(&reference.name) {
            continue;
        }
        told(Told::Asks { stage: &spec.name, name: &reference.name });
        match resolve(spec, reference, runners) {
            Ok(to) => {
                found.set(&reference.name, &to);
                told(Told::Knows(&Settled { stage: spec.name.clone(), name: reference.name.clone(), from, to }));
            }
            Err(error) => {
                ended = Err(error);
                break;
            }
        }
    }
    if !found.is_empty() {
        pins = found.add_to(&pipeline.folder)?;
    }
    ended.map(|()| pins)
}

fn resolve(spec: &StageSpec, reference: &Reference, runners: &[Runner]) -> Result<String, SettleError> {
    let runner = runners.iter().find(|runner| runner.kind == spec.declaration.kind);
    let resolved = match runner {
        Some(runner) => runner.resolve(&spec.config, reference),
        None => Err(Failure::environment(format!("this program does not run the kind `{}`", spec.declaration.kind))),
    };
    resolved.map_err(|failure| SettleError::Unknown {
        stage: spec.name.clone(),
        name: reference.name.clone(),
        source: Cause::of(&failure),
        hint: failure.hint_text().map(str::to_owned),
        class: failure.class(),
    })
}
