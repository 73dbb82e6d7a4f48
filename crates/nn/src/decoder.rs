//! The whole decoder over one pass: embedding, layers, head; forward and, layer by layer, backward.
#![expect(non_snake_case, reason = "shape suffixes: T tokens, D width of the residual stream, N labelled positions")]

use pipe_kernels::{
    ops::{Noise, add_noise},
    upload,
};
use pipe_memory::Residency;
use tch::{Device, Tensor};

use crate::{
    Parameter, Precision,
    attention::Attention,
    batch::PackedBatch,
    dropout::PassDropout,
    embedding::Table,
    error::{Error, Place as Where, Result},
    head::{Head, Targets},
    layer::{Depth, Layer},
    layer_inputs::LayerInputs,
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
    /// What stays on the device between the passes.
    pub(crate) residency: Residency,
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
    /// The same on the host, if the embedding is there.
    pub(crate) host_ids: Option<Tensor>,
    /// The position of each token in its sample, `[T]`, int32, on the device.
    pub(crate) positions: Tensor,
}

impl Decoder {
    /// Uploads a batch.
    pub(crate) fn pass(&self, batch: &PackedBatch) -> Result<Pass> {
        let lengths: Vec<usize> = batch.spans.iter().map(|span| span.length).collect();
        self.pass_of_tokens((&batch.ids, &batch.positions), &lengths)
    }

    /// Tokens at positions of their own.
    pub(crate) fn pass_of_tokens(&self, (ids, positions): (&[i64], &[i64]), lengths: &[usize]) -> Result<Pass> {
        let Shape { head_dim, precision, device } = self.shape;
        let behind_last = positions.iter().max().map_or(0, |last| usize::try_from(*last).unwrap_or(0) + 1);
        let positions: Vec<i32> = positions.iter().map(|position| *position as i32).collect();
        Ok(Pass {
            rope: self.rope.rotations(behind_last)?,
            attention: Attention::new(precision, head_dim, lengths, device)?,
            dropout: None,
            adapters: true,
            ids: upload(ids, device)?,
            host_ids: self.embedding.on_host().then(|| Tensor::f_from_slice(ids)).transpose()?,
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

impl Decoder {
    /// The residual stream in front of the first layer, `[T, D]`.
    pub(crate) fn embed(&self, pass: &Pass, parameters: &[Parameter]) -> Result<Tensor> {
        self.embedding.rows(pass, self.shape.precision.master(), parameters)
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
        for (number, layer) in self.layers.iter().enumerate() {
            stream = self.pass_through(layer, stream, pass, parameters).map_err(within(Where::Forward(number)))?.1;
        }
        Ok(stream)
    }

    fn pass_through(
        &self,
        layer: &Layer,
        stream: Stream,
        pass: &Pass,
        parameters: &[Parameter],
    ) -> Result<(Tensor, Stream)> {
        layer.pass_through(stream, pass, parameters, |operands| Ok(pass.attention.forward(&operands)?.output))
    }

    /// The negative log-likelihood of every target, `[N]`, with `noise` added to the embedding's output if there is some;
    /// adds the gradient of their sum, divided by `count`, to the parameters. The inputs of layers that are computed again
    /// wait in `inputs`.
    pub(crate) fn forward_backward(
        &self,
        pass: &Pass,
        (batch, noise): (&PackedBatch, Option<Noise>),
        (targets, count): (&Targets, f64),
        (parameters, inputs): (&mut [Parameter], &mut LayerInputs),
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
        let h_TD = self.embed(pass, parameters).map_err(within(Where::Embedding))?;
        if let Some(noise) = noise {
            add_noise(&h_TD, &noise)?;
        }
        let mut stream = Stream::new(h_TD);
        show(Place::Embedding, &|| stream.sum())?;
        inputs.clear()?;
        let again = match self.lowest {
            Some(_) => self.layers.len().saturating_sub(self.residency.kept_layers),
            None => self.layers.len(),
        };
        let mut kept = Vec::with_capacity(self.layers.len() - again);
        for (number, layer) in self.layers.iter().enumerate() {
            let place = within(Where::Forward(number));
            if number < again {
                let (input_TD, behind) = self.pass_through(layer, stream, pass, parameters).map_err(place)?;
                if self.lowest.is_some() {
                    inputs.push(input_TD).map_err(within(Where::Forward(number)))?;
                }
                stream = behind;
            } else {
                let (behind, activations) = layer.forward(&stream, pass, parameters).map_err(place)?;
                kept.push(activations);
                stream = behind;
            }
            show(Place::Layer(number), &|| stream.sum())?;
        }
        let (losses_N, mut gradient) =
            self.head.loss_backward(&stream, targets, count, parameters).map_err(within(Where::Head))?;
        drop(stream);
        show(Place::Loss, &|| Ok(losses_N.shallow_clone()))?;
        show(Place::HeadGradient, &|| Ok(gradient.exact.shallow_clone()))?;
        let Some(lowest) = self.lowest else { return Ok(losses_N) };
        for (number, layer) in self.layers.iter().enumerate().rev() {
            let activations = match kept.pop() {
                Some(activations) => activations,
                None => {
                    let input = Stream::new(inputs.pop().map_err(within(Where::Backward(number)))?);
                    let again = layer.activations(&input, pass, parameters, self.residency.keep_unpacked);
                    again.map_err(within(Where::Backward(number)))?
                }
            };
            let depth = if number == 0 { lowest } else { Depth::Input };
            let before = layer.backward(gradient, activations, depth, pass, parameters);
            match before.map_err(within(Where::Backward(number)))? {
                Some(before) => gradient = before,
                None => return Ok(losses_N),
            }
            show(Place::LayerGradient(number), &|| Ok(gradient.exact.shallow_clone()))?;
        }
        if let (Some(table), Some(rows)) = (self.embedding_gradient(parameters), &rows) {
            table.add_rows(&gradient.exact, rows).map_err(within(Where::Embedding))?;
        }
        Ok(losses_N)
    }
}

fn within(place: Where) -> impl Fn(Error) -> Error {
    move |error| error.at(place)
}
