//! The whole decoder over one pass: embedding, layers, head; forward and, layer by layer, backward.
#![expect(non_snake_case, reason = "shape suffixes: T tokens, D width of the residual stream, N labelled positions")]

use pipe_kernels::upload;
use tch::{Device, Tensor};

use crate::{
    Parameter, Precision,
    attention::Attention,
    batch::PackedBatch,
    dropout::PassDropout,
    embedding::Table,
    error::Result,
    head::{Head, Targets},
    layer::{Activations, Depth, Layer},
    norm::Stream,
    parameter::Gradient,
    rope::{Rope, RopeTable},
    table_gradient::TableGradient,
};

/// The frozen part of a model, and where its trained part is used.
#[derive(Debug)]
pub(crate) struct Decoder {
    pub(crate) embedding: Table,
    pub(crate) layers: Vec<Layer>,
    pub(crate) head: Head,
    pub(crate) shape: Shape,
    pub(crate) rope: RopeTable,
    /// The token whose embedding gets no gradient from being read.
    pub(crate) padding: Option<u32>,
    /// Keep only each layer's input, and run it again in the backward pass.
    pub(crate) checkpointing: bool,
    /// How far back the lowest layer has a gradient; `None` if no layer needs one.
    pub(crate) lowest: Option<Depth>,
}

/// What a pass needs to know of the model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) head_dim: usize,
    pub(crate) precision: Precision,
    pub(crate) device: Device,
}

/// What all layers of one pass share.
#[derive(Debug)]
pub(crate) struct Pass {
    pub(crate) rope: Rope,
    pub(crate) attention: Attention,
    pub(crate) dropout: Option<PassDropout>,
    /// Whether the adapters add something.
    pub(crate) adapters: bool,
    /// Token ids on the device.
    pub(crate) ids: Tensor,
    /// The position of each token in its sample, `[T]`, int32, on the device.
    pub(crate) positions: Tensor,
}

impl Decoder {
    /// Uploads a batch.
    pub(crate) fn pass(&self, batch: &PackedBatch, dropout: Option<PassDropout>) -> Result<Pass> {
        let lengths: Vec<usize> = batch.spans.iter().map(|span| span.length).collect();
        self.pass_of_tokens((&batch.ids, &batch.positions), &lengths, dropout)
    }

    /// Tokens at positions of their own.
    pub(crate) fn pass_of_tokens(
        &self,
        (ids, positions): (&[i64], &[i64]),
        lengths: &[usize],
        dropout: Option<PassDropout>,
    ) -> Result<Pass> {
        let Shape { head_dim, precision, device } = self.shape;
        let behind_last = positions.iter().max().map_or(0, |last| usize::try_from(*last).unwrap_or(0) + 1);
        let positions: Vec<i32> = positions.iter().map(|position| *position as i32).collect();
        Ok(Pass {
            rope: self.rope.rotations(behind_last)?,
            attention: Attention::new(precision, head_dim, lengths, device)?,
            dropout,
            adapters: true,
            ids: upload(ids, device)?,
            positions: upload(&positions, device)?,
        })
    }
}

/// Where a tensor that [`Decoder::forward_backward`] shows comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The embedding's output, `[T, D]`.
    Embedding,
    /// A layer's output, `[T, D]`.
    Layer(usize),
    /// The losses, `[N]`.
    Loss,
    /// The gradient of the last layer's output, `[T, D]`.
    HeadGradient,
    /// The gradient of a layer's input, `[T, D]`.
    LayerGradient(usize),
}

/// Looks at a pass on its way; an error ends it.
pub(crate) type Observer<'a> = dyn FnMut(Place, &Tensor) -> Result<()> + 'a;

/// What one layer leaves for the backward pass.
enum Kept {
    Everything(Activations),
    /// The layer's input.
    Input(Tensor),
}

impl Decoder {
    /// The residual stream in front of the first layer, `[T, D]`.
    pub(crate) fn embed(&self, pass: &Pass, parameters: &[Parameter]) -> Result<Tensor> {
        self.embedding.rows(&pass.ids, self.shape.precision.master(), parameters)
    }

    fn embedding_gradient<'a>(&self, parameters: &'a mut [Parameter]) -> Option<&'a mut TableGradient> {
        match &mut parameters[self.embedding.trained()?].gradient {
            Gradient::Table(table) => Some(table),
            Gradient::Whole(_) => None,
        }
    }

    /// The residual stream behind the last layer.
    pub(crate) fn forward(&self, pass: &Pass, parameters: &[Parameter]) -> Result<Stream> {
        let mut stream = Stream::new(self.embed(pass, parameters)?);
        for layer in &self.layers {
            stream = layer.forward(&stream, pass, parameters)?.0;
        }
        Ok(stream)
    }

    /// The negative log-likelihood of every target, `[N]`, with `noise_TD` added to the embedding's output if there is some;
    /// adds the gradient of their sum, divided by `count`, to the
    /// parameters.
    pub(crate) fn forward_backward(
        &self,
        pass: &Pass,
        (batch, noise_TD): (&PackedBatch, Option<Tensor>),
        (targets, count): (&Targets, f64),
        parameters: &mut [Parameter],
        mut observe: Option<&mut Observer<'_>>,
    ) -> Result<Tensor> {
        let mut show = |place: Place, tensor: &dyn Fn() -> Result<Tensor>| match &mut observe {
            Some(observe) => observe(place, &tensor()?),
            None => Ok(()),
        };
        // All that goes to the device does so before the first launch: nothing waits in between.
        let rows = match self.embedding_gradient(parameters) {
            Some(table) => table.prepare(&batch.ids, self.padding)?,
            None => None,
        };
        let mut h_TD = self.embed(pass, parameters)?;
        if let Some(noise_TD) = noise_TD {
            h_TD = h_TD.f_add(&noise_TD)?;
        }
        let mut stream = Stream::new(h_TD);
        show(Place::Embedding, &|| stream.sum())?;
        let mut kept = Vec::with_capacity(self.layers.len());
        for (number, layer) in self.layers.iter().enumerate() {
            let (behind, activations) = layer.forward(&stream, pass, parameters)?;
            show(Place::Layer(number), &|| behind.sum())?;
            if self.lowest.is_some() {
                kept.push(if self.checkpointing {
                    Kept::Input(activations.input())
                } else {
                    Kept::Everything(activations.forget_matrices())
                });
            }
            stream = behind;
        }
        let (losses_N, mut gradient) = self.head.loss_backward(&stream, targets, count, parameters)?;
        drop(stream);
        show(Place::Loss, &|| Ok(losses_N.shallow_clone()))?;
        show(Place::HeadGradient, &|| Ok(gradient.exact.shallow_clone()))?;
        let Some(lowest) = self.lowest else { return Ok(losses_N) };
        for (number, (layer, kept)) in self.layers.iter().zip(kept).enumerate().rev() {
            let activations = match kept {
                Kept::Everything(activations) => activations,
                Kept::Input(h_TD) => layer.activations(&Stream::new(h_TD), pass, parameters)?,
            };
            let depth = if number == 0 { lowest } else { Depth::Input };
            match layer.backward(gradient, activations, depth, pass, parameters)? {
                Some(before) => gradient = before,
                None => return Ok(losses_N),
            }
            show(Place::LayerGradient(number), &|| Ok(gradient.exact.shallow_clone()))?;
        }
        if let (Some(table), Some(rows)) = (self.embedding_gradient(parameters), &rows) {
            table.add_rows(&gradient.exact, rows)?;
        }
        Ok(losses_N)
    }
}
