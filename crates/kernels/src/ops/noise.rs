//! Uniform noise on the residual stream, drawn from the counters of the pass and never stored.
//!
//! A value is keyed by the sample's place in the update, the token's position in the sample and its channel, never by
//! the row of the pass: it does not depend on how an update is split, nor on the device.
#![expect(non_snake_case, reason = "shape suffixes: T tokens, D width of the residual stream")]

use tch::{Kind, Tensor};

use super::{check::Check, lora_operands::aligned};
use crate::{
    Error,
    element::master,
    launch::Launch,
    nvrtc::{Source, source},
    philox::philox,
};

pub(crate) const SOURCE: Source = source!("noise");

/// No linear layer has this number. Part of what a seed means.
const MODULE: u32 = u32::MAX;
/// Of a word, as many bits as float32 holds exactly.
const BITS: u32 = 24;
/// Between two values in `[-1, 1)`.
const STEP: f32 = 2.0 / (1_u32 << BITS) as f32;
/// Channels that one counter serves.
const LANES: usize = 4;
/// Of a thread block.
const THREADS: u32 = 128;

/// The noise of one pass.
#[derive(Debug)]
pub struct Noise {
    /// The key of the update.
    pub key: [u32; 2],
    /// The sample's place in the update, of each token, `[T]`, int32.
    pub places_T: Tensor,
    /// The position in its sample, of each token, `[T]`, int32.
    pub positions_T: Tensor,
    /// The largest magnitude, of each token, `[T]`, float32.
    pub bounds_T: Tensor,
}

/// Adds to every value of a token one that is uniform in `±bound`: a product of a value in `[-1, 1)` of 24 bits with the
/// bound, in float32.
///
/// # Shapes
/// `h [T, D]`, master type, contiguous.
///
/// # Errors
/// If the operands do not fit, or the device refuses.
///
/// # Source
/// Jain et al., NEFTune, arXiv:2310.05914.
pub fn add_noise(h_TD: &Tensor, noise: &Noise) -> Result<(), Error> {
    let check = Check { kernel: "add_noise", device: h_TD.device() };
    let (tokens, width) =
        h_TD.size2().map_err(|_| check.wrong(format!("h must be a matrix, it is {:?}", h_TD.size())))?;
    check.tensor("h", h_TD, master(h_TD.kind()), &[tokens, width])?;
    check.tensor("places", &noise.places_T, Kind::Int, &[tokens])?;
    check.tensor("positions", &noise.positions_T, Kind::Int, &[tokens])?;
    check.tensor("bounds", &noise.bounds_T, Kind::Float, &[tokens])?;
    if !check.device.is_cuda() {
        return Ok(reference(h_TD, noise)?);
    }
    let [key0, key1] = noise.key.map(|word| i64::from(word as i32));
    Launch::new(&SOURCE, "add_noise", Kind::Float, check.device)?
        .tensor(h_TD)
        .tensor(&noise.places_T)
        .tensor(&noise.positions_T)
        .tensor(&noise.bounds_T)
        .int(key0)
        .int(key1)
        .int(i64::from(MODULE as i32))
        .int(width)
        .int(i64::from(width % 4 == 0 && aligned([h_TD])))
        .run([tokens as u32, (width as u32).div_ceil(LANES as u32 * THREADS), 1], THREADS, 0)
}

fn reference(h_TD: &Tensor, noise: &Noise) -> Result<(), tch::TchError> {
    let (tokens, width) = h_TD.size2()?;
    let (places, positions) = (Vec::<i32>::try_from(&noise.places_T)?, Vec::<i32>::try_from(&noise.positions_T)?);
    let bounds = Vec::<f32>::try_from(&noise.bounds_T)?;
    let mut values = Vec::with_capacity(tokens as usize * width as usize);
    for ((place, position), bound) in places.iter().zip(&positions).zip(&bounds) {
        let counters = (0..(width as usize).div_ceil(LANES) as u32).map(|block| {
            let words = philox([block, *position as u32, *place as u32, MODULE], noise.key);
            words.map(|word| ((word >> (32 - BITS)) as f32 * STEP - 1.0) * bound)
        });
        values.extend(counters.flatten().take(width as usize));
    }
    let _ = h_TD.shallow_clone().f_add_(&Tensor::f_from_slice(&values)?.f_view([tokens, width])?)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use tch::Device;

    use super::*;
    use crate::testing::{cuda, normal};

    fn noise(tokens: i64, device: Device) -> Noise {
        let count = Tensor::arange(tokens, (Kind::Int, Device::Cpu));
        Noise {
            key: [0x9abc_def0, 0x1234_5678],
            places_T: count.divide_scalar_mode(7, "floor").to_kind(Kind::Int).to_device(device),
            positions_T: count.remainder(7).to_kind(Kind::Int).to_device(device),
            bounds_T: ((count + 3).to_kind(Kind::Float) * 0.01).to_device(device),
        }
    }

    #[test]
    fn the_kernel_gives_the_bits_of_the_reference() {
        let Some(device) = cuda() else { return };
        for (tokens, width) in [(1, 1), (5, 33), (14, 1024), (3, 2050), (40, 4096)] {
            let expected = normal(&[tokens, width], 1);
            // A part of longer memory that begins where no vector can be read.
            for shift in [0, 1] {
                let room = Tensor::zeros([tokens * width + 2], (Kind::Float, device));
                let found = room.narrow(0, shift, tokens * width).view([tokens, width]);
                found.shallow_clone().copy_(&expected);
                add_noise(&found, &noise(tokens, device)).unwrap();
                let expected = expected.copy();
                add_noise(&expected, &noise(tokens, Device::Cpu)).unwrap();
                assert_eq!(found.to_device(Device::Cpu), expected, "{tokens} {width}");
                assert_eq!(room.double_value(&[shift + tokens * width]), 0.0, "nothing behind it");
            }
        }
    }

    #[test]
    fn a_value_is_that_of_its_counter() {
        let noise = noise(10, Device::Cpu);
        for kind in [Kind::Float, Kind::Double] {
            let h = Tensor::zeros([10, 7], (kind, Device::Cpu));
            add_noise(&h, &noise).unwrap();
            for (row, column) in [(0, 0), (0, 6), (9, 3), (8, 4)] {
                let word = philox([column as u32 / 4, row as u32 % 7, row as u32 / 7, u32::MAX], noise.key)[column % 4];
                let unit = f64::from(word >> 8) / f64::from(1 << 23) - 1.0;
                let expected = (unit as f32 * (0.01 * (row + 3) as f32)) as f64;
                let found = h.double_value(&[row as i64, column as i64]);
                assert!((found - expected).abs() < 1e-7, "({row}, {column}): {found}, {expected} is expected");
            }
            let before = h.copy();
            add_noise(&h, &noise).unwrap();
            assert_eq!(h, before * 2.0, "it is added");
        }
    }

    #[test]
    fn operands_are_checked() {
        let message = |h: &Tensor, noise: &Noise| add_noise(h, noise).unwrap_err().to_string();
        let h = normal(&[4, 8], 1);
        assert!(message(&h, &noise(5, Device::Cpu)).contains("places must be contiguous [4], it is [5]"));
        assert!(message(&h.to_kind(Kind::Half), &noise(4, Device::Cpu)).contains("h must be Float on Cpu, it is Half"));
        assert!(message(&h.tr(), &noise(8, Device::Cpu)).contains("h must be contiguous"));
    }
}
