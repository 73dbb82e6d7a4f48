//! A model that answers, loaded as `pipe chat` asks for it.

use std::{fs, path::Path, time::Instant};

use pipe_chat::{Device, Load, Loaded, Sampling};
use pipe_hf::{Dtype, ModelConfig, Role};
use pipe_kernels::NvmlDevice;
use pipe_nn::{
    Inference, InferenceError, InferenceOptions, Precision,
    adapter::SavedAdapter,
    runtime::{Runtime, RuntimeError, RuntimeOptions},
};
use pipe_text::Prompter;
use serde_json::Value;

/// The card that a process computes on is the first that it sees.
const CUDA_DEVICE: usize = 0;

/// Unpacked weights may take so much of the memory that is free.
const PART_OF_FREE: f64 = 0.6;

/// What answers.
pub(super) struct Model {
    pub(super) inference: Inference,
    pub(super) prompter: Prompter,
    /// What the base's `generation_config.json` says.
    pub(super) sampling: Sampling,
}

/// Why a model cannot be loaded.
#[derive(Debug, PartialEq)]
pub(super) struct Refusal {
    pub(super) message: String,
    pub(super) hint: Option<String>,
    pub(super) environment: bool,
}

impl Refusal {
    fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        Self { message: with_causes(error), hint: None, environment: false }
    }
}

impl From<RuntimeError> for Refusal {
    fn from(error: RuntimeError) -> Self {
        let hint = match error {
            RuntimeError::NoDriver { .. } => "leave out `--device cuda` to run on the CPU",
            _ => error.hint(),
        };
        Self { hint: Some(hint.to_owned()), environment: true, ..Self::of(&error) }
    }
}

impl From<InferenceError> for Refusal {
    fn from(error: InferenceError) -> Self {
        let memory = matches!(&error, InferenceError::Model(error) if error.is_out_of_memory());
        let hint = memory.then(|| "keep the weights in 4 bits with `--packed`, or use `--device cpu`".to_owned());
        Self { hint, environment: memory, ..Self::of(&error) }
    }
}

/// An error and what is behind it, in one line.
pub(super) fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    pipe_stage::chain(error).join(": ")
}

/// Loads a model.
pub(super) fn load(load: &Load) -> Result<(Model, Loaded), Refusal> {
    let begin = Instant::now();
    let config = ModelConfig::open(&load.base).map_err(|error| Refusal::of(&error))?;
    let prompter = Prompter::load(&load.base).map_err(|error| Refusal::of(&error))?;
    let prompter = prompter.with_kwargs(&load.chat_template_kwargs);
    let adapter = load.adapter.as_deref().map(SavedAdapter::open).transpose().map_err(|error| Refusal::of(&error))?;
    let (runtime, note) = start(load)?;
    let cuda = runtime.device().is_cuda();
    let precision = if cuda { Precision::Bf16 } else { Precision::Fp32 };
    let bytes = if cuda { 2 } else { 4 };
    let unpacked = load.unpacked.unwrap_or_else(|| fits(&config, bytes, cuda));
    let options = InferenceOptions { precision, device: runtime.device(), unpacked, compare: load.compare };
    let inference = Inference::load(&load.base, adapter.as_ref(), &options)?;
    let loaded = Loaded {
        device: if cuda { Device::Cuda } else { Device::Cpu },
        computes_in: if cuda { "bfloat16" } else { "float32" }.to_owned(),
        unpacked,
        chat_template: prompter.has_template(),
        context_tokens: config.max_position_embeddings,
        note,
        seconds: begin.elapsed().as_secs_f64(),
    };
    Ok((Model { inference, prompter, sampling: sampling_of(&load.base) }, loaded))
}

fn start(load: &Load) -> Result<(Runtime, Option<String>), Refusal> {
    let start = |gpus| {
        let threads = load.threads.max(1);
        Runtime::start(RuntimeOptions { gpus, threads, tf32: false, cudnn_benchmark: false })
    };
    let note = match load.device {
        Some(Device::Cpu) => None,
        Some(Device::Cuda) => return Ok((start(1)?, None)),
        None => match start(1) {
            Ok(runtime) => return Ok((runtime, None)),
            Err(RuntimeError::NoDriver { .. }) => None,
            Err(error) => Some(format!("the GPU is not used: {}; {}", with_causes(&error), error.hint())),
        },
    };
    Ok((start(0)?, note))
}

/// Whether there is memory for the linear layers at so many bytes a weight.
fn fits(config: &ModelConfig, bytes: usize, cuda: bool) -> bool {
    let linear = config.parameters().into_iter().filter(|parameter| parameter.role == Role::Linear);
    let weights: usize = linear.map(|parameter| parameter.shape.iter().product::<usize>()).sum();
    // Dense weights are there anyway, unless they are kept in another type.
    let added = match (&config.quantization, config.dtype) {
        (None, Some(Dtype::F32)) if bytes == 4 => return true,
        (None, Some(Dtype::BF16)) if bytes == 2 => return true,
        _ => weights.saturating_mul(bytes) as f64,
    };
    free_bytes(cuda).is_none_or(|free| added <= free * PART_OF_FREE)
}

fn free_bytes(cuda: bool) -> Option<f64> {
    if cuda {
        let memory = NvmlDevice::new(CUDA_DEVICE).and_then(|device| device.memory()).ok()?;
        return Some(memory.total_bytes.saturating_sub(memory.used_bytes) as f64);
    }
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()? * 1024.0)
}

/// What `generation_config.json` says of sampling; nothing unless `do_sample` is true, as in Transformers. A file that
/// cannot be read says nothing.
fn sampling_of(base: &Path) -> Sampling {
    let text = fs::read_to_string(base.join("generation_config.json")).unwrap_or_default();
    let config: Value = serde_json::from_str(&text).unwrap_or_default();
    let number = |field: &str| config.get(field).and_then(Value::as_f64);
    let sampling = Sampling { repetition_penalty: number("repetition_penalty"), ..Sampling::default() };
    if config.get("do_sample").and_then(Value::as_bool) != Some(true) {
        return sampling;
    }
    Sampling {
        // Their defaults, where the file is silent.
        temperature: number("temperature").or(Some(1.0)),
        top_k: config.get("top_k").map_or(Some(50), Value::as_u64).and_then(|count| usize::try_from(count).ok()),
        top_p: number("top_p"),
        min_p: number("min_p"),
        ..sampling
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn sampling_is_what_the_model_says() {
        let folder = tempfile::tempdir().unwrap();
        let of = |text: &str| {
            fs::write(folder.path().join("generation_config.json"), text).unwrap();
            sampling_of(folder.path())
        };
        assert_eq!(sampling_of(folder.path()), Sampling::default());
        assert_eq!(of(r#"{"temperature": 0.6, "top_k": 20}"#), Sampling::default());
        let qwen = of(r#"{"do_sample": true, "temperature": 0.6, "top_k": 20, "top_p": 0.95}"#);
        let expected = Sampling { temperature: Some(0.6), top_k: Some(20), top_p: Some(0.95), ..Sampling::default() };
        assert_eq!(qwen, expected);
        let plain = of(r#"{"do_sample": true, "repetition_penalty": 1.1}"#);
        assert_eq!((plain.temperature, plain.top_k, plain.repetition_penalty), (Some(1.0), Some(50), Some(1.1)));
        assert_eq!(of("{"), Sampling::default());
    }
}
