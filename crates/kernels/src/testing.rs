//! What the tests of kernels share.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use tch::{Device, Kind, Tensor};

use crate::CudaStatus;

/// The card to test on, if the run is one for a card (`make gpu-test` sets `PIPE_TEST_GPU`); then there must be one.
pub(crate) fn cuda() -> Option<Device> {
    std::env::var_os("PIPE_TEST_GPU")?;
    match crate::load_cuda().unwrap() {
        CudaStatus::Ready { .. } => Some(Device::Cuda(0)),
        CudaStatus::NoDriver { message } => panic!("PIPE_TEST_GPU is set, and there is no driver: {message}"),
    }
}

/// Values of a normal distribution, float32 on the CPU, the same for the same seed.
pub(crate) fn normal(shape: &[i64], seed: i64) -> Tensor {
    // libtorch's own generator is one for all threads; tests run side by side.
    static GENERATOR: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _guard = GENERATOR.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // libtorch looks for CUDA once, at its first tensor.
    let _ = cuda();
    tch::manual_seed(seed);
    Tensor::randn(shape, (Kind::Float, Device::Cpu))
}

/// Compares with a reference in the mean square, relative to it: 1e-6 for float32, and what a rounding or two of the type
/// makes otherwise. No value may be NaN, and no single one far off.
pub(crate) fn assert_close(name: &str, found: &Tensor, expected: &Tensor, kind: Kind) {
    let tolerance = match kind {
        Kind::BFloat16 => 4e-3,
        Kind::Half => 5e-4,
        _ => 2e-6,
    };
    assert_within(name, found, expected, tolerance);
}

/// The same, with a tolerance of its own.
pub(crate) fn assert_within(name: &str, found: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_eq!(found.size(), expected.size(), "{name}");
    let [found, expected] = [found, expected].map(|tensor| tensor.to_device(Device::Cpu).to_kind(Kind::Double));
    let number = |tensor: Tensor| f64::try_from(tensor).unwrap();
    assert!(number(found.isfinite().all().to_kind(Kind::Double)) == 1.0, "{name} has values that are not finite");
    let scale = number(expected.square().mean(None::<Kind>)).sqrt().max(1e-30);
    let difference = &found - &expected;
    let rms = number(difference.square().mean(None::<Kind>)).sqrt() / scale;
    let worst = number(difference.abs().max()) / scale;
    assert!(
        rms <= tolerance,
        "{name}: differs by {rms:.2e} of its size in the mean square, {tolerance:.0e} is allowed"
    );
    assert!(worst <= 60.0 * tolerance, "{name}: one value differs by {worst:.2e} of the mean size");
}
