//! Gradients of one step against PEFT.

use pipe_nn::{Model, Precision, Residency};

use crate::fixtures::{Reference, load, lora, options, pack, relative_difference, set_parameters};

const EMBEDDING: &str = "base_model.model.model.embed_tokens.weight";
const HEAD: &str = "base_model.model.lm_head.weight";

/// The gradients of a reference's step, and the largest relative differences from it: loss, then gradients.
fn step(
    folder: &str,
    reference: &Reference,
    precision: Precision,
    saved: &[&str],
    checkpointing: bool,
) -> (Model, f64, f64) {
    let mut options = options(precision, lora(saved));
    options.residency = Residency::unbounded(checkpointing);
    let mut model = load(folder, &options);
    set_parameters(&mut model, |name| {
        let name = format!("param.{name}");
        reference.names().any(|listed| listed == name).then(|| reference.tensor(&name))
    });
    let batch = pack(&[reference.sample()], 0);
    let scale = if precision == Precision::Fp16 { 4096.0 } else { 1.0 };
    model.set_loss_scale(scale);
    let loss = model.forward_backward(&batch, batch.labels(), 0).unwrap();
    let expected = reference.tensor("loss").double_value(&[0]);
    let loss_difference = (loss.sum_nll / loss.labels as f64 - expected).abs() / expected;
    let mut largest: f64 = 0.0;
    for parameter in model.parameters() {
        let mut expected = reference.tensor(&format!("grad.{}", parameter.name));
        if model.tied() && parameter.name == EMBEDDING {
            // PEFT's two copies: the gradient of one matrix is the sum.
            expected += reference.tensor(&format!("grad.{HEAD}"));
        }
        let difference = relative_difference(&(parameter.grad().unwrap() / scale), &expected);
        assert!(difference.is_finite(), "{}", parameter.name);
        largest = largest.max(difference);
    }
    (model, loss_difference, largest)
}

fn agree(folder: &str, reference: &str, precision: Precision, saved: &[&str], tolerances: [f64; 2]) {
    let file = Reference::open(reference);
    for checkpointing in [false, true] {
        let (model, loss, gradients) = step(folder, &file, precision, saved, checkpointing);
        println!("{reference}: loss within {loss:.1e}, gradients within {gradients:.1e}");
        assert!(loss <= tolerances[0], "{reference}: loss {loss}");
        assert!(gradients <= tolerances[1], "{reference}: gradients {gradients}");
        let named = file.names().filter(|name| name.starts_with("grad.")).count();
        let tied_copies = usize::from(model.tied() && !saved.is_empty());
        assert_eq!(model.parameters().len() + tied_copies, named, "every reference has its parameter");
    }
}

const BOTH: [&str; 2] = ["embed_tokens", "lm_head"];

#[test]
fn dense_float32_with_embedding_and_head() {
    agree("model_tied", "grads_tied_fp32.safetensors", Precision::Fp32, &BOTH, [2e-6, 1e-5]);
    agree("model_untied", "grads_untied_fp32.safetensors", Precision::Fp32, &BOTH, [2e-6, 1e-5]);
}

#[test]
fn nf4_float32() {
    agree("bnb4_tied", "grads_tied_nf4.safetensors", Precision::Fp32, &[], [2e-6, 1e-5]);
    agree("bnb4_untied", "grads_untied_nf4.safetensors", Precision::Fp32, &[], [2e-6, 1e-5]);
}

/// bfloat16 products in another order differ by their rounding: 2^-9 each, some per cent in small gradients.
#[test]
fn nf4_bfloat16_loosely() {
    agree("bnb4_untied", "grads_untied_nf4_bf16.safetensors", Precision::Bf16, &[], [2e-3, 5e-2]);
}

/// float16, with a scaled loss, against float32: some eighths of what bfloat16 is off by.
#[test]
fn float16_loosely() {
    agree("bnb4_tied", "grads_tied_nf4.safetensors", Precision::Fp16, &[], [2e-4, 1e-2]);
    agree("bnb4_untied", "grads_untied_nf4.safetensors", Precision::Fp16, &[], [2e-4, 1e-2]);
    agree("model_tied", "grads_tied_fp32.safetensors", Precision::Fp16, &BOTH, [2e-4, 1e-2]);
    agree("model_untied", "grads_untied_fp32.safetensors", Precision::Fp16, &BOTH, [2e-4, 1e-2]);
}

#[test]
fn either_name_trains_a_tied_matrix() {
    let file = Reference::open("grads_tied_fp32.safetensors");
    let (both, ..) = step("model_tied", &file, Precision::Fp32, &BOTH, true);
    for name in BOTH {
        let (one, _, largest) = step("model_tied", &file, Precision::Fp32, &[name], true);
        assert!(largest <= 1e-5, "{name}: {largest}");
        let names =
            |model: &Model| model.parameters().iter().map(|parameter| parameter.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&one), names(&both));
        assert_eq!(names(&one)[0], EMBEDDING);
    }
}
