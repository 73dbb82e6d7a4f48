//! The gradient of an embedding: sums over the rows of a pass that read the same token, kept only for tokens that occur.
//!
//! Shape suffixes: T tokens of the pass, U different ones of these, S rows of sums, D width, V vocabulary.
#![expect(non_snake_case, reason = "shape suffixes")]

use tch::{Kind, Tensor};

use super::check::Check;
use crate::{
    Error,
    launch::Launch,
    nvrtc::{Source, source},
};

pub(crate) const SOURCE: Source = source!("embedding");

/// Which rows of a pass read which token; all int32 on the device.
#[derive(Debug)]
pub struct TokenRows {
    /// The tokens, each once, `[U]`.
    pub tokens_U: Tensor,
    /// The row of the sums that belongs to each, `[U]`, each once.
    pub slots_U: Tensor,
    /// Where the rows of each begin in `order`, and behind them where the last one's end, `[U + 1]`.
    pub starts_U1: Tensor,
    /// Rows of the pass, sorted by token, `[rows]`.
    pub order: Tensor,
}

/// Adds the gradient of an embedding's output to the sums of its tokens, and notes which row of the sums is whose.
///
/// # Shapes
/// `dh [T, D]` and `sums [S, D]`, master type; `slot_of_row [V]`, int32.
///
/// # Errors
/// If the operands do not fit, or the device refuses.
pub fn embedding_gradient(
    dh_TD: &Tensor,
    rows: &TokenRows,
    sums_SD: &Tensor,
    slot_of_row_V: &Tensor,
) -> Result<(), Error> {
    let check = Check { kernel: "embedding_gradient", device: dh_TD.device() };
    let (_, width) =
        dh_TD.size2().map_err(|_| check.wrong(format!("dh must be a matrix, it is {:?}", dh_TD.size())))?;
    let master = dh_TD.kind();
    check.tensor("dh", dh_TD, master, &dh_TD.size())?;
    check.tensor("sums", sums_SD, master, &[sums_SD.size()[0], width])?;
    let tokens = rows.tokens_U.size()[0];
    check.tensor("tokens", &rows.tokens_U, Kind::Int, &[tokens])?;
    check.tensor("slots", &rows.slots_U, Kind::Int, &[tokens])?;
    check.tensor("starts", &rows.starts_U1, Kind::Int, &[tokens + 1])?;
    check.tensor("order", &rows.order, Kind::Int, &rows.order.size())?;
    check.tensor("slot_of_row", slot_of_row_V, Kind::Int, &slot_of_row_V.size())?;
    check.require(tokens <= i64::from(u16::MAX), || format!("{tokens} different tokens are more than 65535"))?;
    if !check.device.is_cuda() {
        return Ok(reference(dh_TD, rows, sums_SD, slot_of_row_V)?);
    }
    Launch::new(&SOURCE, "embedding_gradient", Kind::Float, check.device)?
        .tensor(dh_TD)
        .tensor(&rows.order)
        .tensor(&rows.starts_U1)
        .tensor(&rows.slots_U)
        .tensor(&rows.tokens_U)
        .tensor(sums_SD)
        .tensor(slot_of_row_V)
        .int(width)
        .run([(width as u32).div_ceil(128), tokens as u32, 1], 128, 0)
}

/// Distinct rows, so that no two additions meet: the order of the sums is that of the pass here too.
fn reference(dh_TD: &Tensor, rows: &TokenRows, sums_SD: &Tensor, slot_of_row_V: &Tensor) -> Result<(), tch::TchError> {
    let sorted = dh_TD.f_index_select(0, &rows.order)?;
    let counts = rows.starts_U1.f_diff(1, 0, None::<&Tensor>, None::<&Tensor>)?.f_to_kind(Kind::Int64)?;
    let none = None::<&Tensor>;
    let sums_UD = Tensor::f_segment_reduce(&sorted, "sum", Some(&counts), none, none, 0, true, 0.0)?;
    let (mut sums_SD, mut slot_of_row_V) = (sums_SD.shallow_clone(), slot_of_row_V.shallow_clone());
    let _ = sums_SD.f_index_add_(0, &rows.slots_U, &sums_UD)?;
    let _ = slot_of_row_V.f_index_copy_(0, &rows.tokens_U.f_to_kind(Kind::Int64)?, &rows.slots_U)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use tch::Device;

    use super::*;
    use crate::testing::{assert_close, cuda, normal};

    fn rows(device: Device) -> TokenRows {
        // Tokens of the pass: 5 3 5 9 5; the last row is left out.
        let upload = |values: &[i32]| Tensor::from_slice(values).to_device(device);
        TokenRows {
            tokens_U: upload(&[3, 5, 9]),
            slots_U: upload(&[2, 0, 1]),
            starts_U1: upload(&[0, 1, 3, 4]),
            order: upload(&[1, 0, 2, 3]),
        }
    }

    fn sums(device: Device, width: i64) -> (Tensor, Tensor) {
        let dh = normal(&[5, width], 1).to_device(device);
        let sums = Tensor::full([4, width], 100.0, (Kind::Float, device));
        let slot_of_row = Tensor::full([10], -1, (Kind::Int, device));
        embedding_gradient(&dh, &rows(device), &sums, &slot_of_row).unwrap();
        (sums, slot_of_row)
    }

    #[test]
    fn rows_of_a_token_are_summed() {
        let dh = normal(&[5, 6], 1);
        let (sums, slot_of_row) = sums(Device::Cpu, 6);
        let expected = Tensor::stack(
            &[dh.get(0) + dh.get(2), dh.get(3), dh.get(1), Tensor::zeros([6], (Kind::Float, Device::Cpu))],
            0,
        ) + 100.0;
        assert_close("sums", &sums, &expected, Kind::Float);
        assert_eq!(Vec::<i32>::try_from(slot_of_row).unwrap(), [-1, -1, -1, 2, -1, 0, -1, -1, -1, 1]);
    }

    #[test]
    fn the_kernel_agrees_with_the_reference() {
        let Some(device) = cuda() else { return };
        for width in [1, 100, 1024] {
            let (expected, expected_slots) = sums(Device::Cpu, width);
            let (found, slots) = sums(device, width);
            assert_close("sums", &found, &expected, Kind::Float);
            assert!(slots.to_device(Device::Cpu).equal(&expected_slots));
        }
    }
}
