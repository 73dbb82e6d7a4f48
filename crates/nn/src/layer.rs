//! One block of the decoder: attention, then the MLP, each behind a norm and beside the residual stream.
//!
//! Shape suffixes: T tokens of the pass, D width of the residual stream, C columns of an augmented input (see
//! `pipe_kernels::ops::Layout`), O width out of a projection.
#![expect(non_snake_case, reason = "shape suffixes")]

use pipe_hf::ModelConfig;
use pipe_kernels::ops::{
    Heads, Normed, input_gradient, swiglu, swiglu_backward, turn_heads, turn_heads_backward, widen_columns,
};
use tch::{Kind, Tensor};

use crate::{
    LoraConfig, Parameter, Precision,
    attention::{Attended, Operands},
    decoder::Pass,
    error::Result,
    generate::KeyValues,
    loader::Loader,
    lora::{Lora, TARGET_MODULES},
    norm::{RmsNorm, Stream, StreamGradient},
    projection::{Part, Projection},
};

// Which of [`TARGET_MODULES`] share an input.
const QKV: std::ops::Range<usize> = 0..3;
const OUTPUT: std::ops::Range<usize> = 3..4;
const GATE_UP: std::ops::Range<usize> = 4..6;
const DOWN: std::ops::Range<usize> = 6..7;

/// What the linear layers of a block have in common with those of others: how far back their gradient is from the
/// block's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Depth {
    /// Everything in front of the block: its input has a gradient.
    Input,
    /// Queries, keys and values.
    Attention,
    /// The projection of what attention gives.
    Output,
    /// Gate and up projection.
    Mlp,
    /// Down projection.
    Down,
}

impl Depth {
    /// The deepest trained linear layer of a block; `None` if none is trained.
    pub(crate) fn of_targets(lora: &LoraConfig) -> Option<Self> {
        let depths =
            [Self::Attention, Self::Attention, Self::Attention, Self::Output, Self::Mlp, Self::Mlp, Self::Down];
        TARGET_MODULES.iter().zip(depths).find(|(module, _)| lora.targets(module)).map(|(_, depth)| depth)
    }
}

/// One block.
#[derive(Debug)]
pub(crate) struct Layer {
    kind: Kind,
    /// Heads of queries, and of keys and values.
    heads: i64,
    groups: i64,
    head_dim: i64,
    attention_norm: RmsNorm,
    /// Norms of each head of queries and keys, where the model has them.
    head_norms: Option<[RmsNorm; 2]>,
    mlp_norm: RmsNorm,
    qkv: Projection,
    output: Projection,
    gate_up: Projection,
    down: Projection,
}

/// What the backward pass needs of a forward pass.
#[derive(Debug)]
pub(crate) struct Activations {
    /// The residual stream in front of the block.
    before: Normed,
    qkv_TO: Tensor,
    operands: Operands,
    attended: Attended,
    /// Input of the output projection.
    attended_TC: Tensor,
    /// The residual stream between attention and MLP.
    between: Normed,
    gate_up_TO: Tensor,
    /// Input of the down projection.
    product_TC: Tensor,
    matrices: Matrices,
}

/// The unpacked weights of a block, as far as they are kept.
#[derive(Debug, Default)]
struct Matrices {
    qkv: Option<Tensor>,
    output: Option<Tensor>,
    gate_up: Option<Tensor>,
}

impl Layer {
    /// Reads the frozen part and makes fresh adapters.
    pub(crate) fn load(
        number: usize,
        config: &ModelConfig,
        loader: &Loader,
        lora: &LoraConfig,
        (seed, precision, device): (u64, Precision, tch::Device),
        parameters: &mut Vec<Parameter>,
    ) -> Result<Self> {
        let prefix = format!("model.layers.{number}");
        let mut parts = Vec::with_capacity(TARGET_MODULES.len());
        for (index, module) in TARGET_MODULES.iter().enumerate() {
            let path = format!("{prefix}.{}.{module}", if index < GATE_UP.start { "self_attn" } else { "mlp" });
            let (weight, shape) = loader.linear(&path)?;
            let adapter = lora.targets(module);
            let adapter = adapter.then(|| Lora::new(lora, &path, shape, (seed, precision, device), parameters));
            let (bias, lora, module) = (loader.bias(&path)?, adapter.transpose()?, module_number(number, index));
            parts.push(Part { weight, bias, lora, module });
        }
        let mut parts = parts.into_iter();
        let mut projection =
            |group: std::ops::Range<usize>| Projection::new(parts.by_ref().take(group.len()).collect());
        let [qkv, output, gate_up, down] = [QKV, OUTPUT, GATE_UP, DOWN].map(&mut projection);
        let norm = |name: &str| loader.norm(&format!("{prefix}.{name}.weight"));
        let head_norms = match config.qk_norm {
            true => Some([norm("self_attn.q_norm")?, norm("self_attn.k_norm")?]),
            false => None,
        };
        Ok(Self {
            kind: precision.compute(),
            heads: config.num_attention_heads as i64,
            groups: config.num_key_value_heads as i64,
            head_dim: config.head_dim as i64,
            attention_norm: norm("input_layernorm")?,
            head_norms,
            mlp_norm: norm("post_attention_layernorm")?,
            qkv,
            output,
            gate_up,
            down,
        })
    }

    /// The residual stream behind the block, and what [`Layer::backward`] needs.
    pub(crate) fn forward(
        &self,
        stream: &Stream,
        pass: &Pass,
        parameters: &[Parameter],
    ) -> Result<(Stream, Activations)> {
        let activations = self.activations(stream, pass, parameters, false)?;
        let add = self.down.forward(&activations.product_TC, None, parameters)?;
        let h = activations.between.h_TD.shallow_clone();
        Ok((Stream { h, add: Some(add) }, activations))
    }

    /// Everything in front of the down projection, which the backward pass does not need; with the unpacked weights if
    /// they are to be kept for it.
    pub(crate) fn activations(
        &self,
        stream: &Stream,
        pass: &Pass,
        parameters: &[Parameter],
        keep_unpacked: bool,
    ) -> Result<Activations> {
        let mut matrices = Matrices::default();
        let [keep_qkv, keep_output, keep_gate_up] =
            [&mut matrices.qkv, &mut matrices.output, &mut matrices.gate_up].map(|kept| keep_unpacked.then_some(kept));
        let (before, qkv_TO, operands) = self.project(stream, keep_qkv, pass, parameters)?;
        let attended = pass.attention.forward(&operands)?;
        let (attended_TC, add) = self.project_output(&attended.output, keep_output, pass, parameters)?;
        let between = Stream { h: before.h_TD.shallow_clone(), add: Some(add) };
        let (between, gate_up_TO, product_TC) = self.product(between, keep_gate_up, pass, parameters)?;
        Ok(Activations { before, qkv_TO, operands, attended, attended_TC, between, gate_up_TO, product_TC, matrices })
    }

    /// The residual stream in front of the block, from which everything can be computed again, and behind it. Nothing
    /// else stays. `attend` gives what each token attends to.
    pub(crate) fn pass_through(
        &self,
        stream: Stream,
        pass: &Pass,
        parameters: &[Parameter],
        attend: impl FnOnce(Operands) -> Result<Tensor>,
    ) -> Result<(Tensor, Stream)> {
        let (Normed { h_TD: input_TD, .. }, _, operands) = self.project(&stream, None, pass, parameters)?;
        drop(stream);
        let (_, add) = self.project_output(&attend(operands)?, None, pass, parameters)?;
        let between = Stream { h: input_TD.shallow_clone(), add: Some(add) };
        let (Normed { h_TD, .. }, _, product_TC) = self.product(between, None, pass, parameters)?;
        let add = self.down.forward(&product_TC, None, parameters)?;
        Ok((input_TD, Stream { h: h_TD, add: Some(add) }))
    }

    /// The residual stream behind the block, for tokens behind those in `cache`, which takes them up.
    pub(crate) fn extend(
        &self,
        stream: Stream,
        pass: &Pass,
        cache: &mut KeyValues,
        parameters: &[Parameter],
    ) -> Result<Stream> {
        let attend = |operands| match cache.is_empty() {
            true => Ok(pass.attention.forward(&cache.extend(operands)?)?.output),
            false => pass.attention.forward_late(&cache.extend(operands)?),
        };
        Ok(self.pass_through(stream, pass, parameters, attend)?.1)
    }

    /// Keeps the matrices of all projections: for a model that is not trained. See [`Projection::keep_matrix`].
    pub(crate) fn keep_matrices(&mut self, parameters: &[Parameter]) -> Result<()> {
        for projection in [&mut self.qkv, &mut self.output, &mut self.gate_up, &mut self.down] {
            projection.keep_matrix(self.kind, parameters)?;
        }
        Ok(())
    }

    /// Queries, keys and values: as they are projected, and ready for attention.
    fn project(
        &self,
        stream: &Stream,
        keep: Option<&mut Option<Tensor>>,
        pass: &Pass,
        parameters: &[Parameter],
    ) -> Result<(Normed, Tensor, Operands)> {
        let before = self.attention_norm.forward(stream, self.qkv.columns(), self.kind)?;
        self.qkv.complete(&before.x_TC, pass, parameters)?;
        let qkv_TO = self.qkv.forward(&before.x_TC, keep, parameters)?;
        let (q, k) = turn_heads(&qkv_TO, &self.turn(pass))?;
        let first = (self.heads + self.groups) * self.head_dim;
        let v = qkv_TO.f_narrow(1, first, self.groups * self.head_dim)?.f_unflatten(1, [self.groups, self.head_dim])?;
        Ok((before, qkv_TO, Operands { q, k, v }))
    }

    /// The completed input of the output projection, and its result.
    fn project_output(
        &self,
        attended: &Tensor,
        keep: Option<&mut Option<Tensor>>,
        pass: &Pass,
        parameters: &[Parameter],
    ) -> Result<(Tensor, Tensor)> {
        let attended_TC = match self.output.columns() == self.output.width() {
            true => attended.shallow_clone(),
            false => widen_columns(attended, self.output.columns())?,
        };
        self.output.complete(&attended_TC, pass, parameters)?;
        let add = self.output.forward(&attended_TC, keep, parameters)?;
        Ok((attended_TC, add))
    }

    /// The way to the completed input of the down projection.
    fn product(
        &self,
        stream: Stream,
        keep: Option<&mut Option<Tensor>>,
        pass: &Pass,
        parameters: &[Parameter],
    ) -> Result<(Normed, Tensor, Tensor)> {
        let between = self.mlp_norm.forward(&stream, self.gate_up.columns(), self.kind)?;
        drop(stream);
        self.gate_up.complete(&between.x_TC, pass, parameters)?;
        let gate_up_TO = self.gate_up.forward(&between.x_TC, keep, parameters)?;
        let product_TC = swiglu(&gate_up_TO, self.down.columns())?;
        self.down.complete(&product_TC, pass, parameters)?;
        Ok((between, gate_up_TO, product_TC))
    }

    /// Adds to the gradients of the block's adapters, down to `depth`; gives the gradient of the residual stream in
    /// front of the block if `depth` is [`Depth::Input`].
    pub(crate) fn backward(
        &self,
        dy: StreamGradient,
        activations: Activations,
        depth: Depth,
        pass: &Pass,
        parameters: &[Parameter],
    ) -> Result<Option<StreamGradient>> {
        let Activations { before, qkv_TO, operands, attended, attended_TC, between, gate_up_TO, product_TC, matrices } =
            activations;
        let Matrices { qkv, output, gate_up } = matrices;

        let dx = self.down.backward(&dy.rounded, (&product_TC, None), depth < Depth::Down, pass, parameters)?;
        drop(product_TC);
        let (Some(dx_TC), true) = (dx, depth < Depth::Down) else { return Ok(None) };
        let dy_TO = self.down.finish(&dx_TC, pass, parameters, |input| swiglu_backward(input, gate_up_TO))?;
        drop(dx_TC);

        let dx = self.gate_up.backward(&dy_TO, (&between.x_TC, gate_up), depth < Depth::Mlp, pass, parameters)?;
        drop(dy_TO);
        let (Some(dx_TC), true) = (dx, depth < Depth::Mlp) else { return Ok(None) };
        let Normed { h_TD, rstd_T, .. } = &between;
        let dy = self
            .gate_up
            .finish(&dx_TC, pass, parameters, |input| self.mlp_norm.backward(input, (h_TD, rstd_T), &dy.exact))?;
        drop((dx_TC, between));

        let dx = self.output.backward(&dy.rounded, (&attended_TC, output), depth < Depth::Output, pass, parameters)?;
        drop(attended_TC);
        let (Some(dx_TC), true) = (dx, depth < Depth::Output) else { return Ok(None) };
        let d_attended = match self.output.columns() == self.output.width() {
            true => dx_TC,
            false => self.output.finish(&dx_TC, pass, parameters, input_gradient)?,
        };
        let d = pass.attention.backward(&d_attended, &operands, &attended)?;
        drop((d_attended, operands, attended));
        let dy_TO = turn_heads_backward(&d.q, &d.k, &d.v, &qkv_TO, &self.turn(pass))?;
        drop((d, qkv_TO));

        let dx = self.qkv.backward(&dy_TO, (&before.x_TC, qkv), depth == Depth::Input, pass, parameters)?;
        drop(dy_TO);
        let (Some(dx_TC), true) = (dx, depth == Depth::Input) else { return Ok(None) };
        let Normed { h_TD, rstd_T, .. } = &before;
        let dy = self
            .qkv
            .finish(&dx_TC, pass, parameters, |input| self.attention_norm.backward(input, (h_TD, rstd_T), &dy.exact))?;
        Ok(Some(dy))
    }

    /// How queries and keys are normed and turned.
    fn turn<'a>(&'a self, pass: &'a Pass) -> Heads<'a> {
        Heads {
            heads: self.heads,
            groups: self.groups,
            head_dim: self.head_dim,
            norms: self.head_norms.as_ref().map(|[q, k]| [&q.weight, &k.weight]),
            epsilon: self.attention_norm.epsilon,
            cos_Pd: &pass.rope.cos,
            sin_Pd: &pass.rope.sin,
            positions_T: &pass.positions,
        }
    }
}

/// Numbers the linear layers of a model, so that each has dropout of its own. Part of what a seed means: changing it
/// changes every run with dropout.
fn module_number(layer: usize, index: usize) -> u32 {
    (layer * TARGET_MODULES.len() + index) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_module_has_a_number_of_its_own() {
        let numbers: Vec<u32> =
            (0..36).flat_map(|layer| (0..7).map(move |index| module_number(layer, index))).collect();
        assert_eq!(numbers, (0..36 * 7).collect::<Vec<_>>());
    }
}
