//! The way back through an RMS norm and beside it.
//!
//! # Source
//! Zhang and Sennrich, arXiv:1910.07467.
#![expect(non_snake_case, reason = "shape suffixes")]

use tch::{Kind, TchError, Tensor};

use super::{
    LoraInput,
    check::Check,
    lora_operands::{aligned, check_input, finished, group_words, quads_fit},
    rms_norm::SOURCE,
};
use crate::{Error, element::master, launch::Launch};

/// Rows of a block: `NORM_ROWS` in rms_norm.cu.
const ROWS: u32 = 4;

/// The gradient of the residual stream in front of a norm: what comes past the norm, plus what comes through it,
/// `rstd (g - n mean(g n))` with `g = dx weight` and `n = h rstd`. `dx` is what `input` stands for.
///
/// # Shapes
/// `h` and `residual` `[T, D]`, `rstd [T]` and `weight [D]`, master type. Result: the gradient, `[T, D]`, in the master
/// type and rounded to the type of the computation.
///
/// # Errors
/// If the operands do not fit, or the device refuses.
pub fn rms_norm_backward(
    input: &LoraInput<'_>,
    h_TD: &Tensor,
    rstd_T: &Tensor,
    weight_D: &Tensor,
    residual_TD: &Tensor,
) -> Result<(Tensor, Tensor), Error> {
    let (kind, device) = (input.dx_TC.kind(), input.dx_TC.device());
    let check = Check { kernel: "rms_norm_backward", device };
    let tokens = check_input(check, input)?;
    let width = input.layout.width;
    check.tensor("h", h_TD, master(kind), &[tokens, width])?;
    check.tensor("rstd", rstd_T, master(kind), &[tokens])?;
    check.tensor("weight", weight_D, master(kind), &[width])?;
    check.tensor("residual", residual_TD, master(kind), &[tokens, width])?;
    if !device.is_cuda() {
        return Ok(reference(input, h_TD, rstd_T, weight_D, residual_TD)?);
    }
    let dh_TD = Tensor::f_empty([tokens, width], (Kind::Float, device))?;
    let rounded_TD = Tensor::f_empty([tokens, width], (kind, device))?;
    let vector = quads_fit(input) && aligned([h_TD, weight_D, residual_TD, &dh_TD, &rounded_TD]);
    // A warp takes 64 channels at a time; what it finds in one to four steps stays in registers.
    let (function, steps) = match (vector, width) {
        (true, ..=1024) => ("rms_norm_backward_2", 2),
        (true, ..=2048) => ("rms_norm_backward_4", 2),
        (true, ..=4096) => ("rms_norm_backward_4", 4),
        _ => ("rms_norm_backward_any", 4),
    };
    let threads = ((width as u32).div_ceil(64 * steps) * 32).clamp(32, 512);
    Launch::new(&SOURCE, function, kind, device)?
        .tensor(input.dx_TC)
        .int(input.layout.columns)
        .structure(&group_words(input.layout, input.adapters, input.dropout))
        .tensor(h_TD)
        .tensor(rstd_T)
        .tensor(weight_D)
        .tensor(residual_TD)
        .tensor(&dh_TD)
        .tensor(&rounded_TD)
        .long(tokens)
        .int(width)
        .int(i64::from(vector))
        .run([(tokens as u32).div_ceil(ROWS), 1, 1], threads, 0)?;
    Ok((dh_TD, rounded_TD))
}

fn reference(
    input: &LoraInput<'_>,
    h_TD: &Tensor,
    rstd_T: &Tensor,
    weight_D: &Tensor,
    residual_TD: &Tensor,
) -> Result<(Tensor, Tensor), TchError> {
    let rstd_T1 = rstd_T.f_unsqueeze(1)?;
    let n_TD = h_TD.f_mul(&rstd_T1)?;
    let mut g_TD = finished(input)?.f_mul(weight_D)?;
    let mean_T1 = g_TD.f_mul(&n_TD)?.f_mean_dim([-1].as_slice(), true, None::<Kind>)?;
    let _ = g_TD.f_sub_(&n_TD.f_mul(&mean_T1)?)?;
    let dh_TD = g_TD.f_mul_(&rstd_T1)?.f_add_(residual_TD)?;
    // A copy even where the types are the same: nothing else may share it.
    let rounded_TD = dh_TD.f_to_dtype(input.dx_TC.kind(), false, true)?;
    Ok((dh_TD, rounded_TD))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use tch::Device;

    use super::{
        super::{lora_operands::sample::*, rms_norm},
        *,
    };
    use crate::testing::{assert_close, assert_within, cuda, normal};

    fn run(sample: &Sample, dx_TC: &Tensor, others: [&Tensor; 4]) -> (Tensor, Tensor) {
        let adapters = sample.adapters();
        let input = LoraInput { dx_TC, layout: &sample.layout, adapters: &adapters, dropout: sample.dropout.as_ref() };
        let [h, rstd, weight, residual] = others;
        rms_norm_backward(&input, h, rstd, weight, residual).unwrap()
    }

    #[test]
    fn the_kernel_agrees_with_the_reference() {
        let Some(device) = cuda() else { return };
        for kind in [Kind::Float, Kind::BFloat16, Kind::Half] {
            for ((tokens, width, ranks, bias), drops) in
                SHAPES.into_iter().flat_map(|shape| [(shape, false), (shape, true)])
            {
                let sample = Sample::new(tokens, width, &ranks, bias, drops);
                let there = sample.to(device, kind);
                let dx = normal(&[tokens, sample.layout.columns], 1).to_kind(kind);
                let (h, weight, residual) =
                    (normal(&[tokens, width], 2), normal(&[width], 3), normal(&[tokens, width], 4));
                let rstd = rms_norm(&h, None, &weight, 1e-6, width, kind).unwrap().rstd_T;
                let others = [&h, &rstd, &weight, &residual];
                let moved = others.map(|tensor| tensor.to_device(device));
                let [found, again] =
                    [(), ()].map(|()| run(&there, &dx.to_device(device), [&moved[0], &moved[1], &moved[2], &moved[3]]));
                let expected = run(&sample, &dx, others);
                assert_within("dh", &found.0, &expected.0, 5e-6);
                assert_close("rounded dh", &found.1, &expected.1, kind);
                assert!(found.1.equal(&found.0.to_kind(kind)));
                assert!(found.0.equal(&again.0) && found.1.equal(&again.1), "two runs differ");
            }
        }
    }

    /// Of the loss `sum(dx norm(h)) + sum(residual h)`, by finite differences.
    #[test]
    fn the_reference_is_the_gradient() {
        let sample = Sample::new(3, 6, &[None], false, false).to(Device::Cpu, Kind::Double);
        let [h, dx, residual] = [1, 2, 3].map(|seed| normal(&[3, 6], seed).to_kind(Kind::Double));
        let weight = normal(&[6], 4).to_kind(Kind::Double);
        let norm = |h: &Tensor| rms_norm(h, None, &weight, 1e-2, 6, Kind::Double).unwrap();
        let loss = |h: &Tensor| (norm(h).x_TC * &dx + h * &residual).sum(Kind::Double).double_value(&[]);
        let (found, _) = run(&sample, &dx, [&h, &norm(&h).rstd_T, &weight, &residual]);
        for (t, i) in (0..3).flat_map(|t| (0..6).map(move |i| (t, i))) {
            let moved = |by: f64| {
                let h = h.copy();
                let _ = h.get(t).get(i).g_add_scalar_(by);
                loss(&h)
            };
            let expected = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!((found.double_value(&[t, i]) - expected).abs() < 1e-8);
        }
    }

    #[test]
    fn operands_are_checked() {
        let sample = Sample::new(2, 8, &[Some(2)], false, false);
        let adapters = sample.adapters();
        let dx = normal(&[2, 16], 1);
        let input = LoraInput { dx_TC: &dx, layout: &sample.layout, adapters: &adapters, dropout: None };
        let (h, rstd, weight) = (normal(&[2, 8], 1), normal(&[2], 2), normal(&[8], 3));
        let message = rms_norm_backward(&input, &h, &rstd, &weight, &dx).unwrap_err().to_string();
        assert!(message.contains("residual must be contiguous [2, 8]"), "{message}");
    }
}
