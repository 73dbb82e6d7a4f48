//! The frozen weights of a group of projections as one matrix, with the columns of adapters and biases behind them.

mod int8;
mod nf4;
mod quantise;
#[cfg(test)]
mod tests;

use tch::{Device, Kind, TchError, Tensor};

pub use self::{
    int8::{Int8, quantise_int8},
    nf4::{Nf4, Scales},
    quantise::{Quantised, quantise_nf4},
};
use super::{Adapter, Layout, check::Check};
use crate::{
    Error,
    element::master,
    launch::Launch,
    nvrtc::{Source, source},
};

pub(crate) const SOURCE: Source = source!("weight");

/// Projections of a group at most.
const MOST_PARTS: usize = 3;
/// Threads of a block of the fast path, and the groups of 8 values that it unpacks.
const THREADS: i64 = 128;
const BLOCK_EIGHTS: i64 = 512;

/// A frozen weight.
#[derive(Debug)]
pub enum Weight {
    /// `[O, I]`, type of the computation, contiguous.
    Dense(Tensor),
    /// Packed in 4 bits.
    Nf4(Nf4),
    /// In 8 bits, a scale a row.
    Int8(Int8),
}

impl Weight {
    /// `[O, I]`
    ///
    /// A dense weight that is no matrix is `[0, 0]`, which [`materialise`] refuses.
    pub fn shape(&self) -> [i64; 2] {
        match self {
            Self::Dense(weight) => weight.size2().map_or([0, 0], |(rows, width)| [rows, width]),
            Self::Nf4(weight) => weight.shape,
            Self::Int8(weight) => weight.shape(),
        }
    }

    fn device(&self) -> Device {
        match self {
            Self::Dense(weight) => weight.device(),
            Self::Nf4(weight) => weight.codes.device(),
            Self::Int8(weight) => weight.codes.device(),
        }
    }
}

/// Unpacks the weights of a group of projections that share an input into the augmented weight of [`Layout`], in
/// `kind`: one below the other, behind them B of each adapter in the rows of its part, the column of biases, and zeros
/// elsewhere. A value of NF4 is a product in float32, rounded once more to `kind`: bit for bit that of `pipe_nf4`. A
/// value of 8 bits is a code times a scale in float32, `absmax * (1 / 127)`, rounded in the same way, as bitsandbytes'
/// backward pass has it.
///
/// A group of one dense weight without further columns is that weight itself, not a copy: treat the result as constant.
///
/// # Shapes
/// `parts`: one to three of `[O, I]`, `I` the layout's width. `biases`: `[O]` each, of `kind` or master type; none at
/// all if the slice is empty. The result is `[sum of O, layout.columns]`.
///
/// # Errors
/// If the operands do not fit each other or the layout, or the device refuses.
///
/// # Source
/// The scales of NF4: Dettmers et al., QLoRA, arXiv:2305.14314.
pub fn materialise(
    parts: &[&Weight],
    biases: &[Option<&Tensor>],
    layout: &Layout,
    adapters: &[Adapter<'_>],
    kind: Kind,
) -> Result<Tensor, Error> {
    let device = parts.first().map_or(Device::Cpu, |part| part.device());
    let check = Check { kernel: "weight", device };
    check_operands(&check, parts, biases, layout, adapters, kind)?;
    if let ([Weight::Dense(weight)], 0) = (parts, layout.extra()) {
        return Ok(weight.shallow_clone());
    }
    let rows: i64 = parts.iter().map(|part| part.shape()[0]).sum();
    if !device.is_cuda() {
        return Ok(reference(parts, biases, layout, adapters, rows, kind)?);
    }
    let out = Tensor::f_empty([rows, layout.columns], (kind, device))?;
    let fast = layout.width % 8 == 0 && layout.columns % 8 == 0 && parts.iter().all(|part| takes_fast_path(part));
    let (words, grid) = group_words(parts, biases, layout, adapters, kind, fast);
    let name = if fast { "weight" } else { "weight_plain" };
    let launch = Launch::new(&SOURCE, name, kind, device)?.structure(&words).tensor(&out);
    if fast {
        launch.run(grid, THREADS as u32, 0)?;
    } else {
        launch.run([rows as u32, (layout.columns as u32).div_ceil(256), 1], 256, 0)?;
    }
    Ok(out)
}

/// Whether eight values have one scale, and can be loaded at once.
fn takes_fast_path(part: &Weight) -> bool {
    match part {
        Weight::Dense(weight) => (weight.data_ptr() as usize).is_multiple_of(16),
        Weight::Nf4(weight) => {
            weight.block >= 64 && weight.block.count_ones() == 1 && (weight.codes.data_ptr() as usize).is_multiple_of(4)
        }
        Weight::Int8(weight) => (weight.codes.data_ptr() as usize).is_multiple_of(8),
    }
}

/// `Group` of the CUDA source, and the grid of the fast path.
fn group_words(
    parts: &[&Weight],
    biases: &[Option<&Tensor>],
    layout: &Layout,
    adapters: &[Adapter<'_>],
    kind: Kind,
    fast: bool,
) -> (Vec<u64>, [u32; 3]) {
    let address = |tensor: Option<&Tensor>| tensor.map_or(0, |tensor| tensor.data_ptr() as u64);
    // Two members of 32 bits; the first is the lower half.
    let pair = |first: i64, second: i64| u64::from(first as u32) | u64::from(second as u32) << 32;
    let mut words = Vec::new();
    let (mut first_row, mut first_block) = (0, 0);
    for (number, part) in parts.iter().enumerate() {
        let (values, bits, block, scales) = match part {
            Weight::Dense(weight) => (weight, 0, 64, None),
            Weight::Nf4(weight) => (&weight.codes, 4, weight.block, Some(&weight.scales)),
            Weight::Int8(weight) => (&weight.codes, 8, 64, None),
        };
        let (scales, map, absmax, offset, nested_block) = match scales {
            None => (if let Weight::Int8(weight) = part { Some(&weight.absmax) } else { None }, None, None, 0.0, 1),
            Some(Scales::Plain(scales)) => (Some(scales), None, None, 0.0, 1),
            Some(Scales::Nested { codes, map, absmax, offset, block }) => {
                (Some(codes), Some(map), Some(absmax), *offset, *block)
            }
        };
        let place = layout.adapters.iter().position(|columns| columns.part == number);
        let adapter = place.and_then(|place| adapters.get(place).zip(layout.adapters.get(place)));
        let bias = biases.get(number).copied().flatten();
        let rows = part.shape()[0];
        words.extend([address(Some(values)), address(scales), address(map), address(absmax)]);
        words.extend([address(adapter.map(|(adapter, _)| adapter.b_OR)), address(bias)]);
        words.extend([
            pair(i64::from(offset.to_bits()), nested_block),
            pair(block, i64::from(block.trailing_zeros())),
            pair(rows, first_row),
            pair(first_block, adapter.map_or(0, |(_, columns)| columns.rank)),
            pair(
                adapter.map_or(0, |(_, columns)| columns.column),
                i64::from(bias.is_some_and(|bias| bias.kind() != kind)),
            ),
            pair(bits, 0),
        ]);
        first_row += rows;
        if fast {
            first_block += (rows * (layout.width / 8) + BLOCK_EIGHTS - 1) / BLOCK_EIGHTS;
        }
    }
    words.resize(MOST_PARTS * words.len() / parts.len(), 0);
    words.extend([
        pair(parts.len() as i64, first_block),
        pair(first_row, layout.bias.unwrap_or(-1)),
        pair(layout.width, layout.columns),
    ]);
    let extra_blocks = (first_row * (layout.extra() / 8) + THREADS - 1) / THREADS;
    (words, [(first_block + extra_blocks) as u32, 1, 1])
}

fn check_operands(
    check: &Check,
    parts: &[&Weight],
    biases: &[Option<&Tensor>],
    layout: &Layout,
    adapters: &[Adapter<'_>],
    kind: Kind,
) -> Result<(), Error> {
    let count = parts.len();
    check
        .require((1..=MOST_PARTS).contains(&count), || format!("a group has one to {MOST_PARTS} parts, not {count}"))?;
    check
        .require(biases.is_empty() || biases.len() == count, || format!("{} biases for {count} parts", biases.len()))?;
    for (number, part) in parts.iter().enumerate() {
        let [rows, width] = part.shape();
        // The kernels count groups of eight values, and scales, in 32 bits.
        let fits = rows > 0 && width == layout.width && rows < 1 << 28 && width < 1 << 28 && rows * width < 1 << 34;
        check.require(fits, || {
            format!("part {number} is {:?} in a layout of {} columns", [rows, width], layout.width)
        })?;
        match part {
            Weight::Dense(weight) => check.tensor("weight", weight, kind, &[rows, width])?,
            Weight::Nf4(weight) => check_nf4(check, weight)?,
            Weight::Int8(weight) => weight.check(check)?,
        }
        if let Some(bias) = biases.get(number).copied().flatten() {
            check.require(layout.bias.is_some(), || "a bias in a layout without a column for it".to_owned())?;
            let bias_kind = if bias.kind() == kind { kind } else { master(kind) };
            check.tensor("bias", bias, bias_kind, &[rows])?;
        }
    }
    let extra = layout.width..layout.columns;
    check.require(layout.columns < 1 << 28, || format!("{} columns are too many", layout.columns))?;
    check.require(layout.bias.is_none_or(|column| extra.contains(&column)), || "the bias is outside".to_owned())?;
    let expected = layout.adapters.len();
    check.require(adapters.len() == expected, || format!("{} adapters in a layout of {expected}", adapters.len()))?;
    for (number, (adapter, columns)) in adapters.iter().zip(&layout.adapters).enumerate() {
        let alone = layout.adapters.iter().filter(|other| other.part == columns.part).count() == 1;
        let inside = columns.column >= extra.start && columns.rank > 0 && columns.column + columns.rank <= extra.end;
        let part = parts.get(columns.part).filter(|_| alone && inside);
        let part = part.ok_or_else(|| check.wrong(format!("adapter {number} does not fit the layout")))?;
        check.tensor("b", adapter.b_OR, master(kind), &[part.shape()[0], columns.rank])?;
    }
    Ok(())
}

fn check_nf4(check: &Check, weight: &Nf4) -> Result<(), Error> {
    let (count, block) = (weight.shape[0] * weight.shape[1], weight.block);
    check.require(block >= 2 && block % 2 == 0 && block < 1 << 31, || format!("a scale for {block} values"))?;
    check.tensor("codes", &weight.codes, Kind::Uint8, &[(count + 1) / 2])?;
    let blocks = (count + block - 1) / block;
    match &weight.scales {
        Scales::Plain(scales) => check.tensor("scales", scales, Kind::Float, &[blocks]),
        Scales::Nested { codes, map, absmax, block, .. } => {
            check
                .require((1..1 << 31).contains(block) && blocks < 1 << 32, || format!("a scale for {block} scales"))?;
            check.tensor("codes of scales", codes, Kind::Uint8, &[blocks])?;
            check.tensor("map", map, Kind::Float, &[256])?;
            check.tensor("absmax", absmax, Kind::Float, &[(blocks + block - 1) / block])
        }
    }
}

fn reference(
    parts: &[&Weight],
    biases: &[Option<&Tensor>],
    layout: &Layout,
    adapters: &[Adapter<'_>],
    rows: i64,
    kind: Kind,
) -> Result<Tensor, TchError> {
    let unpack = |part: &Weight| match part {
        Weight::Dense(weight) => Ok(weight.shallow_clone()),
        Weight::Nf4(weight) => weight.reference(kind),
        Weight::Int8(weight) => weight.reference(kind),
    };
    if let ([part], 0) = (parts, layout.extra()) {
        return unpack(part);
    }
    let device = parts.first().map_or(Device::Cpu, |part| part.device());
    let out = Tensor::f_zeros([rows, layout.columns], (kind, device))?;
    let mut first_row = 0;
    for (number, part) in parts.iter().enumerate() {
        let own = out.f_narrow(0, first_row, part.shape()[0])?;
        own.f_narrow(1, 0, layout.width)?.f_copy_(&unpack(part)?)?;
        for (adapter, columns) in adapters.iter().zip(&layout.adapters).filter(|(_, columns)| columns.part == number) {
            own.f_narrow(1, columns.column, columns.rank)?.f_copy_(adapter.b_OR)?;
        }
        if let (Some(bias), Some(column)) = (biases.get(number).copied().flatten(), layout.bias) {
            own.f_select(1, column)?.f_copy_(bias)?;
        }
        first_row += part.shape()[0];
    }
    Ok(out)
}
