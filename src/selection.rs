//! Which stages of a pipeline a command is about, and which of them run although nothing changed. `run` and `plan` share
//! it: a plan holds what a run does. Does no I/O: what is on disk is asked through [`Lookup`].

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use indexmap::IndexSet;
use pipe_stage::Digest;

use crate::{
    config::{Pipeline, StageName},
    graph::Graph,
    plan::{Action, Externals, Lookup, Plan},
};

/// What the user asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// Bring these up to date, with all that they need. Empty means all stages.
    pub targets: Vec<StageName>,
    /// Bring just these up to date, from what the stages before them have made.
    pub only: Vec<StageName>,
    /// Run these and all that depends on them, although nothing changed.
    pub from: Vec<StageName>,
    /// Run these although nothing changed.
    pub force: Vec<StageName>,
    /// Run every stage although nothing changed.
    pub force_all: bool,
}

/// The stages of a [`Request`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Selection {
    /// Each after those that it takes from.
    pub stages: IndexSet<StageName>,
    /// Those that run although nothing changed.
    pub forced: HashSet<StageName>,
    /// What stages that are left alone have made, as far as a stage takes it.
    pub given: HashMap<StageName, BTreeMap<String, Digest>>,
    /// Those of them that are not up to date: what is taken is what they made the last time.
    pub stale: BTreeSet<StageName>,
}

/// A [`Request`] that cannot be met.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectionError {
    /// Two of its parts do not go together.
    #[error("stages are named to run alone, and others to be brought up to date with all that they need")]
    OnlyAndTargets,
    /// A stage is to run that is not among those to be brought up to date.
    #[error("`{stage}` is to run, but it is not among the stages to be brought up to date")]
    NotSelected {
        /// The stage.
        stage: StageName,
    },
    /// What a stage takes was never made.
    #[error("the stage `{stage}` takes from `{maker}`, which has made nothing yet")]
    NothingMade {
        /// The stage.
        stage: StageName,
        /// The stage before it.
        maker: StageName,
    },
}

impl SelectionError {
    /// What would be right.
    pub fn help(&self) -> String {
        match self {
            Self::OnlyAndTargets => "name the stages with --only, or without it".to_owned(),
            Self::NotSelected { stage } => format!("name `{stage}` as well, or no stages at all"),
            Self::NothingMade { stage, maker } => {
                format!("bring it up to date first (`{maker}` without --only), or run `{stage}` without --only")
            }
        }
    }
}

impl Request {
    /// The stages of the request, but for [`Selection::given`].
    ///
    /// # Errors
    /// If its parts do not go together.
    pub fn select(&self, graph: &Graph) -> Result<Selection, SelectionError> {
        let stages = match (self.targets.is_empty(), self.only.is_empty()) {
            (true, true) => graph.order().cloned().collect(),
            (false, true) => graph.needed_for(&self.targets),
            (true, false) => graph.order().filter(|name| self.only.contains(name)).cloned().collect(),
            (false, false) => return Err(SelectionError::OnlyAndTargets),
        };
        let stages: IndexSet<StageName> = stages;
        if let Some(stage) = self.from.iter().chain(&self.force).find(|stage| !stages.contains(*stage)) {
            return Err(SelectionError::NotSelected { stage: stage.clone() });
        }
        let mut forced: HashSet<StageName> =
            if self.force_all { stages.iter().cloned().collect() } else { self.force.iter().cloned().collect() };
        let mut open: Vec<&StageName> = self.from.iter().collect();
        let mut seen: HashSet<&StageName> = HashSet::new();
        while let Some(stage) = open.pop() {
            if seen.insert(stage) {
                open.extend(graph.takers(stage));
            }
        }
        forced.extend(seen.into_iter().filter(|stage| stages.contains(*stage)).cloned());
        Ok(Selection { stages, forced, ..Selection::default() })
    }
}

impl Selection {
    /// The stages that must be looked at to know what the selected ones take: they and all that they need.
    pub fn looked_at(&self, graph: &Graph) -> IndexSet<StageName> {
        graph.needed_for(&self.stages)
    }

    /// Finds what the stages that are left alone have made: what is up to date, else what they made the last time.
    ///
    /// # Errors
    /// If one of them has made nothing that is still there.
    pub fn take_given(
        &mut self,
        pipeline: &Pipeline,
        graph: &Graph,
        externals: &Externals,
        lookup: &impl Lookup,
    ) -> Result<(), SelectionError> {
        let around = self.looked_at(graph);
        if around.len() == self.stages.len() {
            return Ok(());
        }
        // Selected stages may stand between those that are left alone.
        let around = Self { stages: around, forced: self.forced.clone(), ..Self::default() };
        let plan = Plan::new(pipeline, graph, &around, externals, lookup);
        let mut up_to_date: HashMap<StageName, BTreeMap<String, Digest>> = HashMap::new();
        for stage in plan.stages {
            if let Action::Hit { outputs } = stage.action {
                up_to_date.insert(stage.stage, outputs);
            }
        }
        for stage in &self.stages {
            let Some(spec) = pipeline.stages.get(stage) else { continue };
            for input in spec.inputs.values().flatten().filter(|input| !self.stages.contains(&input.stage)) {
                if self.given.contains_key(&input.stage) {
                    continue;
                }
                let outputs = match up_to_date.remove(&input.stage) {
                    Some(outputs) => Some(outputs),
                    None => {
                        self.stale.insert(input.stage.clone());
                        let whole = |digest: &Digest| lookup.verify(digest).is_ok();
                        lookup
                            .last(&input.stage)
                            .map(|record| record.outputs)
                            .filter(|outputs| outputs.contains_key(&input.output) && outputs.values().all(whole))
                    }
                };
                let nothing = || SelectionError::NothingMade { stage: stage.clone(), maker: input.stage.clone() };
                self.given.insert(input.stage.clone(), outputs.ok_or_else(nothing)?);
            }
        }
        Ok(())
    }
}
