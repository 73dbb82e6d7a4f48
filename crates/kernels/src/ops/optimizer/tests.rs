//! AdamW and clipping: kernels beside their references, and these beside PyTorch's formulas.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
use super::*;
use crate::testing::{assert_within, cuda, normal};

const STEP: AdamWStep =
    AdamWStep { learning_rate: 1e-2, beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weight_decay: 0.1, update: 1 };

fn bytes(tensor: &Tensor) -> Vec<u8> {
    let kind = if tensor.kind() == Kind::Uint8 { Kind::Uint8 } else { Kind::Int16 };
    let flat = tensor.to_device(Device::Cpu).contiguous().flatten(0, -1).view_dtype(kind);
    Vec::<i16>::try_from(flat.to_kind(Kind::Int16)).unwrap().into_iter().flat_map(i16::to_le_bytes).collect()
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.to_device(Device::Cpu).to_kind(Kind::Double).flatten(0, -1)).unwrap()
}

fn clip_of(norm: f32, factor: f32, go_on: bool, device: Device) -> Tensor {
    Tensor::from_slice(&[norm, factor, f32::from(u8::from(go_on))]).to_device(device)
}

/// Copies on a device: tensors are updated in place.
fn placed(moments: &Moments, device: Device) -> Moments {
    let copy = |tensor: &Tensor| tensor.to_device(device).copy();
    match moments {
        Moments::Float32 { mean, square } => Moments::Float32 { mean: copy(mean), square: copy(square) },
        Moments::EightBit { mean, square, mean_scales, square_scales, maps } => Moments::EightBit {
            mean: copy(mean),
            square: copy(square),
            mean_scales: copy(mean_scales),
            square_scales: copy(square_scales),
            maps: copy(maps),
        },
    }
}

fn parts(moments: &Moments) -> Vec<&Tensor> {
    match moments {
        Moments::Float32 { mean, square } => vec![mean, square],
        Moments::EightBit { mean, square, mean_scales, square_scales, .. } => {
            vec![mean, square, mean_scales, square_scales]
        }
    }
}

/// States as they are in the middle of a run.
fn some_moments(count: i64, eight_bit: bool) -> Moments {
    let moments = if eight_bit {
        Moments::eight_bit(count, Device::Cpu).unwrap()
    } else {
        Moments::new(count, Kind::Float, Device::Cpu).unwrap()
    };
    let values = normal(&[count], 50);
    for seed in 51..54 {
        adamw(&values, &(normal(&[count], seed) * 0.1), &moments, &STEP, &clip_of(1.0, 1.0, true, Device::Cpu))
            .unwrap();
    }
    moments
}

#[test]
fn updates_are_those_of_a_loop_over_the_values() {
    for (kind, tolerance) in [(Kind::Double, 1e-14), (Kind::Float, 1e-6)] {
        let values = normal(&[3, 5], 1).to_kind(kind);
        let moments = Moments::new(15, kind, Device::Cpu).unwrap();
        let (mut expected, mut mean, mut square) = (numbers(&values), vec![0.0; 15], vec![0.0; 15]);
        for update in 1..6_u64 {
            let grad = normal(&[3, 5], 1 + update as i64).to_kind(kind);
            adamw(&values, &grad, &moments, &AdamWStep { update, ..STEP }, &clip_of(2.0, 0.5, true, Device::Cpu))
                .unwrap();
            for (i, g) in numbers(&grad).into_iter().enumerate() {
                let g = g * 0.5;
                mean[i] = 0.9 * mean[i] + 0.1 * g;
                square[i] = 0.99 * square[i] + 0.01 * g * g;
                let [mean, square] =
                    [mean[i] / (1.0 - 0.9_f64.powi(update as i32)), square[i] / (1.0 - 0.99_f64.powi(update as i32))];
                expected[i] = expected[i] * (1.0 - 1e-3) - 1e-2 * mean / (square.sqrt() + 1e-8);
            }
        }
        for (found, expected) in numbers(&values).into_iter().zip(expected) {
            assert!((found - expected).abs() < tolerance, "{kind:?}: {found} is not {expected}");
        }
    }
}

#[test]
fn clipping_is_that_of_torch() {
    for device in [Some(Device::Cpu), cuda()].into_iter().flatten() {
        let grads = [normal(&[7, 3], 1), normal(&[5000], 2), normal(&[1], 3)].map(|grad| grad.to_device(device));
        let counts = grads.each_ref().map(|grad| partials_of(grad.numel() as i64));
        assert_eq!(counts, [1, 2, 1]);
        let partials = Tensor::full([4], f64::NAN, (Kind::Double, device));
        let mut first = 0;
        for (grad, count) in grads.iter().zip(counts) {
            sum_of_squares(grad, &partials, first).unwrap();
            first += count;
        }
        let expected = grads.iter().flat_map(numbers).map(|value| value * value).sum::<f64>().sqrt() as f32;
        let sticky = Tensor::zeros([1], (Kind::Int, device));
        let scaled = |max_norm, scale| numbers(&clip(&partials, max_norm, scale, &sticky).unwrap());
        let found = |max_norm| scaled(max_norm, 1.0);
        let [norm, factor, go_on] = found(1.0)[..] else { panic!("three numbers") };
        assert!((norm / f64::from(expected) - 1.0).abs() < 1e-6 && go_on == 1.0);
        assert_eq!(factor as f32, 1.0 / (norm as f32 + 1e-6));
        assert_eq!(found(0.0)[1..], [1.0, 1.0]);
        assert_eq!(found(1000.0)[1..], [1.0, 1.0]);
        // Gradients that are so many times too large are made smaller, then clipped.
        assert_eq!(scaled(0.0, 1024.0), [norm / 1024.0, 1.0 / 1024.0, 1.0]);
        let [small, factor, _] = scaled(norm / 4096.0, 1024.0)[..] else { panic!("three numbers") };
        let max_norm = (norm / 4096.0) as f32;
        assert_eq!((small, factor as f32), (norm / 1024.0, max_norm / (small as f32 + 1e-6) / 1024.0));
        // Once broken, always broken.
        let _ = partials.get(2).fill_(f64::NAN);
        assert_eq!(found(1.0)[1..], [1.0, 0.0]);
        let _ = partials.get(2).fill_(1.0);
        assert_eq!(found(1.0)[2], 0.0);
        let _ = sticky.shallow_clone().zero_();
        assert_eq!(found(1.0)[2], 1.0);
        sum_of_squares(&Tensor::full([8], 3e38, (Kind::Float, device)), &partials, 3).unwrap();
        assert_eq!(found(1.0)[2], 0.0);
    }
}

#[test]
fn what_is_broken_changes_nothing() {
    for device in [Some(Device::Cpu), cuda()].into_iter().flatten() {
        for eight_bit in [false, true] {
            let values = normal(&[600], 1).to_device(device);
            let moments = placed(&some_moments(600, eight_bit), device);
            let before: Vec<_> = parts(&moments).into_iter().chain([&values]).map(bytes).collect();
            let grad = Tensor::full([600], f64::NAN, (Kind::Float, device));
            adamw(&values, &grad, &moments, &STEP, &clip_of(f32::NAN, 1.0, false, device)).unwrap();
            let after: Vec<_> = parts(&moments).into_iter().chain([&values]).map(bytes).collect();
            assert_eq!(after, before);
        }
    }
}

/// A table whose rows `rows` are updated, with each way to give a gradient.
struct Case {
    height: i64,
    width: i64,
    rows: Range<i64>,
    eight_bit: bool,
    halves: bool,
    dense: bool,
    sparse: bool,
}

impl Case {
    fn all() -> Vec<Self> {
        let mut cases = Vec::new();
        for (height, width, rows) in
            [(7, 5, 2..6), (9, 256, 0..9), (40, 64, 8..40), (3, 1024, 1..3), (30, 100, 0..30), (6, 512, 2..2)]
        {
            for choice in 0..16_u8 {
                let [eight_bit, halves, dense, sparse] = [1, 2, 4, 8].map(|bit| choice & bit != 0);
                // Slices in 8 bits are of whole blocks.
                let whole = rows.start * width % 256 == 0 && (rows.end == height || rows.end * width % 256 == 0);
                if whole || !eight_bit {
                    cases.push(Self { height, width, rows: rows.clone(), eight_bit, halves, dense, sparse });
                }
            }
        }
        cases
    }

    /// The values, the states and the sum of squares behind an update.
    fn run(&self, device: Device) -> (Tensor, Moments, f64) {
        let values = normal(&[self.height, self.width], 1).to_device(device);
        let moments = placed(&some_moments(self.height * self.width, self.eight_bit), device);
        let slots: Vec<i32> = (0..self.height as i32).map(|row| if row % 3 == 1 { row / 3 } else { -1 }).collect();
        let slot_of_row = Tensor::from_slice(&slots).to_device(device);
        let sparse = normal(&[self.height.div_euclid(3) + 1, self.width], 2).to_device(device);
        let dense = normal(&[self.rows.end - self.rows.start, self.width], 3).to_device(device);
        let gradient = RowGradient {
            dense: self.dense.then_some(&dense),
            sparse: self.sparse.then_some(Sparse { slot_of_row: &slot_of_row, values: &sparse }),
        };
        let partials = Tensor::full([1024], f64::NAN, (Kind::Double, device));
        sum_of_squares_rows(self.rows.clone(), self.width, &gradient, &partials, 0).unwrap();
        let number = partials_of((self.rows.end - self.rows.start) * self.width);
        let squares = numbers(&partials.narrow(0, 0, number)).into_iter().sum();
        let clip = clip_of(2.0, 0.5, true, device);
        let step = AdamWStep { update: 4, ..STEP };
        let values = if self.halves {
            let mut halves = Halves::split(&values).unwrap();
            adamw_rows(TableMut::Halves(&mut halves), self.rows.clone(), &gradient, &moments, &step, &clip).unwrap();
            halves.join(0, self.height).unwrap()
        } else {
            adamw_rows(TableMut::Whole(&values), self.rows.clone(), &gradient, &moments, &step, &clip).unwrap();
            values
        };
        (values, moments, squares)
    }

    fn name(&self) -> String {
        let Self { height, width, rows, eight_bit, halves, dense, sparse } = self;
        format!("{height}x{width} {rows:?} 8-bit {eight_bit} halves {halves} dense {dense} sparse {sparse}")
    }
}

#[test]
fn the_kernels_agree_with_the_reference() {
    let Some(device) = cuda() else { return };
    for case in Case::all() {
        let name = case.name();
        let (expected, expected_moments, expected_squares) = case.run(Device::Cpu);
        let (found, moments, squares) = case.run(device);
        assert!((squares - expected_squares).abs() <= 1e-6 * expected_squares, "{name}: {squares} {expected_squares}");
        if case.eight_bit {
            // The same operations, one by one.
            assert_eq!(bytes(&found), bytes(&expected), "{name}");
            for (found, expected) in parts(&moments).into_iter().zip(parts(&expected_moments)) {
                assert_eq!(bytes(found), bytes(expected), "{name}");
            }
        } else {
            assert_within(&name, &found, &expected, 1e-6);
            for (found, expected) in parts(&moments).into_iter().zip(parts(&expected_moments)) {
                assert_within(&name, found, expected, 1e-6);
            }
        }
        let (again, moments_again, squares_again) = case.run(device);
        assert_eq!((bytes(&found), squares.to_bits()), (bytes(&again), squares_again.to_bits()), "{name}");
        for (found, again) in parts(&moments).into_iter().zip(parts(&moments_again)) {
            assert_eq!(bytes(found), bytes(again), "{name}");
        }
    }
}

#[test]
fn what_is_not_aligned_is_updated_as_well() {
    let Some(device) = cuda() else { return };
    for count in [1, 7, 1000, 70_001] {
        let run = |offset: i64| {
            let place = |tensor: Tensor| {
                let room = Tensor::full([count + 3], f64::NAN, (tensor.kind(), device));
                let own = room.narrow(0, offset, count);
                own.shallow_clone().copy_(&tensor.to_device(device));
                own
            };
            let Moments::Float32 { mean, square } = some_moments(count, false) else { panic!("not float32") };
            let moments = Moments::Float32 { mean: place(mean), square: place(square) };
            let (values, grad) = (place(normal(&[count], 1)), place(normal(&[count], 2)));
            let partials = Tensor::zeros([1024], (Kind::Double, device));
            sum_of_squares(&grad, &partials, 5).unwrap();
            adamw(&values, &grad, &moments, &STEP, &clip_of(1.0, 1.0, true, device)).unwrap();
            [bytes(&values), bytes(parts(&moments)[0]), bytes(parts(&moments)[1]), bytes(&partials)]
        };
        assert_eq!(run(0), run(1), "{count}");
    }
}

#[test]
fn halves_and_sparse_gradients_are_the_same_update() {
    for case in Case::all().into_iter().filter(|case| case.halves) {
        let (halves, halves_moments, _) = case.run(Device::Cpu);
        let name = case.name();
        let (whole, moments, squares) = Case { halves: false, ..case }.run(Device::Cpu);
        assert_eq!(bytes(&halves), bytes(&whole), "{name}");
        for (found, expected) in parts(&halves_moments).into_iter().zip(parts(&moments)) {
            assert_eq!(bytes(found), bytes(expected), "{name}");
        }
        assert!(squares.is_finite());
    }
    // A loop over rows 2 to 6 of a table of 7, of which rows 1 and 4 have slots.
    let case = Case { height: 7, width: 5, rows: 2..6, eight_bit: false, halves: false, dense: true, sparse: true };
    let (found, _, squares) = case.run(Device::Cpu);
    let (dense, sparse) = (normal(&[4, 5], 3), normal(&[3, 5], 2));
    let grad = dense.copy();
    grad.get(2).copy_(&(dense.get(2) + sparse.get(1)));
    assert!((squares - numbers(&grad).into_iter().map(|g| g * g).sum::<f64>()).abs() < 1e-5);
    let values = normal(&[7, 5], 1);
    let Moments::Float32 { mean, square } = some_moments(35, false) else { panic!("not float32") };
    let slice = |tensor: &Tensor| tensor.view([7, 5]).narrow(0, 2, 4).contiguous();
    let own = slice(&values);
    let moments = Moments::Float32 { mean: slice(&mean), square: slice(&square) };
    adamw(&own, &grad, &moments, &AdamWStep { update: 4, ..STEP }, &clip_of(2.0, 0.5, true, Device::Cpu)).unwrap();
    values.narrow(0, 2, 4).copy_(&own);
    assert_eq!(bytes(&found), bytes(&values));
}

#[test]
fn eight_bits_follow_float32() {
    let run = |moments: Moments| {
        let values = normal(&[4096], 1);
        for update in 1..=20_u64 {
            let grad = normal(&[4096], 100 + update as i64 % 3) + 0.3;
            let clip = clip_of(1.0, 1.0, true, Device::Cpu);
            adamw(&values, &grad, &moments, &AdamWStep { update, weight_decay: 0.0, ..STEP }, &clip).unwrap();
        }
        values - normal(&[4096], 1)
    };
    let exact = run(Moments::new(4096, Kind::Float, Device::Cpu).unwrap());
    let coded = run(Moments::eight_bit(4096, Device::Cpu).unwrap());
    assert_within("change", &coded, &exact, 0.05);
}

#[test]
fn squares_above_zero_stay_there() {
    let moments = Moments::eight_bit(300, Device::Cpu).unwrap();
    let grad = Tensor::zeros([300], (Kind::Float, Device::Cpu));
    let clip = clip_of(1.0, 1.0, true, Device::Cpu);
    let _ = grad.get(0).fill_(1.0);
    let _ = grad.get(1).fill_(-1e-5);
    let _ = grad.get(2).fill_(1e-9);
    let values = Tensor::zeros([300], (Kind::Float, Device::Cpu));
    adamw(&values, &grad, &moments, &STEP, &clip).unwrap();
    let codes = |which: usize| Vec::<u8>::try_from(parts(&moments)[which].narrow(0, 0, 4)).unwrap();
    // -1e-5 of the largest is near an entry; 1e-9 of it becomes zero, from which its sign cannot turn.
    let means = codes(0);
    assert_eq!((means[0], means[2], means[3]), (255, 127, 127));
    assert!(means[1] < 127);
    assert_eq!(codes(1), [255, 1, 1, 0]);
    // A block of zeros changes nothing, whatever its scale.
    assert_eq!(numbers(&values)[256..], [0.0; 44]);
}

#[test]
fn operands_are_checked() {
    let (values, grad) = (normal(&[4, 128], 1), normal(&[4, 128], 2));
    let clip = clip_of(1.0, 1.0, true, Device::Cpu);
    let moments = Moments::new(512, Kind::Float, Device::Cpu).unwrap();
    let coded = Moments::eight_bit(512, Device::Cpu).unwrap();
    let message = |grad: &Tensor, moments: &Moments, step: &AdamWStep| {
        adamw(&values, grad, moments, step, &clip).unwrap_err().to_string()
    };
    assert!(message(&normal(&[3], 1), &moments, &STEP).contains("grad must be contiguous [4, 128]"));
    assert!(message(&grad, &moments, &AdamWStep { update: 0, ..STEP }).contains("counted from 1"));
    let short = Moments::new(511, Kind::Float, Device::Cpu).unwrap();
    assert!(message(&grad, &short, &STEP).contains("mean must have 512 values, it has 511"));
    let rows = |rows: Range<i64>, moments: &Moments| {
        let gradient = RowGradient::default();
        adamw_rows(TableMut::Whole(&values), rows, &gradient, moments, &STEP, &clip).unwrap_err().to_string()
    };
    assert!(rows(1..4, &coded).contains("values 128 to 512 are no whole blocks"));
    assert!(rows(2..5, &moments).contains("rows 2..5 of 4"));
    let partials = Tensor::zeros([2], (Kind::Double, Device::Cpu));
    let message = sum_of_squares(&values, &partials, 2).unwrap_err().to_string();
    assert!(message.contains("partial sums 2 to 3 of 2"), "{message}");
}
