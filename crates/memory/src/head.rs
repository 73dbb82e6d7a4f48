//! The last norm, the head and the loss. Goes through `head.rs` of `pipe-nn` line by line.

use crate::{
    Component, Compute, Pass, Workload,
    ledger::{Held, Ledger},
};

/// Rows of logits that are not kept are computed so many at a time: `CHUNK` of `head.rs`.
const CHUNK: u64 = 256;

/// The head and a pass.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head<'a> {
    pub(crate) workload: &'a Workload,
    pub(crate) pass: Pass,
    /// Labels of the passes of the update before this one.
    pub(crate) earlier: u64,
}

/// What the head leaves for the update, if it is trained: `Product`.
#[derive(Debug)]
pub(crate) struct Product {
    held: Vec<Held>,
}

impl Product {
    pub(crate) fn into_held(self) -> Vec<Held> {
        self.held
    }
}

impl Head<'_> {
    /// What earlier passes of the update have left.
    pub(crate) fn earlier(&self, ledger: &mut Ledger) -> Product {
        self.product_of(self.earlier, self.kept_before(), ledger)
    }

    /// Positions of this pass whose gradient of the logits is kept.
    pub(crate) fn kept(&self) -> u64 {
        match self.workload.trains_head() {
            true => (self.workload.width() - self.kept_before()).min(self.pass.labels),
            false => 0,
        }
    }

    fn kept_before(&self) -> u64 {
        if self.workload.trains_head() { self.workload.width().min(self.earlier) } else { 0 }
    }

    fn product_of(&self, labels: u64, kept: u64, ledger: &mut Ledger) -> Product {
        let (bytes, width) = (self.workload.compute.bytes(), self.workload.width());
        let held = match self.workload.trains_head() {
            true => vec![
                ledger.hold(Component::LogitGradients, kept * self.workload.vocabulary() * bytes),
                // `x_ND`, `tokens_N`, `lse_N`.
                ledger.hold(Component::Gradients, labels * width * bytes),
                ledger.hold(Component::Gradients, labels * 4),
                ledger.hold(Component::Gradients, labels * 4),
            ],
            false => Vec::new(),
        };
        Product { held }
    }

    /// The gradient of the residual stream, exact and rounded, and what is left for the update.
    pub(crate) fn loss_backward(&self, ledger: &mut Ledger) -> ([Held; 2], Product) {
        let Self { workload, pass, .. } = *self;
        let (bytes, width) = (workload.compute.bytes(), workload.width());
        let labelled = |ledger: &mut Ledger, bytes: u64| ledger.hold(Component::Stream, pass.labels * width * bytes);
        // `labelled`: stream and what is to be added, until they are normed.
        let rows = [labelled(ledger, 4), labelled(ledger, bytes)];
        // `normed.h_TD`; `normed.x_TC` is `x_ND` of what is left.
        let normed_h = labelled(ledger, 4);
        let product = self.product_of(pass.labels, self.kept(), ledger);
        let normed_x = (!workload.trains_head()).then(|| labelled(ledger, bytes));
        ledger.free(rows);
        let weight = self.weight(ledger);
        let dx = labelled(ledger, bytes);
        let chunk = (pass.labels - self.kept()).min(CHUNK);
        self.logits(chunk, ledger);
        ledger.free(weight);
        // `zeros_like`, and the gradient at labelled positions.
        let gradient = [4, 4, bytes].map(|bytes| labelled(ledger, bytes));
        // `spread`: zeros for every token.
        let spread = [4, bytes].map(|bytes| ledger.hold(Component::Stream, pass.tokens * width * bytes));
        ledger.free(gradient.into_iter().chain([normed_h, dx]).chain(normed_x));
        (spread, product)
    }

    /// The loss without a gradient.
    pub(crate) fn loss(&self, ledger: &mut Ledger) {
        let Self { workload, pass, .. } = *self;
        let (bytes, width) = (workload.compute.bytes(), workload.width());
        let rows = [4, bytes, 4, bytes].map(|bytes| ledger.hold(Component::Stream, pass.labels * width * bytes));
        let weight = self.weight(ledger);
        self.logits(pass.labels.min(CHUNK), ledger);
        ledger.free(rows.into_iter().chain(weight));
    }

    fn logits(&self, rows: u64, ledger: &mut Ledger) {
        let bytes = rows * self.workload.vocabulary() * self.workload.compute.bytes();
        let logits = ledger.hold(Component::Logits, bytes);
        if self.workload.compute == Compute::Float32 {
            // The result of libtorch's product, which is copied.
            ledger.touch(Component::Logits, bytes);
        }
        ledger.free([logits]);
    }

    /// `table.matrix`: a copy where the table is of another type than the computation.
    fn weight(&self, ledger: &mut Ledger) -> Option<Held> {
        let workload = self.workload;
        let same = match workload.trains_head() {
            true => workload.compute != Compute::Float16,
            false => workload.table_bytes(workload.tied()) == workload.compute.bytes(),
        };
        let values = workload.vocabulary() * workload.width();
        (!same).then(|| ledger.hold(Component::UnpackedWeights, values * workload.compute.bytes()))
    }
}
