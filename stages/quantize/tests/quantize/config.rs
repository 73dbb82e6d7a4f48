//! The fields, and what they refuse.

use pipe_stage::{Event, Level};
use stage_quantize::{Config, Quantize};

use crate::{config, fixture, quantize};

fn problems(fields: &str) -> Vec<String> {
    let found = pipe_trial::problems::<Quantize>(serde_json::from_str(fields).unwrap(), &[]).into_iter();
    found.map(|(path, message, _)| format!("{path}: {message}")).collect()
}

#[test]
fn the_names_are_those_of_bitsandbytes() {
    let fields = r#"{"load_in_4bit": true, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": "bfloat16",
        "bnb_4bit_use_double_quant": true, "bnb_4bit_quant_storage": "uint8"}"#;
    assert!(problems(fields).is_empty());
    assert!(problems("{}").is_empty());
    assert!(serde_json::from_str::<Config>(r#"{"blocksize": 64}"#).is_err());
}

#[test]
fn what_is_not_supported_is_an_error() {
    for (fields, expected) in [
        (r#"{"load_in_4bit": false}"#, "load_in_4bit: must be true"),
        (r#"{"load_in_8bit": true}"#, "load_in_8bit: 8 bits are not supported"),
        (r#"{"bnb_4bit_quant_type": "fp4"}"#, "bnb_4bit_quant_type: fp4 is not supported, only nf4 is"),
        (r#"{"bnb_4bit_quant_storage": "bfloat16"}"#, "bnb_4bit_quant_storage: only uint8 is supported"),
        (r#"{"bnb_4bit_storage_dtype": "float32"}"#, "bnb_4bit_storage_dtype: only uint8 is supported"),
        (
            r#"{"bnb_4bit_storage_dtype": "uint8", "bnb_4bit_quant_storage": "uint8"}"#,
            "bnb_4bit_storage_dtype: is another name for bnb_4bit_quant_storage",
        ),
    ] {
        let found = problems(fields);
        assert_eq!(found.len(), 1, "{fields}: {found:?}");
        assert!(found[0].starts_with(expected), "{fields}: {found:?}");
    }
    assert_eq!(problems(r#"{"load_in_4bit": false, "load_in_8bit": true, "bnb_4bit_quant_type": "fp4"}"#).len(), 3);
}

#[test]
fn the_other_name_of_the_storage_type_is_taken_with_a_warning() {
    let warned = |fields: &str| {
        let dir = tempfile::tempdir().unwrap();
        let events = quantize(&fixture("model_tied"), dir.path(), &config(fields), 1).unwrap();
        events.iter().any(|event| matches!(event, Event::Log { level: Level::Warn, .. }))
    };
    assert!(warned(r#"{"bnb_4bit_storage_dtype": "uint8"}"#));
    assert!(!warned(r#"{"bnb_4bit_quant_storage": "uint8"}"#));
}
