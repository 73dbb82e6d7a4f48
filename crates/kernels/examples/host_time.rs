//! What one call of each operation costs the host, on the card: `host_time`.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a development tool")]

use std::time::Instant;

use pipe_kernels::{
    Packing, flash_attention, flash_attention_backward,
    ops::{
        Adapter, AdapterGradients, Dropout, Layout, LoraInput, Weight, lora_down, lora_gradients, materialise,
        rms_norm, rms_norm_backward, swiglu,
    },
};
use tch::{Device, Kind, Tensor};

fn time(name: &str, mut call: impl FnMut()) {
    for _ in 0..20 {
        call();
    }
    tch::Cuda::synchronize(0);
    let start = Instant::now();
    for _ in 0..200 {
        call();
    }
    let host = start.elapsed().as_secs_f64() / 200.0;
    tch::Cuda::synchronize(0);
    let all = start.elapsed().as_secs_f64() / 200.0;
    println!("{name:24} {:6.1} us on the host, {:6.1} us in all", host * 1e6, all * 1e6);
}

fn main() {
    pipe_kernels::load_cuda().unwrap();
    pipe_kernels::set_deterministic(true).unwrap();
    let _guard = tch::no_grad_guard();
    let device = Device::Cuda(0);
    let random = |shape: &[i64], kind| Tensor::randn(shape, (kind, device));
    let (t, d, i) = (64, 1024, 3072);
    let (bf, f) = (Kind::BFloat16, Kind::Float);
    let (h, weight) = (random(&[t, d], f), random(&[d], f));
    let layout = Layout::new(d, &[Some(8), None, Some(8)], false);
    let (a, b) = (random(&[8, d], f), random(&[d, 8], f));
    let adapters = [0, 1].map(|module| Adapter { a_RI: &a, b_OR: &b, module, factor: 1.0 });
    let dropout = Dropout {
        key: [1, 2],
        threshold: 1 << 28,
        places_T: Tensor::zeros([t], (Kind::Int, device)),
        positions_T: Tensor::arange(t, (Kind::Int, device)),
    };
    let x = random(&[t, layout.columns], bf);
    let dense = Weight::Dense(random(&[d, d], bf));
    let small = random(&[64, 64], bf);
    time("mm 64", || drop(small.f_mm(&small).unwrap()));
    time("add 64", || drop(small.f_add(&small).unwrap()));
    time("empty", || drop(Tensor::f_empty([64, 64], (bf, device)).unwrap()));
    time("size", || drop(small.size()));
    time("narrow", || drop(small.narrow(0, 0, 3)));
    time("mm", || drop(x.f_mm(&x.tr()).unwrap()));
    time("rms_norm", || drop(rms_norm(&h, None, &weight, 1e-6, d + 16, bf).unwrap()));
    time("materialise", || drop(materialise(&[&dense, &dense, &dense], &[], &layout, &adapters, bf).unwrap()));
    time("lora_down", || lora_down(&x, &layout, &adapters, Some(&dropout)).unwrap());
    let (ga, gb) = (a.zeros_like(), b.zeros_like());
    let dy = random(&[t, 3 * d], bf);
    let gradients =
        [0, 2 * d].map(|first_row| AdapterGradients { adapter: adapters[0], first_row, grad_a: &ga, grad_b: &gb });
    time("lora_gradients", || lora_gradients(&dy, &x, &x, &layout, &gradients, Some(&dropout)).unwrap());
    let input = LoraInput { dx_TC: &x, layout: &layout, adapters: &adapters, dropout: Some(&dropout) };
    let rstd = random(&[t], f);
    time("rms_norm_backward", || drop(rms_norm_backward(&input, &h, &rstd, &weight, &h).unwrap()));
    let gate_up = random(&[t, 2 * i], bf);
    time("swiglu", || drop(swiglu(&gate_up, i + 8).unwrap()));
    let packing = Packing::new(&[32, 32], device).unwrap();
    let (q, k) = (random(&[t, 16, 128], bf), random(&[t, 8, 128], bf));
    let attended = flash_attention(&q, &k, &k, &packing, 0.1).unwrap();
    time("flash", || drop(flash_attention(&q, &k, &k, &packing, 0.1).unwrap()));
    time("flash backward", || drop(flash_attention_backward(&q, [&q, &k, &k], &attended, &packing, 0.1).unwrap()));
}
