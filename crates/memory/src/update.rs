//! A whole update, with an evaluation behind it. Goes through `decoder.rs` and `model.rs` of `pipe-nn`.

use std::collections::VecDeque;

use crate::{
    Component, Compute, Pass, Phase, Residency, Workload,
    head::Head,
    layer::{Activations, Layer, Stream},
    ledger::{Held, Ledger},
    optimizer, resident,
};

/// Inputs of layers that are on the device at a time where they wait on the host: one that is read, and one on its way
/// in either direction.
const INPUTS_ON_DEVICE: usize = 3;
/// Positions that the table of rotations has at least: `SHORTEST` of `rope.rs`.
const SHORTEST: u64 = 512;
/// Bytes that noise takes for a value while it is drawn: words of eight bytes for four channels, a dozen at a time.
const NOISE_BYTES: u64 = 28;

/// What stays of one layer until its backward pass.
enum Kept {
    Everything(Box<Activations>),
    Input,
}

/// Goes through a run: loading, the largest update, the largest evaluation.
pub(crate) fn go_through(workload: &Workload, residency: Residency) -> Ledger {
    let mut ledger = Ledger::new();
    let residency = Residency { embedding_on_host: residency.embedding_on_host && !workload.tied(), ..residency };
    resident::load(workload, residency.embedding_on_host, &mut ledger);
    let products = forward_backward(workload, residency, &mut ledger);
    if let Some(pass) = workload.run.evaluation {
        evaluate(workload, residency, pass, &mut ledger);
    }
    drop(products);
    ledger
}

/// Gives what is alive behind the update, until the next begins.
fn forward_backward(workload: &Workload, residency: Residency, ledger: &mut Ledger) -> Vec<Held> {
    let pass = workload.run.pass;
    let layer = Layer::new(workload, pass);
    let layers = workload.model.num_hidden_layers;
    let earlier = workload.run.update_labels.saturating_sub(pass.labels);
    let head = Head { workload, pass, earlier };

    ledger.enter(Phase::Embedding);
    let earlier_product = head.earlier(ledger);
    let sums = optimizer::sums(workload, ledger);
    let batch = upload(workload, pass, ledger);
    let mut stream = Stream { h: Some(embed(workload, pass, residency, ledger)), add: None };

    ledger.enter(Phase::Forward);
    let mut inputs = VecDeque::new();
    let mut kept = Vec::with_capacity(layers);
    for number in 0..layers {
        let whole = number + residency.kept_layers >= layers;
        let component = if whole { Component::KeptActivations } else { Component::LayerActivations };
        let labels = (component, if whole { component } else { Component::LayerInputs });
        let mut activations = layer.activations(&mut stream, labels, residency.keep_unpacked, ledger);
        let add = layer.add(ledger);
        let behind = if whole {
            activations.forget_matrices(ledger);
            kept.push(Kept::Everything(Box::new(activations)));
            Stream { h: None, add: Some(add) }
        } else {
            let (input, between_h) = activations.forget(ledger);
            inputs.extend(input);
            // The next layer's input is one of those on the device.
            if residency.inputs_on_host && inputs.len() >= INPUTS_ON_DEVICE {
                ledger.free(inputs.pop_front());
            }
            kept.push(Kept::Input);
            Stream { h: Some(between_h), add: Some(add) }
        };
        let before = std::mem::replace(&mut stream, behind);
        ledger.free(before.h.into_iter().chain(before.add));
    }

    ledger.enter(Phase::Head);
    let (mut gradient, product) = head.loss_backward(ledger);
    ledger.free(stream.h.into_iter().chain(stream.add));

    ledger.enter(Phase::Backward);
    for (number, kept) in kept.into_iter().enumerate().rev() {
        let activations = match kept {
            Kept::Everything(activations) => *activations,
            Kept::Input => {
                let mut stream = Stream { h: inputs.pop_back(), add: None };
                // The last ones are there; for each that is used, one from further in front comes back.
                if residency.inputs_on_host && number > inputs.len() && inputs.len() + 1 < INPUTS_ON_DEVICE {
                    inputs.push_front(ledger.hold(Component::LayerInputs, pass.tokens * workload.width() * 4));
                }
                let labels = (Component::LayerActivations, Component::LayerInputs);
                layer.activations(&mut stream, labels, residency.keep_unpacked, ledger)
            }
        };
        gradient = layer.backward(gradient, activations, ledger);
    }
    ledger.free(gradient);
    ledger.free(batch);

    ledger.enter(Phase::Optimizer);
    optimizer::update(workload, &head, ledger);
    sums.into_iter().chain(earlier_product.into_held()).chain(product.into_held()).collect()
}

/// `Model::loss`.
fn evaluate(workload: &Workload, residency: Residency, pass: Pass, ledger: &mut Ledger) {
    ledger.enter(Phase::Evaluation);
    let layer = Layer::new(workload, pass);
    let batch = upload(workload, pass, ledger);
    let mut stream = Stream { h: Some(embed(workload, pass, residency, ledger)), add: None };
    for _ in 0..workload.model.num_hidden_layers {
        let labels = (Component::LayerActivations, Component::Stream);
        let activations = layer.activations(&mut stream, labels, residency.keep_unpacked, ledger);
        let add = layer.add(ledger);
        let (input, between_h) = activations.forget(ledger);
        ledger.free(input);
        let before = std::mem::replace(&mut stream, Stream { h: Some(between_h), add: Some(add) });
        ledger.free(before.h.into_iter().chain(before.add));
    }
    Head { workload, pass, earlier: 0 }.loss(ledger);
    ledger.free(stream.h.into_iter().chain(stream.add));
    ledger.free(batch);
}

/// `Decoder::pass`, the places of dropout, and the targets.
fn upload(workload: &Workload, pass: Pass, ledger: &mut Ledger) -> Vec<Held> {
    let rotations = pass.longest.next_power_of_two().max(SHORTEST) * workload.model.head_dim as u64 / 2 * 4;
    let Pass { tokens, labels, .. } = pass;
    [rotations, rotations, 8 * tokens, 4 * tokens, 4 * tokens, 4 * tokens, 8 * labels, 4 * labels]
        .map(|bytes| ledger.hold(Component::Batch, bytes))
        .into_iter()
        .collect()
}

/// The residual stream in front of the first layer.
fn embed(workload: &Workload, pass: Pass, residency: Residency, ledger: &mut Ledger) -> Held {
    let values = pass.tokens * workload.width();
    let rows = |bytes| values * bytes;
    let frozen = workload.table_bytes(true);
    let (gathered, joined) = match (workload.trains_embedding(), workload.compute) {
        // Rows of both halves; and, while they are put together, the upper one again and the pairs.
        (true, Compute::Bfloat16) => (4, 6),
        (true, _) => (0, 0),
        (false, _) if residency.embedding_on_host || frozen != 4 => (frozen, 0),
        (false, _) => (0, 0),
    };
    let gathered = ledger.hold(Component::Stream, rows(gathered));
    let h = ledger.hold(Component::Stream, rows(4));
    ledger.touch(Component::Stream, rows(joined));
    ledger.free([gathered]);
    if workload.neftune {
        ledger.touch(Component::Stream, rows(NOISE_BYTES));
    }
    h
}
