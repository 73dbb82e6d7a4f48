//! What is trained: tensors, and how their gradients are kept.

use pipe_kernels::ops::Halves;
use tch::{Device, Kind, Tensor};

use crate::{Error, error::Result, table_gradient::TableGradient};

/// Every parameter begins at a multiple of this many values of the flat tensors: a block of states with one scale
/// belongs to one parameter, and every address suits the widest loads.
const ALIGNMENT: i64 = 256;

/// A trained tensor and its gradient, on the model's device.
#[derive(Debug)]
pub struct Parameter {
    /// PEFT's key: `base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight`. A tied embedding has the
    /// embedding's: `base_model.model.model.embed_tokens.weight`.
    pub name: String,
    shape: Vec<i64>,
    pub(crate) value: Value,
    pub(crate) gradient: Gradient,
}

/// The weights, float32 (float64 where everything is); also the states of an optimizer, whose codes are bytes.
#[derive(Debug)]
pub(crate) enum Value {
    /// As they are; with others of its model in one flat tensor.
    Whole(Tensor),
    /// The upper and lower halves of the words apart: the upper ones are the weights in bfloat16.
    Halves(Halves),
}

/// The gradient, of the same type, summed over passes.
#[derive(Debug)]
pub(crate) enum Gradient {
    /// As it is.
    Whole(Tensor),
    /// That of a table of tokens, from which any rows can be computed.
    Table(TableGradient),
}

impl Parameter {
    /// A small matrix, with a gradient of zero.
    pub fn matrix(name: String, value: Tensor) -> std::result::Result<Self, Error> {
        let gradient = Gradient::Whole(value.f_zeros_like()?);
        Ok(Self { name, shape: value.size(), value: Value::Whole(value), gradient })
    }

    /// A table with a row for each token; `halves` keeps it ready for products in bfloat16.
    pub(crate) fn table(name: String, value: &Tensor, halves: bool) -> Result<Self> {
        let gradient = Gradient::Table(TableGradient::new(value.size2()?, value.f_kind()?, value.device()));
        let shape = value.size();
        let value = if halves { Value::Halves(Halves::split(value)?) } else { Value::Whole(value.shallow_clone()) };
        Ok(Self { name, shape, value, gradient })
    }

    /// The shape of the tensor.
    pub fn size(&self) -> &[i64] {
        &self.shape
    }

    /// How many values it has.
    pub fn count(&self) -> u64 {
        self.shape.iter().product::<i64>().unsigned_abs()
    }

    /// Where it is.
    pub fn device(&self) -> Device {
        match &self.value {
            Value::Whole(value) => value.device(),
            Value::Halves(halves) => halves.high.device(),
        }
    }

    /// The weights. A table in halves is put together for it.
    ///
    /// # Errors
    /// If the device has too little memory.
    pub fn value(&self) -> std::result::Result<Tensor, Error> {
        match &self.value {
            Value::Whole(value) => Ok(value.shallow_clone()),
            Value::Halves(halves) => Ok(halves.join(0, self.shape[0])?),
        }
    }

    /// Replaces the weights.
    ///
    /// # Errors
    /// If the shape is another.
    pub fn set_value(&mut self, value: &Tensor) -> std::result::Result<(), Error> {
        match &mut self.value {
            Value::Whole(whole) => Ok(whole.f_copy_(value)?),
            Value::Halves(halves) => Ok(halves.write(0, &value.f_to(halves.high.device())?.f_to_kind(Kind::Float)?)?),
        }
    }

    /// The gradient. That of a table is computed for it.
    ///
    /// # Errors
    /// If the device has too little memory.
    pub fn grad(&self) -> std::result::Result<Tensor, Error> {
        match &self.gradient {
            Gradient::Whole(gradient) => Ok(gradient.shallow_clone()),
            Gradient::Table(gradient) => Ok(gradient.rows(&self.value, 0, self.shape[0])?.whole()?),
        }
    }

    /// Replaces the gradient, of a matrix.
    ///
    /// # Errors
    /// If the shape is another, or it is a table's.
    pub fn set_grad(&mut self, value: &Tensor) -> std::result::Result<(), Error> {
        match &mut self.gradient {
            Gradient::Whole(gradient) => Ok(gradient.f_copy_(value)?),
            Gradient::Table(_) => Err(Error::TableGradient { name: self.name.clone() }),
        }
    }

    /// The weights of a matrix; of a table in halves the upper ones.
    pub(crate) fn whole(&self) -> &Tensor {
        match &self.value {
            Value::Whole(value) => value,
            Value::Halves(halves) => &halves.high,
        }
    }

    /// The gradient of a matrix.
    ///
    /// # Errors
    /// If it is a table's.
    pub(crate) fn whole_grad(&self) -> Result<&Tensor> {
        match &self.gradient {
            Gradient::Whole(gradient) => Ok(gradient),
            Gradient::Table(_) => Err(Error::TableGradient { name: self.name.clone() }),
        }
    }

    /// The weights in another type; no copy if they have it.
    pub(crate) fn cast(&self, kind: Kind) -> Result<Tensor> {
        self.value.cast(kind)
    }
}

impl Value {
    /// The weights in another type; no copy if they have it.
    pub(crate) fn cast(&self, kind: Kind) -> Result<Tensor> {
        match self {
            Self::Whole(value) => Ok(value.f_to_kind(kind)?),
            Self::Halves(halves) if kind == Kind::BFloat16 => Ok(halves.high.shallow_clone()),
            Self::Halves(halves) => Ok(halves.join(0, halves.high.size()[0])?.f_to_kind(kind)?),
        }
    }

    /// Some rows in another type; no copy if they have it.
    pub(crate) fn cast_rows(&self, kind: Kind, first: i64, rows: i64) -> Result<Tensor> {
        match self {
            Self::Whole(value) => Ok(value.f_narrow(0, first, rows)?.f_to_kind(kind)?),
            Self::Halves(halves) if kind == Kind::BFloat16 => Ok(halves.high.f_narrow(0, first, rows)?),
            Self::Halves(halves) => Ok(halves.join(first, rows)?.f_to_kind(kind)?),
        }
    }

    /// The rows of tokens in `kind`, `[tokens, D]`.
    pub(crate) fn gather(&self, ids: &Tensor, kind: Kind) -> Result<Tensor> {
        match self {
            Self::Whole(value) => Ok(value.f_index_select(0, ids)?.f_to_kind(kind)?),
            Self::Halves(Halves { high, low }) => {
                let rows = Halves { high: high.f_index_select(0, ids)?, low: low.f_index_select(0, ids)? };
                Ok(rows.join(0, ids.size()[0])?.f_to_kind(kind)?)
            }
        }
    }
}

/// All parameters of a model: the matrices lie in one flat tensor, and their gradients in another, so that one launch
/// serves all of them.
#[derive(Debug)]
pub struct Parameters {
    list: Vec<Parameter>,
    /// Where the matrices among them begin, in the order of the list; `None` for a table.
    offsets: Vec<Option<i64>>,
    values: Tensor,
    grads: Tensor,
}

impl Parameters {
    /// Moves matrices of one type and device into flat tensors.
    ///
    /// # Errors
    /// If the device has too little memory.
    pub fn new(mut list: Vec<Parameter>) -> std::result::Result<Self, Error> {
        let mut next = 0;
        let mut offsets = Vec::with_capacity(list.len());
        for parameter in &list {
            let matrix = matches!(parameter.gradient, Gradient::Whole(_));
            offsets.push(matrix.then_some(next));
            if matrix {
                next += (parameter.shape.iter().product::<i64>() + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
            }
        }
        let like = list.first().map_or((Kind::Float, Device::Cpu), |first| {
            let kind = if first.whole().kind() == Kind::Double { Kind::Double } else { Kind::Float };
            (kind, first.device())
        });
        let (values, grads) = (Tensor::f_zeros([next], like)?, Tensor::f_zeros([next], like)?);
        for (parameter, offset) in list.iter_mut().zip(&offsets) {
            let Parameter { shape, value: Value::Whole(value), gradient: Gradient::Whole(grad), .. } = parameter else {
                continue;
            };
            for (tensor, flat) in [(value, &values), (grad, &grads)] {
                let mut view = part(flat, *offset, shape)?;
                view.f_copy_(tensor)?;
                *tensor = view;
            }
        }
        Ok(Self { list, offsets, values, grads })
    }

    /// One after the other.
    pub fn list(&self) -> &[Parameter] {
        &self.list
    }

    /// The same, to be changed.
    pub fn list_mut(&mut self) -> &mut [Parameter] {
        &mut self.list
    }

    /// Sets every gradient to zero.
    ///
    /// # Errors
    /// If the device fails.
    pub fn zero_grad(&mut self) -> std::result::Result<(), Error> {
        let _ = self.grads.f_zero_()?;
        for parameter in &mut self.list {
            if let Gradient::Table(gradient) = &mut parameter.gradient {
                gradient.clear();
            }
        }
        Ok(())
    }

    /// All matrices and their gradients, flat.
    pub(crate) fn flat(&self) -> (&Tensor, &Tensor) {
        (&self.values, &self.grads)
    }

    /// The part of a tensor like the flat ones that belongs to parameter `index`, which is a matrix.
    pub(crate) fn part_of(&self, flat: &Tensor, index: usize) -> Result<Tensor> {
        part(flat, self.offsets[index], &self.list[index].shape)
    }

    /// The part of a flat tensor with one value for [`ALIGNMENT`] of the others that belongs to parameter `index`,
    /// which is a matrix.
    pub(crate) fn blocks_of(&self, flat: &Tensor, index: usize) -> Result<Tensor> {
        let count: i64 = self.list[index].shape.iter().product();
        let first = self.offsets[index].unwrap_or(0) / ALIGNMENT;
        Ok(flat.f_narrow(0, first, (count + ALIGNMENT - 1) / ALIGNMENT)?)
    }
}

fn part(flat: &Tensor, offset: Option<i64>, shape: &[i64]) -> Result<Tensor> {
    Ok(flat.f_narrow(0, offset.unwrap_or(0), shape.iter().product())?.f_view(shape)?)
}
