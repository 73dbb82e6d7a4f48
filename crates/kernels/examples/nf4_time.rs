//! How long NF4 takes on the card: `nf4_time`, a line for each shape with and without double quantisation.
//!
//! Times what a caller has of it, as CUDA events would around many calls: host and device run side by side, and the
//! slower of the two is what counts. Operands are the same in each call, results come from the allocator. `quantise` is
//! without `finish`, which waits for the device: `quantize_4bit` of bitsandbytes does not wait, nor say whether all values
//! are finite. `finished` is with it, call by call.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a development tool")]

use std::time::Instant;

use pipe_kernels::ops::{Layout, Nf4, Weight, materialise, quantise_nf4};
use tch::{Device, Kind, Tensor};

const WARM_UP: usize = 5;
const CALLS: usize = 100;
const ROUNDS: usize = 7;

/// Bytes of a value in bfloat16 beside its code and its part of a scale.
const BYTES_A_VALUE: f64 = 2.52;

/// Seconds a call: the median of some rounds of many calls.
fn seconds(mut call: impl FnMut()) -> f64 {
    (0..WARM_UP).for_each(|_| call());
    let round = |_| {
        tch::Cuda::synchronize(0);
        let start = Instant::now();
        (0..CALLS).for_each(|_| call());
        tch::Cuda::synchronize(0);
        start.elapsed().as_secs_f64() / CALLS as f64
    };
    let mut rounds: Vec<f64> = (0..ROUNDS).map(round).collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}

fn main() {
    pipe_kernels::load_cuda().unwrap();
    pipe_kernels::set_deterministic(true).unwrap();
    let _guard = tch::no_grad_guard();
    let device = Device::Cuda(0);
    let (from, mut to) = [(); 2].map(|()| Tensor::zeros([1 << 30], (Kind::Uint8, device))).into();
    let copy = seconds(|| to.copy_(&from));
    println!("copy GB/s {:.0}", 2.0 * f64::from(1 << 30) / copy / 1e9);
    drop((from, to));
    for shape in [[1024, 1024], [3072, 1024], [6144, 2048], [12288, 4096]] {
        let values = Tensor::randn(shape, (Kind::BFloat16, device));
        let bytes = (shape[0] * shape[1]) as f64 * BYTES_A_VALUE;
        for nested in [false, true] {
            let (codes, scales) = quantise_nf4(&values, nested).unwrap().finish().unwrap();
            let weight = Weight::Nf4(Nf4 { shape, block: 64, codes, scales });
            let layout = Layout::new(shape[1], &[None], false);
            let quantise = seconds(|| drop(quantise_nf4(&values, nested).unwrap()));
            let finished = seconds(|| drop(quantise_nf4(&values, nested).unwrap().finish().unwrap()));
            let dequantise = seconds(|| drop(materialise(&[&weight], &[], &layout, &[], Kind::BFloat16).unwrap()));
            println!(
                "({}, {}) nested={nested} quantise {:.1} us {:.0} GB/s, finished {:.1} us | dequantise {:.1} us {:.0} GB/s",
                shape[0],
                shape[1],
                quantise * 1e6,
                bytes / quantise / 1e9,
                finished * 1e6,
                dequantise * 1e6,
                bytes / dequantise / 1e9
            );
        }
    }
}
