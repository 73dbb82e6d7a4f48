//! Times optimizer updates of a model folder: `update_time FOLDER [cuda|cpu] [UPDATES]`.
//!
//! Eight samples of 77 to 331 tokens an update, LoRA on four modules with dropout, embedding and head trained, bfloat16,
//! checkpointing: the settings of `pipelines/qwen3-sft.yaml`. Prints one JSON object.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a development tool")]

use std::time::Instant;

use pipe_nn::{
    LoraConfig, Model, ModelOptions, PackedBatch, Precision, Sample,
    optimizer::{AdamW, AdamWOptions, grad_norm},
    runtime::{Runtime, RuntimeOptions},
};

const LENGTHS: [usize; 8] = [214, 138, 331, 284, 110, 328, 77, 120];
/// Updates that are not timed: libtorch loads its kernels.
const WARM_UP: u64 = 2;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let folder = arguments.first().expect("a model folder");
    let gpus = usize::from(arguments.get(1).is_none_or(|device| device == "cuda"));
    let updates: u64 = arguments.get(2).map_or(10, |text| text.parse().unwrap());
    let runtime = Runtime::start(RuntimeOptions { gpus, threads: 2, tf32: true, cudnn_benchmark: true }).unwrap();
    let start = Instant::now();
    let mut model = Model::load(folder.as_ref(), &options(runtime.device())).unwrap();
    let load_s = start.elapsed().as_secs_f64();
    let optimizer = AdamWOptions { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0, max_grad_norm: 1.0 };
    let mut optimizer = AdamW::new(optimizer, model.parameters()).unwrap();
    let batch = batch(model.config().vocab_size);
    let mut start = Instant::now();
    let (mut first, mut last) = (0.0, 0.0);
    for update in 0..WARM_UP + updates {
        if update == WARM_UP {
            start = Instant::now();
        }
        model.zero_grad().unwrap();
        let loss = model.forward_backward(&batch, batch.labels(), update).unwrap();
        let norm = f64::try_from(grad_norm(model.parameters()).unwrap()).unwrap();
        optimizer.update(model.parameters_mut(), 1e-4, norm as f32).unwrap();
        last = loss.sum_nll / loss.labels as f64;
        if update == 0 {
            first = last;
        }
    }
    let seconds = start.elapsed().as_secs_f64() / updates as f64;
    let memory: serde_json::Map<_, _> =
        runtime.memory().into_iter().map(|(name, bytes)| (name.to_owned(), bytes.into())).collect();
    let report = serde_json::json!({
        "load_s": load_s, "update_s": seconds, "tokens": batch.tokens(),
        "tokens_per_s": batch.tokens() as f64 / seconds, "first_loss": first, "last_loss": last, "memory": memory,
    });
    println!("{report}");
}

fn options(device: tch::Device) -> ModelOptions {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let lora = LoraConfig {
        r: 8,
        lora_alpha: 16.0,
        target_modules: names(&["q_proj", "v_proj", "gate_proj", "down_proj"]),
        lora_dropout: 0.1,
        use_rslora: true,
        modules_to_save: names(&["embed_tokens", "lm_head"]),
    };
    ModelOptions {
        lora,
        precision: Precision::Bf16,
        device,
        gradient_checkpointing: true,
        neftune_noise_alpha: None,
        seed: 42,
    }
}

fn batch(vocab_size: usize) -> PackedBatch {
    let rows: Vec<(Vec<u32>, Vec<i32>)> = LENGTHS
        .iter()
        .map(|length| {
            let ids: Vec<u32> = (0..*length).map(|at| (at * at * 31 % vocab_size) as u32).collect();
            let labels = ids.iter().map(|id| *id as i32).collect();
            (ids, labels)
        })
        .collect();
    let samples: Vec<Sample<'_>> = rows
        .iter()
        .zip(0..)
        .map(|((ids, labels), place)| Sample { ids, labels, place, row: u64::from(place) })
        .collect();
    PackedBatch::new(&samples).unwrap()
}
