//! How a stage says that it failed.

use std::{error::Error, io};

use serde::{Deserialize, Serialize};

/// Whose fault a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// The stage cannot do its work with this input and configuration.
    Stage,
    /// The machine lacks something: a library, a device, memory, a built component.
    Environment,
    /// It was asked to stop, and what it had done is kept.
    Cancelled,
}

/// A failed stage: the stage's own error, its class, and what to do.
///
/// Any error converts into one by `?`; [`Failure::environment`], [`Failure::hint`] add what the error cannot say.
#[derive(Debug)]
pub struct Failure {
    class: FailureClass,
    error: Box<dyn Error + Send + Sync>,
    hint: Option<String>,
}

impl Failure {
    /// The work was stopped by [`Context::cancelled`](crate::Context::cancelled).
    pub fn cancelled() -> Self {
        Self { class: FailureClass::Cancelled, error: "stopped on request".into(), hint: None }
    }

    /// A failure that the machine is to blame for.
    pub fn environment(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { class: FailureClass::Environment, error: error.into(), hint: None }
    }

    /// Adds what the user can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Whose fault it is.
    pub fn class(&self) -> FailureClass {
        self.class
    }

    /// What the user can do about it.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The error's message and those of its causes, outermost first.
    pub fn chain(&self) -> Vec<String> {
        chain(self.error.as_ref())
    }

    pub(crate) fn into_status(self) -> crate::Status {
        crate::Status::Failed { class: self.class, chain: self.chain(), hint: self.hint }
    }
}

/// The message of an error and those of its causes, outermost first.
pub fn chain(error: &dyn Error) -> Vec<String> {
    let mut chain = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        chain.push(error.to_string());
        cause = error.source();
    }
    chain
}

impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        if is_full_disk(&error) {
            return Self::environment(error).hint(FULL_DISK);
        }
        Self { class: FailureClass::Stage, error: Box::new(error), hint: None }
    }
}

/// What to do about a full disk.
pub const FULL_DISK: &str =
    "free some space there, or set PIPE_HOME to a folder on another disk; what was done so far is kept";

/// Whether an error or one of its causes is that no space is left: no stage is to blame for that.
pub fn is_full_disk(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if matches!(kind, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)) {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot write the checkpoint")]
    struct Wrapped(#[source] io::Error);

    #[test]
    fn a_full_disk_is_the_machines_fault_however_deep_it_is_wrapped() {
        let full = Failure::from(Wrapped(io::ErrorKind::StorageFull.into()));
        assert_eq!((full.class(), full.hint.as_deref()), (FailureClass::Environment, Some(FULL_DISK)));
        let other = Failure::from(Wrapped(io::ErrorKind::InvalidData.into()));
        assert_eq!((other.class(), other.hint), (FailureClass::Stage, None));
    }
}
