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
    linears: [Linear; 7],
    /// Widths of their inputs.
    widths: [usize; 7],
}

/// What the backward pass needs of a forward pass.
#[derive(Debug)]
pub(crate) struct Activations {
    /// Input of the block.
    h_TD: Tensor,
    /// Input of the query, key and value projections.
    attention_in: Tensor,
    /// Queries and keys before their norms, `[T, heads, d]`, where the model has those.
    before_norms: Option<[Tensor; 2]>,
    operands: Operands,
    /// Input of the output projection.
    attended: Attended,
    /// The residual stream between attention and MLP.
    middle_TD: Tensor,
    /// Input of the gate and up projections.
    mlp_in: Tensor,
    gate: Tensor,
    up: Tensor,
    /// What the adapters keep, in the order of [`TARGET_MODULES`].
    adapters: [Option<Tensor>; 7],
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
        let mut linears = Vec::with_capacity(TARGET_MODULES.len());
        let mut widths = [0; 7];
        for (index, module) in TARGET_MODULES.iter().enumerate() {
            let path = format!("{prefix}.{}.{module}", if index < GATE { "self_attn" } else { "mlp" });
            let (weight, shape) = loader.linear(&path)?;
            widths[index] = shape[1];
            let adapter = lora.targets(module);
            let adapter = adapter.then(|| Lora::new(lora, &path, shape, (seed, precision, device), parameters));
            linears.push(Linear { weight, bias: loader.bias(&path)?, lora: adapter.transpose()? });
        }
        let linears = linears.try_into().unwrap_or_else(|_| unreachable!("one for each of the seven modules"));
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
            widths,
        })
    }

    /// The block's output, `[T, D]`, and what [`Layer::backward`] needs.
    pub(crate) fn forward(
        &self,
        h_TD: &Tensor,
        pass: &Pass,
        parameters: &[Parameter],
    ) -> Result<(Tensor, Activations)> {
        let masks = self.masks(pass)?;
        let mut adapters = [const { None }; 7];
        let (operands, attention_in, before_norms) =
            self.project(h_TD, &pass.rope, &masks, parameters, &mut adapters)?;
        let attended = pass.attention.forward(&operands, &pass.spans)?;
        let (middle_TD, output_TD, mlp) =
            self.after_attention(h_TD, &attended.values, &masks, parameters, &mut adapters)?;
        let (mlp_in, gate, up) = mlp;
        let h_TD = h_TD.shallow_clone();
        let activations =
            Activations { h_TD, attention_in, before_norms, operands, attended, middle_TD, mlp_in, gate, up, adapters };
        Ok((output_TD, activations))
    }

    /// The block's output for tokens behind those in `cache`, which takes them up.
    pub(crate) fn extend(
        &self,
        h_TD: &Tensor,
        pass: &Pass,
        cache: &mut KeyValues,
        parameters: &[Parameter],
    ) -> Result<Tensor> {
        let (masks, mut adapters) = ([const { None }; 7], [const { None }; 7]);
        let (operands, ..) = self.project(h_TD, &pass.rope, &masks, parameters, &mut adapters)?;
        let attended = match cache.is_empty() {
            true => pass.attention.forward(&cache.extend(operands)?, &pass.spans)?.values,
            false => pass.attention.forward_sample(&cache.extend(operands)?)?,
        };
        let (_, output_TD, _) = self.after_attention(h_TD, &attended, &masks, parameters, &mut adapters)?;
        Ok(output_TD)
    }

    /// Queries, keys and values, ready for attention; the input of their projections; what the norms of heads need.
    fn project(
        &self,
        h_TD: &Tensor,
        rope: &Rope,
        masks: &Masks,
        parameters: &[Parameter],
        adapters: &mut [Option<Tensor>; 7],
    ) -> Result<(Operands, Tensor, Option<[Tensor; 2]>)> {
        let compute = self.precision.compute();
        let x = self.attention_norm.forward(h_TD)?.f_to_kind(compute)?;
        let mut run = |index: usize| self.run(index, &x, masks, parameters, adapters);
        let heads = |tensor: Tensor| tensor.f_view([tensor.size()[0], -1, self.head_dim]);
        let (q, k, v) = (heads(run(Q)?)?, heads(run(K)?)?, heads(run(V)?)?);
        let (turned_q, turned_k, before_norms) = match &self.head_norms {
            Some([q_norm, k_norm]) => {
                let turned = (rope.forward(&q_norm.forward(&q)?)?, rope.forward(&k_norm.forward(&k)?)?);
                (turned.0, turned.1, Some([q, k]))
            }
            None => (rope.forward(&q)?, rope.forward(&k)?, None),
        };
        let operands = Operands { q: turned_q.f_to_kind(compute)?, k: turned_k.f_to_kind(compute)?, v };
        Ok((operands, x, before_norms))
    }

    /// The residual stream behind attention and behind the block; input, gate and up projection of the MLP.
    #[expect(clippy::type_complexity, reason = "one private use")]
    fn after_attention(
        &self,
        h_TD: &Tensor,
        attended: &Tensor,
        masks: &Masks,
        parameters: &[Parameter],
        adapters: &mut [Option<Tensor>; 7],
    ) -> Result<(Tensor, Tensor, (Tensor, Tensor, Tensor))> {
        let mut run = |index: usize, x: &Tensor| self.run(index, x, masks, parameters, adapters);
        let middle_TD = h_TD.f_add(&run(O, attended)?)?;
        let x = self.mlp_norm.forward(&middle_TD)?.f_to_kind(self.precision.compute())?;
        let (gate, up) = (run(GATE, &x)?, run(UP, &x)?);
        let output_TD = middle_TD.f_add(&run(DOWN, &gate.f_silu()?.f_mul_(&up)?)?)?;
        Ok((middle_TD, output_TD, (x, gate, up)))
    }

    /// Adds to the gradients of the block's adapters, down to `depth`.
    ///
    /// # Shapes
    /// `dy [T, D]`; the gradient of the input, `[T, D]`, if `depth` is [`Depth::Input`].
    pub(crate) fn backward(
        &self,
        dy_TD: Tensor,
        activations: &Activations,
        depth: Depth,
        pass: &Pass,
        parameters: &mut [Parameter],
    ) -> Result<Option<Tensor>> {
        let masks = self.masks(pass)?;
        let (compute, master) = (self.precision.compute(), self.precision.master());
        let saved = activations;
        let adapters = &saved.adapters;
        let mut back = |index: usize, dy: &Tensor, x: &Tensor, input: Option<&mut GradientSum>| {
            let adapter = adapters[index].as_ref();
            self.linears[index].backward(dy, (x, adapter), masks[index].as_ref(), parameters, input)
        };

        let silu = saved.gate.f_silu()?;
        let mut d_product = GradientSum::new(compute);
        let wanted = depth < Depth::Down;
        back(DOWN, &dy_TD.f_to_kind(compute)?, &silu.f_mul(&saved.up)?, wanted.then_some(&mut d_product))?;
        let Some(d_product) = d_product.into_inner() else { return Ok(None) };
        let d_up = d_product.f_mul(&silu)?;
        let d_gate = saved.gate.f_silu_backward(&d_product.f_mul(&saved.up)?)?;
        drop((silu, d_product));

        let mut d_mlp_in = GradientSum::new(master);
        let wanted = depth < Depth::Mlp;
        back(GATE, &d_gate, &saved.mlp_in, wanted.then_some(&mut d_mlp_in))?;
        back(UP, &d_up, &saved.mlp_in, wanted.then_some(&mut d_mlp_in))?;
        drop((d_gate, d_up));
        let Some(d_mlp_in) = d_mlp_in.into_inner() else { return Ok(None) };
        let d_middle_TD = self.mlp_norm.backward(&d_mlp_in, &saved.middle_TD)?.f_add_(&dy_TD)?;
        drop((d_mlp_in, dy_TD));

        let mut d_attended = GradientSum::new(compute);
        let wanted = depth < Depth::Output;
        back(O, &d_middle_TD.f_to_kind(compute)?, &saved.attended.values, wanted.then_some(&mut d_attended))?;
        let Some(d_attended) = d_attended.into_inner() else { return Ok(None) };
        let d = pass.attention.backward(&d_attended, &saved.operands, &saved.attended, &pass.spans)?;
        drop(d_attended);

        let mut d_attention_in = GradientSum::new(master);
        for (index, gradient) in
            [(Q, self.unturn(&d.q, Q, saved, pass)?), (K, self.unturn(&d.k, K, saved, pass)?), (V, d.v)]
        {
            let wanted = depth == Depth::Input;
            back(index, &gradient.f_flatten(1, 2)?, &saved.attention_in, wanted.then_some(&mut d_attention_in))?;
        }
        let Some(d_attention_in) = d_attention_in.into_inner() else { return Ok(None) };
        Ok(Some(self.attention_norm.backward(&d_attention_in, &saved.h_TD)?.f_add_(&d_middle_TD)?))
    }

    /// Back through the rotary embedding and, where there is one, the norm of the heads; `index` is [`Q`] or [`K`].
    fn unturn(&self, gradient: &Tensor, index: usize, saved: &Activations, pass: &Pass) -> Result<Tensor> {
        let gradient = pass.rope.backward(&gradient.f_to_kind(self.precision.master())?)?;
        let gradient = match (&self.head_norms, &saved.before_norms) {
            (Some(norms), Some(inputs)) => norms[index].backward(&gradient, &inputs[index])?,
            _ => gradient,
        };
        Ok(gradient.f_to_kind(self.precision.compute())?)
    }

    fn run(
        &self,
        index: usize,
        x: &Tensor,
        masks: &Masks,
        parameters: &[Parameter],
        adapters: &mut [Option<Tensor>; 7],
    ) -> Result<Tensor> {
        let (y, adapter) = self.linears[index].forward(x, masks[index].as_ref(), parameters)?;
        adapters[index] = adapter;
        Ok(y)
    }

    /// The dropout masks of the block's adapters; module numbers do not depend on which are trained.
    fn masks(&self, pass: &Pass) -> Result<Masks> {
        let mut masks = [const { None }; 7];
        let Some(dropout) = &pass.dropout else { return Ok(masks) };
        let trained: Vec<usize> = (0..7).filter(|index| self.linears[*index].lora.is_some()).collect();
        let modules: Vec<(u32, usize)> =
            trained.iter().map(|index| ((self.number * 7 + index) as u32, self.widths[*index])).collect();
        for (index, mask) in trained.into_iter().zip(dropout.masks(&modules)?) {
            masks[index] = Some(mask);
        }
        Ok(masks)
    }
}

type Masks = [Option<Mask>; 7];

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
