//! A pipeline as a graph: which stage comes after which. Does no I/O.

use std::{cmp::Reverse, collections::BinaryHeap};

use indexmap::{IndexMap, IndexSet};
use petgraph::{
    Direction,
    graph::{DiGraph, NodeIndex},
};
use pipe_yaml::Problem;

use crate::config::{ConfigError, InputRef, Pipeline, StageName, StageSpec};

/// The stages of a pipeline and the order of their work. Edges run from a stage to those that take its outputs.
#[derive(Debug, Clone)]
pub struct Graph {
    /// By node: its index is the stage's place in the file.
    names: IndexSet<StageName>,
    edges: DiGraph<(), ()>,
    order: Vec<NodeIndex>,
}

impl Graph {
    /// The graph of a pipeline.
    ///
    /// # Errors
    /// If stages wait for each other: every cycle that shares no stage with another, as a path.
    pub fn new(pipeline: &Pipeline) -> Result<Self, ConfigError> {
        let names: IndexSet<StageName> = pipeline.stages.keys().cloned().collect();
        let edges = edges(&names, pipeline.stages.values().map(StageSpec::taken));
        let (order, cycles) = sort(&edges);
        if cycles.is_empty() {
            return Ok(Self { names, edges, order });
        }
        let taken = |stage: &StageName| pipeline.stages[stage].taken().collect();
        Err(pipeline.invalid(cycles.iter().map(|cycle| cycle_problem(&names, cycle, taken)).collect()))
    }

    /// The stages, each after those that it takes from; where that leaves a choice, in the order of the file.
    pub fn order(&self) -> impl ExactSizeIterator<Item = &StageName> {
        self.order.iter().map(|&node| self.name(node))
    }

    /// The stages that `stage` takes from, in the order of the file. Empty for a stage that is not of the pipeline.
    pub fn makers(&self, stage: &StageName) -> Vec<&StageName> {
        self.neighbours(stage, Direction::Incoming)
    }

    /// The stages that take from `stage`, in the order of the file. Empty for a stage that is not of the pipeline.
    pub fn takers(&self, stage: &StageName) -> Vec<&StageName> {
        self.neighbours(stage, Direction::Outgoing)
    }

    /// `targets` and everything that they need, in the order of the work.
    pub fn needed_for<'a>(&self, targets: impl IntoIterator<Item = &'a StageName>) -> IndexSet<StageName> {
        let mut needed = vec![false; self.names.len()];
        let mut open: Vec<NodeIndex> =
            targets.into_iter().filter_map(|name| self.names.get_index_of(name)).map(NodeIndex::new).collect();
        while let Some(node) = open.pop() {
            if !std::mem::replace(&mut needed[node.index()], true) {
                open.extend(self.edges.neighbors_directed(node, Direction::Incoming));
            }
        }
        self.order.iter().filter(|node| needed[node.index()]).map(|&node| self.name(node).clone()).collect()
    }

    fn neighbours(&self, stage: &StageName, direction: Direction) -> Vec<&StageName> {
        let Some(node) = self.names.get_index_of(stage) else { return Vec::new() };
        let mut nodes: Vec<NodeIndex> = self.edges.neighbors_directed(NodeIndex::new(node), direction).collect();
        nodes.sort_unstable();
        nodes.into_iter().map(|node| self.name(node)).collect()
    }

    fn name(&self, node: NodeIndex) -> &StageName {
        &self.names[node.index()]
    }
}

/// The cycles of a pipeline that has other problems too: of each stage, what it takes as far as that is known.
pub(crate) fn cycles(stages: &IndexMap<StageName, Vec<InputRef>>) -> Vec<Problem> {
    let names: IndexSet<StageName> = stages.keys().cloned().collect();
    let (_, cycles) = sort(&edges(&names, stages.values().map(|taken| taken.iter())));
    cycles.iter().map(|cycle| cycle_problem(&names, cycle, |stage| stages[stage].iter().collect())).collect()
}

/// From makers to takers. `taken` is what each of `names` takes, in their order.
fn edges<'a>(
    names: &IndexSet<StageName>,
    taken: impl Iterator<Item = impl Iterator<Item = &'a InputRef>>,
) -> DiGraph<(), ()> {
    let mut edges = DiGraph::with_capacity(names.len(), names.len());
    for _ in names {
        edges.add_node(());
    }
    for (taker, taken) in taken.enumerate() {
        for input in taken {
            // Unknown stages are found when a pipeline is loaded.
            if let Some(maker) = names.get_index_of(&input.stage) {
                edges.update_edge(NodeIndex::new(maker), NodeIndex::new(taker), ());
            }
        }
    }
    edges
}

/// The nodes in order, and the cycles that keep some of them out of it, each in the direction of the edges, its
/// smallest node first.
fn sort(edges: &DiGraph<(), ()>) -> (Vec<NodeIndex>, Vec<Vec<NodeIndex>>) {
    let mut waiting_for: Vec<usize> =
        edges.node_indices().map(|node| edges.neighbors_directed(node, Direction::Incoming).count()).collect();
    let mut done = vec![false; waiting_for.len()];
    let mut ready: BinaryHeap<Reverse<NodeIndex>> =
        edges.node_indices().filter(|node| waiting_for[node.index()] == 0).map(Reverse).collect();
    let (mut order, mut cycles) = (Vec::new(), Vec::new());
    let mut release = |node: NodeIndex, done: &mut [bool], ready: &mut BinaryHeap<Reverse<NodeIndex>>| {
        done[node.index()] = true;
        for taker in edges.neighbors_directed(node, Direction::Outgoing) {
            waiting_for[taker.index()] -= 1;
            if waiting_for[taker.index()] == 0 && !done[taker.index()] {
                ready.push(Reverse(taker));
            }
        }
    };
    let mut first_undone = 0;
    loop {
        while let Some(Reverse(node)) = ready.pop() {
            order.push(node);
            release(node, &mut done, &mut ready);
        }
        while done.get(first_undone) == Some(&true) {
            first_undone += 1;
        }
        if first_undone == done.len() {
            return (order, cycles);
        }
        // Take one cycle out, and see what else then holds the rest up.
        let cycle = cycle_before(edges, NodeIndex::new(first_undone), &done);
        cycle.iter().for_each(|node| done[node.index()] = true);
        for &node in &cycle {
            release(node, &mut done, &mut ready);
        }
        cycles.push(cycle);
    }
}

/// A cycle that `start` waits for, or is part of: every node that is not done waits for another one.
fn cycle_before(edges: &DiGraph<(), ()>, start: NodeIndex, done: &[bool]) -> Vec<NodeIndex> {
    let mut path: IndexSet<NodeIndex> = IndexSet::new();
    let mut node = start;
    while path.insert(node) {
        let makers = edges.neighbors_directed(node, Direction::Incoming).filter(|maker| !done[maker.index()]);
        match makers.min() {
            Some(maker) => node = maker,
            None => break,
        }
    }
    let entry = path.get_index_of(&node).unwrap_or(0);
    let mut cycle: Vec<NodeIndex> = path.iter().skip(entry).rev().copied().collect();
    if let Some(smallest) = (0..cycle.len()).min_by_key(|&i| cycle[i]) {
        cycle.rotate_left(smallest);
    }
    cycle
}

fn cycle_problem<'a>(
    names: &IndexSet<StageName>,
    cycle: &[NodeIndex],
    taken: impl Fn(&StageName) -> Vec<&'a InputRef>,
) -> Problem {
    let stages: Vec<&StageName> = cycle.iter().chain(cycle.first()).map(|node| &names[node.index()]).collect();
    let path = stages.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" -> ");
    // The place to show: where the first stage of the cycle takes from the last.
    let (first, last) = (stages.first(), stages.iter().rev().nth(1));
    let span = first
        .zip(last)
        .and_then(|(first, last)| taken(first).into_iter().find(|input| input.stage == **last).map(|input| input.span));
    Problem {
        span,
        message: format!("these stages wait for each other: {path}"),
        help: Some("take one of the inputs away: no stage can need its own output".to_owned()),
    }
}

#[cfg(test)]
pub(crate) mod tests;
