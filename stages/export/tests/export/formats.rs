//! Formats that compute: merged, GGUF, Ollama and NF4, on models of random weights.

use std::{fs, path::Path};

use pipe_gguf::{GgufReader, Value as GgufValue};
use pipe_hf::{Checkpoint, Dtype, ModelConfig, TensorSpec, narrow, write_safetensors};
use pipe_trial::{Ran, Trial};
use serde_json::{Value, json};
use stage_export::Export;

use crate::fixture;

const QUERY: &str = "model.layers.0.self_attn.q_proj";

struct Model {
    folder: tempfile::TempDir,
    largest: f32,
}

/// Values between -1 and 1 that look random.
fn values(count: usize, seed: u32) -> Vec<f32> {
    let draw = |index: u32| (index.wrapping_add(seed).wrapping_mul(2_654_435_761) >> 8) as f32 / 8_388_608.0 - 1.0;
    (0..count as u32).map(draw).collect()
}

fn write(path: &Path, tensors: &[(TensorSpec, Vec<u8>)]) {
    let borrowed: Vec<_> = tensors.iter().map(|(spec, bytes)| (spec.clone(), bytes.as_slice())).collect();
    write_safetensors(path, &borrowed).unwrap();
}

impl Model {
    /// A model with the tokenizer of the fixtures, whose embedding has more rows than that has ids, and an adapter.
    fn new(model_type: &str, class: &str) -> Self {
        let model = Self { folder: tempfile::tempdir().unwrap(), largest: 1.0 };
        for entry in fs::read_dir(fixture("model")).unwrap() {
            let path = entry.unwrap().path();
            fs::create_dir_all(model.path("model")).unwrap();
            fs::write(model.path("model").join(path.file_name().unwrap()), fs::read(&path).unwrap()).unwrap();
        }
        let config = json!({
            "architectures": [class], "model_type": model_type, "vocab_size": 520, "hidden_size": 64,
            "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2,
            "head_dim": 16, "hidden_act": "silu", "max_position_embeddings": 64, "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0, "tie_word_embeddings": true, "eos_token_id": 509,
        });
        fs::write(model.path("model").join("config.json"), config.to_string()).unwrap();
        model.write_weights();
        model.write_adapter(&[]);
        model
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn write_weights(&self) {
        let config = ModelConfig::open(&self.path("model")).unwrap();
        let tensors: Vec<_> = config
            .parameters()
            .into_iter()
            .zip(0..)
            .map(|(parameter, seed)| {
                let mut values = values(parameter.shape.iter().product(), seed);
                values[0] = self.largest;
                (TensorSpec::new(parameter.name, Dtype::BF16, parameter.shape), narrow(Dtype::BF16, &values).unwrap())
            })
            .collect();
        write(&self.path("model").join("model.safetensors"), &tensors);
    }

    fn write_adapter(&self, saved: &[&str]) {
        let adapter = self.path("adapter");
        fs::create_dir_all(&adapter).unwrap();
        let settings = json!({
            "peft_type": "LORA", "r": 2, "lora_alpha": 4, "use_rslora": true, "target_modules": ["q_proj"],
            "ensure_weight_tying": true,
        });
        fs::write(adapter.join("adapter_config.json"), settings.to_string()).unwrap();
        let mut tensors = Vec::new();
        let mut put = |name: String, shape: &[usize], seed| {
            let bytes = narrow(Dtype::F32, &values(shape.iter().product(), seed)).unwrap();
            tensors.push((TensorSpec::new(format!("base_model.model.{name}.weight"), Dtype::F32, shape), bytes));
        };
        put(format!("{QUERY}.lora_A"), &[2, 64], 90);
        put(format!("{QUERY}.lora_B"), &[64, 2], 91);
        for name in saved {
            put((*name).to_owned(), &[520, 64], 92);
        }
        write(&adapter.join("adapter_model.safetensors"), &tensors);
    }

    fn run(&self, output: &Path, config: Value, cpus: usize) -> Ran {
        let trial = Trial::new(output).cpus(cpus).input("model", &self.path("model"));
        trial.input("adapter", &self.path("adapter")).run::<Export>(config)
    }

    fn done(&self, config: Value) -> (tempfile::TempDir, Ran) {
        let output = tempfile::tempdir().unwrap();
        let ran = self.run(output.path(), config, 2).done().unwrap();
        (output, ran)
    }

    fn refused(&self, config: Value) -> (String, String) {
        let output = tempfile::tempdir().unwrap();
        let failure = self.run(output.path(), config, 2).done().unwrap_err();
        (failure.chain().join(": "), failure.hint_text().unwrap_or_default().to_owned())
    }
}

fn qwen() -> Model {
    Model::new("qwen3", "Qwen3ForCausalLM")
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn several_formats_have_folders_and_are_the_same_however_many_threads_there_are() {
    let model = qwen();
    let config = json!({ "format": ["adapter", "merged", "gguf", "gguf_adapter", "ollama", "bnb4"] });
    let (one, ran) = model.done(config.clone());
    let other = tempfile::tempdir().unwrap();
    model.run(other.path(), config, 1).done().unwrap();
    let folders = ["adapter", "bnb4", "gguf", "gguf_adapter", "merged", "ollama"];
    assert_eq!(files(&ran.output()), folders);
    for folder in folders {
        for file in files(&ran.output().join(folder)) {
            let read = |root: &Path| fs::read(root.join("out").join(folder).join(&file)).unwrap();
            assert!(read(one.path()) == read(other.path()), "{folder}/{file}");
        }
    }
    assert_eq!(files(&ran.output().join("gguf")), ["README.md", "model.gguf"]);
    assert_eq!(files(&ran.output().join("ollama")), ["Modelfile", "README.md", "model.gguf"]);
    let card = fs::read_to_string(ran.output().join("merged/README.md")).unwrap();
    assert!(card.contains("| tensors read back | 13 |") && card.contains("library_name: transformers"), "{card}");
    let rounding = ran.figure("bnb4_rounding").and_then(Value::as_f64).unwrap();
    assert!((0.001..0.15).contains(&rounding), "{rounding}");
}

#[test]
fn a_merged_model_says_what_both_generations_of_readers_look_for() {
    let model = qwen();
    let (_output, ran) = model.done(json!({ "format": "merged", "dtype": "fp32", "max_shard_size": "50KB" }));
    let read = |name: &str| -> Value { serde_json::from_slice(&fs::read(ran.output().join(name)).unwrap()).unwrap() };
    let config = read("config.json");
    assert_eq!((&config["dtype"], &config["torch_dtype"]), (&json!("float32"), &json!("float32")));
    assert_eq!((&config["rope_theta"], &config["rope_parameters"]["rope_theta"]), (&json!(10000), &json!(10000)));
    assert_eq!(config["tie_word_embeddings"], json!(true));
    // The template closes the assistant's turn with <|im_end|>; the model said <|endoftext|>.
    assert_eq!(read("generation_config.json")["eos_token_id"], json!([511, 509]));
    let index = read("model.safetensors.index.json");
    assert_eq!(index["metadata"]["total_size"], json!(4 * ran.figure("parameters").unwrap().as_u64().unwrap()));
    assert!(files(&ran.output()).iter().filter(|name| name.ends_with(".safetensors")).count() > 2);
    let (merged, base) = (Checkpoint::open(&ran.output()).unwrap(), Checkpoint::open(&model.path("model")).unwrap());
    let (found, before) =
        (merged.read_f32(&format!("{QUERY}.weight")).unwrap(), base.read_f32(&format!("{QUERY}.weight")).unwrap());
    let (a, b) = (values(128, 90), values(128, 91));
    let product: f64 = (0..2).map(|k| f64::from(b[5 * 2 + k]) * f64::from(a[k * 64 + 7])).sum();
    let expected = f64::from(before[5 * 64 + 7]) + 4.0 / 2.0_f64.sqrt() * product;
    assert_eq!(found[5 * 64 + 7], expected as f32);
}

#[test]
fn a_gguf_file_has_the_tokenizer_and_fills_up_the_vocabulary() {
    let (_output, ran) = qwen().done(json!({ "format": "gguf", "gguf_type": "q8_0" }));
    let file = GgufReader::open(&ran.output().join("model.gguf")).unwrap();
    let get = |key: &str| file.metadata().get(key).cloned();
    let tokens = get("tokenizer.ggml.tokens").unwrap();
    let tokens = tokens.as_strings().unwrap();
    assert_eq!((tokens.len(), tokens[511].as_str(), tokens[519].as_str()), (520, "<|im_end|>", "[PAD519]"));
    assert_eq!(get("tokenizer.ggml.eos_token_id"), Some(GgufValue::U32(511)));
    assert_eq!(get("tokenizer.ggml.pre"), Some(GgufValue::from("qwen2")));
    assert_eq!(get("general.file_type"), Some(GgufValue::U32(7)));
    assert!(get("tokenizer.chat_template").unwrap().as_str().unwrap().contains("<|im_start|>"));
    assert!(!file.contains("output.weight"), "tied");
    let bytes = file.entry("blk.0.attn_q.weight").unwrap().bytes;
    assert_eq!(bytes, 64 * 64 / 32 * 34);
}

#[test]
fn rows_of_queries_and_keys_of_llama_are_interleaved() {
    let model = Model::new("llama", "LlamaForCausalLM");
    let (_output, ran) = model.done(json!({ "format": ["merged", "gguf", "gguf_adapter"], "dtype": "fp32" }));
    let merged = Checkpoint::open(&ran.output().join("merged")).unwrap();
    let merged = merged.read_f32(&format!("{QUERY}.weight")).unwrap();
    let file = GgufReader::open(&ran.output().join("gguf/model.gguf")).unwrap();
    let mut found = vec![0.0; 64 * 64];
    file.read_f32_range("blk.0.attn_q.weight", 0, &mut found).unwrap();
    let row = |values: &[f32], row: usize, columns: usize| values[row * columns..][..columns].to_vec();
    // The second head begins at row 16; its ninth row opens the second half and pairs with its first.
    for (theirs, ours) in [(0, 0), (1, 8), (2, 1), (16, 16), (17, 24), (31, 31)] {
        assert_eq!(row(&found, theirs, 64), row(&merged, ours, 64), "{theirs}");
    }
    let file = GgufReader::open(&ran.output().join("gguf_adapter/adapter.gguf")).unwrap();
    let mut up = vec![0.0; 128];
    file.read_f32_range("blk.0.attn_q.weight.lora_b", 0, &mut up).unwrap();
    assert_eq!(row(&up, 17, 2), row(&values(128, 91), 24, 2));
    // 4 / sqrt 2 by llama.cpp's alpha / r.
    let alpha = file.metadata().get("adapter.lora.alpha").unwrap().as_f64().unwrap();
    assert!((alpha / 2.0 - 4.0 / 2.0_f64.sqrt()).abs() < 1e-6, "{alpha}");
}

#[test]
fn a_modelfile_has_the_template_in_the_words_of_go() {
    let model = qwen();
    let (_output, ran) = model.done(json!({ "format": "ollama" }));
    let text = fs::read_to_string(ran.output().join("Modelfile")).unwrap();
    assert_eq!(text, include_str!("Modelfile"));
    let template = |text: &str| fs::write(model.path("model").join("chat_template.jinja"), text).unwrap();
    template(
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}<|im_end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
    );
    let (_output, ran) = model.done(json!({ "format": "ollama" }));
    assert!(format!("{:?}", ran.events).contains("takes white space off the ends"), "{:?}", ran.events);
    template("{% for m in messages %}<|{{ m.role }}|>{{ m.content | upper }}<|im_end|>{% endfor %}<|assistant|>");
    let (error, hint) = model.refused(json!({ "format": "ollama" }));
    assert!(error.contains("cannot be written as a template of Ollama's") && hint.contains("format: gguf"), "{error}");
    template(
        "{% for m in messages %}{{ loop.index }}<|{{ m.role }}|>{{ m.content }}<|im_end|>{% endfor %}<|assistant|>",
    );
    assert!(model.refused(json!({ "format": "ollama" })).0.contains("cannot be written as a template of Ollama's"));
}

#[test]
fn what_cannot_be_written_is_refused_with_what_to_do() {
    let mut model = qwen();
    model.write_adapter(&["model.embed_tokens", "lm_head"]);
    let (error, hint) = model.refused(json!({ "format": "gguf_adapter" }));
    assert!(error.contains("trained as a whole") && hint.contains("format: gguf"), "{error} {hint}");
    let (error, hint) = model.refused(json!({ "format": "merged", "merge_into": "dequantized" }));
    assert!(error.contains("is not quantised") && hint.contains("output of `quantize`"), "{error} {hint}");
    model.largest = 70000.0;
    model.write_weights();
    let (error, hint) = model.refused(json!({ "format": "merged", "dtype": "fp16" }));
    assert!(error.contains("float16 cannot") && hint.contains("bf16"), "{error} {hint}");
    model.largest = f32::NAN;
    model.write_weights();
    assert!(model.refused(json!({ "format": "gguf" })).0.contains("holds NaN or infinity"));
}

#[test]
fn fields_that_say_nothing_are_problems() {
    let problems = |config: Value, inputs: &[&str]| -> Vec<String> {
        pipe_trial::problems::<Export>(config, inputs).into_iter().map(|(path, ..)| path).collect()
    };
    let all = ["model", "adapter"];
    for (config, expected) in [
        (json!({ "format": "merged", "dtype": "fp16" }), vec![]),
        (json!({ "format": ["gguf", "merged"], "gguf_type": "q4_0", "max_shard_size": "1GB" }), vec![]),
        (json!({ "format": [] }), vec!["format"]),
        (json!({ "format": ["gguf", "gguf"] }), vec!["format"]),
        (json!({ "merge_into": "original", "dtype": "bf16" }), vec!["merge_into", "dtype"]),
        (json!({ "format": "gguf", "dtype": "bf16", "gguf_type": "q8_0" }), vec!["dtype"]),
        (json!({ "format": "merged", "gguf_type": "q8_0" }), vec!["gguf_type"]),
        (json!({ "format": "gguf_adapter", "gguf_type": "q8_0" }), vec!["gguf_type"]),
        (json!({ "format": "gguf", "max_shard_size": "1GB" }), vec!["max_shard_size"]),
    ] {
        assert_eq!(problems(config.clone(), &all), expected, "{config}");
    }
    assert_eq!(problems(json!({}), &["model"]), ["format"]);
    assert!(problems(json!({ "format": "gguf" }), &["model"]).is_empty(), "a model without an adapter");
    let inputs = ["model", "adapter", "original"];
    assert_eq!(problems(json!({ "format": "gguf", "merge_into": "dequantized" }), &inputs), ["merge_into"]);
}
