//! What stays on the device for the whole run: weights, trained tensors, optimizer states.

use pipe_hf::{Dtype, Role};

use crate::{
    BaseFormat, Component, Compute, Phase, States, Workload,
    ledger::Ledger,
    workload::{NESTED_BLOCK, NF4_BLOCK},
};

/// Every matrix begins at a multiple of this many values of the flat tensors: `ALIGNMENT` of `parameter.rs`.
const ALIGNMENT: u64 = 256;
/// Values that share a scale of 8-bit states.
const STATE_BLOCK: u64 = 256;
/// What a product may use beside its operands: `WORKSPACE_BYTES` of `cublas.rs`, and as much of libtorch's own cuBLAS.
const WORKSPACE: u64 = 8 << 20;

/// Reads the base and makes what is trained, in the order of `Model::load` and `AdamW::new`.
pub(crate) fn load(workload: &Workload, embedding_on_host: bool, ledger: &mut Ledger) {
    ledger.enter(Phase::Loading);
    let values = workload.vocabulary() * workload.width();
    if workload.trains_embedding() {
        trained_table(workload, values, ledger);
    } else if !embedding_on_host {
        frozen_table(workload, values, true, ledger);
    }
    for parameter in workload.model.parameters() {
        let shape: Vec<u64> = parameter.shape.iter().map(|side| *side as u64).collect();
        match (parameter.role, shape.as_slice()) {
            (Role::Linear, &[outputs, width]) => linear(workload, &parameter.name, [outputs, width], ledger),
            (Role::Norm, &[width]) => ledger.keep(Component::FrozenWeights, width * 4),
            (Role::Bias, &[width]) => ledger.keep(Component::FrozenWeights, width * workload.compute.bytes()),
            _ => {}
        }
    }
    if !workload.tied() {
        match workload.trains_head() {
            true => trained_table(workload, values, ledger),
            false => frozen_table(workload, values, false, ledger),
        }
    }
    let adapters = adapter_values(workload);
    // Each alone, with its gradient, before they are put into the flat tensors.
    ledger.touch(Component::Adapters, 4 * adapters);
    ledger.keep(Component::Adapters, 4 * adapters);
    ledger.keep(Component::Gradients, 4 * adapters);
    states(workload, adapters, ledger);
    let tables = [workload.trains_embedding(), !workload.tied() && workload.trains_head()];
    for _ in tables.into_iter().filter(|trained| *trained) {
        states(workload, values, ledger);
    }
    ledger.keep(Component::Workspace, WORKSPACE);
}

/// `loader.master` gives float32; in bfloat16 it is split into halves, which take as much again until it is dropped.
fn trained_table(workload: &Workload, values: u64, ledger: &mut Ledger) {
    let whole = ledger.hold(Component::TrainedTables, 4 * values);
    if stored_bytes(workload) != 4 {
        ledger.touch(Component::TrainedTables, stored_bytes(workload) * values);
    }
    if workload.compute == Compute::Bfloat16 {
        ledger.keep(Component::TrainedTables, 2 * values);
        ledger.keep(Component::TrainedTables, 2 * values);
        ledger.free([whole]);
    }
}

fn frozen_table(workload: &Workload, values: u64, rows_are_read: bool, ledger: &mut Ledger) {
    let bytes = workload.table_bytes(rows_are_read);
    ledger.keep(Component::FrozenTables, bytes * values);
    if bytes != stored_bytes(workload) {
        ledger.touch(Component::FrozenTables, stored_bytes(workload) * values);
    }
}

/// Bytes of a value in the file.
fn stored_bytes(workload: &Workload) -> u64 {
    if workload.model.dtype == Some(Dtype::F32) { 4 } else { 2 }
}

/// `loader.linear`.
fn linear(workload: &Workload, name: &str, [outputs, width]: [u64; 2], ledger: &mut Ledger) {
    let values = outputs * width;
    let module = name.strip_suffix(".weight").unwrap_or(name);
    let mut keep = |bytes| ledger.keep(Component::FrozenWeights, bytes);
    match workload.format(module) {
        BaseFormat::Dense => keep(values * workload.compute.bytes()),
        BaseFormat::Int8 => [values, 4 * outputs].into_iter().for_each(keep),
        BaseFormat::Nf4 { double_quant } => {
            let scales = values.div_ceil(NF4_BLOCK);
            keep(values.div_ceil(2));
            match double_quant {
                false => keep(4 * scales),
                // The codes of the scales, their map, and their scales.
                true => [scales, 4 * 256, 4 * scales.div_ceil(NESTED_BLOCK)].into_iter().for_each(keep),
            }
        }
    }
}

/// Values of the flat tensor of all adapters.
fn adapter_values(workload: &Workload) -> u64 {
    let rank = workload.trained.rank;
    let aligned = |values: u64| values.next_multiple_of(ALIGNMENT);
    let of = |parameter: &pipe_hf::Parameter| {
        let module = parameter.name.strip_suffix(".weight")?.rsplit('.').next()?;
        let adapted = workload.trained.target_modules.iter().any(|name| name == module);
        match parameter.shape.as_slice() {
            &[outputs, width] if adapted => Some(aligned(rank * width as u64) + aligned(outputs as u64 * rank)),
            _ => None,
        }
    };
    workload.model.parameters().iter().filter_map(of).sum()
}

/// `Moments`.
fn states(workload: &Workload, values: u64, ledger: &mut Ledger) {
    match workload.states {
        States::Float32 => {
            ledger.keep(Component::OptimizerStates, 4 * values);
            ledger.keep(Component::OptimizerStates, 4 * values);
        }
        States::EightBit => {
            for bytes in [values, values, 4 * values.div_ceil(STATE_BLOCK), 4 * values.div_ceil(STATE_BLOCK), 2048] {
                ledger.keep(Component::OptimizerStates, bytes);
            }
        }
    }
}
