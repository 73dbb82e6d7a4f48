//! The format `gguf_adapter`: the adapter alone, for llama.cpp to add to a base while it runs.

use std::path::Path;

use pipe_gguf::{GgufReader, GgufTensor, GgufWriter, Layout, TensorType, adapter_metadata};
use pipe_hf::{Parameter, Role, beyond_float16};
use pipe_merge::{Merged, Pair};

use crate::{
    Error,
    card::{Rows, Section, adapter_rows},
};

/// The file of a folder.
pub(crate) const FILE: &str = "adapter.gguf";

/// Writes the factors of each adapted layer, as they are in float32 or rounded, and reads them back. Returns what the card
/// says.
pub(crate) fn write(
    merged: &Merged,
    name: &str,
    tensor_type: TensorType,
    folder: &Path,
    check: bool,
) -> Result<Vec<Section>, Error> {
    let Some(adapter) = merged.adapter() else { return Ok(Vec::new()) };
    if let Some(module) = adapter.saved().next() {
        return Err(Error::SavedModule { module: module.to_owned() });
    }
    let config = merged.config();
    let layout = Layout::new(config);
    let (settings, path) = (&adapter.settings, folder.join(FILE));
    let adapted = || {
        let parameters = merged.parameters().iter();
        parameters.filter(|one| matches!(one.role, Role::Linear | Role::Head) && adapter.adapts(module(one)))
    };
    let names = |parameter: &Parameter| {
        let name = layout.gguf_name(&parameter.name).unwrap_or_else(|| parameter.name.clone());
        (format!("{name}.lora_a"), format!("{name}.lora_b"))
    };
    let mut tensors = Vec::new();
    for parameter in adapted() {
        let (a, b) = names(parameter);
        tensors.push(GgufTensor { name: a, tensor_type, shape: vec![settings.r, parameter.shape[1]] });
        tensors.push(GgufTensor { name: b, tensor_type, shape: vec![parameter.shape[0], settings.r] });
    }
    let metadata = adapter_metadata(config, name, settings.r, settings.scale());
    let writer = GgufWriter::create(&path, &metadata, &tensors)?;
    let mut values = 0;
    let mut pairs = Vec::new();
    for parameter in adapted() {
        let Some(mut pair) = adapter.pair(module(parameter), parameter.shape[0], parameter.shape[1])? else { continue };
        interleave(&layout, parameter, &mut pair);
        values += (pair.a.len() + pair.b.len()) as u64;
        let (a, b) = names(parameter);
        for (name, values) in [(a, pair.a), (b, pair.b)] {
            if tensor_type == TensorType::F16
                && let Some(value) = beyond_float16(&values)
            {
                return Err(Error::TooLarge { tensor: name, value });
            }
            let bytes = tensor_type.encode(&values).unwrap_or_default();
            writer.write_range(&name, 0, &bytes)?;
            pairs.push((name, bytes));
        }
    }
    writer.finish()?;
    if check {
        let reader = GgufReader::open(&path)?;
        for (name, bytes) in &pairs {
            if reader.read_bytes(name)? != *bytes {
                let problem = format!("`{name}` does not hold what was written");
                return Err(Error::Check { format: "gguf_adapter", problem });
            }
        }
    }
    let mut rows: Rows = adapter_rows(settings);
    rows.push("tensors", tensors.len());
    rows.push("values", values);
    rows.push("type", tensor_type.name());
    Ok(vec![Section { title: "Adapter", rows }])
}

fn module(parameter: &Parameter) -> &str {
    parameter.name.strip_suffix(".weight").unwrap_or(&parameter.name)
}

/// Rows of the up projection are rows of the layer.
fn interleave(layout: &Layout, parameter: &Parameter, pair: &mut Pair) {
    if layout.keeps_rows(parameter) {
        return;
    }
    let mut moved = vec![0.0; pair.b.len()];
    for (row, values) in pair.b.chunks_exact(pair.r).enumerate() {
        let place = layout.gguf_row(parameter, row);
        moved[place * pair.r..][..pair.r].copy_from_slice(values);
    }
    pair.b = moved;
}
