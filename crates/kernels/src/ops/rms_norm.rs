//! RMS norm with a frozen weight, behind an addition to the residual stream.
//!
//! # Source
//! Zhang and Sennrich, arXiv:1910.07467, as Qwen3 computes it.
#![expect(non_snake_case, reason = "shape suffixes")]

use tch::{Kind, Tensor};

use super::{check::Check, lora_operands::aligned};
use crate::{
    Error,
    element::master,
    launch::Launch,
    nvrtc::{Source, source},
};

pub(crate) const SOURCE: Source = source!("rms_norm");

/// What [`rms_norm`] gives.
#[derive(Debug)]
pub struct Normed {
    /// The residual stream behind the addition, `[T, D]`, master type.
    pub h_TD: Tensor,
    /// `w h / rms(h)`, `[T, columns]`, of which the columns behind `D` are not yet written.
    pub x_TC: Tensor,
    /// `1 / rms(h)`, `[T]`, master type.
    pub rstd_T: Tensor,
}

/// Adds `add` to the residual stream, if there is something to add, and normalises its rows.
///
/// # Shapes
/// `h [T, D]` and `weight [D]`, master type; `add [T, D]`, type of the computation, rows may lie apart.
///
/// # Errors
/// If the operands do not fit, or the device refuses.
pub fn rms_norm(
    h_TD: &Tensor,
    add_TD: Option<&Tensor>,
    weight_D: &Tensor,
    epsilon: f64,
    columns: i64,
    kind: Kind,
) -> Result<Normed, Error> {
    let check = Check { kernel: "rms_norm", device: h_TD.device() };
    let (rows, width) =
        h_TD.size2().map_err(|_| check.wrong(format!("h must be a matrix, it is {:?}", h_TD.size())))?;
    check.tensor("h", h_TD, master(kind), &[rows, width])?;
    check.tensor("weight", weight_D, master(kind), &[width])?;
    check.require(columns >= width, || format!("{columns} columns are fewer than {width} channels"))?;
    let add_stride = add_TD.map(|add_TD| check.rows("add", add_TD, kind, [rows, width])).transpose()?;
    if !h_TD.device().is_cuda() {
        return Ok(reference(h_TD, add_TD, weight_D, epsilon, columns, kind)?);
    }
    let x_TC = Tensor::f_empty([rows, columns], (kind, h_TD.device()))?;
    let rstd_T = Tensor::f_empty([rows], (Kind::Float, h_TD.device()))?;
    let sum_TD = add_TD.map(|_| h_TD.f_empty_like()).transpose()?;
    let vector = [width, columns, add_stride.unwrap_or(0)].iter().all(|length| length % 4 == 0)
        && aligned([h_TD, weight_D, &x_TC].into_iter().chain(add_TD).chain(sum_TD.as_ref()));
    // Sixteen channels a thread: few barriers to wait at, and many loads on their way.
    let threads = ((width as u32).div_ceil(512) * 32).clamp(32, 512);
    Launch::new(&SOURCE, "rms_norm", kind, h_TD.device())?
        .tensor(h_TD)
        .optional(add_TD)
        .int(add_stride.unwrap_or(0))
        .tensor(weight_D)
        .float(epsilon as f32)
        .optional(sum_TD.as_ref())
        .tensor(&x_TC)
        .int(columns)
        .tensor(&rstd_T)
        .int(width)
        .int(i64::from(vector))
        .run([rows as u32, 1, 1], threads, 0)?;
    Ok(Normed { h_TD: sum_TD.unwrap_or_else(|| h_TD.shallow_clone()), x_TC, rstd_T })
}

fn reference(
    h_TD: &Tensor,
    add_TD: Option<&Tensor>,
    weight_D: &Tensor,
    epsilon: f64,
    columns: i64,
    kind: Kind,
) -> Result<Normed, tch::TchError> {
    let h_TD = match add_TD {
        Some(add_TD) => h_TD.f_add(add_TD)?,
        None => h_TD.shallow_clone(),
    };
    let mut mean_T1 = h_TD.f_square()?.f_mean_dim([-1].as_slice(), true, None::<Kind>)?;
    let rstd_T1 = mean_T1.f_add_scalar_(epsilon)?.f_rsqrt_()?;
    let (rows, width) = h_TD.size2()?;
    let x_TC = Tensor::f_empty([rows, columns], (kind, h_TD.device()))?;
    x_TC.f_narrow(1, 0, width)?.f_copy_(&h_TD.f_mul(&rstd_T1)?.f_mul(weight_D)?)?;
    Ok(Normed { h_TD, x_TC, rstd_T: rstd_T1.f_squeeze_dim(1)? })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use tch::Device;

    use super::*;
    use crate::testing::{assert_close, cuda, normal};

    #[test]
    fn the_kernel_agrees_with_the_reference() {
        let Some(device) = cuda() else { return };
        for kind in [Kind::Float, Kind::BFloat16, Kind::Half] {
            for (rows, width, columns) in
                [(1, 8, 8), (5, 100, 112), (33, 1024, 1040), (7, 2560, 2568), (3, 5000, 5000), (2, 4099, 4104)]
            {
                let (h, weight) = (normal(&[rows, width], 1), normal(&[width], 2));
                let add = normal(&[rows, width + 8], 3).to_kind(kind).narrow(1, 0, width);
                for add in [None, Some(&add)] {
                    let expected = rms_norm(&h, add, &weight, 1e-6, columns, kind).unwrap();
                    let on_device = add.map(|add| add.to_device(device));
                    let [h, weight] = [&h, &weight].map(|tensor| tensor.to_device(device));
                    let found = rms_norm(&h, on_device.as_ref(), &weight, 1e-6, columns, kind).unwrap();
                    assert_close("h", &found.h_TD, &expected.h_TD, Kind::Float);
                    assert_close("rstd", &found.rstd_T, &expected.rstd_T, Kind::Float);
                    let [found, expected] = [&found, &expected].map(|normed| normed.x_TC.narrow(1, 0, width));
                    assert_close("x", &found, &expected, kind);
                }
            }
        }
    }

    #[test]
    fn operands_are_checked() {
        let (h, weight) = (normal(&[2, 4], 1), normal(&[4], 2));
        let message =
            |weight: &Tensor, columns| rms_norm(&h, None, weight, 1e-6, columns, Kind::Float).unwrap_err().to_string();
        assert!(message(&weight.to_kind(Kind::Half), 4).contains("weight must be Float on Cpu, it is Half"));
        assert!(message(&normal(&[5], 1), 4).contains("weight must be contiguous [4], it is [5]"));
        assert!(message(&weight, 3).contains("3 columns are fewer than 4"));
        assert_eq!(h.device(), Device::Cpu);
    }
}
