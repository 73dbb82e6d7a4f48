//! Times attention over packed samples on the first card: our kernels and libtorch's.
#![allow(clippy::print_stdout, reason = "it prints what it finds")]

use std::time::Instant;

use pipe_kernels::{CudaStatus, Error, Packing, flash_attention, flash_attention_backward, load_cuda, ops};
use tch::{Cuda, Device, Kind, Tensor};

const CALLS: u32 = 200;

fn main() -> Result<(), Error> {
    pipe_kernels::set_deterministic(true)?;
    if let CudaStatus::NoDriver { message } = load_cuda()? {
        println!("no card: {message}");
        return Ok(());
    }
    let (device, kind, width) = (Device::Cuda(0), Kind::BFloat16, 128);
    for lengths in [[214, 138, 331, 284, 110, 328, 77, 120], [384; 8]] {
        let packing = Packing::new(&lengths, device)?;
        let tokens = lengths.iter().sum::<usize>() as i64;
        for (heads, groups) in [(16, 8), (32, 8)] {
            let tensor = |heads| Tensor::f_randn([tokens, heads, width], (kind, device));
            let (q, k, v, dy) = (tensor(heads)?, tensor(groups)?, tensor(groups)?, tensor(heads)?);
            let flat = dy.f_flatten(1, 2)?;
            let scale = (width as f64).powf(-0.5);
            let ours = ops::attention(&q, &k, &v, &packing, scale)?;
            let theirs = flash_attention(&q, &k, &v, &packing, scale)?;
            let times = [
                time(|| ops::attention(&q, &k, &v, &packing, scale).map(drop))?,
                time(|| ops::attention_backward(&flat, [&q, &k, &v], &ours, &packing, scale).map(drop))?,
                time(|| flash_attention(&q, &k, &v, &packing, scale).map(drop))?,
                time(|| flash_attention_backward(&dy, [&q, &k, &v], &theirs, &packing, scale).map(drop))?,
            ];
            let [forward, backward, their_forward, their_backward] = times;
            println!(
                "{tokens} tokens, {heads}/{groups} heads: forward {forward:.1} us (libtorch {their_forward:.1}), backward {backward:.1} us (libtorch {their_backward:.1})"
            );
        }
    }
    Ok(())
}

/// Microseconds of a call, the device's and the host's, whichever is longer.
fn time(mut call: impl FnMut() -> Result<(), Error>) -> Result<f64, Error> {
    for _ in 0..20 {
        call()?;
    }
    Cuda::synchronize(0);
    let start = Instant::now();
    for _ in 0..CALLS {
        call()?;
    }
    Cuda::synchronize(0);
    Ok(start.elapsed().as_secs_f64() * 1e6 / f64::from(CALLS))
}
