//! What is alive on the device at a moment, and the moment at which that is most.

use std::fmt;

/// The allocator gives multiples of this many bytes.
const STEP: u64 = 512;

/// What memory is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// The frozen linear layers, norms and biases.
    FrozenWeights,
    /// An embedding or a head that is not trained.
    FrozenTables,
    /// An embedding or a head that is trained: four bytes a value.
    TrainedTables,
    /// The matrices of the adapters.
    Adapters,
    /// The gradients of the adapters, and the factors of a table's gradient.
    Gradients,
    /// The gradients of the logits of a trained head, kept until the update.
    LogitGradients,
    /// The optimizer's running means.
    OptimizerStates,
    /// The inputs of the layers that are computed again.
    LayerInputs,
    /// What the layers that are not computed again keep for the backward pass.
    KeptActivations,
    /// The layer that is being computed.
    LayerActivations,
    /// Linear layers unpacked for a product.
    UnpackedWeights,
    /// The residual stream and its gradient.
    Stream,
    /// Logits that are not kept, a chunk at a time.
    Logits,
    /// Blocks of a table's gradient.
    OptimizerBlocks,
    /// Tokens, positions, rotations, places of dropout.
    Batch,
    /// What matrix products may use beside their operands.
    Workspace,
}

impl Component {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 16] = [
        Self::FrozenWeights,
        Self::FrozenTables,
        Self::TrainedTables,
        Self::Adapters,
        Self::Gradients,
        Self::LogitGradients,
        Self::OptimizerStates,
        Self::LayerInputs,
        Self::KeptActivations,
        Self::LayerActivations,
        Self::UnpackedWeights,
        Self::Stream,
        Self::Logits,
        Self::OptimizerBlocks,
        Self::Batch,
        Self::Workspace,
    ];
}

impl fmt::Display for Component {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::FrozenWeights => "frozen weights",
            Self::FrozenTables => "frozen embedding and head",
            Self::TrainedTables => "trained embedding and head",
            Self::Adapters => "adapters",
            Self::Gradients => "gradients",
            Self::LogitGradients => "gradients of logits, kept",
            Self::OptimizerStates => "optimizer states",
            Self::LayerInputs => "inputs of layers computed again",
            Self::KeptActivations => "kept activations",
            Self::LayerActivations => "activations of one layer",
            Self::UnpackedWeights => "unpacked weights",
            Self::Stream => "residual stream, its gradient",
            Self::Logits => "logits",
            Self::OptimizerBlocks => "blocks of a table's gradient",
            Self::Batch => "tokens, positions, rotations",
            Self::Workspace => "workspace of products",
        })
    }
}

/// A part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Reading the base.
    Loading,
    /// The rows of the embedding.
    Embedding,
    /// The layers, first to last.
    Forward,
    /// Logits, loss and their gradient.
    Head,
    /// The layers, last to first, most of them computed again.
    Backward,
    /// The norm of the gradient and the update of the weights.
    Optimizer,
    /// A loss on held-out samples.
    Evaluation,
}

impl Phase {
    /// All of them, in their order.
    pub const ALL: [Self; 7] =
        [Self::Loading, Self::Embedding, Self::Forward, Self::Head, Self::Backward, Self::Optimizer, Self::Evaluation];
}

impl fmt::Display for Phase {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Loading => "loading",
            Self::Embedding => "embedding",
            Self::Forward => "forward pass",
            Self::Head => "head and loss",
            Self::Backward => "backward pass",
            Self::Optimizer => "optimizer",
            Self::Evaluation => "evaluation",
        })
    }
}

/// A tensor that is alive. Hand it back to [`Ledger::free`].
#[derive(Debug)]
#[must_use]
pub(crate) struct Held {
    component: Component,
    bytes: u64,
}

/// Counts what is alive.
#[derive(Debug)]
pub(crate) struct Ledger {
    phase: Phase,
    live: [u64; Component::ALL.len()],
    /// The most of each phase.
    pub(crate) phases: [u64; Phase::ALL.len()],
    /// The most of all, its phase, and what was alive then.
    pub(crate) peak: (u64, Phase, [u64; Component::ALL.len()]),
}

impl Ledger {
    pub(crate) fn new() -> Self {
        let empty = [0; Component::ALL.len()];
        Self { phase: Phase::Loading, live: empty, phases: [0; Phase::ALL.len()], peak: (0, Phase::Loading, empty) }
    }

    /// Begins a phase, with what is alive.
    pub(crate) fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.look();
    }

    /// A tensor of so many bytes.
    pub(crate) fn hold(&mut self, component: Component, bytes: u64) -> Held {
        let bytes = bytes.div_ceil(STEP).saturating_mul(STEP);
        let live = &mut self.live[component as usize];
        *live = live.saturating_add(bytes);
        self.look();
        Held { component, bytes }
    }

    /// A tensor that stays to the end.
    pub(crate) fn keep(&mut self, component: Component, bytes: u64) {
        let Held { .. } = self.hold(component, bytes);
    }

    /// A tensor that is gone at once.
    pub(crate) fn touch(&mut self, component: Component, bytes: u64) {
        let held = self.hold(component, bytes);
        self.free([held]);
    }

    /// The same tensor, for something else from now on.
    pub(crate) fn turn_into(&mut self, held: Held, component: Component) -> Held {
        let Held { component: before, bytes } = held;
        self.live[before as usize] = self.live[before as usize].saturating_sub(bytes);
        self.live[component as usize] = self.live[component as usize].saturating_add(bytes);
        Held { component, bytes }
    }

    /// Drops tensors.
    pub(crate) fn free(&mut self, held: impl IntoIterator<Item = Held>) {
        for Held { component, bytes } in held {
            let live = &mut self.live[component as usize];
            *live = live.saturating_sub(bytes);
        }
    }

    fn look(&mut self) {
        let total = self.live.iter().fold(0_u64, |sum, bytes| sum.saturating_add(*bytes));
        let highest = &mut self.phases[self.phase as usize];
        *highest = total.max(*highest);
        if total > self.peak.0 {
            self.peak = (total, self.phase, self.live);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_the_highest_sum_of_what_is_alive() {
        let mut ledger = Ledger::new();
        ledger.keep(Component::FrozenWeights, 1);
        ledger.enter(Phase::Forward);
        let first = ledger.hold(Component::Stream, 1024);
        ledger.touch(Component::Logits, 513);
        ledger.free([first]);
        ledger.enter(Phase::Backward);
        ledger.touch(Component::Stream, 1536);
        assert_eq!((ledger.peak.0, ledger.peak.1), (512 + 1024 + 1024, Phase::Forward));
        assert_eq!(ledger.peak.2[Component::Logits as usize], 1024);
        assert_eq!(ledger.phases[Phase::Backward as usize], 512 + 1536);
    }

    #[test]
    fn every_component_and_phase_stands_at_its_number() {
        assert!(Component::ALL.iter().enumerate().all(|(number, component)| *component as usize == number));
        assert!(Phase::ALL.iter().enumerate().all(|(number, phase)| *phase as usize == number));
    }
}
