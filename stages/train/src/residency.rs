//! Chooses, before anything is loaded, what stays in the memory of the GPU, and refuses a run that cannot fit.

use pipe_memory::{Residency, reserved_budget};
use pipe_nn::runtime::Runtime;
use pipe_stage::{Context, Failure};

use crate::{Config, error::Error, inputs::Inputs, memory};

/// What stays where. Tells the plan.
pub(crate) fn choose(
    config: &Config,
    context: &Context,
    inputs: &Inputs,
    runtime: &Runtime,
) -> Result<Residency, Failure> {
    let base = &inputs.base;
    if !runtime.device().is_cuda() {
        if let Some(limit) = &config.memory_limit {
            context.info(format!("`memory_limit: {limit}` is for GPUs; the CPU has no limit"));
        }
        return Ok(Residency::unbounded(config.gradient_checkpointing));
    }
    let card = runtime.card();
    if card.is_none() {
        context.warn("the driver does not say how much memory the card has (NVML): only `memory_limit` is looked at");
    }
    let free_bytes = card.map(|card| card.total_bytes.saturating_sub(card.others_bytes));
    let limit_bytes = config.memory_limit_bytes().into_iter().chain(free_bytes).min();
    let run = memory::largest(config, &inputs.samples, inputs.held_out.as_ref(), base.vocab_size)
        .map_err(|error| Error::from(error).into_failure())?;
    let workload = memory::workload(config, base.clone(), memory::base_format(config, base), run);
    let planned = memory::plan(config, &workload, limit_bytes);
    let report = memory::report(&planned, run, limit_bytes, None);
    report.lines().into_iter().for_each(|line| context.info(line));
    match (planned, report.refusal) {
        (Ok(plan), _) => {
            if let (Some(limit), Some(card)) = (config.memory_limit_bytes(), card) {
                runtime.limit_memory(card, reserved_budget(limit)).map_err(Failure::environment)?;
            }
            Ok(plan.residency)
        }
        (Err(_), Some(refusal)) => Err(Failure::environment(refusal.message).hint(refusal.hint)),
        (Err(refused), None) => Err(Failure::environment(*refused)),
    }
}
