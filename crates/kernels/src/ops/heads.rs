//! Queries and keys between the projections and attention: the norms of heads, where a model has them, and the rotary
//! position embedding, in halves: channel `i` turns with channel `i + d/2`.
//!
//! # Source
//! Su et al., arXiv:2104.09864, in the layout of Llama and Qwen.
#![expect(non_snake_case, reason = "shape suffixes; P positions")]

use tch::{Kind, TchError, Tensor};

use super::{
    check::Check,
    lora::values_of_16_bytes,
    lora_operands::{aligned, join},
};
use crate::{
    Error,
    element::master,
    launch::Launch,
    nvrtc::{Source, source},
};

pub(crate) const SOURCE: Source = source!("heads");

/// The heads of a block and their places.
#[derive(Debug, Clone, Copy)]
pub struct Heads<'a> {
    /// Query heads.
    pub heads: i64,
    /// Key heads.
    pub groups: i64,
    /// Channels of a head: even, at most 256.
    pub head_dim: i64,
    /// Weights of the norms of queries and keys, `[d]`, master type.
    pub norms: Option<[&'a Tensor; 2]>,
    /// Of the norms.
    pub epsilon: f64,
    /// `[P, d/2]`, master type.
    pub cos_Pd: &'a Tensor,
    /// `[P, d/2]`, master type.
    pub sin_Pd: &'a Tensor,
    /// The row of the tables for each token, `[T]`, int32. All must be below P: kernels do not look.
    pub positions_T: &'a Tensor,
}

/// Queries and keys out of the projections' output, normed and turned; values stay where they are.
///
/// # Shapes
/// `qkv [T, (H + 2G) d]`, type of the computation, rows may lie apart; results `[T, H, d]` and `[T, G, d]`.
///
/// # Errors
/// If the operands do not fit, or the device refuses.
pub fn turn_heads(qkv: &Tensor, heads: &Heads<'_>) -> Result<(Tensor, Tensor), Error> {
    let (kind, device) = (qkv.kind(), qkv.device());
    let tokens = qkv.size().first().copied().unwrap_or(0);
    let stride = heads.check(Check { kernel: "turn_heads", device }, qkv, tokens)?;
    if !device.is_cuda() {
        return Ok(heads.reference(qkv)?);
    }
    let [q, k] =
        [heads.heads, heads.groups].map(|count| Tensor::f_empty([tokens, count, heads.head_dim], (kind, device)));
    let (q, k) = (q?, k?);
    let words = heads.words(kind, tokens, stride, [qkv, &q, &k]);
    Launch::new(&SOURCE, "turn_heads", kind, device)?
        .tensor(qkv)
        .long(stride)
        .structure(&words)
        .tensor(&q)
        .tensor(&k)
        .run(heads.grid(kind, tokens * (heads.heads + heads.groups)), 256, 0)?;
    Ok((q, k))
}

/// The gradient of the projections' output. The statistics of the norms are computed again.
///
/// # Shapes
/// `dq [T, H, d]`, `dk` and `dv` `[T, G, d]`, of what [`turn_heads`] gives and of the values; `qkv` as there; result
/// `[T, (H + 2G) d]`; all of the type of the computation.
///
/// # Errors
/// If the operands do not fit, or the device refuses.
pub fn turn_heads_backward(
    dq: &Tensor,
    dk: &Tensor,
    dv: &Tensor,
    qkv: &Tensor,
    heads: &Heads<'_>,
) -> Result<Tensor, Error> {
    let (kind, device) = (qkv.kind(), qkv.device());
    let check = Check { kernel: "turn_heads_backward", device };
    let tokens = qkv.size().first().copied().unwrap_or(0);
    let stride = heads.check(check, qkv, tokens)?;
    for (name, tensor, count) in [("dq", dq, heads.heads), ("dk", dk, heads.groups), ("dv", dv, heads.groups)] {
        check.tensor(name, tensor, kind, &[tokens, count, heads.head_dim])?;
    }
    if !device.is_cuda() {
        return Ok(heads.reference_backward([dq, dk, dv], qkv)?);
    }
    let count = heads.heads + 2 * heads.groups;
    let d_qkv = Tensor::f_empty([tokens, count * heads.head_dim], (kind, device))?;
    let words = heads.words(kind, tokens, stride, [qkv, dq, dk, dv, &d_qkv]);
    Launch::new(&SOURCE, "turn_heads_backward", kind, device)?
        .tensor(dq)
        .tensor(dk)
        .tensor(dv)
        .tensor(qkv)
        .long(stride)
        .structure(&words)
        .tensor(&d_qkv)
        .run(heads.grid(kind, tokens * count), 256, 0)?;
    Ok(d_qkv)
}

impl Heads<'_> {
    fn check(&self, check: Check, qkv: &Tensor, tokens: i64) -> Result<i64, Error> {
        let (d, master) = (self.head_dim, master(qkv.kind()));
        check.require(d >= 2 && d % 2 == 0 && d <= 256 && self.heads >= 1 && self.groups >= 1, || {
            format!("heads must be of an even number of channels up to 256, they are of {d}, and at least one each")
        })?;
        // The kernels count the threads of all heads in 32 bits.
        let threads = tokens * (self.heads + 2 * self.groups) * i64::from(self.lanes(qkv.kind()));
        check.require(threads <= i64::from(u32::MAX) - 255, || format!("{tokens} tokens are too many"))?;
        let stride = check.rows("qkv", qkv, qkv.kind(), [tokens, (self.heads + 2 * self.groups) * d])?;
        let positions = self.cos_Pd.size().first().copied().unwrap_or(0);
        check.tensor("cos", self.cos_Pd, master, &[positions, d / 2])?;
        check.tensor("sin", self.sin_Pd, master, &[positions, d / 2])?;
        check.tensor("positions", self.positions_T, Kind::Int, &[tokens])?;
        for norm_d in self.norms.into_iter().flatten() {
            check.tensor("the weight of a norm", norm_d, master, &[d])?;
        }
        Ok(stride)
    }

    /// Threads that share a head.
    fn lanes(&self, kind: Kind) -> u32 {
        ((self.head_dim / 2) as u32).div_ceil(values_of_16_bytes(kind) as u32).next_power_of_two()
    }

    fn grid(&self, kind: Kind, heads: i64) -> [u32; 3] {
        let blocks = (heads * i64::from(self.lanes(kind)) + 255) / 256;
        [blocks as u32, 1, 1]
    }

    /// `struct Heads` of heads.cu.
    fn words<const N: usize>(&self, kind: Kind, tokens: i64, stride: i64, others: [&Tensor; N]) -> [u64; 9] {
        let size = values_of_16_bytes(kind);
        let tables = [self.cos_Pd, self.sin_Pd].into_iter().chain(self.norms.into_iter().flatten());
        let vector = (self.head_dim / 2) % size == 0 && stride % size == 0 && aligned(tables.chain(others));
        let norms = self.norms.map_or([0; 2], |norms| norms.map(|norm| norm.data_ptr() as u64));
        [
            norms[0],
            norms[1],
            self.cos_Pd.data_ptr() as u64,
            self.sin_Pd.data_ptr() as u64,
            self.positions_T.data_ptr() as u64,
            tokens as u64,
            join(self.heads as u32, self.groups as u32),
            join(self.head_dim as u32, self.lanes(kind)),
            join((self.epsilon as f32).to_bits(), u32::from(vector)),
        ]
    }

    /// Queries and keys as they come, `[T, heads, d]`, master type.
    fn split(&self, qkv: &Tensor) -> Result<[Tensor; 2], TchError> {
        let part = |first: i64, count: i64| {
            let columns =
                qkv.f_narrow(1, first * self.head_dim, count * self.head_dim)?.f_to_kind(master(qkv.kind()))?;
            columns.f_reshape([-1, count, self.head_dim])
        };
        Ok([part(0, self.heads)?, part(self.heads, self.groups)?])
    }

    /// `1 / rms` of each head.
    fn reciprocal(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let mean = x.f_square()?.f_mean_dim([-1].as_slice(), true, None::<Kind>)?;
        mean.f_add_scalar(self.epsilon)?.f_rsqrt()
    }

    /// Turns every head by its angle, or back with `sign` -1.
    fn turn(&self, x: &Tensor, sign: f64) -> Result<Tensor, TchError> {
        let half = self.head_dim / 2;
        let rows = self.positions_T.f_to_kind(Kind::Int64)?;
        let of = |table: &Tensor| table.f_index_select(0, &rows)?.f_unsqueeze(1);
        let (cos, sin) = (of(self.cos_Pd)?, of(self.sin_Pd)?.f_mul_scalar(sign)?);
        let (first, second) = (x.f_narrow(-1, 0, half)?, x.f_narrow(-1, half, half)?);
        let turned_first = first.f_mul(&cos)?.f_sub_(&second.f_mul(&sin)?)?;
        let turned_second = second.f_mul(&cos)?.f_add_(&first.f_mul(&sin)?)?;
        Tensor::f_cat(&[turned_first, turned_second], -1)
    }

    fn reference(&self, qkv: &Tensor) -> Result<(Tensor, Tensor), TchError> {
        let turn = |x: &Tensor, number: usize| {
            let normed = match self.norms {
                Some(norms) => x.f_mul(&self.reciprocal(x)?)?.f_mul(norms[number])?,
                None => x.shallow_clone(),
            };
            self.turn(&normed, 1.0)?.f_to_kind(qkv.kind())
        };
        let [q, k] = self.split(qkv)?;
        Ok((turn(&q, 0)?, turn(&k, 1)?))
    }

    fn reference_backward(&self, [dq, dk, dv]: [&Tensor; 3], qkv: &Tensor) -> Result<Tensor, TchError> {
        let back = |dy: &Tensor, x: &Tensor, number: usize| {
            let mut gradient = self.turn(&dy.f_to_kind(master(qkv.kind()))?, -1.0)?;
            if let Some(norms) = self.norms {
                let reciprocal = self.reciprocal(x)?;
                let normed = x.f_mul(&reciprocal)?;
                gradient = gradient.f_mul(norms[number])?;
                let mean = gradient.f_mul(&normed)?.f_mean_dim([-1].as_slice(), true, None::<Kind>)?;
                gradient = gradient.f_sub(&normed.f_mul(&mean)?)?.f_mul(&reciprocal)?;
            }
            gradient.f_flatten(1, -1)?.f_to_kind(qkv.kind())
        };
        let [q, k] = self.split(qkv)?;
        Tensor::f_cat(&[back(dq, &q, 0)?, back(dk, &k, 1)?, dv.f_flatten(1, -1)?], 1)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use tch::Device;

    use super::*;
    use crate::testing::{assert_close, assert_within, cuda, normal};

    /// Everything but the projections' output, which is `[T, (heads + 2 groups) d]`.
    struct Sample {
        shape: [i64; 3],
        norms: Option<[Tensor; 2]>,
        cos: Tensor,
        sin: Tensor,
        positions: Tensor,
    }

    impl Sample {
        fn new(tokens: i64, shape: [i64; 3], norms: bool) -> Self {
            let angles = normal(&[tokens + 2, shape[2] / 2], 7);
            let positions = (Tensor::arange(tokens, (Kind::Int, Device::Cpu)) * 3).remainder(tokens + 2);
            let norms = norms.then(|| [8, 9].map(|seed| normal(&[shape[2]], seed)));
            Self { shape, norms, cos: angles.cos(), sin: angles.sin(), positions: positions.to_kind(Kind::Int) }
        }

        fn to(&self, device: Device, kind: Kind) -> Self {
            let to = |tensor: &Tensor| tensor.to_kind(master(kind)).to_device(device);
            let norms = self.norms.as_ref().map(|norms| [to(&norms[0]), to(&norms[1])]);
            let positions = self.positions.to_device(device);
            Self { shape: self.shape, norms, cos: to(&self.cos), sin: to(&self.sin), positions }
        }

        fn heads(&self) -> Heads<'_> {
            let [heads, groups, head_dim] = self.shape;
            let norms = self.norms.as_ref().map(|[q, k]| [q, k]);
            let (cos_Pd, sin_Pd, positions_T) = (&self.cos, &self.sin, &self.positions);
            Heads { heads, groups, head_dim, norms, epsilon: 1e-2, cos_Pd, sin_Pd, positions_T }
        }

        fn width(&self) -> i64 {
            (self.shape[0] + 2 * self.shape[1]) * self.shape[2]
        }
    }

    #[test]
    fn the_kernels_agree_with_the_reference() {
        let Some(device) = cuda() else { return };
        let shapes =
            [(1, [1, 1, 8]), (5, [4, 2, 128]), (33, [16, 8, 128]), (7, [3, 1, 10]), (9, [2, 2, 96]), (4, [4, 1, 256])];
        for kind in [Kind::Float, Kind::BFloat16, Kind::Half] {
            for ((tokens, shape), norms) in shapes.into_iter().flat_map(|shape| [(shape, false), (shape, true)]) {
                for apart in [0, 3, 8] {
                    let sample = Sample::new(tokens, shape, norms);
                    let there = sample.to(device, kind);
                    let width = sample.width();
                    let whole = normal(&[tokens, width + apart], 1).to_kind(kind);
                    let (qkv, moved) = (whole.narrow(1, 0, width), whole.to_device(device).narrow(1, 0, width));
                    let expected = turn_heads(&qkv, &sample.heads()).unwrap();
                    let [found, again] = [(), ()].map(|()| turn_heads(&moved, &there.heads()).unwrap());
                    assert_close("q", &found.0, &expected.0, kind);
                    assert_close("k", &found.1, &expected.1, kind);
                    assert!(found.0.equal(&again.0) && found.1.equal(&again.1), "two runs differ");

                    let [dq, dk, dv] = [(2, shape[0]), (3, shape[1]), (4, shape[1])]
                        .map(|(seed, count)| normal(&[tokens, count, shape[2]], seed).to_kind(kind));
                    let expected = turn_heads_backward(&dq, &dk, &dv, &qkv, &sample.heads()).unwrap();
                    let [dq, dk, dv] = [&dq, &dk, &dv].map(|tensor| tensor.to_device(device));
                    let [found, again] =
                        [(), ()].map(|()| turn_heads_backward(&dq, &dk, &dv, &moved, &there.heads()).unwrap());
                    match kind {
                        Kind::Float => assert_within("gradient", &found, &expected, 5e-6),
                        _ => assert_close("gradient", &found, &expected, kind),
                    }
                    assert!(found.equal(&again), "two runs differ");
                }
            }
        }
    }

    #[test]
    fn the_reference_is_the_gradient() {
        for norms in [false, true] {
            let sample = Sample::new(3, [2, 1, 6], norms).to(Device::Cpu, Kind::Double);
            let (heads, width) = (sample.heads(), sample.width());
            let qkv = normal(&[3, width], 1).to_kind(Kind::Double);
            let [dq, dk, dv] =
                [(2, 2), (3, 1), (4, 1)].map(|(seed, count)| normal(&[3, count, 6], seed).to_kind(Kind::Double));
            let loss = |qkv: &Tensor| {
                let (q, k) = turn_heads(qkv, &heads).unwrap();
                let v = qkv.narrow(1, 18, 6).reshape([3, 1, 6]);
                let sum = |x: Tensor, dx: &Tensor| (x * dx).sum(Kind::Double).double_value(&[]);
                sum(q, &dq) + sum(k, &dk) + sum(v, &dv)
            };
            let found = turn_heads_backward(&dq, &dk, &dv, &qkv, &heads).unwrap();
            for (t, i) in (0..3).flat_map(|t| (0..width).map(move |i| (t, i))) {
                let moved = |by: f64| {
                    let qkv = qkv.copy();
                    let _ = qkv.get(t).get(i).g_add_scalar_(by);
                    loss(&qkv)
                };
                let expected = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                assert!((found.double_value(&[t, i]) - expected).abs() < 1e-7);
            }
        }
    }

    /// Channel i turns with channel i + d/2, by the angle of the token's position.
    #[test]
    fn a_quarter_turn() {
        let (cos, sin) = (Tensor::from_slice2(&[[1.0_f32], [0.0]]), Tensor::from_slice2(&[[0.0_f32], [1.0]]));
        let positions = Tensor::from_slice(&[1_i32, 0]);
        let heads = Heads {
            heads: 1,
            groups: 1,
            head_dim: 2,
            norms: None,
            epsilon: 0.0,
            cos_Pd: &cos,
            sin_Pd: &sin,
            positions_T: &positions,
        };
        let qkv = Tensor::from_slice2(&[[1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0]; 2]);
        let (q, k) = turn_heads(&qkv, &heads).unwrap();
        assert_eq!(Vec::<f32>::try_from(q.flatten(0, -1)).unwrap(), [-2.0, 1.0, 1.0, 2.0]);
        assert_eq!(Vec::<f32>::try_from(k.flatten(0, -1)).unwrap(), [-4.0, 3.0, 3.0, 4.0]);
    }

    #[test]
    fn operands_are_checked() {
        let sample = Sample::new(2, [2, 1, 6], true);
        let message = |qkv: &Tensor, heads: &Heads<'_>| turn_heads(qkv, heads).unwrap_err().to_string();
        assert!(message(&normal(&[2, 23], 1), &sample.heads()).contains("qkv must have rows of [2, 24]"));
        assert!(message(&normal(&[3, 24], 1), &sample.heads()).contains("positions must be contiguous [3]"));
        let odd = Heads { head_dim: 7, ..sample.heads() };
        assert!(message(&normal(&[2, 28], 1), &odd).contains("even number of channels"));
    }
}
