//! The work of a `train` stage: sets everything up, trains, writes the artifact.

use std::path::Path;

use pipe_nn::{
    LoraConfig, Model, ModelOptions, Precision, Residency,
    adapter::{SavedAdapter, save_adapter},
    checkpoint::{Checkpoint, Checkpoints},
    optimizer::{AdamW, AdamWOptions, States, find_not_finite},
    runtime::{Runtime, RuntimeOptions},
    schedule::{Decay, Schedule, WarmUp},
};
use pipe_samples::Sampler;
use pipe_stage::{Context, Failure, Stage};
use pipe_text::Prompter;

use crate::{
    Config, Lora, LrSchedulerType, Train,
    error::Error,
    evaluation::{Evaluation, Prompts},
    inputs::Inputs,
    record::{METRICS_FILE, SUMMARY_FILE, Summary, to_lines, write},
    residency,
    trainer::{Saving, Speed, Trainer},
};

/// Threads where the pipeline does not say.
const DEFAULT_THREADS: usize = 2;

impl Stage for Train {
    fn run(config: &Config, context: &Context) -> Result<(), Failure> {
        let (base, samples) = (context.input("base")?, context.input("samples")?);
        let inputs = Inputs::load(config, base, samples, context).map_err(Error::into_failure)?;
        let checkpoints = Checkpoints::new(context.resume(), to_usize(config.save_total_limit));
        let checkpoint = find_checkpoint(&checkpoints, context).map_err(Error::into_failure)?;
        let threads = match &checkpoint {
            Some(checkpoint) => checkpoint.progress.threads,
            None => context.cpus().unwrap_or(DEFAULT_THREADS),
        };
        let runtime = Runtime::start(RuntimeOptions {
            gpus: context.gpus(),
            threads,
            tf32: config.tf32,
            cudnn_benchmark: config.cudnn_benchmark,
        });
        let runtime = runtime.map_err(|error| {
            let hint = error.hint();
            Failure::environment(error).hint(hint)
        })?;
        let residency = residency::choose(config, context, &inputs, &runtime)?;
        let saving = Saving { checkpoints, threads };
        let trainer = prepare(config, context, (base, residency), &inputs, runtime, saving);
        let mut trainer = trainer.map_err(Error::into_failure)?;
        if let Some(checkpoint) = &checkpoint {
            trainer.restore(checkpoint).map_err(Error::into_failure)?;
            context.info(format!("goes on from the checkpoint behind step {}", checkpoint.progress.updates));
        }
        trainer.train()?;
        finish(&trainer).map_err(Error::into_failure)
    }
}

/// The checkpoint to go on from. One of another kind of device would end with bytes that neither kind can reproduce.
fn find_checkpoint(checkpoints: &Checkpoints, context: &Context) -> Result<Option<Checkpoint>, Error> {
    let found = checkpoints.latest()?;
    for (name, reason) in found.damaged {
        context.warn(format!("{name} is damaged ({reason}); the one before it is taken"));
    }
    let device = if context.gpus() == 0 { "cpu" } else { "cuda" };
    match found.checkpoint {
        Some(checkpoint) if checkpoint.progress.device != device => {
            context.warn(format!(
                "the checkpoint behind step {} was computed on {}, this run computes on {device}; starts over",
                checkpoint.progress.updates, checkpoint.progress.device
            ));
            checkpoints.clear()?;
            Ok(None)
        }
        found => Ok(found),
    }
}

fn prepare<'a>(
    config: &'a Config,
    context: &'a Context,
    (base, residency): (&Path, Residency),
    inputs: &'a Inputs,
    runtime: Runtime,
    saving: Saving,
) -> Result<Trainer<'a>, Error> {
    let lora = lora_config(&config.lora);
    let options = ModelOptions {
        lora: lora.clone(),
        precision: match (config.bf16, config.fp16) {
            (true, _) => Precision::Bf16,
            (_, true) => Precision::Fp16,
            _ => Precision::Fp32,
        },
        load_in_8bit: config.load_in_8bit,
        device: runtime.device(),
        neftune_noise_alpha: config.neftune_noise_alpha,
        residency,
        seed: u64::from(config.seed),
    };
    let mut model = Model::load(base, &options)?;
    if let Some(folder) = context.optional_input("adapter") {
        let adapter = SavedAdapter::open(folder)?;
        adapter.check(&lora)?;
        let tied = model.tied();
        adapter.load_into(model.parameters_mut(), tied)?;
    }
    let optimizer = AdamW::new(
        AdamWOptions {
            beta1: config.adam_beta1,
            beta2: config.adam_beta2,
            epsilon: config.adam_epsilon,
            weight_decay: config.weight_decay,
            max_grad_norm: config.max_grad_norm,
            states: if config.optim.has_8bit_states() { States::EightBit } else { States::Float32 },
            scales_loss: config.fp16,
        },
        model.trained(),
    )?;
    let sampler = Sampler::new(inputs.samples.len(), config.samples_per_update(), config.order())?;
    let total = config.updates(&sampler);
    let prompts = if config.prompts.is_empty() { None } else { Some(Prompts::encode(Prompter::load(base)?, config)?) };
    Ok(Trainer {
        config,
        context,
        runtime,
        model,
        optimizer,
        schedule: schedule(config, total),
        sampler,
        samples: &inputs.samples,
        evaluation: Evaluation::new(config, inputs.held_out.as_ref(), prompts),
        saving,
        total,
        history: Vec::new(),
        in_flight: None,
        speed: Speed::default(),
    })
}

fn schedule(config: &Config, total: u64) -> Schedule {
    let decay = match config.lr_scheduler_type {
        LrSchedulerType::Linear => Decay::Linear,
        LrSchedulerType::Cosine => Decay::Cosine,
    };
    let warm_up = match config.warmup_ratio {
        Some(ratio) => WarmUp::Ratio(ratio),
        None => WarmUp::Steps(config.warmup_steps.unwrap_or(0)),
    };
    Schedule::new(decay, config.learning_rate, warm_up, total)
}

fn lora_config(lora: &Lora) -> LoraConfig {
    LoraConfig {
        r: to_usize(lora.r),
        lora_alpha: lora.lora_alpha,
        target_modules: lora.target_modules.clone(),
        lora_dropout: lora.lora_dropout,
        use_rslora: lora.use_rslora,
        modules_to_save: lora.modules_to_save.clone(),
    }
}

/// Writes the artifact, and reports its figures.
fn finish(trainer: &Trainer<'_>) -> Result<(), Error> {
    let (context, config) = (trainer.context, trainer.config);
    // Every other update is judged by the loss of the one that follows it.
    if let Some(name) = find_not_finite(trainer.model.parameters())? {
        return Err(Error::WeightsNotFinite { step: trainer.total, name: name.to_owned() });
    }
    if config.fp16 && trainer.optimizer.applied() == 0 {
        return Err(Error::AllSkipped { updates: trainer.total });
    }
    let output = context.output();
    // The base is known by its digest, in the key; its folder on this machine is nobody's business.
    save_adapter(&output, trainer.model.parameters(), &lora_config(&config.lora), trainer.model.tied(), None)?;
    let unwritable = |file| move |source| Error::Record { file, source };
    let metrics = to_lines(&trainer.history).map_err(unwritable(METRICS_FILE))?;
    write(&output.join(METRICS_FILE), &metrics)?;
    for (name, bytes) in trainer.evaluation.files()? {
        write(&output.join(name), &bytes)?;
    }
    let summary = Summary {
        pipe: env!("CARGO_PKG_VERSION"),
        updates: trainer.total,
        samples: trainer.samples.len(),
        tokens: trainer.history.iter().map(|record| record.tokens).sum(),
        trained_values: trainer.model.parameters().iter().map(|parameter| parameter.count()).sum(),
        config: config.semantic().map_err(unwritable(SUMMARY_FILE))?,
    };
    let mut text = serde_json::to_vec_pretty(&summary).map_err(unwritable(SUMMARY_FILE))?;
    text.push(b'\n');
    write(&output.join(SUMMARY_FILE), &text)?;

    // What was learned comes first: a list has room for a few.
    if let Some(last) = trainer.history.last() {
        context.figure("final_loss", last.loss);
    }
    if let [first, .., last] = trainer.evaluation.losses() {
        context.figure("eval_loss_before", first.loss);
        context.figure("eval_loss_after", last.loss);
    }
    context.figure("updates", summary.updates);
    if config.fp16 {
        context.figure("skipped_updates", summary.updates - trainer.optimizer.applied());
    }
    context.figure("tokens", summary.tokens);
    context.figure("trained_values", summary.trained_values);
    for (name, value) in trainer.speed.figures().into_iter().chain(trainer.runtime.memory()) {
        context.figure(name, value);
    }
    Ok(())
}

fn to_usize(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
