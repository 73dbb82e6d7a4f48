//! Jobs over the reference data, run in this process.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use pipe_hf::{Checkpoint, TensorSpec, write_safetensors};
use pipe_samples::{SampleRef, Writer};
use pipe_stage::{Artifact, Context, Digest, Event, Failure, Job, PROTOCOL, Resources, Runner};
use serde::Deserialize;
use serde_json::{Value, json};
use stage_train::Train;

pub(crate) fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// The models live with the crate that computes them.
pub(crate) fn model(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../crates/nn/tests/fixtures").join(name)
}

/// Whether the stages compute on the first CUDA device instead of the CPU: `PIPE_TEST_GPU` is in the environment.
pub(crate) fn on_gpu() -> bool {
    std::env::var_os("PIPE_TEST_GPU").is_some()
}

/// A job in a folder of its own. Running it twice is what a rerun after a kill is: the resume folder stays.
pub(crate) struct Stage {
    folder: tempfile::TempDir,
    pub(crate) config: Value,
    pub(crate) inputs: BTreeMap<String, PathBuf>,
    pub(crate) resources: Resources,
    /// Ask the stage to stop when it reports this step.
    pub(crate) stop_at: Option<u64>,
}

/// How a run ended.
pub(crate) struct Ended {
    pub(crate) result: Result<(), Failure>,
    pub(crate) events: Vec<Event>,
}

impl Stage {
    /// A stage that trains `base` on `rows` (JSON lines of `input_ids` and `labels`).
    pub(crate) fn new(base: &Path, rows: &str, config: Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["samples", "resume"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let samples = folder.path().join("samples");
        write_samples(&samples, rows);
        let inputs = BTreeMap::from([("base".to_owned(), base.to_owned()), ("samples".to_owned(), samples)]);
        let resources = Resources { cpus: Some(1), gpus: usize::from(on_gpu()), ..Resources::default() };
        Self { folder, config, inputs, resources, stop_at: None }
    }

    /// Gives the stage another samples folder under the input `name`.
    pub(crate) fn add_samples(&mut self, name: &str, rows: &str) {
        let folder = self.folder.path().join(name);
        fs::create_dir(&folder).unwrap();
        write_samples(&folder, rows);
        self.inputs.insert(name.to_owned(), folder);
    }

    pub(crate) fn set(&mut self, field: &str, value: impl Into<Value>) {
        self.config[field] = value.into();
    }

    /// The update behind which its last checkpoint was saved.
    pub(crate) fn saved(&self) -> u64 {
        let names = fs::read_dir(self.resume()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let step = |name: String| name.split('-').nth(1).and_then(|digits| digits.parse().ok());
        names.filter_map(step).max().unwrap()
    }

    pub(crate) fn resume(&self) -> PathBuf {
        self.folder.path().join("resume")
    }

    pub(crate) fn output(&self) -> PathBuf {
        self.folder.path().join("output/out")
    }

    /// The files of the artifact.
    pub(crate) fn artifact(&self) -> BTreeMap<String, Vec<u8>> {
        let files = fs::read_dir(self.output()).unwrap().map(|entry| entry.unwrap());
        files.map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap())).collect()
    }

    pub(crate) fn metrics(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.output().join("metrics.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub(crate) fn run(&self) -> Ended {
        let output = self.output();
        let _ = fs::remove_dir_all(&output);
        fs::create_dir_all(&output).unwrap();
        let config: stage_train::Config = serde_json::from_value(self.config.clone()).unwrap();
        let artifact = |path: &PathBuf| vec![Artifact { path: path.clone(), digest: Digest::of(b"input") }];
        let job = Job {
            protocol: PROTOCOL,
            kind: "train".to_owned(),
            stage: "adapter".to_owned(),
            config: serde_json::to_value(config).unwrap(),
            inputs: self.inputs.iter().map(|(name, path)| (name.clone(), artifact(path))).collect(),
            user_files: BTreeMap::new(),
            pins: [].into(),
            output: self.folder.path().join("output"),
            work: self.folder.path().join("work"),
            resume: self.resume(),
            resources: self.resources,
        };
        let cancelled = Arc::new(AtomicBool::new(false));
        let lines = Arc::new(Mutex::new(Vec::new()));
        let listener = Listener { lines: Arc::clone(&lines), cancelled: Arc::clone(&cancelled), stop_at: self.stop_at };
        let context = Context::new(job, Box::new(listener), cancelled);
        let result = Runner::of::<Train>().run(&context);
        let lines = lines.lock().unwrap();
        let events = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        Ended { result, events: events.map(|line| serde_json::from_slice(line).unwrap()).collect() }
    }

    /// Runs to the end.
    pub(crate) fn run_to_end(&self) -> Vec<Event> {
        let ended = self.run();
        if let Err(failure) = ended.result {
            panic!("{:?}", failure.chain());
        }
        ended.events
    }

    /// Runs into a failure; returns its messages in one line.
    pub(crate) fn run_to_failure(&self) -> (Failure, String) {
        let failure = self.run().result.unwrap_err();
        let chain = failure.chain().join(": ");
        (failure, chain)
    }
}

/// The scheduler's side: keeps the events, and asks for a stop at a certain step.
struct Listener {
    lines: Arc<Mutex<Vec<u8>>>,
    cancelled: Arc<AtomicBool>,
    stop_at: Option<u64>,
}

impl Write for Listener {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.lines.lock().unwrap().extend_from_slice(bytes);
        if let Ok(Event::Metric { step, .. }) = serde_json::from_slice(bytes)
            && Some(step) == self.stop_at
        {
            self.cancelled.store(true, Ordering::Relaxed);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[derive(Deserialize)]
struct Row {
    input_ids: Vec<u32>,
    labels: Vec<i32>,
}

fn write_samples(folder: &Path, rows: &str) {
    let mut writer = Writer::create(folder).unwrap();
    for line in rows.lines() {
        let row: Row = serde_json::from_str(line).unwrap();
        writer.write(SampleRef { input_ids: &row.input_ids, labels: &row.labels }).unwrap();
    }
    writer.finish().unwrap();
}

pub(crate) fn data(model: &str) -> String {
    fs::read_to_string(fixture(&format!("data_{model}.jsonl"))).unwrap()
}

/// The tied model with one of its tensors changed.
pub(crate) fn changed_base(stage: &Stage, tensor: &str, change: impl Fn(&mut [f32])) -> PathBuf {
    let folder = stage.resume().with_file_name("base");
    fs::create_dir(&folder).unwrap();
    fs::copy(model("model_tied").join("config.json"), folder.join("config.json")).unwrap();
    let weights = Checkpoint::open(&model("model_tied")).unwrap();
    let tensors: Vec<(TensorSpec, Vec<u8>)> = weights
        .names()
        .map(|name| {
            let mut values = weights.read_f32(name).unwrap();
            if name == tensor {
                change(&mut values);
            }
            let info = weights.info(name).unwrap();
            let bytes = values.into_iter().flat_map(f32::to_le_bytes).collect();
            (TensorSpec::new(name, info.dtype, info.shape.clone()), bytes)
        })
        .collect();
    let views: Vec<(TensorSpec, &[u8])> = tensors.iter().map(|(spec, bytes)| (spec.clone(), &bytes[..])).collect();
    write_safetensors(&folder.join("model.safetensors"), &views).unwrap();
    folder
}

/// Twelve short updates with dropout on the tied model, reported one by one.
pub(crate) fn short_run() -> Stage {
    let config = json!({
        "lora": { "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"], "lora_dropout": 0.2,
                  "modules_to_save": ["embed_tokens", "lm_head"] },
        "learning_rate": 1e-3, "warmup_ratio": 0.1, "max_steps": 12, "gradient_accumulation_steps": 4,
        "per_device_train_batch_size": 1, "logging_steps": 1, "save_steps": 5, "weight_decay": 0.01,
        "neftune_noise_alpha": 5.0,
    });
    Stage::new(&model("model_tied"), &data("tied"), config)
}

/// Messages of level `warn`.
pub(crate) fn warnings(events: &[Event]) -> Vec<String> {
    let warning = |event: &Event| match event {
        Event::Log { level: pipe_stage::Level::Warn, message } => Some(message.clone()),
        _ => None,
    };
    events.iter().filter_map(warning).collect()
}
