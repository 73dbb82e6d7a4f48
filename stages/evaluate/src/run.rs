//! The work of an `evaluate` stage.

use std::path::Path;

use pipe_nn::{
    LoraConfig, Model, ModelOptions, Precision, Residency, Sample,
    adapter::SavedAdapter,
    passes::{HeldOut, held_out_loss},
    runtime::{Runtime, RuntimeOptions},
};
use pipe_samples::Samples;
use pipe_stage::{Context, Failure, Stage};
use pipe_text::Prompter;
use serde::Serialize;

use crate::{Config, Evaluate, error::Error};

/// Threads where the pipeline does not say.
const DEFAULT_THREADS: usize = 2;
const REPORT_FILE: &str = "report.json";
const PER_SAMPLE_FILE: &str = "per_sample.jsonl";
const ANSWERS_FILE: &str = "answers.jsonl";

/// `report.json`. The export stage shows it in the model card.
#[derive(Serialize)]
struct Report {
    /// Whether an adapter was on the base.
    adapter: bool,
    /// Whether it was computed in bfloat16.
    bf16: bool,
    /// Samples with a label.
    samples: u64,
    /// Labels.
    tokens: u64,
    /// Nats a label, over all labels of all samples.
    loss: f64,
    /// `exp(loss)`
    perplexity: f64,
}

/// A line of `per_sample.jsonl`.
#[derive(Serialize)]
struct SampleReport {
    /// Counted from 0.
    row: u64,
    /// Labels.
    tokens: u64,
    /// Nats a label, over the sample.
    loss: f64,
}

/// A line of `answers.jsonl`.
#[derive(Serialize)]
struct Answer<'a> {
    prompt: &'a str,
    answer: String,
    tokens: usize,
}

impl Stage for Evaluate {
    fn run(config: &Config, context: &Context) -> Result<(), Failure> {
        let (base, samples) = (context.input("base")?, context.input("samples")?);
        let runtime = Runtime::start(RuntimeOptions {
            gpus: context.gpus(),
            threads: context.cpus().unwrap_or(DEFAULT_THREADS),
            tf32: config.tf32,
            cudnn_benchmark: false,
        });
        let runtime = runtime.map_err(|error| {
            let hint = error.hint();
            Failure::environment(error).hint(hint)
        })?;
        match evaluate(config, context, base, samples, &runtime) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Failure::cancelled()),
            Err(Error::Model(error)) if error.is_out_of_memory() => {
                Err(Failure::environment(error).hint("lower `max_tokens_per_pass`"))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Does the work; false if it was asked to stop.
fn evaluate(config: &Config, context: &Context, base: &Path, samples: &Path, runtime: &Runtime) -> Result<bool, Error> {
    let samples = Samples::load(samples)?;
    let model = load_model(config, context, base, runtime)?;
    let Some(measured) = measure(config, context, &model, &samples)? else { return Ok(false) };
    let (Some(loss), Some(perplexity)) = (measured.loss(), measured.perplexity()) else {
        return Err(Error::NoLabels { samples: samples.len() });
    };
    if !loss.is_finite() {
        let broken = measured.per_sample.iter().find(|sample| !sample.sum_nll.is_finite());
        return Err(Error::NotFinite { loss, row: broken.map_or(0, |sample| sample.row) });
    }
    let report = Report {
        adapter: context.optional_input("adapter").is_some(),
        bf16: config.bf16,
        samples: measured.samples,
        tokens: measured.labels,
        loss,
        perplexity,
    };
    let output = context.output();
    let mut text = serde_json::to_vec_pretty(&report)?;
    text.push(b'\n');
    write(&output.join(REPORT_FILE), &text)?;
    if config.per_sample {
        let lines = measured.per_sample.iter().map(|sample| SampleReport {
            row: sample.row,
            tokens: sample.labels,
            loss: sample.sum_nll / sample.labels.max(1) as f64,
        });
        write_lines(&output.join(PER_SAMPLE_FILE), lines)?;
    }
    if !config.prompts.is_empty() {
        let Some(answers) = answer(config, context, &model, base)? else { return Ok(false) };
        write_lines(&output.join(ANSWERS_FILE), answers.into_iter())?;
    }
    context.figure("loss", report.loss);
    context.figure("perplexity", report.perplexity);
    context.figure("samples", report.samples);
    context.figure("tokens", report.tokens);
    for (name, value) in runtime.memory() {
        context.figure(name, value);
    }
    Ok(true)
}

fn load_model(config: &Config, context: &Context, base: &Path, runtime: &Runtime) -> Result<Model, Error> {
    let adapter = context.optional_input("adapter").map(SavedAdapter::open).transpose()?;
    let options = ModelOptions {
        lora: adapter.as_ref().map_or_else(LoraConfig::default, |adapter| adapter.lora().clone()),
        precision: if config.bf16 { Precision::Bf16 } else { Precision::Fp32 },
        load_in_8bit: config.load_in_8bit,
        device: runtime.device(),
        neftune_noise_alpha: None,
        residency: Residency::unbounded(false),
        seed: 0,
    };
    let mut model = Model::load(base, &options)?;
    if let Some(adapter) = adapter {
        let tied = model.tied();
        adapter.load_into(model.parameters_mut(), tied)?;
    }
    Ok(model)
}

fn measure(config: &Config, context: &Context, model: &Model, samples: &Samples) -> Result<Option<HeldOut>, Error> {
    let total = samples.iter().filter(|sample| sample.trained() > 0).count() as u64;
    context.progress("samples", 0, Some(total));
    let rows = samples.iter().zip(0..);
    let rows = rows.map(|(sample, row)| Sample { ids: sample.input_ids, labels: sample.labels, place: 0, row });
    let go_on = |done| {
        context.progress("samples", done, Some(total));
        !context.cancelled()
    };
    Ok(held_out_loss(model, rows, config.max_tokens_per_pass, go_on)?)
}

/// Greedy answers; `None` if it was asked to stop.
fn answer<'a>(
    config: &'a Config,
    context: &Context,
    model: &Model,
    base: &Path,
) -> Result<Option<Vec<Answer<'a>>>, Error> {
    let prompter = Prompter::load(base)?;
    let most = usize::try_from(config.max_new_tokens).unwrap_or(usize::MAX);
    let mut answers = Vec::new();
    for prompt in &config.prompts {
        if context.cancelled() {
            return Ok(None);
        }
        let ids = model.generate(&prompter.encode(prompt)?, most, prompter.end_ids())?;
        answers.push(Answer { prompt, answer: prompter.decode(&ids)?, tokens: ids.len() });
    }
    Ok(Some(answers))
}

fn write_lines<T: Serialize>(path: &Path, records: impl Iterator<Item = T>) -> Result<(), Error> {
    let mut lines = Vec::new();
    for record in records {
        serde_json::to_writer(&mut lines, &record)?;
        lines.push(b'\n');
    }
    write(path, &lines)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    std::fs::write(path, bytes).map_err(|source| Error::Write { path: path.to_owned(), source })
}
