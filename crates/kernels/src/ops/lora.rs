//! LoRA beside a frozen product: the inner values of adapters, and the gradient of their input.
//!
//! # Source
//! Hu et al., arXiv:2106.09685.
#![expect(non_snake_case, reason = "shape suffixes")]

use tch::{Kind, TchError, Tensor};

use super::{
    Adapter, Dropout, Layout, LoraInput,
    check::Check,
    lora_operands::{aligned, check_group, check_input, finished, group_words, keep, quads_fit, rounded},
};
use crate::{
    Error,
    element::master,
    launch::Launch,
    nvrtc::{Source, source},
};

pub(crate) const SOURCE: Source = source!("lora");

/// Fills the columns of an augmented input behind its own: for each adapter `factor * A(drop(x))`, with A rounded to the
/// type of the computation; 1 in the bias column, and 0 in those without a use.
///
/// # Shapes
/// `x [T, columns]`, type of the computation, contiguous, in place.
///
/// # Errors
/// If the operands do not fit, or the device refuses.
pub fn lora_down(
    x_TC: &Tensor,
    layout: &Layout,
    adapters: &[Adapter<'_>],
    dropout: Option<&Dropout>,
) -> Result<(), Error> {
    let (check, kind) = (Check { kernel: "lora_down", device: x_TC.device() }, x_TC.kind());
    let tokens = x_TC.size().first().copied().unwrap_or(0);
    check.tensor("x", x_TC, kind, &[tokens, layout.columns])?;
    check_group(check, layout, adapters.iter(), dropout, (kind, tokens))?;
    if layout.extra() == 0 {
        return Ok(());
    }
    if !x_TC.device().is_cuda() {
        return Ok(reference_down(x_TC, layout, adapters, dropout)?);
    }
    let by_tensor_cores = kind != Kind::Float
        && layout.width % 8 == 0
        && layout.columns % 8 == 0
        && aligned(std::iter::once(x_TC).chain(adapters.iter().map(|adapter| adapter.a_RI)));
    let most = layout.adapters.iter().map(|columns| columns.rank).max().unwrap_or(0);
    let (function, ranks, rows) = match by_tensor_cores {
        false => ("lora_down_plain", 8, 1),
        true if most <= 8 => ("lora_down_1", 8, 8),
        true if most <= 16 => ("lora_down_2", 16, 8),
        true => ("lora_down_4", 32, 8),
    };
    let first_free = layout.adapters.iter().map(|columns| columns.column + columns.rank).max().unwrap_or(layout.width);
    let mut launch = Launch::new(&SOURCE, function, kind, x_TC.device())?
        .tensor(x_TC)
        .int(layout.columns)
        .structure(&group_words(layout, adapters, dropout));
    if by_tensor_cores {
        launch = launch.long(tokens);
    }
    // The block of the first ranks fills the other columns too, so there is one even without an adapter.
    let blocks = layout.adapters.iter().map(|columns| (columns.rank as u32).div_ceil(ranks)).sum::<u32>().max(1);
    let threads = if by_tensor_cores && layout.width >= 2048 { 512 } else { 256 };
    launch.int(layout.width).int(first_free).int(layout.bias.unwrap_or(-1)).run(
        [(tokens as u32).div_ceil(rows), blocks, 1],
        threads,
        0,
    )
}

fn reference_down(
    x_TC: &Tensor,
    layout: &Layout,
    adapters: &[Adapter<'_>],
    dropout: Option<&Dropout>,
) -> Result<(), TchError> {
    let kind = x_TC.kind();
    let _ = x_TC.f_narrow(1, layout.width, layout.extra())?.f_zero_()?;
    if let Some(bias) = layout.bias {
        let _ = x_TC.f_narrow(1, bias, 1)?.f_fill_(1)?;
    }
    let x_TI = x_TC.f_narrow(1, 0, layout.width)?.f_to_kind(master(kind))?;
    for (adapter, columns) in adapters.iter().zip(&layout.adapters) {
        let kept_TI = match dropout {
            Some(dropout) => x_TI.f_mul(&keep(dropout, adapter.module, layout.width, master(kind))?)?,
            None => x_TI.shallow_clone(),
        };
        let inner_TR = kept_TI.f_mm(&rounded(adapter.a_RI, kind)?.f_tr()?)?.f_mul_scalar_(adapter.factor)?;
        x_TC.f_narrow(1, columns.column, columns.rank)?.f_copy_(&inner_TR)?;
    }
    Ok(())
}

/// The gradient of an input as [`LoraInput`] defines it, for tests and where nothing is fused behind it.
///
/// # Shapes
/// Result `[T, width]`, type of the computation.
///
/// # Errors
/// If the operands do not fit, or the device refuses.
pub fn input_gradient(input: &LoraInput<'_>) -> Result<Tensor, Error> {
    let (kind, device) = (input.dx_TC.kind(), input.dx_TC.device());
    let tokens = check_input(Check { kernel: "input_gradient", device }, input)?;
    if !device.is_cuda() {
        return Ok(finished(input)?.f_to_kind(kind)?);
    }
    let layout = input.layout;
    let dx_TI = Tensor::f_empty([tokens, layout.width], (kind, device))?;
    Launch::new(&SOURCE, "input_gradient", kind, device)?
        .tensor(input.dx_TC)
        .int(layout.columns)
        .structure(&group_words(layout, input.adapters, input.dropout))
        .tensor(&dx_TI)
        .long(tokens)
        .int(layout.width)
        .int(i64::from(eights_fit(input) && aligned([&dx_TI])))
        .run(grid_of_rows(tokens, layout.width), 256, 0)?;
    Ok(dx_TI)
}

/// Blocks of eight rows and eight warps, each with 64 channels.
pub(super) fn grid_of_rows(tokens: i64, width: i64) -> [u32; 3] {
    [(tokens as u32).div_ceil(8), (width as u32).div_ceil(512), 1]
}

/// Whether such a kernel can read eight channels at once.
pub(super) fn eights_fit(input: &LoraInput<'_>) -> bool {
    quads_fit(input) && input.layout.width % 8 == 0 && input.layout.columns % 8 == 0
}

/// Copies a matrix into the first columns of a wider one; the others are not yet written.
///
/// # Shapes
/// `x [T, I]`, rows may lie apart; result `[T, columns]`.
///
/// # Errors
/// If the operands do not fit, or the device refuses.
pub fn widen_columns(x_TI: &Tensor, columns: i64) -> Result<Tensor, Error> {
    let (kind, device) = (x_TI.kind(), x_TI.device());
    let check = Check { kernel: "widen_columns", device };
    let (tokens, width) =
        x_TI.size2().map_err(|_| check.wrong(format!("x must be a matrix, it is {:?}", x_TI.size())))?;
    let stride = check.rows("x", x_TI, kind, [tokens, width])?;
    check.require(columns >= width, || format!("{columns} columns are fewer than {width} channels"))?;
    let x_TC = Tensor::f_empty([tokens, columns], (kind, device))?;
    if !device.is_cuda() {
        x_TC.f_narrow(1, 0, width)?.f_copy_(x_TI)?;
        return Ok(x_TC);
    }
    let size = values_of_16_bytes(kind);
    let vector = [width, columns, stride].iter().all(|length| length % size == 0) && aligned([x_TI, &x_TC]);
    Launch::new(&SOURCE, "widen_columns", kind, device)?
        .tensor(x_TI)
        .long(stride)
        .tensor(&x_TC)
        .int(columns)
        .int(width)
        .int(i64::from(vector))
        .run([tokens as u32, (width as u32).div_ceil(256 * size as u32), 1], 256, 0)?;
    Ok(x_TC)
}

/// `Pack<element>::SIZE` in common.cuh.
pub(super) fn values_of_16_bytes(kind: Kind) -> i64 {
    if kind == Kind::Float { 4 } else { 8 }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use tch::Device;

    use super::{super::lora_operands::sample::*, *};
    use crate::testing::{assert_close, cuda, normal};

    const KINDS: [Kind; 3] = [Kind::Float, Kind::BFloat16, Kind::Half];

    #[test]
    fn inner_values_agree_with_the_reference() {
        let Some(device) = cuda() else { return };
        for kind in KINDS {
            for ((tokens, width, ranks, bias), drops) in
                SHAPES.into_iter().flat_map(|shape| [(shape, false), (shape, true)])
            {
                let sample = Sample::new(tokens, width, &ranks, bias, drops);
                let there = sample.to(device, kind);
                let expected = normal(&[tokens, sample.layout.columns], 1).to_kind(kind);
                // What is behind the input's own columns must not matter.
                let _ = expected.narrow(1, width, sample.layout.extra()).fill_(f64::NAN);
                let (found, again) = (expected.to_device(device), expected.to_device(device));
                lora_down(&expected, &sample.layout, &sample.adapters(), sample.dropout.as_ref()).unwrap();
                for x in [&found, &again] {
                    lora_down(x, &there.layout, &there.adapters(), there.dropout.as_ref()).unwrap();
                }
                assert!(found.equal(&again), "two runs differ");
                assert!(found.narrow(1, 0, width).to_device(Device::Cpu).equal(&expected.narrow(1, 0, width)));
                if sample.layout.extra() > 0 {
                    let behind = |x: &Tensor| x.narrow(1, width, sample.layout.extra());
                    assert_close("inner values", &behind(&found), &behind(&expected), kind);
                }
            }
        }
    }

    #[test]
    fn input_gradients_agree_with_the_reference() {
        let Some(device) = cuda() else { return };
        for kind in KINDS {
            for ((tokens, width, ranks, bias), drops) in
                SHAPES.into_iter().flat_map(|shape| [(shape, false), (shape, true)])
            {
                let sample = Sample::new(tokens, width, &ranks, bias, drops);
                let there = sample.to(device, kind);
                let dx = normal(&[tokens, sample.layout.columns], 1).to_kind(kind);
                let of = |sample: &Sample, dx_TC: &Tensor| {
                    let (layout, dropout) = (&sample.layout, sample.dropout.as_ref());
                    input_gradient(&LoraInput { dx_TC, layout, adapters: &sample.adapters(), dropout }).unwrap()
                };
                let found = of(&there, &dx.to_device(device));
                assert_close("dx", &found, &of(&sample, &dx), kind);
                assert!(found.equal(&of(&there, &dx.to_device(device))), "two runs differ");
            }
        }
    }

    #[test]
    fn columns_are_copied() {
        for device in [Some(Device::Cpu), cuda()].into_iter().flatten() {
            for kind in KINDS {
                for (tokens, width, columns, apart) in [(1, 8, 8, 0), (5, 37, 48, 3), (9, 4096, 4104, 8)] {
                    let x = normal(&[tokens, width + apart], 1).to_kind(kind).to_device(device).narrow(1, 0, width);
                    let wide = widen_columns(&x, columns).unwrap();
                    assert_eq!(wide.size(), [tokens, columns]);
                    assert!(wide.narrow(1, 0, width).equal(&x));
                }
            }
        }
    }

    /// By hand: factor times the kept values' product with A, value by value.
    #[test]
    fn the_reference_is_the_definition() {
        let sample = Sample::new(7, 10, &[Some(2), None, Some(3)], true, true).to(Device::Cpu, Kind::Double);
        let (layout, adapters, dropout) = (&sample.layout, sample.adapters(), sample.dropout.as_ref().unwrap());
        let x = normal(&[7, layout.columns], 1).to_kind(Kind::Double);
        lora_down(&x, layout, &adapters, Some(dropout)).unwrap();
        let dx_TC = &normal(&[7, layout.columns], 2).to_kind(Kind::Double);
        let dx = input_gradient(&LoraInput { dx_TC, layout, adapters: &adapters, dropout: Some(dropout) }).unwrap();
        let gradient = dx_TC.narrow(1, 0, 10).copy();
        for (adapter, columns) in adapters.iter().zip(&layout.adapters) {
            let mask = keep(dropout, adapter.module, 10, Kind::Double).unwrap();
            for (t, r) in (0..7).flat_map(|t| (0..columns.rank).map(move |r| (t, r))) {
                let mut sum = 0.0;
                for i in 0..10 {
                    let a = 1.7 * mask.double_value(&[t, i]) * adapter.a_RI.double_value(&[r, i]);
                    sum += a * x.double_value(&[t, i]);
                    let _ = gradient.get(t).get(i).g_add_scalar_(a * dx_TC.double_value(&[t, columns.column + r]));
                }
                assert!((x.double_value(&[t, columns.column + r]) - sum).abs() < 1e-12);
            }
        }
        assert!((&dx - &gradient).abs().max().double_value(&[]) < 1e-12);
        assert_eq!(x.double_value(&[3, 15]), 1.0);
    }

    #[test]
    fn operands_are_checked() {
        let sample = Sample::new(2, 8, &[Some(2)], false, true);
        let message = |x: &Tensor, adapters: &[Adapter<'_>]| {
            lora_down(x, &sample.layout, adapters, sample.dropout.as_ref()).unwrap_err().to_string()
        };
        assert!(message(&normal(&[2, 8], 1), &sample.adapters()).contains("x must be contiguous [2, 16]"));
        assert!(message(&normal(&[2, 16], 1), &[]).contains("0 adapters for a layout of 1"));
        assert!(message(&normal(&[3, 16], 1), &sample.adapters()).contains("places must be contiguous [3]"));
        let narrow = widen_columns(&normal(&[2, 8], 1), 7).unwrap_err().to_string();
        assert!(narrow.contains("7 columns are fewer than 8"));
    }
}
