//! Times optimizer updates of a model folder, on the workload of `benches/gpu`:
//! `update_time FOLDER LENGTHS.json [--updates N] [--cpu] [--full] [--no-save] [--original] [--optim adamw_8bit] [--fp16]
//! [--int8] [--max-tokens-per-pass N] [--kept-layers N] [--inputs-on-host] [--unpack-twice] [--embedding-on-host]`.
//!
//! Eight samples an update, their lengths in order from a JSON list of numbers; LoRA on four modules with dropout,
//! embedding and head trained (but for `--no-save`), bfloat16, checkpointing: the settings of
//! `pipelines/qwen3-sft.yaml`; with `--original` those of `pipelines/qwen3-sft-original.yaml`. The last four choose what
//! stays in the device's memory. Prints one JSON object. A figure is the median over the updates behind the first three.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a development tool")]

use std::time::Instant;

use pipe_nn::{
    LoraConfig, Model, ModelOptions, PackedBatch, PendingLoss, Precision, Residency, Sample, TARGET_MODULES,
    optimizer::{AdamW, AdamWOptions, States},
    passes::passes,
    runtime::{Runtime, RuntimeOptions},
};

const SAMPLES: usize = 8;
/// Updates that are not timed: libtorch loads its kernels.
const WARM_UP: usize = 3;
const LONGEST: usize = 384;
const LONGEST_ORIGINAL: usize = 512;

struct Arguments(Vec<String>);

impl Arguments {
    fn flag(&self, name: &str) -> bool {
        self.0.iter().any(|argument| argument == name)
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().position(|argument| argument == name).map(|at| self.0[at + 1].as_str())
    }

    fn number(&self, name: &str, default: usize) -> usize {
        self.value(name).map_or(default, |value| value.parse().unwrap())
    }
}

fn main() {
    let arguments = Arguments(std::env::args().skip(1).collect());
    let [folder, lengths] = [0, 1].map(|at| arguments.0[at].as_str());
    let lengths: Vec<usize> = serde_json::from_slice(&std::fs::read(lengths).unwrap()).unwrap();
    let longest = if arguments.flag("--original") { LONGEST_ORIGINAL } else { LONGEST };
    let mut lengths = lengths.into_iter().cycle().map(|length| if arguments.flag("--full") { longest } else { length });

    let begin = Instant::now();
    let gpus = usize::from(!arguments.flag("--cpu"));
    let runtime = Runtime::start(RuntimeOptions { gpus, threads: 2, tf32: true, cudnn_benchmark: true }).unwrap();
    let mut model = Model::load(folder.as_ref(), &options(runtime.device(), &arguments)).unwrap();
    let load_s = begin.elapsed().as_secs_f64();
    let states = if arguments.value("--optim") == Some("adamw_8bit") { States::EightBit } else { States::Float32 };
    let optimizer = AdamWOptions {
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: 0.0,
        max_grad_norm: 1.0,
        states,
        scales_loss: arguments.flag("--fp16"),
    };
    let mut optimizer = AdamW::new(optimizer, model.trained()).unwrap();
    let (vocab_size, most) = (model.config().vocab_size, arguments.number("--max-tokens-per-pass", 4096) as u64);
    let updates: Vec<Vec<PackedBatch>> = (0..WARM_UP + arguments.number("--updates", 20))
        .map(|_| update(&lengths.by_ref().take(SAMPLES).collect::<Vec<_>>(), vocab_size, most))
        .collect();

    let (mut seconds, mut host_seconds, mut losses, mut first_update_s) = (Vec::new(), Vec::new(), Vec::new(), 0.0);
    for (number, batches) in (0..).zip(&updates) {
        let start = Instant::now();
        let labels = batches.iter().map(PackedBatch::labels).sum();
        model.zero_grad().unwrap();
        model.set_loss_scale(optimizer.loss_scale().map_or(1.0, |scale| scale.value()));
        let pending: Vec<PendingLoss> =
            batches.iter().map(|batch| model.enqueue(batch, labels, number).unwrap()).collect();
        let norm = optimizer.update(model.trained_mut(), 1e-4).unwrap();
        host_seconds.push(start.elapsed().as_secs_f64());
        let sum: f64 = pending.into_iter().map(|loss| loss.read().unwrap().sum_nll).sum();
        let norm = norm.read().unwrap();
        seconds.push(start.elapsed().as_secs_f64());
        losses.push((sum / labels as f64, norm));
        if number == 0 {
            first_update_s = begin.elapsed().as_secs_f64();
        }
    }
    let tokens = |batches: &Vec<PackedBatch>| batches.iter().map(PackedBatch::tokens).sum::<usize>();
    let memory: serde_json::Map<_, _> =
        runtime.memory().into_iter().map(|(name, bytes)| (name.to_owned(), bytes.into())).collect();
    let report = serde_json::json!({
        "arguments": arguments.0,
        "load_s": load_s,
        "first_update_s": first_update_s,
        "update_s": median(&seconds[WARM_UP..]),
        "host_s": median(&host_seconds[WARM_UP..]),
        "tokens_per_s": updates[WARM_UP..].iter().map(tokens).sum::<usize>() as f64 / seconds[WARM_UP..].iter().sum::<f64>(),
        "most_tokens_in_a_pass": updates.iter().flatten().map(PackedBatch::tokens).max(),
        "skipped": optimizer.updates() - optimizer.applied(),
        "first": losses[0],
        "last": losses.last(),
        "memory": memory,
    });
    println!("{report}");
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn options(device: tch::Device, arguments: &Arguments) -> ModelOptions {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let original = arguments.flag("--original");
    let save = !original && !arguments.flag("--no-save");
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
        precision: if arguments.flag("--fp16") { Precision::Fp16 } else { Precision::Bf16 },
        load_in_8bit: arguments.flag("--int8"),
        device,
        residency: Residency {
            kept_layers: arguments.number("--kept-layers", if original { usize::MAX } else { 0 }),
            inputs_on_host: arguments.flag("--inputs-on-host"),
            keep_unpacked: !arguments.flag("--unpack-twice"),
            embedding_on_host: arguments.flag("--embedding-on-host"),
        },
        neftune_noise_alpha: None,
        seed: 42,
    }
}

/// The passes of an update of samples of these lengths.
fn update(lengths: &[usize], vocab_size: usize, max_tokens_per_pass: u64) -> Vec<PackedBatch> {
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
    let samples =
        rows.iter().zip(0..).map(|((ids, labels), place)| Sample { ids, labels, place, row: u64::from(place) });
    passes(samples, max_tokens_per_pass).map(Result::unwrap).collect()
}
