//! One block: forward, and backward. Goes through `layer.rs` of `pipe-nn` line by line.

use crate::{
    Component, Compute, Pass, Workload,
    ledger::{Held, Ledger},
    workload::{Group, Groups},
};

/// Longer samples go to libtorch's flash attention: `LONGEST` of `ops/attention.rs`.
const LONGEST: u64 = 1024;
/// Scores that plain attention holds at once: `SCORE_VALUES` of `ops/attention.rs`.
const SCORE_VALUES: u64 = 1 << 26;
/// Multiprocessors of a large card: flash attention's backward pass, where it must give the same bytes every time, keeps
/// as many partial sums as make use of them.
const MULTIPROCESSORS: u64 = 132;
/// Rows that flash attention adds to each sample.
const FLASH_ROWS: u64 = 128;

/// A block at a number of tokens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layer {
    groups: Groups,
    compute: Compute,
    /// Query heads, key heads, and their width.
    heads: [u64; 3],
    pass: Pass,
}

/// The residual stream: its sum so far, unless kept activations hold it, and what is still to be added.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    pub(crate) h: Option<Held>,
    pub(crate) add: Option<Held>,
}

/// `Activations` of `layer.rs`.
#[derive(Debug)]
pub(crate) struct Activations {
    /// `before.h_TD`: the layer's input. `None` if somebody else holds it.
    pub(crate) input: Option<Held>,
    /// `before.x_TC`, `before.rstd_T`.
    before: [Held; 2],
    qkv_to: Held,
    /// `operands.q`, `operands.k`; the values are part of `qkv_TO`.
    operands: [Held; 2],
    /// `attended.output` and its logarithms of sums.
    attended: [Held; 2],
    /// `attended_TC`, where it is wider than `attended.output`.
    attended_tc: Option<Held>,
    /// `between.h_TD`: the stream behind the layer, too.
    pub(crate) between_h: Held,
    /// `between.x_TC`, `between.rstd_T`.
    between: [Held; 2],
    gate_up_to: Held,
    product_tc: Held,
    /// `Matrices`: qkv, output, gate_up, where they stay.
    matrices: Option<[Held; 3]>,
}

impl Layer {
    pub(crate) fn new(workload: &Workload, pass: Pass) -> Self {
        let model = &workload.model;
        let heads = [model.num_attention_heads, model.num_key_value_heads, model.head_dim].map(|count| count as u64);
        Self { groups: workload.groups(), compute: workload.compute, heads, pass }
    }

    /// Bytes of `[T, columns]` in the type of the computation.
    fn rows(&self, columns: u64) -> u64 {
        self.pass.tokens * columns * self.compute.bytes()
    }

    /// Bytes of `[T, columns]` in float32.
    fn wide(&self, columns: u64) -> u64 {
        self.pass.tokens * columns * 4
    }

    /// `product`: in float32 libtorch's own, whose result is copied.
    fn product(&self, columns: u64, component: Component, ledger: &mut Ledger) -> Held {
        let out = ledger.hold(component, self.rows(columns));
        if self.compute == Compute::Float32 {
            ledger.touch(component, self.rows(columns));
        }
        out
    }

    fn matrix(&self, group: Group, ledger: &mut Ledger) -> Held {
        ledger.hold(Component::UnpackedWeights, group.matrix)
    }

    /// Everything in front of the down projection, counted as `component`. The stream is read; where nothing is to be
    /// added to it, it is the input.
    pub(crate) fn activations(
        &self,
        stream: &mut Stream,
        (component, input): (Component, Component),
        keep_unpacked: bool,
        ledger: &mut Ledger,
    ) -> Activations {
        let Groups { qkv, output, gate_up, down } = self.groups;
        let [heads, keys, head_dim] = self.heads;
        let width = qkv.width;
        let mut kept = Vec::with_capacity(3);
        let mut done = |matrix: Held, ledger: &mut Ledger| match keep_unpacked {
            true => kept.push(matrix),
            false => ledger.free([matrix]),
        };

        let matrix = self.matrix(qkv, ledger);
        let h = match stream.add {
            Some(_) => Some(ledger.hold(input, self.wide(width))),
            None => stream.h.take().map(|h| ledger.turn_into(h, input)),
        };
        let before = [ledger.hold(component, self.rows(qkv.columns)), ledger.hold(component, self.wide(1))];
        let qkv_to = self.product(qkv.outputs, component, ledger);
        let operands = [heads, keys].map(|count| ledger.hold(component, self.rows(count * head_dim)));
        done(matrix, ledger);
        let attended = self.attention(component, ledger);
        let matrix = self.matrix(output, ledger);
        let widened = output.columns > output.width;
        let attended_tc = widened.then(|| ledger.hold(component, self.rows(output.columns)));
        // Alive to the end of the function.
        let add = self.product(output.outputs, Component::Stream, ledger);
        done(matrix, ledger);
        let matrix = self.matrix(gate_up, ledger);
        let between_h = ledger.hold(component, self.wide(width));
        let between = [ledger.hold(component, self.rows(gate_up.columns)), ledger.hold(component, self.wide(1))];
        let gate_up_to = self.product(gate_up.outputs, component, ledger);
        let product_tc = ledger.hold(component, self.rows(down.columns));
        done(matrix, ledger);
        ledger.free([add]);
        let matrices = <[Held; 3]>::try_from(kept).ok();
        Activations {
            input: h,
            before,
            qkv_to,
            operands,
            attended,
            attended_tc,
            between_h,
            between,
            gate_up_to,
            product_tc,
            matrices,
        }
    }

    /// The down projection: what is to be added to the stream.
    pub(crate) fn add(&self, ledger: &mut Ledger) -> Held {
        let matrix = self.matrix(self.groups.down, ledger);
        let add = self.product(self.groups.down.outputs, Component::Stream, ledger);
        ledger.free([matrix]);
        add
    }

    /// The gradient of the residual stream, exact and rounded.
    pub(crate) fn gradient(&self, ledger: &mut Ledger) -> [Held; 2] {
        let width = self.groups.qkv.width;
        [self.wide(width), self.rows(width)].map(|bytes| ledger.hold(Component::Stream, bytes))
    }

    /// The gradient of the stream in front of the layer, of that behind it.
    pub(crate) fn backward(&self, behind: [Held; 2], activations: Activations, ledger: &mut Ledger) -> [Held; 2] {
        let Groups { qkv, output, gate_up, down } = self.groups;
        let [heads, keys, head_dim] = self.heads;
        let of = Component::LayerActivations;
        let Activations { input, before, qkv_to, operands, attended, attended_tc, .. } = activations;
        let Activations { between_h, between, gate_up_to, product_tc, matrices, .. } = activations;
        let [qkv_matrix, output_matrix, gate_up_matrix] = match matrices {
            Some(matrices) => matrices.map(Some),
            None => [None, None, None],
        };

        let matrix = self.matrix(down, ledger);
        let dx = self.product(down.columns, of, ledger);
        ledger.free([matrix, product_tc]);
        // swiglu_backward writes its result over gate_up.
        ledger.free([dx]);

        let matrix = gate_up_matrix.unwrap_or_else(|| self.matrix(gate_up, ledger));
        let dx = self.product(gate_up.columns, of, ledger);
        ledger.free([matrix, gate_up_to]);
        let middle = self.gradient(ledger);
        ledger.free([dx, between_h]);
        ledger.free(between);

        let matrix = output_matrix.unwrap_or_else(|| self.matrix(output, ledger));
        let dx = self.product(output.columns, of, ledger);
        ledger.free(attended_tc.into_iter().chain([matrix]));
        let widened = output.columns > output.width;
        let d_attended = widened.then(|| ledger.hold(of, self.rows(output.width)));
        let d = self.attention_backward(ledger);
        ledger.free(d_attended);
        ledger.free(operands.into_iter().chain(attended));
        // Where nothing was widened, `dx` is `d_attended`, and gone with it; else it stays to the end.
        let dx = match widened {
            true => Some(dx),
            false => {
                ledger.free([dx]);
                None
            }
        };
        let dy_to = ledger.hold(of, self.rows((heads + 2 * keys) * head_dim));
        ledger.free(d.into_iter().chain([qkv_to]));

        let matrix = qkv_matrix.unwrap_or_else(|| self.matrix(qkv, ledger));
        let last_dx = self.product(qkv.columns, of, ledger);
        let front = self.gradient(ledger);
        // What no line drops before the end of the function.
        ledger.free([matrix, last_dx, dy_to].into_iter().chain(dx).chain(input));
        ledger.free(before.into_iter().chain(behind).chain(middle));
        front
    }

    /// Output and logarithms of sums.
    fn attention(&self, component: Component, ledger: &mut Ledger) -> [Held; 2] {
        let [heads, keys, head_dim] = self.heads;
        let output = ledger.hold(component, self.rows(heads * head_dim));
        if self.compute == Compute::Float32 {
            // Scores in three versions, and a copy of the operands.
            ledger.touch(component, 3 * 4 * self.score_values());
            return [output, ledger.hold(component, 0)];
        }
        let sums = ledger.hold(component, self.wide(heads));
        if self.pass.longest > LONGEST {
            ledger.touch(component, self.rows(keys * head_dim));
        }
        [output, sums]
    }

    /// The gradients of queries, keys and values.
    fn attention_backward(&self, ledger: &mut Ledger) -> [Held; 3] {
        let of = Component::LayerActivations;
        let [heads, keys, head_dim] = self.heads;
        let gradients = [heads, keys, keys].map(|count| ledger.hold(of, self.rows(count * head_dim)));
        if self.compute == Compute::Float32 {
            // Probabilities, their gradient and that of the scores, each in two versions.
            ledger.touch(of, 6 * 4 * self.score_values());
        } else if self.pass.longest > LONGEST {
            let splits = MULTIPROCESSORS.div_ceil(heads * self.pass.samples.max(1));
            let rows = self.pass.tokens + FLASH_ROWS * self.pass.samples;
            let sums = 4 * rows * heads * (splits * head_dim.next_multiple_of(32) + 1);
            // Keys and values of every query head, and the copy of the values.
            ledger.touch(of, sums + self.rows(2 * heads * head_dim + keys * head_dim));
        } else {
            ledger.touch(of, self.wide(heads));
        }
        gradients
    }

    /// Scores of the sample that has the most.
    fn score_values(&self) -> u64 {
        let [heads, keys, _] = self.heads;
        let of_one = (heads / keys.max(1) * self.pass.longest).saturating_mul(self.pass.longest).max(1);
        (SCORE_VALUES / of_one).clamp(1, keys.max(1)).saturating_mul(of_one)
    }
}

impl Activations {
    /// Drops everything but the input and the stream behind the layer.
    pub(crate) fn forget(self, ledger: &mut Ledger) -> (Option<Held>, Held) {
        let Self { input, before, qkv_to, operands, attended, attended_tc, .. } = self;
        let Self { between_h, between, gate_up_to, product_tc, matrices, .. } = self;
        ledger.free(before.into_iter().chain(operands).chain(attended).chain(between));
        ledger.free([qkv_to, gate_up_to, product_tc].into_iter().chain(attended_tc));
        ledger.free(matrices.into_iter().flatten());
        (input, between_h)
    }

    /// Leaves the matrices to be unpacked again.
    pub(crate) fn forget_matrices(&mut self, ledger: &mut Ledger) {
        ledger.free(self.matrices.take().into_iter().flatten());
    }
}
