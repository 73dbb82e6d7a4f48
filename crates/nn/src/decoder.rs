//! The whole decoder over one pass: embedding, layers, head; forward and, layer by layer, backward.
#![expect(non_snake_case, reason = "shape suffixes: T tokens, D width of the residual stream, N labelled positions")]

use tch::{Device, Tensor};

use crate::{
    Parameter, Precision,
    attention::Attention,
    batch::{PackedBatch, Span},
    dropout::PassDropout,
    embedding::{Table, TokenRows},
    error::Result,
    head::{Head, Targets},
    layer::{Activations, Depth, Layer},
    rope::Rope,
};

/// The frozen part of a model, and where its trained part is used.
#[derive(Debug)]
pub(crate) struct Decoder {
    pub(crate) embedding: Table,
    pub(crate) layers: Vec<Layer>,
    pub(crate) head: Head,
    pub(crate) shape: Shape,
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
    pub(crate) rope_theta: f64,
    pub(crate) precision: Precision,
    pub(crate) device: Device,
}

/// What all layers of one pass share.
#[derive(Debug)]
pub(crate) struct Pass {
    pub(crate) spans: Vec<Span>,
    pub(crate) rope: Rope,
    pub(crate) attention: Attention,
    pub(crate) dropout: Option<PassDropout>,
    /// Token ids on the device.
    pub(crate) ids: Tensor,
}

impl Pass {
    /// Uploads a batch.
    pub(crate) fn new(shape: Shape, batch: &PackedBatch, dropout: Option<PassDropout>) -> Result<Self> {
        Self::of_tokens(shape, (&batch.ids, &batch.positions), batch.spans.clone(), dropout)
    }

    /// Tokens at positions of their own.
    pub(crate) fn of_tokens(
        Shape { head_dim, rope_theta, precision, device }: Shape,
        (ids, positions): (&[i64], &[i64]),
        spans: Vec<Span>,
        dropout: Option<PassDropout>,
    ) -> Result<Self> {
        let lengths: Vec<usize> = spans.iter().map(|span| span.length).collect();
        Ok(Self {
            spans,
            rope: Rope::new(&Tensor::f_from_slice(positions)?, head_dim, rope_theta, precision, device)?,
            attention: Attention::new(precision, head_dim, &lengths, device)?,
            dropout,
            ids: Tensor::f_from_slice(ids)?.f_to_device(device)?,
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
#[expect(clippy::large_enum_variant, reason = "as many as there are layers, all of one variant")]
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

    /// The residual stream behind the last layer, `[T, D]`.
    pub(crate) fn forward(&self, pass: &Pass, parameters: &[Parameter]) -> Result<Tensor> {
        let mut h_TD = self.embed(pass, parameters)?;
        for layer in &self.layers {
            h_TD = layer.forward(&h_TD, pass, parameters)?.0;
        }
        Ok(h_TD)
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
        observe: &mut Observer<'_>,
    ) -> Result<Tensor> {
        let mut h_TD = self.embed(pass, parameters)?;
        if let Some(noise_TD) = noise_TD {
            h_TD = h_TD.f_add(&noise_TD)?;
        }
        observe(Place::Embedding, &h_TD)?;
        let mut kept = Vec::with_capacity(self.layers.len());
        for (number, layer) in self.layers.iter().enumerate() {
            let (output_TD, activations) = layer.forward(&h_TD, pass, parameters)?;
            observe(Place::Layer(number), &output_TD)?;
            if self.lowest.is_some() {
                kept.push(if self.checkpointing {
                    Kept::Input(h_TD)
                } else {
                    Kept::Everything(activations.forget_masks())
                });
            }
            h_TD = output_TD;
        }
        let (losses_N, mut dh_TD) = self.head.loss_backward(&h_TD, targets, count, parameters)?;
        observe(Place::Loss, &losses_N)?;
        observe(Place::HeadGradient, &dh_TD)?;
        drop(h_TD);
        let Some(lowest) = self.lowest else { return Ok(losses_N) };
        for (number, (layer, kept)) in self.layers.iter().zip(kept).enumerate().rev() {
            let activations = match kept {
                Kept::Everything(activations) => activations,
                Kept::Input(h_TD) => layer.forward(&h_TD, pass, parameters)?.1,
            };
            let depth = if number == 0 { lowest } else { Depth::Input };
            match layer.backward(dh_TD, activations, depth, pass, parameters)? {
                Some(gradient) => dh_TD = gradient,
                None => return Ok(losses_N),
            }
            observe(Place::LayerGradient(number), &dh_TD)?;
        }
        if let Some(index) = self.embedding.trained()
            && let Some(rows) = TokenRows::new(batch, self.padding, self.shape.device)?
        {
            rows.add_to(&mut parameters[index].grad, &dh_TD)?;
        }
        Ok(losses_N)
    }
}
