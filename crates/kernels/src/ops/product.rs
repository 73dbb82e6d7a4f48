//! Matrix products.
//!
//! On CUDA in bfloat16 and float16 by cuBLASLt, whose plans are made once a shape; elsewhere libtorch's.

use tch::{Device, Kind, Tensor};

use super::check::Check;
use crate::{
    Error,
    cublas::{self, Shape},
    view::View,
};

/// `left right`, summed in float32 and rounded once to `kind`.
///
/// # Shapes
/// `left [m, k]`, `right [k, n]`, of one type, either may be a transposed view; `[m, n]`, contiguous.
///
/// # Errors
/// If the operands do not fit, or the device refuses.
pub fn product(left: &Tensor, right: &Tensor, kind: Kind) -> Result<Tensor, Error> {
    let check = Check { kernel: "product", device: left.device() };
    let [left_view, right_view] = [left, right].map(View::of);
    let ([rows, _], [_, columns]) = (matrix(&check, &left_view)?, matrix(&check, &right_view)?);
    let out = Tensor::f_empty([rows, columns], (kind, check.device))?;
    multiply([&out, left, right], [View::of(&out), left_view, right_view], check, false)?;
    Ok(out)
}

/// Writes `left right` to `out`, or adds it.
///
/// # Shapes
/// As [`product`]; `out [m, n]`, rows may lie apart; with operands of 16 bits it is of their type or float32.
///
/// # Errors
/// If the operands do not fit, or the device refuses.
pub fn product_into(out: &Tensor, left: &Tensor, right: &Tensor, accumulate: bool) -> Result<(), Error> {
    let check = Check { kernel: "product", device: left.device() };
    let tensors = [out, left, right];
    multiply(tensors, tensors.map(View::of), check, accumulate)
}

fn multiply([out, left, right]: [&Tensor; 3], views: [View; 3], check: Check, accumulate: bool) -> Result<(), Error> {
    let [out_view, left_view, right_view] = &views;
    let ([rows, inner], [right_inner, columns]) = (matrix(&check, left_view)?, matrix(&check, right_view)?);
    let fits = inner == right_inner && out_view.size() == [rows, columns] && left_view.kind == right_view.kind;
    check.require(fits, || format!("{left:?} times {right:?} does not give {out:?}"))?;
    if let Some(shape) = planned(&views) {
        // Rows of libtorch are cuBLAS's columns: the product is that of the transposed matrices.
        return cublas::multiply(shape, [right, left, out], accumulate, check.device);
    }
    let mut out = out.shallow_clone();
    if left.kind() == Kind::Half && !check.device.is_cuda() {
        // As a card does it: libtorch's own would round the sum to float16 even where the result is not, and overflow.
        let result = left.f_to_kind(Kind::Float)?.f_mm(&right.f_to_kind(Kind::Float)?)?;
        match accumulate {
            true => drop(out.f_add_(&result)?),
            false => out.f_copy_(&result)?,
        }
        return Ok(());
    }
    let float32_from_16 = out.kind() == Kind::Float && matches!(left.kind(), Kind::BFloat16 | Kind::Half);
    let result = match float32_from_16 && check.device.is_cuda() {
        true => left.f_mm_dtype(right, Kind::Float)?,
        false => left.f_mm(right)?,
    };
    match accumulate {
        true => drop(out.f_add_(&result)?),
        false => out.f_copy_(&result)?,
    }
    Ok(())
}

/// The product as cuBLASLt is asked for it; `None` if it cannot take the operands.
fn planned([out, left, right]: &[View; 3]) -> Option<Shape> {
    let kind = left.kind.filter(|kind| matches!(kind, Kind::BFloat16 | Kind::Half))?;
    let on_cuda = left.device.is_some_and(Device::is_cuda);
    if !on_cuda || right.device != left.device || out.device != left.device {
        return None;
    }
    let out_kind = out.kind.filter(|found| *found == kind || *found == Kind::Float)?;
    let (left_stride, left_transposed) = stored(left)?;
    let (right_stride, right_transposed) = stored(right)?;
    let (out_stride, false) = stored(out)? else { return None };
    let (&[rows, inner], &[_, columns]) = (left.size(), right.size()) else { return None };
    if rows == 0 || columns == 0 || inner == 0 {
        return None;
    }
    Some(Shape {
        sizes: [columns as u64, rows as u64, inner as u64],
        strides: [right_stride, left_stride, out_stride],
        transposed: [right_transposed, left_transposed],
        bfloat16: kind == Kind::BFloat16,
        float32_result: out_kind == Kind::Float,
    })
}

/// How a matrix lies in memory: the distance between its rows or, if it is transposed, its columns.
fn stored(matrix: &View) -> Option<(i64, bool)> {
    let (&[rows, columns], &[down, right]) = (matrix.size(), matrix.stride()) else { return None };
    let (stride, transposed) = if right == 1 && down >= columns {
        (down, false)
    } else if down == 1 && right >= rows {
        (right, true)
    } else {
        return None;
    };
    let bytes = matrix.kind?.elt_size_in_bytes() as i64;
    let alignment = i64::from(cublas::ALIGNMENT);
    let aligned = stride * bytes % alignment == 0 && matrix.address as i64 % alignment == 0;
    aligned.then_some((stride, transposed))
}

fn matrix(check: &Check, view: &View) -> Result<[i64; 2], Error> {
    match view.size() {
        &[rows, columns] => Ok([rows, columns]),
        other => Err(check.wrong(format!("an operand must be a matrix, it is {other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::testing::{assert_within, cuda, normal};

    #[test]
    fn every_form_agrees_with_a_product_in_float32() {
        let Some(device) = cuda() else { return };
        for kind in [Kind::BFloat16, Kind::Half, Kind::Float] {
            for (rows, inner, columns) in [(1, 8, 8), (37, 1040, 2048), (64, 72, 24), (5, 7, 3), (129, 24, 1000)] {
                let left = normal(&[rows, inner], 1).to_kind(kind);
                let right = normal(&[inner, columns], 2).to_kind(kind);
                let expected = left.to_kind(Kind::Float).mm(&right.to_kind(Kind::Float));
                for form in 0..8 {
                    let place = |tensor: &Tensor, transposed: bool| match transposed {
                        true => tensor.tr().contiguous().to_device(device).tr(),
                        false => tensor.to_device(device),
                    };
                    let (left, right) = (place(&left, form & 1 > 0), place(&right, form & 2 > 0));
                    let out_kind = if form & 4 > 0 { Kind::Float } else { kind };
                    let tolerance = if out_kind == Kind::Float { 1e-5 } else { 4e-3 };
                    // Part of a wider matrix, which keeps what is beside it.
                    let wide = Tensor::full([rows, columns + 8], 7.0, (out_kind, device));
                    let out = wide.narrow(1, 0, columns);
                    product_into(&out, &left, &right, false).unwrap();
                    assert_within("product", &out, &expected, tolerance);
                    assert!(wide.narrow(1, columns, 8).eq(7.0).all().int64_value(&[]) == 1);
                    product_into(&out, &left, &right, true).unwrap();
                    assert_within("sum", &out, &(&expected * 2.0), tolerance * 2.0);
                    let again = product(&left, &right, out_kind).unwrap();
                    assert!(again.equal(&product(&left, &right, out_kind).unwrap()), "the same bytes");
                }
            }
        }
    }

    #[test]
    fn operands_are_checked() {
        let message = product(&normal(&[2, 3], 1), &normal(&[2, 3], 1), Kind::Float).unwrap_err().to_string();
        assert!(message.contains("does not give"), "{message}");
        let sum = normal(&[2, 2], 1);
        let before = sum.copy();
        product_into(&sum, &normal(&[2, 3], 2), &normal(&[3, 2], 3), true).unwrap();
        let expected = before + normal(&[2, 3], 2).mm(&normal(&[3, 2], 3));
        assert_within("sum", &sum, &expected, 1e-6);
    }
}
