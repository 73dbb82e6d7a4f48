//! The same before the stage runs: of inputs that may still have to be made, without a GPU and without libtorch.

use std::path::Path;

use pipe_hf::{CONFIG_FILE, ModelConfig};
use pipe_memory::{BaseFormat, Pass, Run};
use pipe_samples::{Lengths, Samples};
use pipe_stage::{Foreseen, MemoryQuery, MemoryReport};
use serde_json::Value;

use super::{base_format, largest::largest, plan, report, workload};
use crate::Config;

/// Kinds that make no sample longer than those they take.
const LENGTH_KEPT: [&str; 2] = ["filter", "split"];

/// What a stage takes, as far as it is known.
///
/// # Errors
/// If the shape of the base is not known, with the command that makes it.
pub(crate) fn foresee(config: &Config, query: &MemoryQuery) -> Result<MemoryReport, String> {
    let base = query.inputs.get("base").ok_or("the stage has no base")?;
    let (model, base) = shape(config, base, query)?;
    let (run, supposed) = samples(config, query, model.vocab_size)?;
    let limit_bytes = config.memory_limit_bytes().into_iter().chain(query.device_bytes).min();
    let planned = plan(config, &workload(config, model, base, run), limit_bytes);
    Ok(report(&planned, run, limit_bytes, supposed))
}

/// The shape of the base, and how its linear layers will lie in memory.
fn shape(config: &Config, base: &Foreseen, query: &MemoryQuery) -> Result<(ModelConfig, BaseFormat), String> {
    let unknown = || {
        format!(
            "the shape of the base is not known before `{}` is made: `{} --until {}`",
            base.stage, query.run, base.stage
        )
    };
    // From what is there, or from what the first stage of the chain will make.
    let first = if base.folder.is_some() { "download" } else { "init_model" };
    if base.through.iter().any(|(kind, _)| *kind != "quantize" && *kind != first) {
        return Err(unknown());
    }
    let model = match (&base.folder, &base.model) {
        (Some(folder), _) if folder.join(CONFIG_FILE).is_file() => ModelConfig::open(folder).map_err(with_causes)?,
        (None, Some(fields)) => {
            ModelConfig::from_object(Path::new(CONFIG_FILE), fields.clone()).map_err(with_causes)?
        }
        _ => return Err(unknown()),
    };
    let quantize = base.through.iter().find(|(kind, _)| *kind == "quantize");
    let format = match quantize {
        Some((_, fields)) => BaseFormat::Nf4 {
            double_quant: fields.get("bnb_4bit_use_double_quant").and_then(Value::as_bool).unwrap_or(false),
        },
        None => base_format(config, &model),
    };
    Ok((model, format))
}

/// The largest pass, and what was supposed where the samples are not there.
fn samples(config: &Config, query: &MemoryQuery, vocab_size: usize) -> Result<(Run, Option<String>), String> {
    let there = |name: &str| match query.inputs.get(name) {
        Some(Foreseen { folder: Some(folder), through, .. }) if through.is_empty() => {
            Samples::load(folder).map(Some).map_err(with_causes)
        }
        _ => Ok(None),
    };
    let (train, held_out) = (there("samples")?, there("eval")?);
    let evaluates = query.inputs.contains_key("eval");
    if let Some(samples) = &train
        && (held_out.is_some() || !evaluates)
    {
        let run = largest(config, samples, held_out.as_ref(), vocab_size).map_err(with_causes)?;
        return Ok((run, None));
    }
    let longest = query.inputs.get("samples").and_then(longest);
    let update = longest.map(|longest| longest.saturating_mul(config.samples_per_update()));
    // A sample that is longer than a pass should be runs whole.
    let most = longest.map_or(config.max_tokens_per_pass, |longest| config.max_tokens_per_pass.max(longest));
    let tokens = update.map_or(most, |update| update.min(most));
    let pass = |tokens: u64| Pass {
        tokens,
        labels: tokens,
        longest: longest.unwrap_or(tokens).min(tokens),
        samples: tokens.div_ceil(longest.unwrap_or(tokens).max(1)),
    };
    let update_labels = update.unwrap_or(tokens).max(tokens);
    let run = Run {
        pass: pass(tokens),
        update_labels,
        distinct_tokens: update_labels.min(vocab_size as u64),
        evaluation: evaluates.then(|| pass(most)),
    };
    let supposed =
        "an upper bound: the samples are not made yet, and passes as large as the settings allow are supposed";
    Ok((run, Some(supposed.to_owned())))
}

/// Tokens of the longest sample that may come.
fn longest(samples: &Foreseen) -> Option<u64> {
    let tokenize = samples.through.iter().position(|(kind, _)| *kind == "tokenize");
    let (behind, fields) = match tokenize {
        Some(at) => (&samples.through[..at], samples.through.get(at).map(|(_, fields)| fields)),
        None => (&samples.through[..], None),
    };
    if behind.iter().any(|(kind, _)| !LENGTH_KEPT.contains(kind)) {
        return None;
    }
    match fields {
        Some(fields) => fields.get("max_length")?.as_u64(),
        None => Lengths::open(samples.folder.as_deref()?).ok()?.filter_map(Result::ok).max().map(u64::from),
    }
}

fn with_causes(error: impl std::error::Error + 'static) -> String {
    pipe_stage::chain(&error).join(": ")
}
