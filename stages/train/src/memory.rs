//! How much of a GPU's memory a run takes, from its configuration, the shape of the base, and its samples.

mod foresee;
mod largest;

use pipe_hf::ModelConfig;
use pipe_memory::{
    BaseFormat, Compute, DoesNotFit, Plan, Run, States, Trained, Workload, allocator_budget, gigabytes, with_reserve,
};
use pipe_stage::{MemoryPart, MemoryRefusal, MemoryReport};

use crate::Config;

pub(crate) use foresee::foresee;
#[cfg(feature = "torch")]
pub(crate) use largest::largest;

/// How the linear layers of a base lie in memory.
pub(crate) fn base_format(config: &Config, base: &ModelConfig) -> BaseFormat {
    match &base.quantization {
        Some(quantization) => BaseFormat::Nf4 { double_quant: quantization.double_quant },
        None if config.load_in_8bit => BaseFormat::Int8,
        None => BaseFormat::Dense,
    }
}

/// What the plan must know.
pub(crate) fn workload(config: &Config, model: ModelConfig, base: BaseFormat, run: Run) -> Workload {
    let compute = match (config.bf16, config.fp16) {
        (true, _) => Compute::Bfloat16,
        (false, true) => Compute::Float16,
        (false, false) => Compute::Float32,
    };
    let states = if config.optim.has_8bit_states() { States::EightBit } else { States::Float32 };
    Workload {
        model,
        base,
        compute,
        trained: Trained {
            rank: config.lora.r,
            target_modules: config.lora.target_modules.clone(),
            modules_to_save: config.lora.modules_to_save.clone(),
        },
        states,
        neftune: config.neftune_noise_alpha.is_some(),
        run,
    }
}

/// The plan for a process that may take `limit_bytes`, or for memory without end.
pub(crate) fn plan(config: &Config, workload: &Workload, limit_bytes: Option<u64>) -> Result<Plan, Box<DoesNotFit>> {
    match limit_bytes {
        Some(limit) => Plan::choose(workload, allocator_budget(limit), config.gradient_checkpointing),
        None => Ok(Plan::unbounded(workload, config.gradient_checkpointing)),
    }
}

/// What is told of a plan.
pub(crate) fn report(
    planned: &Result<Plan, Box<DoesNotFit>>,
    run: Run,
    limit_bytes: Option<u64>,
    supposed: Option<String>,
) -> MemoryReport {
    let plan = match planned {
        Ok(plan) => plan,
        Err(refused) => &refused.smallest,
    };
    let part = |name: String, bytes: u64| MemoryPart { name, bytes };
    let process_bytes = with_reserve(plan.peak_bytes);
    let refusal = planned.as_ref().err().map(|refused| MemoryRefusal {
        message: format!(
            "training takes at least {} of GPU memory, CUDA's own included, and there are {}",
            gigabytes(process_bytes),
            gigabytes(limit_bytes.unwrap_or(refused.budget_bytes))
        ),
        hint: refused.hint(),
    });
    MemoryReport {
        peak_bytes: plan.peak_bytes,
        peak_in: plan.phase.to_string(),
        components: plan.components.iter().map(|(name, bytes)| part(name.to_string(), *bytes)).collect(),
        phases: plan.phases.iter().map(|(name, bytes)| part(name.to_string(), *bytes)).collect(),
        process_bytes,
        limit_bytes,
        notes: [largest_pass(run)].into_iter().chain(supposed).chain(choices(plan)).collect(),
        refusal,
    }
}

fn largest_pass(run: Run) -> String {
    let pass = run.pass;
    let mut text = format!("largest pass: {} tokens, {} of them predicted", pass.tokens, pass.labels);
    if run.update_labels > pass.labels {
        text += &format!("; largest update: {} predicted", run.update_labels);
    }
    if let Some(evaluation) = run.evaluation {
        text += &format!("; largest pass of an evaluation: {}", evaluation.tokens);
    }
    text
}

/// What was chosen, in words.
fn choices(plan: &Plan) -> Vec<String> {
    let (residency, layers) = (plan.residency, plan.layers);
    let mut notes = vec![match layers.saturating_sub(residency.kept_layers) {
        0 => format!("all {layers} layers keep their activations"),
        again if again == layers => format!("all {layers} layers keep their input only, and are computed again"),
        again => format!("{} of {layers} layers keep their activations; {again} are computed again", layers - again),
    }];
    if residency.kept_layers < layers {
        notes.push(match residency.keep_unpacked {
            true => "the weights of a layer that is computed again stay unpacked until its backward pass".to_owned(),
            false => "the weights of a layer that is computed again are unpacked twice".to_owned(),
        });
        if residency.inputs_on_host {
            notes.push("the inputs of layers wait in the memory of the host".to_owned());
        }
    }
    if residency.embedding_on_host {
        notes.push("the embedding stays in the memory of the host".to_owned());
    }
    notes
}
