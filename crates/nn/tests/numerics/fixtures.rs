//! Loading references, and models to compare with them.

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

use pipe_hf::Checkpoint;
use pipe_kernels::CudaStatus;
use pipe_nn::{LoraConfig, Model, ModelOptions, PackedBatch, Precision, Residency, Sample};
use tch::{Device, Kind, Tensor};

/// Where the tests run: the CPU, or with `PIPE_TEST_GPU` in the environment the first CUDA device.
pub(crate) fn device() -> Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    *DEVICE.get_or_init(|| {
        if std::env::var_os("PIPE_TEST_GPU").is_none() {
            return Device::Cpu;
        }
        pipe_kernels::set_deterministic(true).unwrap();
        let status = pipe_kernels::load_cuda().unwrap();
        assert!(matches!(status, CudaStatus::Ready { .. }), "{status:?}");
        Device::Cuda(0)
    })
}

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// The tensors of a safetensors file.
pub(crate) struct Reference(Checkpoint);

impl Reference {
    pub(crate) fn open(name: &str) -> Self {
        Self(Checkpoint::open_file(&folder().join(name)).unwrap())
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.names()
    }

    /// A float tensor, widened to float32.
    pub(crate) fn tensor(&self, name: &str) -> Tensor {
        let shape: Vec<i64> = self.0.info(name).unwrap().shape.iter().map(|side| *side as i64).collect();
        Tensor::from_slice(&self.0.read_f32(name).unwrap()).view(shape.as_slice())
    }

    pub(crate) fn integers(&self, name: &str) -> Vec<i64> {
        self.0.read(name).unwrap().as_chunks().0.iter().map(|raw| i64::from_le_bytes(*raw)).collect()
    }

    /// The one sample of a file that has `ids` and `labels`.
    pub(crate) fn sample(&self) -> Row {
        let ids = self.integers("ids").into_iter().map(|id| id as u32).collect();
        let labels = self.integers("labels").into_iter().map(|label| label as i32).collect();
        Row { ids, labels }
    }
}

/// A sample that owns its data.
#[derive(Clone)]
pub(crate) struct Row {
    pub(crate) ids: Vec<u32>,
    pub(crate) labels: Vec<i32>,
}

/// Packs rows, which take their places in the update from `first_place`.
pub(crate) fn pack(rows: &[Row], first_place: u32) -> PackedBatch {
    let samples: Vec<Sample<'_>> = rows
        .iter()
        .zip(first_place..)
        .map(|(row, place)| Sample { ids: &row.ids, labels: &row.labels, place, row: u64::from(place) + 100 })
        .collect();
    PackedBatch::new(&samples).unwrap()
}

/// The adapters that the references were made with.
pub(crate) fn lora(modules_to_save: &[&str]) -> LoraConfig {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    LoraConfig {
        r: 8,
        lora_alpha: 16.0,
        target_modules: names(&["q_proj", "v_proj", "gate_proj", "down_proj"]),
        lora_dropout: 0.0,
        use_rslora: true,
        modules_to_save: names(modules_to_save),
    }
}

pub(crate) fn options(precision: Precision, lora: LoraConfig) -> ModelOptions {
    ModelOptions {
        lora,
        precision,
        load_in_8bit: false,
        // The kernels know no float64: it is for finite differences, on the CPU.
        device: if precision == Precision::Fp64 { Device::Cpu } else { device() },
        residency: Residency::unbounded(false),
        neftune_noise_alpha: None,
        seed: 1,
    }
}

pub(crate) fn load(folder_name: &str, options: &ModelOptions) -> Model {
    Model::load(&folder().join(folder_name), options).unwrap()
}

/// Copies values into the parameters of a model by name.
pub(crate) fn set_parameters(model: &mut Model, value: impl Fn(&str) -> Option<Tensor>) {
    for parameter in model.parameters_mut() {
        if let Some(value) = value(&parameter.name) {
            assert_eq!(parameter.size(), value.size(), "{}", parameter.name);
            parameter.set_value(&value).unwrap();
        }
    }
}

pub(crate) fn largest_difference(left: &Tensor, right: &Tensor) -> f64 {
    assert_eq!(left.size(), right.size());
    (on_host(left) - on_host(right)).abs().max().double_value(&[])
}

/// `|left - right| / |right|`, in L2.
pub(crate) fn relative_difference(left: &Tensor, right: &Tensor) -> f64 {
    assert_eq!(left.size(), right.size());
    let norm = |tensor: &Tensor| tensor.square().sum(None::<Kind>).sqrt().double_value(&[]);
    let (left, right) = (on_host(left), on_host(right));
    norm(&(left - &right)) / norm(&right).max(1e-30)
}

fn on_host(tensor: &Tensor) -> Tensor {
    tensor.to_device(Device::Cpu).to_kind(Kind::Double)
}
