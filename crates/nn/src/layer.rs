//! One block of the decoder: attention, then the MLP, each behind a norm and beside the residual stream.
//!
//! Shape suffixes: T tokens of the pass, D width of the residual stream.
#![expect(non_snake_case, reason = "shape suffixes")]

use pipe_hf::ModelConfig;
use tch::Tensor;

use crate::{
    LoraConfig, Parameter, Precision,
    attention::{Attended, Operands},
    decoder::Pass,
    dropout::Mask,
    error::Result,
    linear::Linear,
    loader::Loader,
    lora::{Lora, TARGET_MODULES},
    norm::RmsNorm,
    parameter::GradientSum,
    rope::Rope,
};

// Places of the linear layers in [`TARGET_MODULES`].
const Q: usize = 0;
const K: usize = 1;
const V: usize = 2;
const O: usize = 3;
const GATE: usize = 4;
const UP: usize = 5;
const DOWN: usize = 6;

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
    number: usize,
    precision: Precision,
    head_dim: i64,
    attention_norm: RmsNorm,
    /// Norms of each head of queries and keys, where the model has them.
    head_norms: Option<[RmsNorm; 2]>,
    mlp_norm: RmsNorm,
    /// In the order of [`TARGET_MODULES`].
    linears: Vec<Linear>,
}

/// What the backward pass needs of a forward pass.
#[derive(Debug)]
pub(crate) struct Activations {
    /// Input of the block.
    h_TD: Tensor,
    projected: Projected,
    /// Input of the output projection.
    attended: Attended,
    mlp: Mlp,
    adapters: Adapters,
    /// `None` after [`Activations::forget_masks`].
    masks: Option<Masks>,
}

impl Activations {
    /// Leaves the masks to be computed again, rather than keep those of every layer.
    pub(crate) fn forget_masks(mut self) -> Self {
        self.masks = None;
        self
    }
}

/// The way to attention.
#[derive(Debug)]
struct Projected {
    /// Input of the query, key and value projections.
    input: Tensor,
    /// Queries and keys before their norms, `[T, heads, d]`, where the model has those.
    before_norms: Option<[Tensor; 2]>,
    operands: Operands,
}

/// The way behind attention.
#[derive(Debug)]
struct Mlp {
    /// The residual stream between attention and MLP.
    middle_TD: Tensor,
    /// Input of the gate and up projections.
    input: Tensor,
    gate: Tensor,
    up: Tensor,
}

/// What each adapter keeps for its backward pass, in the order of [`TARGET_MODULES`].
type Adapters = [Option<Tensor>; 7];

/// Masks of the inputs of the adapters, in the same order.
type Masks = [Option<Mask>; 7];

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
        let mut linears = Vec::with_capacity(TARGET_MODULES.len());
        for (index, module) in TARGET_MODULES.iter().enumerate() {
            let path = format!("{prefix}.{}.{module}", if index < GATE { "self_attn" } else { "mlp" });
            let (weight, shape) = loader.linear(&path)?;
            let adapter = lora.targets(module);
            let adapter = adapter.then(|| Lora::new(lora, &path, shape, (seed, precision, device), parameters));
            let (width, bias, lora) = (shape[1], loader.bias(&path)?, adapter.transpose()?);
            linears.push(Linear { width, weight, bias, lora });
        }
        let norm = |name: &str| loader.norm(&format!("{prefix}.{name}.weight"));
        let head_norms = match config.qk_norm {
            true => Some([norm("self_attn.q_norm")?, norm("self_attn.k_norm")?]),
            false => None,
        };
        Ok(Self {
            number,
            precision,
            head_dim: config.head_dim as i64,
            attention_norm: norm("input_layernorm")?,
            head_norms,
            mlp_norm: norm("post_attention_layernorm")?,
            linears,
        })
    }

    /// The block's output, `[T, D]`, and what [`Layer::backward`] needs.
    pub(crate) fn forward(
        &self,
        h_TD: &Tensor,
        pass: &Pass,
        parameters: &[Parameter],
    ) -> Result<(Tensor, Activations)> {
        let mut run =
            Run { linears: &self.linears, masks: self.masks(pass)?, parameters, adapters: Adapters::default() };
        let projected = self.project(h_TD, &pass.rope, &mut run)?;
        let attended = pass.attention.forward(&projected.operands, &pass.spans)?;
        let (output_TD, mlp) = self.after_attention(h_TD, &attended.values, &mut run)?;
        let Run { adapters, masks, .. } = run;
        let (h_TD, masks) = (h_TD.shallow_clone(), Some(masks));
        Ok((output_TD, Activations { h_TD, projected, attended, mlp, adapters, masks }))
    }

    /// The block's output for tokens behind those in `cache`, which takes them up.
    pub(crate) fn extend(
        &self,
        h_TD: &Tensor,
        pass: &Pass,
        cache: &mut KeyValues,
        parameters: &[Parameter],
    ) -> Result<Tensor> {
        let mut run =
            Run { linears: &self.linears, masks: Masks::default(), parameters, adapters: Adapters::default() };
        let operands = self.project(h_TD, &pass.rope, &mut run)?.operands;
        let attended = match cache.is_empty() {
            true => pass.attention.forward(&cache.extend(operands)?, &pass.spans)?.values,
            false => pass.attention.forward_sample(&cache.extend(operands)?)?,
        };
        Ok(self.after_attention(h_TD, &attended, &mut run)?.0)
    }

    /// Queries, keys and values, ready for attention.
    fn project(&self, h_TD: &Tensor, rope: &Rope, run: &mut Run<'_>) -> Result<Projected> {
        let compute = self.precision.compute();
        let input = self.attention_norm.forward(h_TD)?.f_to_kind(compute)?;
        let mut heads = |index: usize| -> Result<Tensor> {
            let projected = run.linear(index, &input)?;
            Ok(projected.f_view([projected.size()[0], -1, self.head_dim])?)
        };
        let (q, k, v) = (heads(Q)?, heads(K)?, heads(V)?);
        let turn = |heads: &Tensor| -> Result<Tensor> { Ok(rope.forward(heads)?.f_to_kind(compute)?) };
        let (operands, before_norms) = match &self.head_norms {
            Some([q_norm, k_norm]) => {
                let operands = Operands { q: turn(&q_norm.forward(&q)?)?, k: turn(&k_norm.forward(&k)?)?, v };
                (operands, Some([q, k]))
            }
            None => (Operands { q: turn(&q)?, k: turn(&k)?, v }, None),
        };
        Ok(Projected { input, before_norms, operands })
    }

    /// The block's output, from what its tokens attend to.
    fn after_attention(&self, h_TD: &Tensor, attended: &Tensor, run: &mut Run<'_>) -> Result<(Tensor, Mlp)> {
        let middle_TD = h_TD.f_add(&run.linear(O, attended)?)?;
        let input = self.mlp_norm.forward(&middle_TD)?.f_to_kind(self.precision.compute())?;
        let (gate, up) = (run.linear(GATE, &input)?, run.linear(UP, &input)?);
        let output_TD = middle_TD.f_add(&run.linear(DOWN, &gate.f_silu()?.f_mul_(&up)?)?)?;
        Ok((output_TD, Mlp { middle_TD, input, gate, up }))
    }

    /// Adds to the gradients of the block's adapters, down to `depth`.
    ///
    /// # Shapes
    /// `dy [T, D]`; the gradient of the input, `[T, D]`, if `depth` is [`Depth::Input`].
    pub(crate) fn backward(
        &self,
        dy_TD: Tensor,
        activations: Activations,
        depth: Depth,
        pass: &Pass,
        parameters: &mut [Parameter],
    ) -> Result<Option<Tensor>> {
        let Activations { h_TD, projected, attended, mlp, adapters, masks } = activations;
        let masks = match masks {
            Some(masks) => masks,
            None => self.masks(pass)?,
        };
        let (compute, master) = (self.precision.compute(), self.precision.master());
        let mut back = |index: usize, dy: &Tensor, x: &Tensor, input: Option<&mut GradientSum>| {
            let adapter = adapters[index].as_ref();
            self.linears[index].backward(dy, (x, adapter), masks[index].as_ref(), parameters, input)
        };

        let silu = mlp.gate.f_silu()?;
        let mut d_product = GradientSum::new(compute);
        let wanted = depth < Depth::Down;
        back(DOWN, &dy_TD.f_to_kind(compute)?, &silu.f_mul(&mlp.up)?, wanted.then_some(&mut d_product))?;
        let Some(d_product) = d_product.into_inner() else { return Ok(None) };
        let d_up = d_product.f_mul(&silu)?;
        let d_gate = mlp.gate.f_silu_backward(&d_product.f_mul(&mlp.up)?)?;
        drop((silu, d_product));

        let mut d_mlp_in = GradientSum::new(master);
        let wanted = depth < Depth::Mlp;
        back(GATE, &d_gate, &mlp.input, wanted.then_some(&mut d_mlp_in))?;
        back(UP, &d_up, &mlp.input, wanted.then_some(&mut d_mlp_in))?;
        drop((d_gate, d_up));
        let Some(d_mlp_in) = d_mlp_in.into_inner() else { return Ok(None) };
        let d_middle_TD = self.mlp_norm.backward(&d_mlp_in, &mlp.middle_TD)?.f_add_(&dy_TD)?;
        drop((d_mlp_in, dy_TD));

        let mut d_attended = GradientSum::new(compute);
        let wanted = depth < Depth::Output;
        back(O, &d_middle_TD.f_to_kind(compute)?, &attended.values, wanted.then_some(&mut d_attended))?;
        let Some(d_attended) = d_attended.into_inner() else { return Ok(None) };
        let d = pass.attention.backward(&d_attended, &projected.operands, &attended, &pass.spans)?;
        drop(d_attended);

        let mut d_attention_in = GradientSum::new(master);
        for (index, gradient) in
            [(Q, self.unturn(&d.q, Q, &projected, pass)?), (K, self.unturn(&d.k, K, &projected, pass)?), (V, d.v)]
        {
            let wanted = depth == Depth::Input;
            back(index, &gradient.f_flatten(1, 2)?, &projected.input, wanted.then_some(&mut d_attention_in))?;
        }
        let Some(d_attention_in) = d_attention_in.into_inner() else { return Ok(None) };
        Ok(Some(self.attention_norm.backward(&d_attention_in, &h_TD)?.f_add_(&d_middle_TD)?))
    }

    /// Back through the rotary embedding and, where there is one, the norm of the heads; `index` is [`Q`] or [`K`].
    fn unturn(&self, gradient: &Tensor, index: usize, projected: &Projected, pass: &Pass) -> Result<Tensor> {
        let gradient = pass.rope.backward(&gradient.f_to_kind(self.precision.master())?)?;
        let gradient = match (&self.head_norms, &projected.before_norms) {
            (Some(norms), Some(inputs)) => norms[index].backward(&gradient, &inputs[index])?,
            _ => gradient,
        };
        Ok(gradient.f_to_kind(self.precision.compute())?)
    }

    /// The dropout masks of the block's adapters; module numbers do not depend on which are trained.
    fn masks(&self, pass: &Pass) -> Result<Masks> {
        let mut masks = Masks::default();
        let Some(dropout) = &pass.dropout else { return Ok(masks) };
        let trained: Vec<usize> = (0..7).filter(|index| self.linears[*index].lora.is_some()).collect();
        let modules: Vec<(u32, usize)> =
            trained.iter().map(|index| (module_number(self.number, *index), self.linears[*index].width)).collect();
        for (index, mask) in trained.into_iter().zip(dropout.masks(&modules)?) {
            masks[index] = Some(mask);
        }
        Ok(masks)
    }
}

/// Numbers the linear layers of a model, so that each has dropout of its own. Part of what a seed means: changing it
/// changes every run with dropout.
fn module_number(layer: usize, index: usize) -> u32 {
    (layer * TARGET_MODULES.len() + index) as u32
}

/// The linear layers of a block in a forward pass.
struct Run<'a> {
    linears: &'a [Linear],
    masks: Masks,
    parameters: &'a [Parameter],
    adapters: Adapters,
}

impl Run<'_> {
    fn linear(&mut self, index: usize, x: &Tensor) -> Result<Tensor> {
        let (y, adapter) = self.linears[index].forward(x, self.masks[index].as_ref(), self.parameters)?;
        self.adapters[index] = adapter;
        Ok(y)
    }
}

/// Keys and values of the tokens so far, `[tokens, G, d]`.
#[derive(Debug, Default)]
pub(crate) struct KeyValues(Option<(Tensor, Tensor)>);

impl KeyValues {
    fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    fn extend(&mut self, new: Operands) -> Result<Operands> {
        let (k, v) = match self.0.take() {
            Some((k, v)) => (Tensor::f_cat(&[k, new.k], 0)?, Tensor::f_cat(&[v, new.v], 0)?),
            None => (new.k, new.v),
        };
        let operands = Operands { q: new.q, k: k.shallow_clone(), v: v.shallow_clone() };
        self.0 = Some((k, v));
        Ok(operands)
    }
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
