//! Flash attention over packed samples, on CUDA in bfloat16 or float16.
//!
//! # Source
//! Dao, arXiv:2307.08691, as libtorch builds it in. With deterministic algorithms set its backward pass gives the same
//! bytes on every run.

use tch::{Device, Kind, Tensor};

use crate::{Error, shim};

/// The widest head that the kernel takes.
const MAX_HEAD_DIM: i64 = 256;

/// Where samples lie in a pass.
#[derive(Debug)]
pub struct Packing {
    /// The first row of each sample, and behind them the number of rows: int32 on the device, `[samples + 1]`.
    starts: Tensor,
    /// What a kernel of ours does in which order: `[items, 4]`, int32 on the device: the first row of a sample, its
    /// length, the number of a block of [`BLOCK_ROWS`] rows in it, and nothing. Blocks far down come first: they attend to
    /// the most, and what takes longest must begin first.
    pub(crate) items: Tensor,
    /// Of the samples, in their order.
    pub(crate) lengths: Vec<i64>,
    pub(crate) longest: i64,
    pub(crate) rows: i64,
}

/// Rows of a sample that a thread block of our kernel takes at once.
pub(crate) const BLOCK_ROWS: i32 = 64;

impl Packing {
    /// For samples of these lengths, one behind the other.
    ///
    /// # Errors
    /// If the device fails, or there are more rows than the kernel counts.
    pub fn new(lengths: &[usize], device: Device) -> Result<Self, Error> {
        let mut words = vec![0_i32];
        let mut blocks = Vec::new();
        let mut rows = 0_i32;
        for length in lengths {
            let (first, length) = (rows, i32::try_from(*length).ok());
            let end = length.and_then(|length| rows.checked_add(length));
            rows = end.ok_or_else(|| wrong("a pass has at most 2^31 - 1 rows".to_owned()))?;
            blocks
                .extend((0..(rows - first + BLOCK_ROWS - 1) / BLOCK_ROWS).map(|block| [first, rows - first, block, 0]));
            words.push(rows);
        }
        // A stable sort: the order depends on the lengths alone.
        blocks.sort_by_key(|&[_, _, block, _]| std::cmp::Reverse(block));
        // One copy to the device for both; the list of work begins at a multiple of 16 bytes.
        let samples = words.len();
        words.resize(samples.next_multiple_of(4), 0);
        let first_item = words.len() as i64;
        words.extend(blocks.iter().flatten());
        let words = crate::upload(&words, device)?;
        let starts = words.f_narrow(0, 0, samples as i64)?;
        let items = words.f_narrow(0, first_item, blocks.len() as i64 * 4)?.f_view([blocks.len() as i64, 4])?;
        let lengths: Vec<_> = lengths.iter().map(|length| *length as i64).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        Ok(Self { starts, items, lengths, longest, rows: i64::from(rows) })
    }

    /// Where the packing is.
    pub fn device(&self) -> Device {
        self.starts.device()
    }

    /// Whether the kernel takes operands like these.
    pub fn takes(device: Device, kind: Kind, head_dim: usize) -> bool {
        let width = head_dim as i64;
        device.is_cuda() && matches!(kind, Kind::BFloat16 | Kind::Half) && width <= MAX_HEAD_DIM && width % 8 == 0
    }
}

/// What attention gives, and what its backward pass needs.
#[derive(Debug)]
pub struct Attended([Tensor; 4]);

impl Attended {
    /// The attended values, `[rows, heads, width]`.
    pub fn output(&self) -> &Tensor {
        &self.0[0]
    }
}

/// Causal attention within each sample.
///
/// # Shapes
/// `query [rows, heads, width]`, `key` and `value [rows, groups, width]`, `groups` dividing `heads`; rows may lie
/// apart.
///
/// # Errors
/// If the operands do not fit the kernel or each other, or the device fails.
pub fn flash_attention(
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    packing: &Packing,
    scale: f64,
) -> Result<Attended, Error> {
    check(query, key, value, packing)?;
    shim::flash_forward([query, key, value, &packing.starts], packing.longest, scale).map(Attended)
}

/// The gradients of query, key and value.
///
/// # Shapes
/// `gradient` as the output, contiguous; results as the operands.
///
/// # Errors
/// If the operands do not fit the kernel or each other, or the device fails.
pub fn flash_attention_backward(
    gradient: &Tensor,
    [query, key, value]: [&Tensor; 3],
    attended: &Attended,
    packing: &Packing,
    scale: f64,
) -> Result<[Tensor; 3], Error> {
    check(query, key, value, packing)?;
    if gradient.size() != attended.output().size() || gradient.kind() != query.kind() || !gradient.is_contiguous() {
        return Err(wrong(format!("the gradient must be contiguous and like the output, it is {gradient:?}")));
    }
    let operands = [gradient, query, key, value, &packing.starts];
    shim::flash_backward(operands, &attended.0, packing.longest, scale)
}

fn check(query: &Tensor, key: &Tensor, value: &Tensor, packing: &Packing) -> Result<(), Error> {
    let [query_shape, key_shape] = [query, key].map(Tensor::size);
    let (&[rows, heads, width], &[_, groups, _]) = (query_shape.as_slice(), key_shape.as_slice()) else {
        return Err(wrong(format!("operands have three dimensions, not {query_shape:?} and {key_shape:?}")));
    };
    if rows != packing.rows || key_shape != [rows, groups, width] || value.size() != key_shape {
        let shapes = format!("{query_shape:?}, {key_shape:?}, {:?}", value.size());
        return Err(wrong(format!("the shapes {shapes} do not fit {} packed rows", packing.rows)));
    }
    if groups == 0 || heads % groups != 0 {
        return Err(wrong(format!("{groups} key heads do not divide {heads} query heads")));
    }
    for tensor in [query, key, value] {
        if !Packing::takes(tensor.device(), tensor.kind(), width as usize) {
            let (kind, device) = (tensor.kind(), tensor.device());
            return Err(wrong(format!(
                "operands are bfloat16 or float16 on CUDA, heads a multiple of 8 up to {MAX_HEAD_DIM} wide, not {kind:?} on {device:?}, {width} wide"
            )));
        }
        // Rows may be parts of longer ones.
        let heads_are_rows = tensor.stride().get(1..) == Some(&[width, 1]);
        if tensor.device() != packing.starts.device() || !heads_are_rows {
            return Err(wrong("operands have whole rows and are on the device of the packing".to_owned()));
        }
    }
    Ok(())
}

fn wrong(problem: String) -> Error {
    Error::Operands { kernel: "flash attention", problem }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn operands_are_checked_before_a_launch() {
        let packing = Packing::new(&[2, 3], Device::Cpu).unwrap();
        let tensor = |shape: [i64; 3]| Tensor::zeros(shape, (Kind::BFloat16, Device::Cpu));
        let message = |query: [i64; 3], key: [i64; 3], value: [i64; 3]| {
            flash_attention(&tensor(query), &tensor(key), &tensor(value), &packing, 1.0).unwrap_err().to_string()
        };
        let key = [5, 2, 8];
        assert!(message([4, 4, 8], [4, 2, 8], [4, 2, 8]).contains("do not fit 5 packed rows"));
        assert!(message([5, 4, 8], key, [5, 1, 8]).contains("do not fit"));
        assert!(message([5, 3, 8], key, key).contains("2 key heads do not divide 3 query heads"));
        assert!(message([5, 4, 8], key, key).contains("on CUDA"));
    }

    #[test]
    fn long_work_begins_first() {
        let packing = Packing::new(&[65, 0, 130, 1], Device::Cpu).unwrap();
        let items = Vec::<i32>::try_from(packing.items.flatten(0, -1)).unwrap();
        let items: Vec<_> = items.chunks(4).map(|item| [item[0], item[1], item[2]]).collect();
        assert_eq!(items, [[65, 130, 2], [0, 65, 1], [65, 130, 1], [0, 65, 0], [65, 130, 0], [195, 1, 0]]);
        assert_eq!(Vec::<i32>::try_from(&packing.starts).unwrap(), [0, 65, 65, 195, 196]);
        assert_eq!(Packing::new(&[], Device::Cpu).unwrap().items.size(), [0, 4]);
    }

    #[test]
    fn what_the_kernel_takes() {
        let cuda = Device::Cuda(0);
        assert!(Packing::takes(cuda, Kind::BFloat16, 128));
        assert!(!Packing::takes(Device::Cpu, Kind::BFloat16, 128));
        assert!(!Packing::takes(cuda, Kind::Float, 128));
        assert!(!Packing::takes(cuda, Kind::BFloat16, 100));
        assert!(!Packing::takes(cuda, Kind::BFloat16, 264));
    }
}
