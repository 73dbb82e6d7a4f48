//! The plan: which choices fit a budget, and what they take.

use crate::{Component, DoesNotFit, Phase, Residency, Workload, refusal, update};

/// From fastest to smallest.
const CHOICES: [Choice; 3] = [
    Choice { keep_unpacked: true, inputs_on_host: false },
    Choice { keep_unpacked: true, inputs_on_host: true },
    Choice { keep_unpacked: false, inputs_on_host: true },
];

/// What a process has on the device beside what the allocator gives out: CUDA's context and its kernels.
const CONTEXT_BYTES: u64 = 512 << 20;
/// The allocator holds this part more than it gives out, in pieces that fit nothing.
const PIECES: u64 = 32;

/// Two of the fields of a [`Residency`].
#[derive(Debug, Clone, Copy)]
struct Choice {
    keep_unpacked: bool,
    inputs_on_host: bool,
}

/// Of a limit for a process or a card, what the allocator may give out.
pub fn allocator_budget(limit_bytes: u64) -> u64 {
    let rest = reserved_budget(limit_bytes);
    rest - rest / PIECES
}

/// Of a limit for a process or a card, what the allocator may take from the driver.
pub fn reserved_budget(limit_bytes: u64) -> u64 {
    limit_bytes.saturating_sub(CONTEXT_BYTES)
}

/// What a process takes whose allocator gives out so much: the inverse of [`allocator_budget`].
pub fn with_reserve(allocated_bytes: u64) -> u64 {
    allocated_bytes + allocated_bytes.div_ceil(PIECES - 1) + CONTEXT_BYTES
}

/// What training takes, and what was chosen for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What stays where.
    pub residency: Residency,
    /// Layers of the model.
    pub layers: usize,
    /// The most that the allocator gives out at a time.
    pub peak_bytes: u64,
    /// When that is.
    pub phase: Phase,
    /// What is alive then, without what is nothing; together the peak.
    pub components: Vec<(Component, u64)>,
    /// The most of each phase that there is.
    pub phases: Vec<(Phase, u64)>,
}

impl Plan {
    /// What `workload` takes with these choices.
    pub fn of(workload: &Workload, residency: Residency) -> Self {
        let ledger = update::go_through(workload, residency);
        let (peak_bytes, phase, live) = ledger.peak;
        let some = |(_, bytes): &(_, u64)| *bytes > 0;
        Self {
            residency,
            layers: workload.model.num_hidden_layers,
            peak_bytes,
            phase,
            components: Component::ALL.into_iter().zip(live).filter(some).collect(),
            phases: Phase::ALL.into_iter().zip(ledger.phases).filter(|(_, bytes)| *bytes > 0).collect(),
        }
    }

    /// The fastest choices whose peak is at most `budget_bytes` of the allocator. With `gradient_checkpointing` every layer
    /// is computed again; without it, as few as the budget asks for.
    ///
    /// # Errors
    /// If nothing fits, with what would help.
    pub fn choose(
        workload: &Workload,
        budget_bytes: u64,
        gradient_checkpointing: bool,
    ) -> Result<Self, Box<DoesNotFit>> {
        Self::fastest(workload, budget_bytes, gradient_checkpointing)
            .map_err(|smallest| Box::new(refusal::explain(workload, budget_bytes, gradient_checkpointing, smallest)))
    }

    /// What is chosen where memory does not end.
    pub fn unbounded(workload: &Workload, gradient_checkpointing: bool) -> Self {
        match Self::fastest(workload, u64::MAX, gradient_checkpointing) {
            Ok(plan) | Err(plan) => plan,
        }
    }

    /// The fastest choices that fit; else the smallest.
    pub(crate) fn fastest(workload: &Workload, budget_bytes: u64, gradient_checkpointing: bool) -> Result<Self, Self> {
        let embedding_on_host = !workload.tied() && !workload.trains_embedding();
        let most = if gradient_checkpointing { 0 } else { workload.model.num_hidden_layers };
        let mut smallest: Option<Self> = None;
        for Choice { keep_unpacked, inputs_on_host } in CHOICES {
            let keep = |kept_layers| {
                Self::of(workload, Residency { kept_layers, inputs_on_host, keep_unpacked, embedding_on_host })
            };
            // The last layer may cost nothing to keep, since it is computed again before all others; more always do.
            let least = (0..=most.min(1)).map(keep).min_by_key(|plan| plan.peak_bytes);
            if least.as_ref().is_some_and(|least| least.peak_bytes <= budget_bytes)
                && let Some(plan) = (0..=most).rev().map(keep).find(|plan| plan.peak_bytes <= budget_bytes)
            {
                return Ok(plan);
            }
            let bytes = |plan: &Option<Self>| plan.as_ref().map_or(u64::MAX, |plan| plan.peak_bytes);
            if bytes(&least) < bytes(&smallest) {
                smallest = least;
            }
        }
        let residency = Residency { kept_layers: 0, inputs_on_host: true, keep_unpacked: false, embedding_on_host };
        Err(smallest.unwrap_or_else(|| Self::of(workload, residency)))
    }
}
