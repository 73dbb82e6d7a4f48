//! Losses against the reference libraries, answers, and failures.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

use pipe_hf::Checkpoint;
use pipe_samples::{SampleRef, Writer};
use pipe_stage::{Artifact, Context, Digest, Failure, FailureClass, Job, PROTOCOL, Resources, Runner};
use serde_json::{Value, json};
use stage_evaluate::Evaluate;

struct Stage {
    folder: tempfile::TempDir,
    config: Value,
    inputs: BTreeMap<String, PathBuf>,
    stopped: bool,
}

fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

fn model_fixture(name: &str) -> PathBuf {
    repository("crates/nn/tests/fixtures").join(name)
}

impl Stage {
    fn new(base: &Path, samples: &[(Vec<u32>, Vec<i32>)], config: Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["samples", "resume"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        fs::create_dir_all(folder.path().join("output/out")).unwrap();
        let mut writer = Writer::create(&folder.path().join("samples")).unwrap();
        for (ids, labels) in samples {
            writer.write(SampleRef { input_ids: ids, labels }).unwrap();
        }
        writer.finish().unwrap();
        let samples = folder.path().join("samples");
        let inputs = BTreeMap::from([("base".to_owned(), base.to_owned()), ("samples".to_owned(), samples)]);
        Self { folder, config, inputs, stopped: false }
    }

    fn run(&self) -> Result<(), Failure> {
        let config: stage_evaluate::Config = serde_json::from_value(self.config.clone()).unwrap();
        let artifact = |path: &PathBuf| vec![Artifact { path: path.clone(), digest: Digest::of(b"input") }];
        let job = Job {
            protocol: PROTOCOL,
            kind: "evaluate".to_owned(),
            stage: "quality".to_owned(),
            config: serde_json::to_value(config).unwrap(),
            inputs: self.inputs.iter().map(|(name, path)| (name.clone(), artifact(path))).collect(),
            user_files: BTreeMap::new(),
            pins: [].into(),
            output: self.folder.path().join("output"),
            work: self.folder.path().join("work"),
            resume: self.folder.path().join("resume"),
            resources: Resources { cpus: Some(1), ..Resources::default() },
        };
        let cancelled = Arc::new(AtomicBool::new(self.stopped));
        Runner::of::<Evaluate>().run(&Context::new(job, Box::new(std::io::sink()), cancelled))
    }

    fn output(&self, file: &str) -> PathBuf {
        self.folder.path().join("output/out").join(file)
    }

    fn report(&self) -> Value {
        self.run().unwrap();
        serde_json::from_slice(&fs::read(self.output("report.json")).unwrap()).unwrap()
    }

    fn lines(&self, file: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.output(file)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn failure(&self) -> String {
        self.run().unwrap_err().chain().join(": ")
    }
}

/// Transformers' forward pass: the sample, and its losses in float32 and bfloat16.
fn reference() -> (Vec<u32>, Vec<i32>, Value) {
    let reference: Value = serde_json::from_slice(&fs::read(model_fixture("forward_tied.json")).unwrap()).unwrap();
    let list = |name: &str| reference[name].clone();
    (serde_json::from_value(list("ids")).unwrap(), serde_json::from_value(list("labels")).unwrap(), reference)
}

fn close(found: &Value, expected: f64, tolerance: f64) {
    let found = found.as_f64().unwrap();
    assert!((found / expected - 1.0).abs() <= tolerance, "{found}, expected {expected}");
}

#[test]
fn the_loss_of_a_base_is_that_of_transformers() {
    let (ids, labels, reference) = reference();
    let unlabelled = vec![-100; ids.len()];
    let samples = [(ids.clone(), labels), (ids, unlabelled)];
    let mut stage = Stage::new(&model_fixture("model_tied"), &samples, json!({}));
    let report = stage.report();
    close(&report["loss"], reference["loss_f32"]["mean"].as_f64().unwrap(), 1e-6);
    close(&report["perplexity"], report["loss"].as_f64().unwrap().exp(), 1e-12);
    assert_eq!((&report["samples"], &report["tokens"]), (&json!(1), &json!(24)), "only what has labels counts");
    assert_eq!((&report["adapter"], &report["bf16"]), (&json!(false), &json!(false)));
    stage.config["bf16"] = json!(true);
    close(&stage.report()["loss"], reference["loss_bf16"]["mean"].as_f64().unwrap(), 1e-2);
}

#[test]
fn a_base_in_8_bits_is_measured_as_such() {
    let (ids, labels, reference) = reference();
    let mut stage = Stage::new(&model_fixture("model_tied"), &[(ids, labels)], json!({ "load_in_8bit": true }));
    let loss = stage.report()["loss"].clone();
    close(&loss, reference["loss_f32"]["mean"].as_f64().unwrap(), 1e-3);
    assert_ne!(loss, reference["loss_f32"]["mean"]);
    stage.inputs.insert("base".to_owned(), model_fixture("bnb4_tied"));
    let message = stage.failure();
    assert!(message.contains("quantised to 4 bits already, and `load_in_8bit`"), "{message}");
}

/// Reference logits of PEFT, turned into a loss here.
#[test]
fn the_loss_with_an_adapter_is_that_of_peft() {
    let probe = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/probe.safetensors");
    let probe = Checkpoint::open_file(&probe).unwrap();
    let ids: Vec<u32> =
        probe.read("ids").unwrap().chunks_exact(8).map(|id| u32::from_le_bytes(id[..4].try_into().unwrap())).collect();
    let logits = probe.read_f32("logits_adapter").unwrap();
    let vocabulary = logits.len() / ids.len();
    let nll = |position: usize| {
        let row = &logits[position * vocabulary..][..vocabulary];
        let sum: f64 = row.iter().map(|logit| f64::from(*logit).exp()).sum();
        sum.ln() - f64::from(row[ids[position + 1] as usize])
    };
    let expected = (0..ids.len() - 1).map(nll).sum::<f64>() / (ids.len() - 1) as f64;

    let labels = ids.iter().map(|id| *id as i32).collect();
    let mut stage = Stage::new(&model_fixture("model_tied"), &[(ids, labels)], json!({}));
    let without = stage.report();
    let adapter = repository("stages/train/tests/fixtures/runs/tied_mts_ensure_tying");
    stage.inputs.insert("adapter".to_owned(), adapter);
    let report = stage.report();
    close(&report["loss"], expected, 1e-6);
    assert_eq!(report["adapter"], json!(true));
    assert!((without["loss"].as_f64().unwrap() - expected).abs() > 0.01, "the adapter changes it");
}

#[test]
fn samples_one_by_one_and_packed_have_the_same_loss() {
    let (ids, labels, _) = reference();
    let samples: Vec<_> =
        (10..20).map(|length| (ids[..length + 10].to_vec(), labels[..length + 10].to_vec())).collect();
    let mut stage = Stage::new(&model_fixture("model_tied"), &samples, json!({ "per_sample": true }));
    let packed = stage.report();
    let rows = stage.lines("per_sample.jsonl");
    assert_eq!(rows.iter().map(|row| row["row"].as_u64().unwrap()).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
    let sum: f64 = rows.iter().map(|row| row["loss"].as_f64().unwrap() * row["tokens"].as_f64().unwrap()).sum();
    close(&packed["loss"], sum / packed["tokens"].as_f64().unwrap(), 1e-12);
    stage.config["max_tokens_per_pass"] = json!(1);
    close(&stage.report()["loss"], packed["loss"].as_f64().unwrap(), 1e-6);
}

#[test]
fn prompts_are_answered() {
    let (ids, labels, _) = reference();
    let base = tempfile::tempdir().unwrap();
    for from in [model_fixture("model_tied"), repository("stages/train/tests/fixtures/tokenizer")] {
        for entry in fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, base.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    let config = json!({ "prompts": ["hello", "你好"], "max_new_tokens": 5 });
    let stage = Stage::new(base.path(), &[(ids.clone(), labels.clone())], config.clone());
    stage.run().unwrap();
    let answers = stage.lines("answers.jsonl");
    assert_eq!((&answers[0]["prompt"], &answers[1]["prompt"]), (&json!("hello"), &json!("你好")));
    assert!(answers.iter().all(|line| (1..=5).contains(&line["tokens"].as_u64().unwrap())), "{answers:?}");
    // A base without a tokenizer can be measured, and cannot be asked.
    let message = Stage::new(&model_fixture("model_tied"), &[(ids, labels)], config).failure();
    assert!(message.contains("has no tokenizer.json"), "{message}");
}

#[test]
fn what_cannot_be_measured_says_why() {
    let (ids, labels, _) = reference();
    let base = model_fixture("model_tied");
    let unlabelled = Stage::new(&base, &[(ids.clone(), vec![-100; ids.len()])], json!({}));
    assert!(unlabelled.failure().contains("none of the 1 samples has a label"));
    let foreign = Stage::new(&base, &[(vec![1, 600], vec![1, 600])], json!({}));
    assert!(foreign.failure().contains("sample 0: token 600"), "{}", foreign.failure());
    let mut stopped = Stage::new(&base, &[(ids, labels)], json!({}));
    stopped.stopped = true;
    assert_eq!(stopped.run().unwrap_err().class(), FailureClass::Cancelled);
}
