//! The words by which people name a run: `last`, `last~1`, an id, its beginning, or its last four digits.

use super::{RunId, RunSummary, Runs};

/// Why a word names no run.
#[derive(Debug, thiserror::Error)]
pub enum ChooseError {
    /// There are none.
    #[error("no run is recorded in {}", home.display())]
    NoRuns {
        /// Where.
        home: std::path::PathBuf,
    },
    /// There are fewer.
    #[error("`{word}` goes too far back: {count} {} recorded", if *count == 1 { "run is" } else { "runs are" })]
    TooFarBack {
        /// What was asked for.
        word: String,
        /// How many there are.
        count: usize,
    },
    /// None is called so.
    #[error("no run is called `{word}`")]
    Unknown {
        /// What was asked for.
        word: String,
    },
    /// Several are called so.
    #[error("`{word}` could be {}", ids.iter().map(RunId::as_str).collect::<Vec<_>>().join(", "))]
    Ambiguous {
        /// What was asked for.
        word: String,
        /// The newest of them.
        ids: Vec<RunId>,
    },
}

/// As many are named of those that a word could mean.
const NAMED: usize = 4;

impl Runs {
    /// The run that `word` names: the newest is `last`, the one before `last~1`. Those count for which `counts` holds.
    ///
    /// # Errors
    /// If it names none, or several.
    pub fn choose(&self, word: &str, counts: impl Fn(&RunSummary) -> bool) -> Result<RunId, ChooseError> {
        if let Some(back) = steps_back(word) {
            let mut count = 0;
            let mut counted = self.summaries().filter(|run| counts(run)).inspect(|_| count += 1);
            return match counted.nth(back) {
                Some(run) => Ok(run.id),
                None if count == 0 => Err(ChooseError::NoRuns { home: self.home.root().to_owned() }),
                None => Err(ChooseError::TooFarBack { word: word.to_owned(), count }),
            };
        }
        let named = |id: &RunId| !word.is_empty() && (id.as_str().starts_with(word) || is_suffix(id, word));
        // A record that cannot be read is no run that one could look at.
        let mut ids = self.ids().into_iter().filter(|id| named(id) && self.summary(id).is_some_and(|run| counts(&run)));
        let (first, rest) = (ids.next(), ids.take(NAMED - 1).collect::<Vec<_>>());
        match first {
            None => Err(ChooseError::Unknown { word: word.to_owned() }),
            Some(id) if rest.is_empty() => Ok(id),
            Some(id) => {
                let ids = std::iter::once(id).chain(rest).collect();
                Err(ChooseError::Ambiguous { word: word.to_owned(), ids })
            }
        }
    }
}

/// 0 for `last`, 2 for `last~2`.
fn steps_back(word: &str) -> Option<usize> {
    match word.strip_prefix("last")? {
        "" => Some(0),
        "~" => Some(1),
        rest => rest.strip_prefix('~')?.parse().ok(),
    }
}

/// The last part of an id is the easiest to type.
fn is_suffix(id: &RunId, word: &str) -> bool {
    id.as_str().rsplit('-').next() == Some(word)
}
