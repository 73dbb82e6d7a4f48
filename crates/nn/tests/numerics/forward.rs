//! Logits, loss and greedy tokens against transformers.

use pipe_nn::{LoraConfig, Precision};
use serde_json::Value;

use crate::fixtures::{Reference, folder, largest_difference, load, options, pack};

fn json(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(folder().join(name)).unwrap()).unwrap()
}

fn logits_agree(model: &str, precision: Precision, reference: &str, tolerance: f64) {
    let file = Reference::open(&format!("forward_{model}.safetensors"));
    let loaded = load(&format!("model_{model}"), &options(precision, LoraConfig::default()));
    let logits = loaded.logits(&pack(&[file.sample()], 0)).unwrap();
    let difference = largest_difference(&logits, &file.tensor(reference));
    println!("{model} {precision:?}: logits within {difference:.1e}");
    assert!(difference <= tolerance, "{model} {precision:?}: {difference}");
}

#[test]
fn logits_in_float32() {
    for model in ["tied", "untied"] {
        logits_agree(model, Precision::Fp32, "f32.logits", 2e-5);
    }
}

#[test]
fn logits_in_bfloat16() {
    for model in ["tied", "untied"] {
        logits_agree(model, Precision::Bf16, "bf16.logits", 0.15);
    }
}

/// Against float32: three bits more than bfloat16 has.
#[test]
fn logits_in_float16() {
    for model in ["tied", "untied"] {
        logits_agree(model, Precision::Fp16, "f32.logits", 0.02);
    }
}

#[test]
fn loss() {
    for model in ["tied", "untied"] {
        let file = Reference::open(&format!("forward_{model}.safetensors"));
        let reference = json(&format!("forward_{model}.json"));
        let batch = pack(&[file.sample()], 0);
        for (precision, key, tolerance) in [
            (Precision::Fp32, "loss_f32", 2e-6),
            (Precision::Bf16, "loss_bf16", 2e-3),
            (Precision::Fp16, "loss_f32", 2e-4),
        ] {
            let loss =
                load(&format!("model_{model}"), &options(precision, LoraConfig::default())).loss(&batch).unwrap();
            assert_eq!(Some(loss.labels), reference[key]["count"].as_u64());
            let expected = reference[key]["sum"].as_f64().unwrap();
            let difference = (loss.sum_nll - expected).abs() / expected;
            assert!(difference < tolerance, "{model} {precision:?}: {} instead of {expected}", loss.sum_nll);
            assert_eq!(loss.per_sample, [(loss.sum_nll, loss.labels)]);
        }
    }
}

#[test]
fn greedy_tokens() {
    for model in ["tied", "untied"] {
        let reference = &json(&format!("forward_{model}.json"))["greedy"];
        let tokens = |key: &str| -> Vec<u32> { serde_json::from_value(reference[key].clone()).unwrap() };
        let (prompt, all) = (tokens("prompt"), tokens("tokens"));
        let expected = &all[prompt.len()..];
        let loaded = load(&format!("model_{model}"), &options(Precision::Fp32, LoraConfig::default()));
        assert_eq!(loaded.generate(&prompt, expected.len(), &[]).unwrap(), expected);
        let half = load(&format!("model_{model}"), &options(Precision::Fp16, LoraConfig::default()));
        assert_eq!(half.generate(&prompt, 3, &[]).unwrap()[0], expected[0]);
        // An end token ends the text and stays in it.
        let end = expected[6];
        let first = expected.iter().position(|token| *token == end).unwrap();
        assert_eq!(loaded.generate(&prompt, expected.len(), &[end]).unwrap(), expected[..=first]);
        assert_eq!(loaded.generate(&prompt, 0, &[]).unwrap(), [0_u32; 0]);
        assert_eq!(loaded.generate(&[], 1, &[]).unwrap_err().to_string(), "prompt: it has no tokens");
        assert!(loaded.generate(&[9999], 1, &[]).unwrap_err().to_string().contains("token 9999"));
    }
}
