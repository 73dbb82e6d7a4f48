//! SwiGLU: `silu(gate) * up`.
//!
//! # Source
//! Shazeer, arXiv:2002.05202.
#![expect(non_snake_case, reason = "shape suffixes; I is the width of gate and up")]

use tch::{TchError, Tensor};

use super::{
    LoraInput,
    check::Check,
    lora::{eights_fit, grid_of_rows, values_of_16_bytes},
    lora_operands::{aligned, check_input, finished, group_words},
};
use crate::{
    Error,
    element::master,
    launch::Launch,
    nvrtc::{Source, source},
};

pub(crate) const SOURCE: Source = source!("swiglu");

/// `silu(gate) * up`, rounded once.
///
/// # Shapes
/// `gate_up [T, 2I]`, gate in the first I columns, type of the computation; result `[T, columns]`, of which the columns
/// behind I are not yet written.
///
/// # Errors
/// If the operands do not fit, or the device refuses.
pub fn swiglu(gate_up: &Tensor, columns: i64) -> Result<Tensor, Error> {
    let (kind, device) = (gate_up.kind(), gate_up.device());
    let check = Check { kernel: "swiglu", device };
    let (tokens, both) =
        gate_up.size2().map_err(|_| check.wrong(format!("gate_up must be a matrix, it is {:?}", gate_up.size())))?;
    let width = both / 2;
    check.tensor("gate_up", gate_up, kind, &[tokens, 2 * width])?;
    check.require(columns >= width, || format!("{columns} columns are fewer than {width} channels"))?;
    let p_TC = Tensor::f_empty([tokens, columns], (kind, device))?;
    if !device.is_cuda() {
        let [gate_TI, up_TI] = halves(gate_up)?;
        p_TC.f_narrow(1, 0, width)?.f_copy_(&gate_TI.f_silu()?.f_mul(&up_TI)?)?;
        return Ok(p_TC);
    }
    let size = values_of_16_bytes(kind);
    let vector = width % size == 0 && columns % size == 0 && aligned([gate_up, &p_TC]);
    Launch::new(&SOURCE, "swiglu", kind, device)?
        .tensor(gate_up)
        .tensor(&p_TC)
        .int(columns)
        .int(width)
        .int(i64::from(vector))
        .run([tokens as u32, (width as u32).div_ceil(256 * size as u32), 1], 256, 0)?;
    Ok(p_TC)
}

/// The gradient of gate and up, in their memory; that of the product is what `input` stands for.
///
/// # Shapes
/// `gate_up [T, 2I]` and the result, type of the computation; `input` has the width I.
///
/// # Errors
/// If the operands do not fit, or the device refuses.
pub fn swiglu_backward(input: &LoraInput<'_>, mut gate_up: Tensor) -> Result<Tensor, Error> {
    let (kind, device) = (input.dx_TC.kind(), input.dx_TC.device());
    let check = Check { kernel: "swiglu_backward", device };
    let tokens = check_input(check, input)?;
    let width = input.layout.width;
    check.tensor("gate_up", &gate_up, kind, &[tokens, 2 * width])?;
    if !device.is_cuda() {
        let gradient = reference_backward(input, &gate_up)?;
        gate_up.f_copy_(&gradient)?;
        return Ok(gate_up);
    }
    let vector = eights_fit(input) && aligned([&gate_up]);
    Launch::new(&SOURCE, "swiglu_backward", kind, device)?
        .tensor(input.dx_TC)
        .int(input.layout.columns)
        .structure(&group_words(input.layout, input.adapters, input.dropout))
        .tensor(&gate_up)
        .long(tokens)
        .int(width)
        .int(i64::from(vector))
        .run(grid_of_rows(tokens, width), 256, 0)?;
    Ok(gate_up)
}

/// Gate and up in the master type.
fn halves(gate_up: &Tensor) -> Result<[Tensor; 2], TchError> {
    let width = gate_up.size2()?.1 / 2;
    let half = |first| gate_up.f_narrow(1, first, width)?.f_to_kind(master(gate_up.kind()));
    Ok([half(0)?, half(width)?])
}

fn reference_backward(input: &LoraInput<'_>, gate_up: &Tensor) -> Result<Tensor, TchError> {
    let dp_TI = finished(input)?;
    let [gate_TI, up_TI] = halves(gate_up)?;
    let sigmoid_TI = gate_TI.f_sigmoid()?;
    let up_gradient_TI = dp_TI.f_mul(&gate_TI)?.f_mul_(&sigmoid_TI)?;
    // silu' = s (1 + x (1 - s))
    let slope_TI = gate_TI.f_mul(&sigmoid_TI.f_neg()?.f_add_scalar_(1)?)?.f_add_scalar_(1)?.f_mul_(&sigmoid_TI)?;
    let gate_gradient_TI = dp_TI.f_mul(&up_TI)?.f_mul_(&slope_TI)?;
    Tensor::f_cat(&[gate_gradient_TI, up_gradient_TI], 1)?.f_to_kind(input.dx_TC.kind())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use tch::{Device, Kind};

    use super::{super::lora_operands::sample::*, *};
    use crate::testing::{assert_close, cuda, normal};

    const KINDS: [Kind; 3] = [Kind::Float, Kind::BFloat16, Kind::Half];

    #[test]
    fn the_kernel_agrees_with_the_reference() {
        let Some(device) = cuda() else { return };
        for kind in KINDS {
            for (tokens, width, columns) in [(1, 8, 8), (5, 37, 48), (9, 3072, 3080), (33, 100, 104)] {
                let gate_up = (normal(&[tokens, 2 * width], 1) * 3.0).to_kind(kind);
                let expected = swiglu(&gate_up, columns).unwrap().narrow(1, 0, width);
                let [found, again] =
                    [(), ()].map(|()| swiglu(&gate_up.to_device(device), columns).unwrap().narrow(1, 0, width));
                assert_close("p", &found, &expected, kind);
                assert!(found.equal(&again), "two runs differ");
            }
        }
    }

    #[test]
    fn the_kernel_of_the_gradient_agrees_with_the_reference() {
        let Some(device) = cuda() else { return };
        for kind in KINDS {
            for ((tokens, width, ranks, bias), drops) in
                SHAPES.into_iter().flat_map(|shape| [(shape, false), (shape, true)])
            {
                let sample = Sample::new(tokens, width, &ranks, bias, drops);
                let there = sample.to(device, kind);
                let dp = normal(&[tokens, sample.layout.columns], 1).to_kind(kind);
                let gate_up = (normal(&[tokens, 2 * width], 2) * 3.0).to_kind(kind);
                let of = |sample: &Sample, dx_TC: &Tensor, gate_up: Tensor| {
                    let (layout, dropout) = (&sample.layout, sample.dropout.as_ref());
                    let input = LoraInput { dx_TC, layout, adapters: &sample.adapters(), dropout };
                    swiglu_backward(&input, gate_up).unwrap()
                };
                let expected = of(&sample, &dp, gate_up.copy());
                let [found, again] = [(), ()].map(|()| of(&there, &dp.to_device(device), gate_up.to_device(device)));
                assert_close("gradient", &found, &expected, kind);
                assert!(found.equal(&again), "two runs differ");
            }
        }
    }

    #[test]
    fn the_reference_is_the_gradient() {
        let layout = &super::super::Layout::new(4, &[None], false);
        let gate_up = normal(&[3, 8], 1).to_kind(Kind::Double);
        let dx_TC = &normal(&[3, 4], 2).to_kind(Kind::Double);
        let input = LoraInput { dx_TC, layout, adapters: &[], dropout: None };
        let found = swiglu_backward(&input, gate_up.copy()).unwrap();
        for (t, i) in (0..3).flat_map(|t| (0..8).map(move |i| (t, i))) {
            let moved = |by: f64| {
                let gate_up = gate_up.copy();
                let _ = gate_up.get(t).get(i).g_add_scalar_(by);
                (swiglu(&gate_up, 4).unwrap() * dx_TC).sum(Kind::Double).double_value(&[])
            };
            let expected = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!((found.double_value(&[t, i]) - expected).abs() < 1e-8);
        }
    }

    #[test]
    fn operands_are_checked() {
        let message = |gate_up: &Tensor| swiglu(gate_up, 3).unwrap_err().to_string();
        assert!(message(&normal(&[2, 7], 1)).contains("gate_up must be contiguous [2, 6], it is [2, 7]"));
        assert!(message(&normal(&[2, 8], 1)).contains("3 columns are fewer than 4 channels"));
        assert_eq!(normal(&[1], 1).device(), Device::Cpu);
    }
}
