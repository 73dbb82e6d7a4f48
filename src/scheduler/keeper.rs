//! Keeping what workers made, on threads of the crew: a large artifact takes long to hash, and a disk long to be sure.
//!
//! Outputs are hashed each stage by itself. Then one thread at a time keeps the stages that are ready as a group, so
//! that they wait for the disk together; while it waits, the next group gathers.

use pipe_stage::Output;

use super::ending::Ending;
use crate::cache::{self, ActionRecord, Attempt, CacheError, Home, Store, crash};

/// So many stages wait for the disk together at most.
pub(super) const GROUP: usize = 64;

/// More than this is synced before the stage joins a group, so that small stages need not wait for it, in bytes.
const LARGE_BYTES: u64 = 8 << 20;

/// What a stage made, hashed and ready to be put in its place.
pub(super) struct Unkept {
    made: cache::Unkept,
    /// Holds the key until the record is in place.
    attempt: Attempt,
}

impl Unkept {
    /// Takes over what lies in the attempt's output folders. `record`: with the outputs left out.
    pub(super) fn new(
        outputs: &[Output],
        record: ActionRecord,
        attempt: Attempt,
        store: &Store,
    ) -> Result<Self, CacheError> {
        let prepare = |output: &Output| {
            let prepared = store.prepare(&attempt.output().join(&output.name))?;
            if prepared.total_bytes() > LARGE_BYTES {
                prepared.sync()?;
            }
            Ok((output.name.clone(), prepared))
        };
        let outputs = outputs.iter().map(prepare).collect::<Result<_, CacheError>>()?;
        Ok(Self { made: cache::Unkept { outputs, record }, attempt })
    }
}

/// Keeps a group of stages. The answers come in the order of the group, with what is still to be cleaned up, which
/// nobody need wait for but the next run of the same key.
pub(super) fn keep(home: &Home, group: Vec<Unkept>) -> Vec<(Result<ActionRecord, Ending>, Leavings)> {
    let (made, attempts): (Vec<_>, Vec<_>) = group.into_iter().map(|stage| (stage.made, stage.attempt)).unzip();
    let kept = cache::keep(home, made).into_iter().zip(attempts);
    kept.map(|(kept, attempt)| {
        let leavings = Leavings { attempt, good: kept.is_ok() };
        if kept.is_ok() {
            crash::point("scheduler.recorded");
        }
        (kept.map_err(Ending::of_cache), leavings)
    })
    .collect()
}

/// The folders of an attempt that is over.
pub(super) struct Leavings {
    attempt: Attempt,
    good: bool,
}

impl Leavings {
    /// Removes them, or puts them aside for other attempts.
    pub(super) fn clean_up(self) {
        if self.good {
            self.attempt.succeed();
            crash::point("scheduler.cleared");
        }
    }
}
