//! Times optimizer updates of a model folder, on the workload of `benches/gpu`:
//! `update_time FOLDER LENGTHS.json [--updates N] [--cpu] [--no-save] [--full] [--optim adamw_8bit] [--fp16] [--int8]
//! [--original]`.
//!
//! Eight samples an update, their lengths in order from a JSON list of numbers; LoRA on four modules with dropout,
//! embedding and head trained (but for `--no-save`), bfloat16, checkpointing: the settings of
//! `pipelines/qwen3-sft.yaml`. `--original` has the shapes of `pipelines/qwen3-sft-original.yaml` instead, which computes
//! with `--fp16 --int8`. Prints one JSON object. A figure is the median over the updates behind the first three.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a development tool")]

use std::time::Instant;

use pipe_nn::{
    LoraConfig, Model, ModelOptions, PackedBatch, Precision, Sample, TARGET_MODULES,
    optimizer::{AdamW, AdamWOptions, States},
    runtime::{Runtime, RuntimeOptions},
};

const SAMPLES: usize = 8;
/// Updates that are not timed: libtorch loads its kernels.
const WARM_UP: usize = 3;
const LONGEST: usize = 384;
const LONGEST_ORIGINAL: usize = 512;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let flag = |name: &str| arguments.iter().any(|argument| argument == name);
    let updates = arguments.iter().position(|argument| argument == "--updates");
    let updates: usize = updates.map_or(20, |at| arguments[at + 1].parse().unwrap());
    let optim = arguments.iter().position(|argument| argument == "--optim").map(|at| arguments[at + 1].as_str());
    let lengths: Vec<usize> = serde_json::from_slice(&std::fs::read(&arguments[1]).unwrap()).unwrap();

    let begin = Instant::now();
    let gpus = usize::from(!flag("--cpu"));
    let runtime = Runtime::start(RuntimeOptions { gpus, threads: 2, tf32: true, cudnn_benchmark: true }).unwrap();
    let mut model = Model::load(arguments[0].as_ref(), &options(runtime.device(), &flag)).unwrap();
    let load_s = begin.elapsed().as_secs_f64();
    let states = if optim == Some("adamw_8bit") { States::EightBit } else { States::Float32 };
    let optimizer = AdamWOptions {
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: 0.0,
        max_grad_norm: 1.0,
        states,
        scales_loss: flag("--fp16"),
    };
    let mut optimizer = AdamW::new(optimizer, model.trained()).unwrap();
    let vocab_size = model.config().vocab_size;
    let longest = if flag("--original") { LONGEST_ORIGINAL } else { LONGEST };
    let mut lengths = lengths.into_iter().cycle().map(|length| if flag("--full") { longest } else { length });
    let batches: Vec<PackedBatch> = (0..WARM_UP + updates)
        .map(|_| batch(&lengths.by_ref().take(SAMPLES).collect::<Vec<_>>(), vocab_size))
        .collect();

    let mut enqueue_seconds = Vec::new();
    let (mut seconds, mut host_seconds, mut losses, mut first_update_s) = (Vec::new(), Vec::new(), Vec::new(), 0.0);
    for (update, batch) in (0..).zip(&batches) {
        let start = Instant::now();
        model.zero_grad().unwrap();
        model.set_loss_scale(optimizer.loss_scale().map_or(1.0, |scale| scale.value()));
        let loss = model.enqueue(batch, batch.labels(), update).unwrap();
        let enqueued = start.elapsed().as_secs_f64();
        let norm = optimizer.update(model.trained_mut(), 1e-4).unwrap();
        host_seconds.push(start.elapsed().as_secs_f64());
        enqueue_seconds.push(enqueued);
        let loss = loss.read().unwrap();
        let norm = norm.read().unwrap();
        seconds.push(start.elapsed().as_secs_f64());
        losses.push((loss.sum_nll / loss.labels as f64, norm));
        if update == 0 {
            first_update_s = begin.elapsed().as_secs_f64();
        }
    }
    let tokens: usize = batches[WARM_UP..].iter().map(PackedBatch::tokens).sum();
    let total: f64 = seconds[WARM_UP..].iter().sum();
    let memory: serde_json::Map<_, _> =
        runtime.memory().into_iter().map(|(name, bytes)| (name.to_owned(), bytes.into())).collect();
    let report = serde_json::json!({
        "load_s": load_s, "first_update_s": first_update_s, "update_s": median(&seconds[WARM_UP..]),
        "host_s": median(&host_seconds[WARM_UP..]), "host_pass_s": median(&enqueue_seconds[WARM_UP..]), "tokens_per_s": tokens as f64 / total,
        "skipped": optimizer.updates() - optimizer.applied(),
        "first": losses[0], "last": losses.last(), "memory": memory,
    });
    println!("{report}");
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn options(device: tch::Device, flag: &dyn Fn(&str) -> bool) -> ModelOptions {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let original = flag("--original");
    let save = !original && !flag("--no-save");
    let lora = LoraConfig {
        r: if original { 16 } else { 8 },
        lora_alpha: if original { 32.0 } else { 16.0 },
        target_modules: match original {
            true => names(&TARGET_MODULES),
            false => names(&["q_proj", "v_proj", "gate_proj", "down_proj"]),
        },
        lora_dropout: 0.1,
        use_rslora: !original,
        modules_to_save: if save { names(&["embed_tokens", "lm_head"]) } else { Vec::new() },
    };
    ModelOptions {
        lora,
        precision: if flag("--fp16") { Precision::Fp16 } else { Precision::Bf16 },
        load_in_8bit: flag("--int8"),
        device,
        gradient_checkpointing: !original,
        neftune_noise_alpha: None,
        seed: 42,
    }
}

fn batch(lengths: &[usize], vocab_size: usize) -> PackedBatch {
    let rows: Vec<(Vec<u32>, Vec<i32>)> = lengths
        .iter()
        .enumerate()
        .map(|(row, length)| {
            let ids: Vec<u32> =
                (0..*length).map(|at| ((at * at * 31 + row * 7919 + length * 104_729) % vocab_size) as u32).collect();
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
