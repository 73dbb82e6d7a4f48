//! The norm of the gradient and the update. Goes through `optimizer.rs` and `table_gradient.rs` of `pipe-nn`.

use crate::{
    Component, Compute, Workload,
    head::Head,
    ledger::{Held, Ledger},
};

/// Values of a table whose gradient is computed at once: `BLOCK_VALUES` of `optimizer.rs`.
const BLOCK_VALUES: u64 = 1 << 24;

/// `prepare`: the rows of an embedding's gradient, and which tokens they are of. `None` if it is not trained.
pub(crate) fn sums(workload: &Workload, ledger: &mut Ledger) -> Vec<Held> {
    if !workload.trains_embedding() {
        return Vec::new();
    }
    let (distinct, tokens) = (workload.run.distinct_tokens, workload.run.pass.tokens);
    // The old rows and the new ones, before they are one.
    ledger.touch(Component::Gradients, distinct * workload.width() * 4);
    let rows = [distinct * workload.width() * 4, workload.vocabulary() * 4, (3 * distinct + tokens) * 4];
    rows.map(|bytes| ledger.hold(Component::Gradients, bytes)).into_iter().collect()
}

/// `AdamW::update`: a block of a table's rows at a time, once for the norm and once for the update.
pub(crate) fn update(workload: &Workload, head: &Head<'_>, ledger: &mut Ledger) {
    if !workload.trains_head() {
        return;
    }
    let width = workload.width();
    let rows = ((BLOCK_VALUES / width / 256).max(1) * 256).min(workload.vocabulary());
    let bytes = workload.compute.bytes();
    // `dense_BD`, the sum over the passes.
    let dense = ledger.hold(Component::OptimizerBlocks, rows * width * 4);
    // Logits that were not kept are computed again, a pass at a time, of the whole table's rows in this block.
    let again = (head.pass.labels - head.kept()).max(head.earlier.saturating_sub(width).min(head.pass.labels));
    let mut held = vec![ledger.hold(Component::OptimizerBlocks, again * rows * bytes)];
    match workload.compute {
        // The results of libtorch's products, which are copied or added.
        Compute::Float32 => held.push(ledger.hold(Component::OptimizerBlocks, rows * width.max(again) * 4)),
        Compute::Float16 if again > 0 => held.push(ledger.hold(Component::OptimizerBlocks, rows * width * bytes)),
        _ => {}
    }
    ledger.free(held.into_iter().chain([dense]));
}
