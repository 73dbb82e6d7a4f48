//! Causal attention within each sample of a packed pass, with grouped query heads.
//!
//! Three ways: a kernel of ours for short samples in bfloat16 or float16 on CUDA; libtorch's flash attention for other
//! widths and long samples there; plain products, sample by sample, for the rest, which is the reference. There nothing of
//! the size of a score matrix outlives a sample: the backward pass computes the probabilities again.
//!
//! # Source
//! The order of the computation is that of Dao, arXiv:2307.08691.
#![expect(non_snake_case, reason = "shape suffixes")]

use tch::{Device, Kind, Tensor};

use super::check::Check;
use crate::{
    Error,
    element::master,
    flash::{self, BLOCK_ROWS, Packing, flash_attention, flash_attention_backward},
    launch::Launch,
    nvrtc::{Source, source},
};

/// A source for each width of heads that there is a kernel for.
pub(crate) static SOURCES: [(i64, Source); 4] = [
    (64, source!("attention", WIDTH = 64)),
    (80, source!("attention", WIDTH = 80)),
    (96, source!("attention", WIDTH = 96)),
    (128, source!("attention", WIDTH = 128)),
];

/// Longer samples go to flash attention, which splits the work for one of them finer.
const LONGEST: i64 = 1024;
/// Scores that are held at once by plain products: 256 MiB in float32. Longer samples go through in groups of heads.
const SCORE_VALUES: i64 = 1 << 26;
/// Of a thread block.
const THREADS: u32 = 256;

/// What attention gives, and what its backward pass needs beside the operands.
#[derive(Debug)]
pub struct Attended {
    /// `[T, H*d]`, type of the computation.
    pub output: Tensor,
    saved: Saved,
}

#[derive(Debug)]
enum Saved {
    /// Logarithms of the sums of exponentials, `[H, T]`, float32.
    Kernel {
        lse_HT: Tensor,
    },
    Flash(flash::Attended),
    Plain,
}

/// The kernels for a width of heads.
pub(crate) fn source_for(width: i64) -> Option<&'static Source> {
    SOURCES.iter().find(|(its, _)| *its == width).map(|(_, source)| source)
}

/// Whether our kernel takes operands like these.
fn takes(device: Device, kind: Kind, width: i64, longest: i64) -> bool {
    device.is_cuda() && matches!(kind, Kind::BFloat16 | Kind::Half) && source_for(width).is_some() && longest <= LONGEST
}

/// Causal attention within each sample.
///
/// # Shapes
/// `q [T, H, d]`, `k` and `v [T, G, d]`, `G` dividing `H`; of all three the rows may lie apart, the heads of a row not.
///
/// # Errors
/// If the operands do not fit, or the device refuses.
///
/// # Source
/// Dao, arXiv:2307.08691.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, packing: &Packing, scale: f64) -> Result<Attended, Error> {
    let sizes = Sizes::check([q, k, v], packing, scale)?;
    let (kind, device) = (q.kind(), q.device());
    if takes(device, kind, sizes.width, packing.longest)
        && let Some(source) = source_for(sizes.width)
    {
        let operands @ [q, k, v] = &[aligned_rows(q)?, aligned_rows(k)?, aligned_rows(v)?];
        let output = Tensor::f_empty([sizes.tokens, sizes.heads * sizes.width], (kind, device))?;
        let lse_HT = Tensor::f_empty([sizes.heads, sizes.tokens], (Kind::Float, device))?;
        let blocks = sizes.grid(packing, sizes.pairs())?;
        Launch::new(source, "attention", kind, device)?
            .tensor(q)
            .tensor(k)
            .tensor(v)
            .tensor(&packing.items)
            .structure(&sizes.words(operands, None, packing, scale))
            .tensor(&output)
            .tensor(&lse_HT)
            .run([blocks, 1, 1], THREADS, sizes.tile_bytes() * 6)?;
        return Ok(Attended { output, saved: Saved::Kernel { lse_HT } });
    }
    if Packing::takes(device, kind, sizes.width as usize) {
        let flash = flash_attention(&q.f_contiguous()?, &k.f_contiguous()?, &v.f_contiguous()?, packing, scale)?;
        return Ok(Attended { output: flash.output().f_flatten(1, 2)?, saved: Saved::Flash(flash) });
    }
    Ok(Attended { output: plain(q, k, v, packing, scale)?, saved: Saved::Plain })
}

/// The gradients of query, key and value.
///
/// # Shapes
/// `dy [T, H*d]`, type of the computation, rows may lie apart; `q`, `k` and `v` as in the forward pass. Results `[T, H, d]`
/// and twice `[T, G, d]`, contiguous.
///
/// # Errors
/// If the operands do not fit, or the device refuses.
pub fn attention_backward(
    dy: &Tensor,
    [q, k, v]: [&Tensor; 3],
    attended: &Attended,
    packing: &Packing,
    scale: f64,
) -> Result<[Tensor; 3], Error> {
    let sizes = Sizes::check([q, k, v], packing, scale)?;
    let (kind, device) = (q.kind(), q.device());
    let check = Check { kernel: "attention_backward", device };
    let row = sizes.heads * sizes.width;
    check.rows("dy", dy, kind, [sizes.tokens, row])?;
    check.tensor("output", &attended.output, kind, &[sizes.tokens, row])?;
    let dy = dy.f_unflatten(1, [sizes.heads, sizes.width])?;
    match (&attended.saved, source_for(sizes.width)) {
        (Saved::Kernel { lse_HT }, Some(source)) => {
            check.tensor("lse", lse_HT, Kind::Float, &[sizes.heads, sizes.tokens])?;
            let dy = aligned_rows(&dy)?;
            let operands @ [q, k, v] = &[aligned_rows(q)?, aligned_rows(k)?, aligned_rows(v)?];
            let shape = sizes.words(operands, Some(&dy), packing, scale);
            let delta_HT = lse_HT.f_empty_like()?;
            Launch::new(source, "attention_delta", kind, device)?
                .tensor(&dy)
                .tensor(&attended.output)
                .structure(&shape)
                .tensor(&delta_HT)
                .run([(sizes.tokens as u32).div_ceil(16), sizes.heads as u32, 1], THREADS, 0)?;
            let gradient = |heads| Tensor::f_empty([sizes.tokens, heads, sizes.width], (kind, device));
            let gradients = [gradient(sizes.heads)?, gradient(sizes.groups)?, gradient(sizes.groups)?];
            let blocks = sizes.grid(packing, sizes.groups + sizes.pairs())?;
            let launch = Launch::new(source, "attention_backward", kind, device)?
                .tensor(&dy)
                .tensor(q)
                .tensor(k)
                .tensor(v)
                .tensor(lse_HT)
                .tensor(&delta_HT)
                .tensor(&packing.items)
                .structure(&shape);
            let launch = gradients.iter().fold(launch, Launch::tensor);
            // Behind the tiles, twice the sums of a block of queries.
            launch.run([blocks, 1, 1], THREADS, sizes.tile_bytes() * 6 + BLOCK_ROWS as u32 * 16)?;
            Ok(gradients)
        }
        (Saved::Flash(flash), _) => {
            let [q, k, v] = [q.f_contiguous()?, k.f_contiguous()?, v.f_contiguous()?];
            flash_attention_backward(&dy.f_contiguous()?, [&q, &k, &v], flash, packing, scale)
        }
        _ => Ok(plain_backward(&dy, [q, k, v], packing, scale)?),
    }
}

/// What the shapes of the operands say.
struct Sizes {
    tokens: i64,
    heads: i64,
    groups: i64,
    width: i64,
}

impl Sizes {
    fn check([q, k, v]: [&Tensor; 3], packing: &Packing, scale: f64) -> Result<Self, Error> {
        let check = Check { kernel: "attention", device: packing.device() };
        let shapes =
            || check.wrong(format!("q {:?}, k {:?} and v {:?} do not fit each other", q.size(), k.size(), v.size()));
        let (tokens, heads, width) = q.size3().map_err(|_| shapes())?;
        let (_, groups, _) = k.size3().map_err(|_| shapes())?;
        let fit = [k, v].iter().all(|tensor| tensor.size() == [tokens, groups, width]);
        check.require(fit, || format!("k {:?} and v {:?} do not fit q {:?}", k.size(), v.size(), q.size()))?;
        check.require(tokens == packing.rows, || format!("{tokens} rows are not the {} packed ones", packing.rows))?;
        check.require(groups > 0 && heads % groups == 0, || format!("{groups} key heads do not divide {heads}"))?;
        check.require(heads <= 65_535 && width > 0, || format!("{heads} heads of width {width}"))?;
        check.require(scale > 0.0 && scale.is_finite(), || format!("the scale {scale} is not positive"))?;
        for (name, tensor) in [("q", q), ("k", k), ("v", v)] {
            let (kind, device) = (tensor.kind(), tensor.device());
            let same = kind == q.kind() && device == check.device;
            check.require(same, || format!("{name} is {kind:?} on {device:?}, q is {:?}", q.kind()))?;
        }
        Ok(Self { tokens, heads, groups, width })
    }

    /// Thread blocks for one block of queries: two heads of a group each.
    fn pairs(&self) -> i64 {
        self.groups * (self.heads / self.groups + 1).div_euclid(2)
    }

    fn grid(&self, packing: &Packing, per_item: i64) -> Result<u32, Error> {
        let blocks = packing.items.size()[0] * per_item;
        let fits = i32::try_from(blocks).map(|blocks| blocks as u32);
        fits.map_err(|_| Error::Operands { kernel: "attention", problem: format!("{blocks} blocks are too many") })
    }

    /// Of a block of rows of one head in shared memory.
    fn tile_bytes(&self) -> u32 {
        BLOCK_ROWS as u32 * self.width as u32 * 2
    }

    /// `Shape` of the CUDA source.
    fn words(&self, [q, k, v]: &[Tensor; 3], dy: Option<&Tensor>, packing: &Packing, scale: f64) -> [u64; 7] {
        let pair = |low: i64, high: i64| low as u64 | (high as u64) << 32;
        let apart = |tensor: &Tensor| tensor.stride()[0] as u64;
        let items = packing.items.size()[0];
        let factor = u64::from((scale as f32).to_bits());
        let dy_ld = dy.map_or(0, apart);
        [apart(q), apart(k), apart(v), dy_ld, pair(self.tokens, self.heads), pair(self.groups, items), factor]
    }
}

/// Rows that begin at multiples of 16 bytes, with their heads side by side: the tensor itself, or a copy.
fn aligned_rows(tensor: &Tensor) -> Result<Tensor, Error> {
    let (size, stride) = (tensor.size(), tensor.stride());
    let whole = stride[1] == size[2] && stride[2] == 1 && stride[0] % 8 == 0 && stride[0] >= size[1] * size[2];
    if whole && (tensor.data_ptr() as usize).is_multiple_of(16) {
        return Ok(tensor.shallow_clone());
    }
    let copy = Tensor::f_empty(size, (tensor.kind(), tensor.device()))?;
    copy.shallow_clone().f_copy_(tensor)?;
    Ok(copy)
}

type Tch<T> = Result<T, tch::TchError>;

/// Shapes of a sample, heads first: t tokens, M query heads of one key head.
struct Plain {
    scale: f64,
    q_GMtd: Tensor,
    k_Gtd: Tensor,
    v_Gtd: Tensor,
}

impl Plain {
    /// Of some rows and some key heads.
    fn part([q, k, v]: [&Tensor; 3], rows: (i64, i64), groups: (i64, i64), scale: f64) -> Tch<Self> {
        let share = q.size()[1] / k.size()[1];
        Ok(Self {
            scale,
            q_GMtd: by_group(q, rows, groups, share)?,
            k_Gtd: by_group(k, rows, groups, 1)?,
            v_Gtd: by_group(v, rows, groups, 1)?,
        })
    }

    /// Softmax of the scaled scores of the past, `[G, M*t, t]`, master type.
    fn probabilities(&self) -> Tch<Tensor> {
        let (_, tokens, _) = self.k_Gtd.size3()?;
        let scores = self.q_GMtd.f_bmm(&self.k_Gtd.f_transpose(1, 2)?)?.f_to_kind(master(self.q_GMtd.kind()))?;
        let future = Tensor::f_ones([tokens, tokens], (Kind::Bool, scores.device()))?.f_triu(1)?;
        let mut scores = scores.f_mul_scalar(self.scale)?.f_view([-1, tokens, tokens])?;
        let _ = scores.f_masked_fill_(&future, f64::NEG_INFINITY)?;
        scores.f_softmax(-1, None::<Kind>)?.f_view([self.k_Gtd.size()[0], -1, tokens])
    }
}

fn plain(q: &Tensor, k: &Tensor, v: &Tensor, packing: &Packing, scale: f64) -> Tch<Tensor> {
    let output = Tensor::f_zeros(q.size(), (q.kind(), q.device()))?;
    let share = q.size()[1] / k.size()[1];
    for (rows, groups) in parts(q, k, packing) {
        let part = Plain::part([q, k, v], rows, groups, scale)?;
        let y_GMtd = part.probabilities()?.f_to_kind(q.kind())?.f_bmm(&part.v_Gtd)?;
        put(&output, &y_GMtd, rows, groups, share)?;
    }
    output.f_flatten(1, 2)
}

fn plain_backward(dy: &Tensor, operands: [&Tensor; 3], packing: &Packing, scale: f64) -> Tch<[Tensor; 3]> {
    let [q, k, v] = operands;
    let kind = q.kind();
    let share = q.size()[1] / k.size()[1];
    let zeros = |like: &Tensor| Tensor::f_zeros(like.size(), (kind, like.device()));
    let gradients = [zeros(q)?, zeros(k)?, zeros(v)?];
    for (rows, groups) in parts(q, k, packing) {
        let part = Plain::part(operands, rows, groups, scale)?;
        let dy = by_group(dy, rows, groups, share)?;
        let p = part.probabilities()?;
        let dv = p.f_to_kind(kind)?.f_transpose(1, 2)?.f_bmm(&dy)?;
        let dp = dy.f_bmm(&part.v_Gtd.f_transpose(1, 2)?)?.f_to_kind(master(kind))?;
        // Softmax: ds = p (dp - sum(p dp)), times the scale of the scores.
        let ds = Tensor::f_internal_softmax_backward_data(&dp, &p, -1, master(kind))?;
        let ds = ds.f_mul_scalar(scale)?.f_to_kind(kind)?;
        put(&gradients[0], &ds.f_bmm(&part.k_Gtd)?, rows, groups, share)?;
        put(&gradients[1], &ds.f_transpose(1, 2)?.f_bmm(&part.q_GMtd)?, rows, groups, 1)?;
        put(&gradients[2], &dv, rows, groups, 1)?;
    }
    Ok(gradients)
}

/// First row and number of rows of each sample, with first and number of key heads, whose scores fit the budget.
fn parts(q: &Tensor, k: &Tensor, packing: &Packing) -> Vec<((i64, i64), (i64, i64))> {
    let (heads, groups) = (q.size()[1], k.size()[1]);
    let mut parts = Vec::new();
    let mut row = 0;
    for length in packing.lengths.iter().copied().filter(|length| *length > 0) {
        let at_once = (SCORE_VALUES / (heads / groups * length).saturating_mul(length)).clamp(1, groups);
        parts.extend(
            (0..groups).step_by(at_once as usize).map(|first| ((row, length), (first, at_once.min(groups - first)))),
        );
        row += length;
    }
    parts
}

/// Of `[T, G*M, d]` some rows and key heads: `[G, M*t, d]`.
fn by_group(tensor: &Tensor, rows: (i64, i64), groups: (i64, i64), share: i64) -> Tch<Tensor> {
    let part = tensor.f_narrow(0, rows.0, rows.1)?.f_narrow(1, groups.0 * share, groups.1 * share)?;
    part.f_transpose(0, 1)?.f_reshape([groups.1, share * rows.1, tensor.size()[2]])
}

/// The way back.
fn put(to: &Tensor, part_GMtd: &Tensor, rows: (i64, i64), groups: (i64, i64), share: i64) -> Tch<()> {
    let part = part_GMtd.f_reshape([groups.1 * share, rows.1, to.size()[2]])?.f_transpose(0, 1)?;
    let mut place = to.f_narrow(0, rows.0, rows.1)?.f_narrow(1, groups.0 * share, groups.1 * share)?;
    place.f_copy_(&part)
}

#[cfg(test)]
#[path = "attention_tests.rs"]
mod tests;
