//! What must not change a number: checkpointing, how an update is split, what else is trained.

use pipe_hf::{Checkpoint, Dtype, TensorSpec, write_safetensors};
use pipe_kernels::ops::{Int8, quantise_int8};
use pipe_nn::{LoraConfig, Model, Precision, Residency};
use tch::Tensor;

use crate::{
    fixtures::{Row, device, folder, load, lora, options, pack, relative_difference},
    testing::random,
};

const BOTH: [&str; 2] = ["embed_tokens", "lm_head"];

fn rows() -> Vec<Row> {
    let lengths = [17, 5, 40, 1, 23];
    let rows = lengths.map(|length| {
        // Some tokens come often, one is the padding token of a model.
        let ids: Vec<u32> = (0..length).map(|at| (at * at * 7 + length * 13) % 320).collect();
        let labels = ids.iter().enumerate().map(|(at, id)| if at % 3 == 1 { -100 } else { *id as i32 }).collect();
        Row { ids, labels }
    });
    rows.to_vec()
}

/// B that is not zero, so that A has a gradient too.
fn raise_adapters(model: &mut Model) {
    for (parameter, seed) in model.parameters_mut().iter_mut().zip(1..) {
        if parameter.name.contains("lora_B") {
            let value = random(parameter.size(), seed) * 0.02;
            parameter.set_value(&value).unwrap();
        }
    }
}

fn trained(folder: &str, precision: Precision, lora: LoraConfig, checkpointing: bool) -> Model {
    with_noise(None, folder, precision, lora, checkpointing)
}

fn with_noise(alpha: Option<f64>, folder: &str, precision: Precision, lora: LoraConfig, checkpointing: bool) -> Model {
    resident(alpha, folder, precision, lora, Residency::unbounded(checkpointing))
}

fn resident(alpha: Option<f64>, folder: &str, precision: Precision, lora: LoraConfig, residency: Residency) -> Model {
    let mut options = options(precision, lora);
    options.residency = residency;
    options.neftune_noise_alpha = alpha;
    let mut model = load(folder, &options);
    raise_adapters(&mut model);
    model
}

fn with_dropout(lora: LoraConfig) -> LoraConfig {
    LoraConfig { lora_dropout: 0.1, ..lora }
}

#[test]
fn what_stays_on_the_device_changes_no_bit() {
    let batch = pack(&rows(), 0);
    let choices = [
        Residency::unbounded(true),
        Residency { kept_layers: 1, ..Residency::unbounded(true) },
        Residency { inputs_on_host: true, ..Residency::unbounded(true) },
        Residency { keep_unpacked: false, ..Residency::unbounded(true) },
        Residency { kept_layers: 1, inputs_on_host: true, keep_unpacked: false, embedding_on_host: true },
    ];
    let cases: [(&str, Precision, &[&str]); 3] = [
        ("bnb4_tied", Precision::Fp32, &BOTH),
        ("bnb4_untied", Precision::Bf16, &BOTH),
        // A frozen embedding that is no head.
        ("bnb4_untied", Precision::Bf16, &[]),
    ];
    for (folder, precision, saved) in cases {
        let run = |residency| {
            let lora = with_dropout(lora(saved));
            let mut model = resident(Some(5.0), folder, precision, lora, residency);
            // The second pass finds what the first has left.
            let losses = [5, 6].map(|update| model.forward_backward(&batch, batch.labels(), update).unwrap());
            (losses, model)
        };
        let (losses, model) = run(Residency::unbounded(false));
        for choice in choices {
            let (other_losses, other) = run(choice);
            assert_eq!(losses, other_losses);
            for (left, right) in model.parameters().iter().zip(other.parameters()) {
                assert!(left.grad().unwrap().equal(&right.grad().unwrap()), "{folder} {choice:?} {}", left.name);
            }
        }
    }
}

#[test]
fn a_packed_update_equals_its_parts() {
    let rows = rows();
    let whole = pack(&rows, 0);
    for folder in ["bnb4_tied", "model_untied"] {
        let mut together = with_noise(Some(5.0), folder, Precision::Fp32, with_dropout(lora(&BOTH)), true);
        let loss = together.forward_backward(&whole, whole.labels(), 9).unwrap();
        let mut apart = with_noise(Some(5.0), folder, Precision::Fp32, with_dropout(lora(&BOTH)), true);
        let mut sum_nll = 0.0;
        for (place, row) in rows.iter().enumerate() {
            let part = pack(std::slice::from_ref(row), place as u32);
            let part_loss = apart.forward_backward(&part, whole.labels(), 9).unwrap();
            let (expected, labels) = loss.per_sample[place];
            assert_eq!(part_loss.labels, labels);
            assert!((part_loss.sum_nll - expected).abs() <= 1e-6 * expected.abs());
            sum_nll += part_loss.sum_nll;
        }
        assert!((sum_nll - loss.sum_nll).abs() <= 1e-6 * loss.sum_nll);
        for (left, right) in together.parameters().iter().zip(apart.parameters()) {
            let difference = relative_difference(&left.grad().unwrap(), &right.grad().unwrap());
            assert!(difference <= 1e-6, "{folder} {}: {difference}", left.name);
        }
    }
}

#[test]
fn dropout_is_on_in_training_only_and_differs_by_update() {
    let batch = pack(&rows(), 0);
    let mut dropping = trained("model_untied", Precision::Fp32, with_dropout(lora(&[])), true);
    let plain = trained("model_untied", Precision::Fp32, lora(&[]), true);
    let reference = plain.loss(&batch).unwrap();
    assert_eq!(dropping.loss(&batch).unwrap(), reference);
    let mut at = |update| dropping.forward_backward(&batch, batch.labels(), update).unwrap();
    let (first, again, second) = (at(0), at(0), at(1));
    assert_eq!(first, again);
    assert_ne!(first, second);
    assert_ne!(first, reference);
}

#[test]
fn noise_is_on_in_training_only_and_differs_by_update_and_amount() {
    let batch = pack(&rows(), 0);
    let model = |alpha| with_noise(alpha, "model_untied", Precision::Fp32, lora(&[]), true);
    let reference = model(None).loss(&batch).unwrap();
    let mut noisy = model(Some(5.0));
    assert_eq!(noisy.loss(&batch).unwrap(), reference, "an evaluation has none");
    let mut at = |update| noisy.forward_backward(&batch, batch.labels(), update).unwrap();
    let (first, again, second) = (at(0), at(0), at(1));
    assert_eq!(first, again);
    assert_ne!(first, second);
    let without = model(None).forward_backward(&batch, batch.labels(), 0).unwrap();
    let away = |loss: &pipe_nn::BatchLoss| (loss.sum_nll - without.sum_nll).abs();
    let little = model(Some(1e-6)).forward_backward(&batch, batch.labels(), 0).unwrap();
    assert!(away(&little) < 1e-4 * without.sum_nll && away(&first) > 10.0 * away(&little), "{little:?} {first:?}");
}

/// Gradients end at the lowest trained layer; what is left out must not matter to what is left.
#[test]
fn what_else_is_trained_does_not_matter() {
    let batch = pack(&rows(), 0);
    let all: Vec<String> = pipe_nn::TARGET_MODULES.iter().map(|name| (*name).to_owned()).collect();
    let config = |target_modules: Vec<String>| LoraConfig { target_modules, ..lora(&[]) };
    // Fresh adapters have B = 0: the forward pass does not depend on which there are.
    let run = |lora: LoraConfig| {
        let mut model = load("model_untied", &options(Precision::Fp32, lora));
        model.forward_backward(&batch, batch.labels(), 0).unwrap();
        model
    };
    let everything = run(LoraConfig { modules_to_save: BOTH.map(str::to_owned).to_vec(), ..config(all.clone()) });
    for module in &all {
        let alone = run(config(vec![module.clone()]));
        assert_eq!(alone.parameters().len(), 4, "A and B in two layers");
        for parameter in alone.parameters() {
            let same = everything.parameters().iter().find(|other| other.name == parameter.name).unwrap();
            let nonzero = parameter.grad().unwrap().abs().max().double_value(&[]) > 0.0;
            assert_eq!(nonzero, parameter.name.contains("lora_B"), "{}", parameter.name);
            assert!(
                relative_difference(&parameter.grad().unwrap(), &same.grad().unwrap()) < 1e-6,
                "{}",
                parameter.name
            );
        }
    }
    let head = run(LoraConfig { modules_to_save: vec!["lm_head".to_owned()], ..LoraConfig::default() });
    let same = everything.parameters().last().unwrap();
    assert_eq!(head.parameters()[0].name, same.name);
    assert!(relative_difference(&head.parameters()[0].grad().unwrap(), &same.grad().unwrap()) < 1e-6);
}

#[test]
fn gradients_add_up_until_they_are_cleared() {
    let batch = pack(&rows(), 0);
    let mut model = trained("model_untied", Precision::Fp32, lora(&[]), true);
    model.forward_backward(&batch, batch.labels(), 0).unwrap();
    let once: Vec<Tensor> = model.parameters().iter().map(|parameter| parameter.grad().unwrap().copy()).collect();
    model.forward_backward(&batch, batch.labels(), 0).unwrap();
    for (parameter, once) in model.parameters().iter().zip(&once) {
        assert!(relative_difference(&parameter.grad().unwrap(), &(once * 2.0)) < 1e-6);
    }
    model.zero_grad().unwrap();
    assert!(model.parameters().iter().all(|parameter| parameter.grad().unwrap().abs().max().double_value(&[]) == 0.0));
}

#[test]
fn a_pass_without_labels_has_no_loss_and_no_gradient() {
    let row = Row { ids: vec![1, 2, 3], labels: vec![1, -100, -100] };
    let batch = pack(&[row], 0);
    let mut model = trained("model_untied", Precision::Fp32, lora(&BOTH), true);
    for loss in [model.loss(&batch).unwrap(), model.forward_backward(&batch, 8, 0).unwrap()] {
        assert_eq!((loss.sum_nll, loss.labels), (0.0, 0));
        assert_eq!(loss.per_sample, [(0.0, 0)]);
    }
    assert!(model.parameters().iter().all(|parameter| parameter.grad().unwrap().abs().max().double_value(&[]) == 0.0));
    let rows = pack(&rows(), 0);
    let error = model.forward_backward(&rows, 1, 0).unwrap_err().to_string();
    assert!(error.starts_with("an update of 1 labels cannot hold a batch of"), "{error}");
}

/// A base in 8 bits is the base whose linear layers are what the codes stand for, to the bit.
#[test]
fn a_base_in_8_bits_is_what_its_codes_stand_for() {
    let rounded = tempfile::tempdir().unwrap();
    let base = folder().join("model_untied");
    std::fs::copy(base.join("config.json"), rounded.path().join("config.json")).unwrap();
    let file = Checkpoint::open(&base).unwrap();
    let tensors: Vec<(TensorSpec, Vec<u8>)> = file
        .names()
        .map(|name| {
            let shape = file.info(name).unwrap().shape.clone();
            let mut values = file.read_f32(name).unwrap();
            if name.ends_with("_proj.weight") {
                let weight = Tensor::from_slice(&values).view([shape[0] as i64, shape[1] as i64]);
                let Int8 { codes, absmax } = quantise_int8(&weight).unwrap();
                let value = codes.to_kind(tch::Kind::Float) * (absmax * (1.0 / 127.0)).unsqueeze(1);
                values = Vec::try_from(value.flatten(0, 1)).unwrap();
            }
            let bytes = values.into_iter().flat_map(f32::to_le_bytes).collect();
            (TensorSpec::new(name, Dtype::F32, shape), bytes)
        })
        .collect();
    let views: Vec<(TensorSpec, &[u8])> = tensors.iter().map(|(spec, bytes)| (spec.clone(), &bytes[..])).collect();
    write_safetensors(&rounded.path().join("model.safetensors"), &views).unwrap();
    let batch = pack(&rows(), 0);
    let run = |folder: &std::path::Path, load_in_8bit| {
        let mut options = options(Precision::Fp32, lora(&[]));
        options.load_in_8bit = load_in_8bit;
        let mut model = Model::load(folder, &options).unwrap();
        raise_adapters(&mut model);
        (model.forward_backward(&batch, batch.labels(), 0).unwrap(), model)
    };
    let ((loss, model), (expected, reference)) = (run(&base, true), run(rounded.path(), false));
    assert_eq!(loss, expected);
    for (left, right) in model.parameters().iter().zip(reference.parameters()) {
        assert!(left.grad().unwrap().equal(&right.grad().unwrap()), "{}", left.name);
    }
}

/// And near the base itself, forward and backward.
#[test]
fn a_base_in_8_bits_is_near_the_base() {
    let batch = pack(&rows(), 0);
    for precision in [Precision::Fp32, Precision::Bf16, Precision::Fp16] {
        let run = |load_in_8bit| {
            let mut options = options(precision, lora(&[]));
            options.load_in_8bit = load_in_8bit;
            let mut model = load("model_untied", &options);
            raise_adapters(&mut model);
            model.set_loss_scale(1024.0);
            let loss = model.forward_backward(&batch, batch.labels(), 0).unwrap();
            (loss, model)
        };
        let ((loss, model), (expected, reference)) = (run(true), run(false));
        let difference = (loss.sum_nll - expected.sum_nll).abs() / expected.sum_nll;
        assert!(difference > 0.0 && difference < 1e-3, "{precision:?}: {difference}");
        let mut largest: f64 = 0.0;
        for (left, right) in model.parameters().iter().zip(reference.parameters()) {
            largest = largest.max(relative_difference(&left.grad().unwrap(), &right.grad().unwrap()));
        }
        println!("8 bits, {precision:?}: loss within {difference:.1e}, gradients within {largest:.1e}");
        assert!(largest < 0.06, "{precision:?}: {largest}");
    }
    let mut options = options(Precision::Fp32, lora(&[]));
    options.load_in_8bit = true;
    let error = Model::load(&folder().join("bnb4_untied"), &options).unwrap_err().to_string();
    assert!(error.contains("quantised to 4 bits already") && error.contains("leave it out"), "{error}");
}

/// The same masks and, but for rounding, the same numbers on a device. Without one this compares the CPU with itself.
#[test]
fn the_device_agrees_with_the_cpu() {
    let batch = pack(&rows(), 0);
    for (precision, tolerance) in [(Precision::Fp32, 1e-5), (Precision::Bf16, 5e-2), (Precision::Fp16, 1e-2)] {
        let run = |device| {
            let mut options = options(precision, with_dropout(lora(&BOTH)));
            options.device = device;
            let mut model = load("bnb4_untied", &options);
            raise_adapters(&mut model);
            model.set_loss_scale(1024.0);
            let loss = model.forward_backward(&batch, batch.labels(), 4).unwrap();
            (loss, model)
        };
        let ((loss, model), (expected, reference)) = (run(device()), run(tch::Device::Cpu));
        let difference = (loss.sum_nll - expected.sum_nll).abs() / expected.sum_nll;
        assert!(difference < tolerance * 0.1, "{precision:?} loss: {difference}");
        let mut largest: f64 = 0.0;
        for (left, right) in model.parameters().iter().zip(reference.parameters()) {
            let difference = relative_difference(&left.grad().unwrap(), &right.grad().unwrap());
            assert!(difference < tolerance, "{precision:?} {}: {difference}", left.name);
            largest = largest.max(difference);
        }
        println!("{:?} against the CPU, {precision:?}: gradients within {largest:.1e}", device());
    }
}

#[test]
fn a_second_run_gives_the_same_bits() {
    let batch = pack(&rows(), 0);
    for precision in [Precision::Bf16, Precision::Fp16] {
        let run = || {
            let mut model = trained("bnb4_tied", precision, with_dropout(lora(&BOTH)), true);
            let loss = model.forward_backward(&batch, batch.labels(), 2).unwrap();
            (loss, model)
        };
        let ((loss, model), (other_loss, other)) = (run(), run());
        assert_eq!(loss, other_loss);
        for (left, right) in model.parameters().iter().zip(other.parameters()) {
            assert!(left.grad().unwrap().equal(&right.grad().unwrap()), "{precision:?} {}", left.name);
        }
    }
}
