//! The stages of a run and how they hang together: what is up to date, what waits for what.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Index,
};

use pipe_stage::Digest;

use crate::{
    cache::Key,
    config::{InputRef, Pipeline, StageName, StageSpec},
    graph::Graph,
    plan::Decision,
    report::StageFailure,
    selection::Selection,
};

/// The stages of a run, each after those that it takes from; their places name them.
pub(super) struct Stages<'run> {
    stages: Vec<Stage<'run>>,
    index: HashMap<&'run StageName, usize>,
    selection: &'run Selection,
}

/// One of them.
pub(super) struct Stage<'run> {
    pub(super) spec: &'run StageSpec,
    /// Whether it runs although the cache has what it makes.
    pub(super) forced: bool,
    /// What was decided on it, from then on until it begins.
    pub(super) decision: Option<Decision>,
    /// Its key, once it has begun.
    pub(super) key: Option<Key>,
    /// How often its worker was started.
    pub(super) attempts: u32,
    /// Why its last attempt failed, while another one is to come, and how long that took, in seconds.
    pub(super) to_retry: Option<(StageFailure, f64)>,
    /// Whether it was said that it waits for another process.
    pub(super) waits_aloud: bool,
    /// The same for a GPU.
    pub(super) waits_for_gpu_aloud: bool,
    /// Its artifacts, once they are there.
    pub(super) outputs: Option<BTreeMap<String, Digest>>,
    /// Whether a stage before it failed, so that its turn never comes.
    skipped: bool,
    /// Places of the stages that take from it.
    takers: Vec<usize>,
    /// How many of the stages that it takes from are not up to date yet.
    blocked_by: usize,
}

impl<'run> Stages<'run> {
    pub(super) fn new(pipeline: &'run Pipeline, graph: &Graph, selection: &'run Selection) -> Self {
        let specs: Vec<&StageSpec> = selection.stages.iter().filter_map(|name| pipeline.stages.get(name)).collect();
        let index: HashMap<&StageName, usize> = specs.iter().map(|spec| &spec.name).zip(0..).collect();
        let stages = specs.into_iter().map(|spec| Stage {
            spec,
            forced: selection.forced.contains(&spec.name),
            decision: None,
            key: None,
            attempts: 0,
            to_retry: None,
            waits_aloud: false,
            waits_for_gpu_aloud: false,
            outputs: None,
            skipped: false,
            takers: graph.takers(&spec.name).iter().filter_map(|name| index.get(*name).copied()).collect(),
            blocked_by: graph.makers(&spec.name).iter().filter(|name| index.contains_key(*name)).count(),
        });
        Self { stages: stages.collect(), index, selection }
    }

    pub(super) fn len(&self) -> usize {
        self.stages.len()
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, Stage<'run>> {
        self.stages.iter()
    }

    pub(super) fn get_mut(&mut self, index: usize) -> &mut Stage<'run> {
        &mut self.stages[index]
    }

    pub(super) fn takers(&self, index: usize) -> &[usize] {
        &self.stages[index].takers
    }

    /// Those that wait for no other.
    pub(super) fn unblocked(&self) -> impl Iterator<Item = usize> {
        (0..self.len()).filter(|&index| self.stages[index].blocked_by == 0)
    }

    /// The artifacts of a stage's inputs, all of which are there.
    pub(super) fn inputs(&self, index: usize) -> BTreeMap<String, Vec<Digest>> {
        let made = |input: &InputRef| {
            let outputs = match self.index.get(&input.stage) {
                Some(&maker) => self.stages[maker].outputs.as_ref()?,
                None => self.selection.given.get(&input.stage)?,
            };
            outputs.get(&input.output).copied()
        };
        let inputs = self.stages[index].spec.inputs.iter();
        inputs.map(|(port, taken)| (port.clone(), taken.iter().filter_map(made).collect())).collect()
    }

    /// The stages that a stage takes from although they are not up to date, each once.
    pub(super) fn stale_makers(&self, index: usize) -> BTreeSet<&'run StageName> {
        let inputs = self.stages[index].spec.inputs.values().flatten();
        inputs.filter_map(|input| self.selection.stale.get(&input.stage)).collect()
    }

    /// Notes that a stage is up to date. Gives the stages that waited for it last.
    pub(super) fn up_to_date(&mut self, index: usize, outputs: BTreeMap<String, Digest>) -> Vec<usize> {
        self.stages[index].outputs = Some(outputs);
        let takers = std::mem::take(&mut self.stages[index].takers);
        let freed = takers.into_iter().filter(|&taker| {
            let blocked_by = &mut self.stages[taker].blocked_by;
            *blocked_by -= 1;
            *blocked_by == 0
        });
        freed.collect()
    }

    /// Notes that a stage failed. Gives those whose turn will never come because of it, in order.
    pub(super) fn skip_after(&mut self, index: usize) -> Vec<usize> {
        let mut skipped = Vec::new();
        let mut open = vec![index];
        while let Some(index) = open.pop() {
            for place in 0..self.stages[index].takers.len() {
                let taker = self.stages[index].takers[place];
                if !std::mem::replace(&mut self.stages[taker].skipped, true) {
                    skipped.push(taker);
                    open.push(taker);
                }
            }
        }
        skipped.sort_unstable();
        skipped
    }
}

impl<'run> Index<usize> for Stages<'run> {
    type Output = Stage<'run>;

    fn index(&self, index: usize) -> &Stage<'run> {
        &self.stages[index]
    }
}
