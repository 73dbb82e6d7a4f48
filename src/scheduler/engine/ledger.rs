//! The machine and the turns of the stages, looked up once a stage has to run.

use super::Stages;
use crate::{
    plan::{CacheLookup, Lookup},
    scheduler::{Options, capacity::Capacity, gpus::GpuLocks, priority, slots::Slots},
};

/// What there is for stages to share, and who is to get it first.
pub(super) struct Ledger {
    pub(super) slots: Slots,
    /// How many CPUs a stage counts for that does not say how many it uses.
    pub(super) unsaid_cpus: usize,
    pub(super) turns: Vec<usize>,
}

impl Ledger {
    /// `user`: who other processes are told has a GPU.
    pub(super) fn new(options: &Options, stages: &Stages<'_>, lookup: &CacheLookup, user: String) -> Self {
        let capacity = Capacity::here(&options.resources);
        // What is up to date takes no time, and nothing comes after it.
        let known: Vec<Option<f64>> = stages
            .iter()
            .map(|stage| match stage.outputs {
                Some(_) => Some(0.0),
                None => lookup.last(&stage.spec.name).map(|record| record.duration_seconds),
            })
            .collect();
        let said = |index: usize| stages[index].spec.resources.time_seconds.map(|seconds| seconds as f64);
        let turns = priority::turns(&priority::estimates(&known, said), |index| stages.takers(index));
        let (jobs, unsaid_cpus) = match options.jobs {
            Some(jobs) => (jobs.get(), 0),
            None => (usize::MAX, 1),
        };
        Self { slots: Slots::new(capacity, jobs, Some(GpuLocks::here(user))), unsaid_cpus, turns }
    }
}
