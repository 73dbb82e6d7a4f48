//! Why a row cannot be used.

use pipe_records::Fault;

/// Why a row cannot be used: a reason to count it under, and the details of this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadRow {
    pub(crate) reason: Reason,
    pub(crate) detail: String,
}

/// The kinds of bad rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    /// It gives no record.
    Unreadable(pipe_records::Reason),
    UnknownShape,
    WrongType,
    WrongRole,
    Empty,
    BadIds,
    NoAssistant,
    RefusedByTemplate,
}

impl From<Fault> for BadRow {
    fn from(fault: Fault) -> Self {
        Self { reason: Reason::Unreadable(fault.reason), detail: fault.detail }
    }
}

impl Reason {
    /// The name in figures.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unreadable(reason) => reason.name(),
            Self::UnknownShape => "unknown_shape",
            Self::WrongType => "wrong_type",
            Self::WrongRole => "wrong_role",
            Self::Empty => "empty",
            Self::BadIds => "bad_ids",
            Self::NoAssistant => "no_assistant",
            Self::RefusedByTemplate => "refused_by_template",
        }
    }

    pub(crate) fn because(self, detail: impl Into<String>) -> BadRow {
        BadRow { reason: self, detail: detail.into() }
    }
}
