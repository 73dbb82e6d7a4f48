//! The arguments that choose a model and how it answers, shared by the commands that let one answer.

use std::{
    path::{Path, PathBuf},
    sync::mpsc,
};

use clap::{Args, ValueEnum};
use pipe_chat::{Load, Loaded, Reply};
use serde_json::{Map, Value};

use super::{
    CliError, candidates,
    get::say_that_it_waits,
    recorded::{Chosen, Recorded, pipeline_of},
    said::say,
};
use crate::{
    cache::{Home, Shared, Store},
    chat::{ChatError, Worker},
    config::Pipeline,
    report,
    runs::RunRecord,
    scheduler::{Borrowed, BorrowedGpu, borrow_gpu},
};

/// A folder with this file is a model.
const MODEL_FILE: &str = "config.json";
/// A folder with this file is an adapter.
const ADAPTER_FILE: &str = "adapter_config.json";
/// A base is looked for behind so many stages.
const FARTHEST: usize = 16;

/// Which model answers, and where.
#[derive(Args)]
pub(super) struct ModelArguments {
    /// The stage whose output answers (`adapter`, with the base that it was trained on), or a model folder
    #[arg(value_name = "STAGE|DIR", add = candidates::recorded_outputs())]
    model: String,
    /// Put the PEFT adapter in this folder on the model
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    #[command(flatten)]
    recorded: Recorded,
    /// Where to compute; without it on the GPU where there is one, else on the CPU
    #[arg(long, value_enum)]
    device: Option<Device>,
    /// Keep 4-bit weights as they are: less memory, slower answers. Without it they are unpacked once if that fits
    #[arg(long)]
    packed: bool,
    /// More variables of the chat template, as JSON: '{"enable_thinking": false}'
    #[arg(long, value_name = "JSON", value_parser = object)]
    chat_template_kwargs: Option<Map<String, Value>>,
}

/// How each token is chosen, by the names of Transformers' GenerationConfig. What is not given is what the model's
/// generation_config.json says, else greedy.
#[derive(Args, Clone)]
pub(super) struct SamplingArguments {
    /// How freely tokens are chosen; 0 takes the most likely one
    #[arg(long, value_name = "T")]
    temperature: Option<f64>,
    /// Choose among so many of the most likely tokens; 0 for all
    #[arg(long, value_name = "N")]
    top_k: Option<usize>,
    /// Choose among the most likely tokens that together have this probability
    #[arg(long, value_name = "P")]
    top_p: Option<f64>,
    /// Choose among tokens with this part of the most likely one's probability
    #[arg(long, value_name = "P")]
    min_p: Option<f64>,
    /// Make tokens that occur already less likely; 1 does not
    #[arg(long, value_name = "X")]
    repetition_penalty: Option<f64>,
    /// The beginning of the random numbers; without it another one each time
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

impl SamplingArguments {
    pub(super) fn sampling(&self) -> pipe_chat::Sampling {
        let Self { temperature, top_k, top_p, min_p, repetition_penalty, seed } = *self;
        pipe_chat::Sampling { temperature, top_k, top_p, min_p, repetition_penalty, seed }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Device {
    Cpu,
    Cuda,
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("write a JSON object ({error})"))
}

/// A model that is loaded.
pub(super) struct Started {
    pub(super) worker: Worker,
    pub(super) loaded: Loaded,
    pub(super) model: Model,
    /// As long as the model is on it.
    pub(super) _gpu: Option<BorrowedGpu>,
}

/// What was asked for, found.
pub(super) struct Model {
    /// As the command line names it, without folders.
    pub(super) name: String,
    base: PathBuf,
    pub(super) adapter: Option<PathBuf>,
    /// While the files are read.
    _views: Option<(tempfile::TempDir, Shared)>,
}

impl ModelArguments {
    /// Finds the model and has it loaded. With `compare` the base will be asked, too.
    pub(super) fn start(&self, compare: bool) -> Result<Started, CliError> {
        let mut model = self.find()?;
        if compare && model.adapter.is_none() {
            let help = "name a stage that trains, or give an adapter with --adapter".to_owned();
            return Err(CliError::usage("--compare wants a model with an adapter, and this one has none", help));
        }
        let (device, gpu) = self.device()?;
        let load = Load {
            base: model.base.clone(),
            adapter: model.adapter.clone(),
            device,
            unpacked: self.packed.then_some(false),
            compare,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            chat_template_kwargs: self.chat_template_kwargs.clone().unwrap_or_default(),
        };
        let (send, heard) = mpsc::channel();
        let worker = Worker::start(
            load,
            gpu.as_ref().map(|gpu| gpu.name.as_str()),
            Box::new(move |reply| {
                let _ = send.send(reply);
            }),
        )
        .map_err(not_there)?;
        let loaded = match heard.recv() {
            Ok(Reply::Loaded(loaded)) => loaded,
            Ok(Reply::Refused { message, hint, environment }) => {
                // It may quote what somebody else's files say.
                let message = report::printable(&message);
                if !environment {
                    return Err(CliError::usage(message, hint));
                }
                let help = hint.unwrap_or_else(|| "see what `pipe doctor` says of this machine".to_owned());
                return Err(CliError::Lacks { message, help });
            }
            other => {
                let message = format!("`pipe-torch` did not load the model: it said {other:?}");
                return Err(CliError::Lacks { message, help: "build it together with pipe: `make build`".to_owned() });
            }
        };
        // All of it is in memory now: what tidies the cache up need not wait.
        model._views = None;
        if let Some(note) = &loaded.note {
            say!("{}", report::printable(note));
        }
        // Where CUDA did not start, the CPU answers.
        let gpu = gpu.filter(|_| loaded.device == pipe_chat::Device::Cuda);
        Ok(Started { worker, loaded, model, _gpu: gpu })
    }

    /// Where to compute, and the GPU if it is one that `pipe` knows of.
    fn device(&self) -> Result<(Option<pipe_chat::Device>, Option<BorrowedGpu>), CliError> {
        if self.device == Some(Device::Cpu) {
            return Ok((Some(pipe_chat::Device::Cpu), None));
        }
        let asked = self.device.map(|_| pipe_chat::Device::Cuda);
        match borrow_gpu(format!("pipe chat or serve, process {}", std::process::id())) {
            Borrowed::Gpu(gpu) => Ok((asked, Some(gpu))),
            Borrowed::None => Ok((asked, None)),
            Borrowed::Busy(user) => {
                let message = format!("every GPU is in use, one by {}", user.as_deref().unwrap_or("another pipe"));
                if asked.is_some() {
                    return Err(CliError::Lacks { message, help: "wait, or use `--device cpu`".to_owned() });
                }
                say!("{message}: the CPU answers");
                Ok((Some(pipe_chat::Device::Cpu), None))
            }
        }
    }

    fn find(&self) -> Result<Model, CliError> {
        let folder = Path::new(&self.model);
        let is_path = self.model.contains('/') || self.model == "." || self.model == "..";
        let is_model = |file| folder.join(file).is_file();
        if !self.recorded.is_given() && (is_path || is_model(MODEL_FILE) || is_model(ADAPTER_FILE)) {
            return self.of_folder(folder);
        }
        self.of_stage()
    }

    fn of_folder(&self, folder: &Path) -> Result<Model, CliError> {
        let base = absolute(folder);
        if !base.join(MODEL_FILE).is_file() {
            let help = match base.join(ADAPTER_FILE).is_file() {
                true => format!("it is an adapter: write its base, and `--adapter {}`", self.model),
                false if base.is_dir() => format!("a model folder has a {MODEL_FILE}"),
                false => "there is no such folder".to_owned(),
            };
            return Err(CliError::usage(format!("`{}` is no model folder", self.model), help));
        }
        let name = base.file_name().map_or_else(|| self.model.clone(), |name| name.to_string_lossy().into_owned());
        Ok(Model { name, base, adapter: self.given_adapter()?, _views: None })
    }

    fn given_adapter(&self) -> Result<Option<PathBuf>, CliError> {
        let Some(adapter) = &self.adapter else { return Ok(None) };
        if adapter.join(ADAPTER_FILE).is_file() {
            return Ok(Some(absolute(adapter)));
        }
        let help = format!("an adapter folder has an {ADAPTER_FILE} and an adapter_model.safetensors");
        Err(CliError::usage(format!("`{}` is no adapter folder", adapter.display()), help))
    }

    fn of_stage(&self) -> Result<Model, CliError> {
        let Chosen { home, run, stage, output, digest } = self.recorded.output(&self.model)?;
        let in_use = home.share(say_that_it_waits)?;
        let folder = tempfile::tempdir().map_err(|source| {
            let target = std::env::temp_dir().display().to_string();
            CliError::Write { target, source }
        })?;
        let store = Store::new(&home);
        let artifact = folder.path().join("artifact");
        store.materialise(&digest, &artifact)?;
        let (base, adapter) = if artifact.join(ADAPTER_FILE).is_file() {
            if self.adapter.is_some() {
                let message = format!("the stage `{stage}` made an adapter, and --adapter names another one");
                return Err(CliError::usage(message, "leave one of the two out".to_owned()));
            }
            let (stage_of_base, output_of_base) = base_of(&home, &run, stage)?;
            let digest = run.artifact(&stage_of_base, &output_of_base).ok_or_else(|| {
                let message = format!("the run {} has no output of `{stage_of_base}`, the base of `{stage}`", run.id);
                CliError::usage(message, "run the pipeline again, or name the folders".to_owned())
            })?;
            let base = folder.path().join("base");
            store.materialise(&digest, &base)?;
            (base, Some(artifact))
        } else if artifact.join(MODEL_FILE).is_file() {
            (artifact, self.given_adapter()?)
        } else {
            let message = format!("`{}` is neither a model nor an adapter", self.model);
            let help = format!("see what it is with `pipe show {}`", self.model);
            return Err(CliError::usage(message, help));
        };
        let name = if output == "out" { stage.to_owned() } else { format!("{stage}.{output}") };
        Ok(Model { name, base, adapter, _views: Some((folder, in_use)) })
    }
}

fn absolute(folder: &Path) -> PathBuf {
    std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned())
}

fn not_there(error: ChatError) -> CliError {
    let help = match &error {
        ChatError::Program(error) => error.hint(),
        ChatError::Start { .. } => None,
    };
    let message = pipe_stage::chain(&error).join(": ");
    CliError::Lacks { message, help: help.unwrap_or_else(|| "see what `pipe doctor` says".to_owned()) }
}

/// The output that is the base of a stage's adapter: its input `base`, or that of the stage that its `adapter` came
/// from, else its `model`.
fn base_of(home: &Home, run: &RunRecord, stage: &str) -> Result<(String, String), CliError> {
    let pipeline = pipeline_of(home, run);
    pipeline.as_ref().and_then(|pipeline| base_in(pipeline, stage)).ok_or_else(|| {
        let message = format!("the stage `{stage}` made an adapter, and its base cannot be found");
        CliError::usage(message, "write the base's folder or stage, and the adapter with --adapter DIR".to_owned())
    })
}

fn base_in(pipeline: &Pipeline, stage: &str) -> Option<(String, String)> {
    let mut spec = pipeline.stages.get(stage)?;
    for _ in 0..FARTHEST {
        let input = |name: &str| spec.inputs.get(name).and_then(|references| references.first());
        let found = |reference: &crate::config::InputRef| (reference.stage.to_string(), reference.output.clone());
        if let Some(base) = input("base") {
            return Some(found(base));
        }
        match input("adapter").and_then(|adapter| pipeline.stages.get(adapter.stage.as_str())) {
            Some(before) => spec = before,
            None => return input("model").map(found),
        }
    }
    None
}
