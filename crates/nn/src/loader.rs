//! From the tensors of a checkpoint to those of a model.

use std::path::Path;

use pipe_hf::{Checkpoint, Dtype, ModelConfig, Parameter as Listed, Role};
use pipe_kernels::{
    fill_tensor,
    ops::{Nf4, Weight, quantise_int8},
};
use pipe_nf4::QuantizedTensor;
use tch::{Device, Kind, Tensor};

use crate::{Error, Precision, error::Result, norm::RmsNorm};

/// A model folder that is being read.
#[derive(Debug)]
pub(crate) struct Loader {
    checkpoint: Checkpoint,
    /// What the configuration asks for, by name.
    listed: Vec<Listed>,
    epsilon: f64,
    precision: Precision,
    device: Device,
    load_in_8bit: bool,
}

impl Loader {
    /// Opens a folder and checks that it has what its configuration says.
    pub(crate) fn open(
        dir: &Path,
        config: &ModelConfig,
        (precision, device): (Precision, Device),
        load_in_8bit: bool,
    ) -> Result<Self> {
        if load_in_8bit && config.quantization.is_some() {
            return Err(Error::AlreadyQuantised { path: dir.to_owned() });
        }
        let checkpoint = Checkpoint::open(dir)?;
        checkpoint.check(config)?;
        let (listed, epsilon) = (config.parameters(), config.rms_norm_eps);
        Ok(Self { checkpoint, listed, epsilon, precision, device, load_in_8bit })
    }

    /// A frozen tensor in the type of the residual stream.
    pub(crate) fn master(&self, name: &str) -> Result<Tensor> {
        self.dense(name, self.precision.master())
    }

    /// An embedding or a head: in the type of the computation, or in float32 where the file has that and the
    /// residual stream takes it.
    pub(crate) fn table(&self, name: &str, rows_are_read: bool) -> Result<Tensor> {
        self.dense(name, self.table_kind(name, rows_are_read)?)
    }

    /// An embedding that stays in the memory of the host.
    pub(crate) fn table_on_host(&self, name: &str) -> Result<Tensor> {
        Ok(self.stored_on(name, Device::Cpu)?.f_to_kind(self.table_kind(name, true)?)?)
    }

    fn table_kind(&self, name: &str, rows_are_read: bool) -> Result<Kind> {
        let (compute, master) = (self.precision.compute(), self.precision.master());
        let dtype = self.checkpoint.info(name)?.dtype;
        // float16 keeps the bits of the weights of a bfloat16 file but for the very small ones, which it rounds to
        // multiples of 6e-8.
        let narrow = dtype == Dtype::BF16 || dtype == Dtype::F16 && compute == Kind::Half;
        Ok(if rows_are_read && !narrow { master } else { compute })
    }

    /// A norm over the residual stream or a head.
    pub(crate) fn norm(&self, name: &str) -> Result<RmsNorm> {
        Ok(RmsNorm { weight: self.master(name)?, epsilon: self.epsilon })
    }

    /// The bias of a linear layer, if the model has one, in the type of the computation.
    pub(crate) fn bias(&self, module: &str) -> Result<Option<Tensor>> {
        let name = format!("{module}.bias");
        if !self.listed.iter().any(|listed| listed.role == Role::Bias && listed.name == name) {
            return Ok(None);
        }
        self.dense(&name, self.precision.compute()).map(Some)
    }

    /// The weight of a linear layer and its shape, `[out, in]`.
    pub(crate) fn linear(&self, module: &str) -> Result<(Weight, [usize; 2])> {
        let name = format!("{module}.weight");
        let shape = self.listed.iter().find(|listed| listed.name == name).map(|listed| listed.shape.as_slice());
        let Some(&[output, input]) = shape else {
            return Err(self.wrong(&name, "is no linear layer of this model"));
        };
        let read = |name: &str| self.checkpoint.contains(name).then(|| self.checkpoint.read(name)).transpose();
        let quantised = QuantizedTensor::read(&name, read).map_err(|error| self.wrong(&name, with_source(&error)))?;
        let weight = match quantised {
            None if self.checkpoint.info(&name)?.dtype == Dtype::U8 => {
                let problem = "is packed, and has no quant_state.bitsandbytes__nf4 beside it: only NF4 is supported";
                return Err(self.wrong(&name, problem));
            }
            None if self.load_in_8bit => {
                let stored = self.stored(&name)?;
                Weight::Int8(quantise_int8(&stored).map_err(|error| self.wrong(&name, error.to_string()))?)
            }
            None => Weight::Dense(self.dense(&name, self.precision.compute())?),
            Some(tensor) if tensor.shape() != [output, input] => {
                let problem =
                    format!("is quantised from shape {:?}, the model has {:?}", tensor.shape(), [output, input]);
                return Err(self.wrong(&name, problem));
            }
            Some(tensor) => Weight::Nf4(Nf4::new(&tensor, [output as i64, input as i64], self.device)?),
        };
        Ok((weight, [output, input]))
    }

    fn dense(&self, name: &str, kind: Kind) -> Result<Tensor> {
        Ok(self.stored(name)?.f_to_kind(kind)?)
    }

    /// A tensor in the type that it has in the file, on the device.
    fn stored(&self, name: &str) -> Result<Tensor> {
        self.stored_on(name, self.device)
    }

    fn stored_on(&self, name: &str, device: Device) -> Result<Tensor> {
        let info = self.checkpoint.info(name)?;
        let stored = match info.dtype {
            Dtype::F32 => Kind::Float,
            Dtype::BF16 => Kind::BFloat16,
            Dtype::F16 => Kind::Half,
            other => return Err(self.wrong(name, format!("has type {other:?}, it must be F32, BF16 or F16"))),
        };
        let shape: Vec<i64> = info.shape.iter().map(|side| *side as i64).collect();
        let read = |first, part: &mut [u8]| Ok::<(), Error>(self.checkpoint.read_range(name, first, part)?);
        fill_tensor(&shape, stored, device, read)
    }

    fn wrong(&self, name: &str, problem: impl Into<String>) -> Error {
        Error::Quantised { path: self.checkpoint.path().to_owned(), name: name.to_owned(), problem: problem.into() }
    }
}

/// An error of the codec in one line.
fn with_source(error: &pipe_nf4::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
