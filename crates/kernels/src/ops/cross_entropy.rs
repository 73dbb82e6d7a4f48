//! The negative log-likelihood of targets under a softmax over the vocabulary, and its gradient.
//!
//! Shape suffixes: N labelled positions, V vocabulary or a block of it.
#![expect(non_snake_case, reason = "shape suffixes")]

use tch::{Kind, Tensor};

use super::check::Check;
use crate::{
    Error,
    element::master,
    launch::Launch,
    nvrtc::{Source, source},
};

pub(crate) const SOURCE: Source = source!("cross_entropy");

/// Values that one thread loads at once from rows that are aligned for it.
const PACK_BYTES: i64 = 16;

/// What [`cross_entropy`] gives, master type.
#[derive(Debug)]
pub struct CrossEntropy {
    /// The negative log-likelihood of each target, in nats, `[N]`.
    pub losses_N: Tensor,
    /// The logarithm of each row's sum of exponentials, `[N]`.
    pub lse_N: Tensor,
}

/// The loss of each row of logits.
///
/// # Shapes
/// `logits [N, V]`, type of the computation, rows may lie apart; `targets [N]`, int32, each within the vocabulary.
///
/// # Errors
/// If the operands do not fit, or the device refuses.
pub fn cross_entropy(logits_NV: &Tensor, targets_N: &Tensor) -> Result<CrossEntropy, Error> {
    let check = Check { kernel: "cross_entropy", device: logits_NV.device() };
    let (rows, columns, stride) = checked(&check, logits_NV, targets_N)?;
    if !check.device.is_cuda() {
        let logits_NV = logits_NV.f_to_kind(master(logits_NV.kind()))?;
        let lse_N = logits_NV.f_logsumexp([1].as_slice(), false)?;
        let targets_N1 = targets_N.f_to_kind(Kind::Int64)?.f_unsqueeze(1)?;
        let losses_N = lse_N.f_sub(&logits_NV.f_gather(1, &targets_N1, false)?.f_squeeze_dim(1)?)?;
        return Ok(CrossEntropy { losses_N, lse_N });
    }
    let [losses_N, lse_N] = [0; 2].map(|_| Tensor::f_empty([rows], (Kind::Float, check.device)));
    let (losses_N, lse_N) = (losses_N?, lse_N?);
    Launch::new(&SOURCE, "cross_entropy", logits_NV.kind(), check.device)?
        .tensor(logits_NV)
        .long(stride)
        .tensor(targets_N)
        .tensor(&losses_N)
        .tensor(&lse_N)
        .int(columns)
        .int(i64::from(aligned(logits_NV, columns, stride)))
        .run([rows as u32, 1, 1], 512, 0)?;
    Ok(CrossEntropy { losses_N, lse_N })
}

/// Turns logits into the gradient of `scale` times the sum of the losses, in place.
///
/// # Shapes
/// `logits [N, V]`, type of the computation, rows may lie apart: a block of the vocabulary's columns that begins with
/// number `first`; `targets [N]`, int32; `lse [N]` of the whole vocabulary.
///
/// # Errors
/// If the operands do not fit, or the device refuses.
pub fn cross_entropy_gradient(
    logits_NV: &Tensor,
    targets_N: &Tensor,
    lse_N: &Tensor,
    scale: f64,
    first: i64,
) -> Result<(), Error> {
    let check = Check { kernel: "cross_entropy_gradient", device: logits_NV.device() };
    let (rows, columns, stride) = checked(&check, logits_NV, targets_N)?;
    check.tensor("lse", lse_N, master(logits_NV.kind()), &[rows])?;
    if !check.device.is_cuda() {
        return Ok(gradient_reference(logits_NV, targets_N, lse_N, scale, first)?);
    }
    let vector = aligned(logits_NV, columns, stride);
    let threads = if vector { columns / pack(logits_NV) } else { columns };
    Launch::new(&SOURCE, "cross_entropy_gradient", logits_NV.kind(), check.device)?
        .tensor(logits_NV)
        .long(stride)
        .tensor(targets_N)
        .tensor(lse_N)
        .float(scale as f32)
        .int(first)
        .int(columns)
        .int(i64::from(vector))
        .run([(threads as u32).div_ceil(256), rows as u32, 1], 256, 0)
}

fn checked(check: &Check, logits_NV: &Tensor, targets_N: &Tensor) -> Result<(i64, i64, i64), Error> {
    let size = logits_NV.size();
    let &[rows, columns] = size.as_slice() else {
        return Err(check.wrong(format!("logits must be a matrix, they are {size:?}")));
    };
    check.tensor("targets", targets_N, Kind::Int, &[rows])?;
    let stride = check.rows("logits", logits_NV, logits_NV.kind(), [rows, columns])?;
    check.require(rows <= i64::from(u16::MAX), || format!("{rows} rows are more than 65535"))?;
    Ok((rows, columns, stride))
}

fn pack(logits_NV: &Tensor) -> i64 {
    PACK_BYTES / logits_NV.kind().elt_size_in_bytes() as i64
}

/// Whether every row consists of whole, aligned packs.
fn aligned(logits_NV: &Tensor, columns: i64, stride: i64) -> bool {
    let pack = pack(logits_NV);
    columns % pack == 0 && stride % pack == 0 && (logits_NV.data_ptr() as i64) % PACK_BYTES == 0
}

fn gradient_reference(
    logits_NV: &Tensor,
    targets_N: &Tensor,
    lse_N: &Tensor,
    scale: f64,
    first: i64,
) -> Result<(), tch::TchError> {
    let p_NV = logits_NV.f_to_kind(lse_N.kind())?.f_sub(&lse_N.f_unsqueeze(1)?)?.f_exp_()?;
    let columns = logits_NV.size()[1];
    let numbers_V = Tensor::f_arange_start(first, first + columns, (Kind::Int, logits_NV.device()))?;
    let is_target_NV = numbers_V.f_unsqueeze(0)?.f_eq_tensor(&targets_N.f_unsqueeze(1)?)?;
    let mut logits_NV = logits_NV.shallow_clone();
    logits_NV.f_copy_(&p_NV.f_sub(&is_target_NV.f_to_kind(lse_N.kind())?)?.f_mul_scalar(scale)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use tch::Device;

    use super::*;
    use crate::testing::{assert_close, cuda, normal};

    fn targets(rows: i64, columns: i64) -> Tensor {
        let targets: Vec<i32> = (0..rows).map(|row| ((row * 7919 + columns - 1) % columns) as i32).collect();
        Tensor::from_slice(&targets)
    }

    #[test]
    fn kernels_agree_with_the_reference() {
        let Some(device) = cuda() else { return };
        for kind in [Kind::Float, Kind::BFloat16, Kind::Half] {
            for (rows, columns, apart) in [(1, 3, 0), (5, 1000, 0), (3, 1001, 7), (17, 151_936, 0), (4, 4096, 8)] {
                let whole = (normal(&[rows, columns + apart], rows) * 3.0).to_kind(kind);
                let targets = targets(rows, columns);
                let logits = whole.narrow(1, 0, columns);
                let on_device = whole.to_device(device).narrow(1, 0, columns);
                let expected = cross_entropy(&logits, &targets).unwrap();
                let found = cross_entropy(&on_device, &targets.to_device(device)).unwrap();
                assert_close("lse", &found.lse_N, &expected.lse_N, Kind::Float);
                assert_close("losses", &found.losses_N, &expected.losses_N, Kind::Float);
                cross_entropy_gradient(&logits, &targets, &expected.lse_N, 0.5, 0).unwrap();
                cross_entropy_gradient(&on_device, &targets.to_device(device), &found.lse_N, 0.5, 0).unwrap();
                assert_close("gradient", &on_device, &logits, kind);
            }
        }
    }

    /// Blocks of columns together give what the whole gives.
    #[test]
    fn blocks_of_the_vocabulary_add_up() {
        for device in [Some(Device::Cpu), cuda()].into_iter().flatten() {
            let logits = normal(&[6, 40], 1).to_device(device);
            let targets = targets(6, 40).to_device(device);
            let lse = cross_entropy(&logits, &targets).unwrap().lse_N;
            let whole = logits.copy();
            cross_entropy_gradient(&whole, &targets, &lse, 1.0, 0).unwrap();
            for (first, length) in [(0, 13), (13, 20), (33, 7)] {
                let block = logits.narrow(1, first, length);
                cross_entropy_gradient(&block, &targets, &lse, 1.0, first).unwrap();
            }
            assert!(logits.equal(&whole));
        }
    }

    #[test]
    fn the_gradient_is_that_of_the_loss() {
        let logits = normal(&[3, 9], 4).to_kind(Kind::Double);
        let targets = targets(3, 9);
        let CrossEntropy { lse_N, .. } = cross_entropy(&logits, &targets).unwrap();
        let gradient = logits.copy();
        cross_entropy_gradient(&gradient, &targets, &lse_N, 2.0, 0).unwrap();
        let loss = |logits: &Tensor| {
            let losses = cross_entropy(logits, &targets).unwrap().losses_N;
            2.0 * f64::try_from(losses.sum(None::<Kind>)).unwrap()
        };
        for row in 0..3 {
            for column in 0..9 {
                let moved = |by: f64| {
                    let logits = logits.copy();
                    let _ = logits.get(row).get(column).f_add_scalar_(by).unwrap();
                    loss(&logits)
                };
                let slope = (moved(1e-6) - moved(-1e-6)) / 2e-6;
                assert!((slope - gradient.double_value(&[row, column])).abs() < 1e-7);
            }
        }
    }

    #[test]
    fn operands_are_checked() {
        let message = |targets: &Tensor| cross_entropy(&normal(&[2, 4], 1), targets).unwrap_err().to_string();
        assert!(message(&Tensor::from_slice(&[1_i64, 2])).contains("targets must be Int on Cpu, it is Int64"));
        assert!(message(&Tensor::from_slice(&[1_i32])).contains("targets must be contiguous [2]"));
    }
}
