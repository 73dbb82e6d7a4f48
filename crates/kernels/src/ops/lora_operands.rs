//! What the kernels with a part of LoRA share: checks, the structs that they take by value, and the reference.
#![expect(non_snake_case, reason = "shape suffixes")]

use tch::{Kind, TchError, Tensor};

use super::{Adapter, Dropout, Layout, LoraInput, check::Check};
use crate::{Error, element::master, philox};

/// As many adapters as the kernels' struct has places for: queries, keys and values.
pub(super) const MOST_ADAPTERS: usize = 3;

/// Checks that adapters and dropout fit their layout.
pub(super) fn check_group<'a>(
    check: Check,
    layout: &Layout,
    adapters: impl ExactSizeIterator<Item = &'a Adapter<'a>>,
    dropout: Option<&Dropout>,
    (kind, tokens): (Kind, i64),
) -> Result<(), Error> {
    let (count, expected) = (adapters.len(), layout.adapters.len());
    check.require(count == expected && count <= MOST_ADAPTERS, || {
        format!("{count} adapters for a layout of {expected}; at most {MOST_ADAPTERS} share an input")
    })?;
    for (adapter, columns) in adapters.zip(&layout.adapters) {
        check.tensor("A", adapter.a_RI, master(kind), &[columns.rank, layout.width])?;
        let output = adapter.b_OR.size().first().copied().unwrap_or(0);
        check.tensor("B", adapter.b_OR, master(kind), &[output, columns.rank])?;
        check.require(columns.column >= layout.width && columns.column + columns.rank <= layout.columns, || {
            format!("{columns:?} is not within {} columns behind {}", layout.columns, layout.width)
        })?;
    }
    if let Some(dropout) = dropout {
        check.tensor("places", &dropout.places_T, Kind::Int, &[tokens])?;
        check.tensor("positions", &dropout.positions_T, Kind::Int, &[tokens])?;
    }
    Ok(())
}

/// Checks a gradient of an augmented input; gives its number of tokens.
pub(super) fn check_input(check: Check, input: &LoraInput<'_>) -> Result<i64, Error> {
    let tokens = input.dx_TC.size().first().copied().unwrap_or(0);
    check.tensor("dx", input.dx_TC, input.dx_TC.kind(), &[tokens, input.layout.columns])?;
    let of = (input.dx_TC.kind(), tokens);
    check_group(check, input.layout, input.adapters.iter(), input.dropout, of)?;
    Ok(tokens)
}

/// Two words of 32 bits as one of 64, in the order of memory.
pub(super) fn join(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

/// `struct LoraDropout` of common.cuh.
pub(super) fn dropout_words(dropout: Option<&Dropout>) -> [u64; 4] {
    dropout.map_or([0; 4], |dropout| {
        [
            dropout.places_T.data_ptr() as u64,
            dropout.positions_T.data_ptr() as u64,
            join(dropout.key[0], dropout.key[1]),
            join(dropout.threshold, 1),
        ]
    })
}

/// `struct LoraGroup` of common.cuh.
pub(super) fn group_words(layout: &Layout, adapters: &[Adapter<'_>], dropout: Option<&Dropout>) -> Vec<u64> {
    let mut words = Vec::with_capacity(3 * MOST_ADAPTERS + 5);
    for (adapter, columns) in adapters.iter().zip(&layout.adapters) {
        words.extend([
            adapter.a_RI.data_ptr() as u64,
            join((adapter.factor as f32).to_bits(), adapter.module),
            join(columns.column as u32, columns.rank as u32),
        ]);
    }
    words.resize(3 * MOST_ADAPTERS, 0);
    words.extend(dropout_words(dropout));
    words.push(adapters.len() as u64);
    words
}

/// Whether all start where loads of 16 bytes may.
pub(super) fn aligned<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> bool {
    tensors.into_iter().all(|tensor| (tensor.data_ptr() as usize).is_multiple_of(16))
}

/// Whether four channels at once can be read of an augmented input and of its adapters.
pub(super) fn quads_fit(input: &LoraInput<'_>) -> bool {
    let layout = input.layout;
    layout.width % 4 == 0
        && layout.columns % 4 == 0
        && aligned(std::iter::once(input.dx_TC).chain(input.adapters.iter().map(|adapter| adapter.a_RI)))
}

/// A matrix as products take it: rounded to the type of the computation, and then in the type of sums.
pub(super) fn rounded(matrix: &Tensor, kind: Kind) -> Result<Tensor, TchError> {
    matrix.f_to_kind(kind)?.f_to_kind(master(kind))
}

/// What a [`LoraInput`] stands for, `[T, width]`, master type, with libtorch's own operations.
pub(super) fn finished(input: &LoraInput<'_>) -> Result<Tensor, TchError> {
    let (kind, layout) = (input.dx_TC.kind(), input.layout);
    let dx_TC = input.dx_TC.f_to_kind(master(kind))?;
    // A copy: what is added below must not reach the operand.
    let mut dx_TI = dx_TC.f_narrow(1, 0, layout.width)?.f_to_dtype(master(kind), false, true)?;
    for (adapter, columns) in input.adapters.iter().zip(&layout.adapters) {
        let inner_TR = dx_TC.f_narrow(1, columns.column, columns.rank)?;
        let mut part_TI = inner_TR.f_mm(&rounded(adapter.a_RI, kind)?)?.f_mul_scalar_(adapter.factor)?;
        if let Some(dropout) = input.dropout {
            part_TI = part_TI.f_mul(&keep(dropout, adapter.module, layout.width, master(kind))?)?;
        }
        dx_TI = dx_TI.f_add_(&part_TI)?;
    }
    Ok(dx_TI)
}

/// 1 where a value is kept and 0 elsewhere, `[T, width]`, on the CPU.
pub(super) fn keep(dropout: &Dropout, module: u32, width: i64, kind: Kind) -> Result<Tensor, TchError> {
    let [places, positions] =
        [&dropout.places_T, &dropout.positions_T].map(|tensor| -> Result<Vec<i32>, TchError> { tensor.try_into() });
    let (places, positions) = (places?, positions?);
    let columns = width as usize;
    let mut channels = vec![0_u8; places.len() * columns];
    for (row, (place, position)) in channels.chunks_mut(columns.max(1)).zip(places.iter().zip(&positions)) {
        philox::keep(row, [*position as u32, *place as u32, module], dropout.key, dropout.threshold);
    }
    Tensor::f_from_data_size(&channels, &[places.len() as i64, width], Kind::Bool)?.f_to_kind(kind)
}

/// Adapters and dropout for tests.
#[cfg(test)]
pub(super) mod sample {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use tch::Device;

    use super::*;
    use crate::testing::normal;

    /// Operands of one group.
    #[derive(Debug)]
    pub(crate) struct Sample {
        pub(crate) layout: Layout,
        pub(crate) a: Vec<Tensor>,
        pub(crate) b: Vec<Tensor>,
        pub(crate) dropout: Option<Dropout>,
    }

    impl Sample {
        pub(crate) fn new(tokens: i64, width: i64, ranks: &[Option<i64>], bias: bool, drops: bool) -> Self {
            let layout = Layout::new(width, ranks, bias);
            let matrix = |shape: [i64; 2], seed| normal(&shape, seed);
            let a = layout.adapters.iter().zip(20..).map(|(columns, seed)| matrix([columns.rank, width], seed) * 0.3);
            let outputs = [24, 16, 40];
            let b = layout
                .adapters
                .iter()
                .zip(30..)
                .map(|(columns, seed)| matrix([outputs[columns.part], columns.rank], seed));
            let (a, b) = (a.collect(), b.collect());
            let dropout = drops.then(|| Dropout {
                key: [0x1234_5678, 0x9ABC_DEF0],
                threshold: (0.4 * 4_294_967_296.0) as u32,
                places_T: Tensor::arange(tokens, (Kind::Int, Device::Cpu))
                    .divide_scalar_mode(5, "floor")
                    .to_kind(Kind::Int),
                positions_T: Tensor::arange(tokens, (Kind::Int, Device::Cpu)).remainder(5).to_kind(Kind::Int),
            });
            Self { layout, a, b, dropout }
        }

        pub(crate) fn to(&self, device: Device, kind: Kind) -> Self {
            let move_all =
                |all: &[Tensor]| all.iter().map(|tensor| tensor.to_kind(master(kind)).to_device(device)).collect();
            let dropout = self.dropout.as_ref().map(|dropout| Dropout {
                places_T: dropout.places_T.to_device(device),
                positions_T: dropout.positions_T.to_device(device),
                ..*dropout
            });
            Self { layout: self.layout.clone(), a: move_all(&self.a), b: move_all(&self.b), dropout }
        }

        pub(crate) fn adapters(&self) -> Vec<Adapter<'_>> {
            let matrices = self.a.iter().zip(&self.b).zip([7, u32::MAX, 3]);
            matrices.map(|((a_RI, b_OR), module)| Adapter { a_RI, b_OR, module, factor: 1.7 }).collect()
        }
    }

    /// Groups that do and do not divide: tokens, width, ranks, bias.
    pub(crate) const SHAPES: [(i64, i64, [Option<i64>; 3], bool); 8] = [
        (1, 8, [None, None, None], false),
        (3, 100, [Some(8), None, Some(3)], true),
        (5, 37, [None, Some(5), None], true),
        (17, 64, [Some(8), Some(8), Some(8)], false),
        (45, 264, [Some(16), None, Some(12)], false),
        (70, 1024, [Some(8), None, Some(8)], true),
        (301, 96, [Some(64), None, None], false),
        (9, 4100, [Some(40), None, None], false),
    ];

    #[test]
    fn a_row_of_the_mask_depends_on_place_and_position_alone() {
        let sample = Sample::new(20, 10, &[Some(2)], false, true);
        let mask = keep(sample.dropout.as_ref().unwrap(), 4, 10, Kind::Float).unwrap();
        let words = philox::philox([2, 3, 1, 4], [0x1234_5678, 0x9ABC_DEF0]);
        let expected = f64::from(u8::from(words[1] >= sample.dropout.unwrap().threshold));
        assert_eq!(mask.double_value(&[8, 9]), expected);
        let share = mask.mean(Kind::Float).double_value(&[]);
        assert!((share - 0.6).abs() < 0.15, "{share}");
    }
}
