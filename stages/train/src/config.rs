//! The fields of `with:` of a `train` stage, under the names that Transformers, PEFT and bitsandbytes give them.

use std::collections::BTreeSet;

use pipe_samples::Sampler;
use pipe_stage::{MEMORY_PATTERN, Problems, Refused, Validate, parse_bytes};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The linear layers of a decoder block, which LoRA can adapt.
const LINEAR_MODULES: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
/// The modules that can be trained whole.
const SAVEABLE_MODULES: [&str; 2] = ["embed_tokens", "lm_head"];

/// Transformers' default.
const DEFAULT_EPOCHS: f64 = 3.0;

/// The fields that change no byte of the artifact; they carry the mark [`pipe_stage::EXECUTION_ONLY`].
const EXECUTION_ONLY: [&str; 9] = [
    "gradient_checkpointing",
    "memory_limit",
    "cudnn_benchmark",
    "logging_steps",
    "monitor_gpu_memory",
    "save_steps",
    "save_total_limit",
    "dataloader_num_workers",
    "dataloader_pin_memory",
];

/// How a `train` stage trains. Defaults are those of Transformers and PEFT unless a field says otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The adapter to train.
    pub lora: Lora,
    /// The highest learning rate of the schedule, above 0. Default 5e-5.
    pub learning_rate: f64,
    /// How the learning rate falls after warm-up. Default `linear`.
    pub lr_scheduler_type: LrSchedulerType,
    /// Warm-up as a share of all updates, in [0, 1); the number of updates is rounded up. Not with `warmup_steps`.
    /// Default: none.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub warmup_ratio: Option<f64>,
    /// Warm-up in updates, the first of which has the learning rate 0. Not with `warmup_ratio`. Default: none.
    pub warmup_steps: Option<u64>,
    /// Decoupled weight decay of AdamW, 0 or more. All trained tensors decay; none of them is a norm or a bias.
    /// Default 0.
    #[schemars(range(min = 0.0))]
    pub weight_decay: f64,
    /// The gradient is scaled down to this L2 norm over all trained tensors, 0 or more; 0 does not clip. Default 1.
    #[schemars(range(min = 0.0))]
    pub max_grad_norm: f64,
    /// Decay of AdamW's running mean of the gradient, in [0, 1). Default 0.9.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub adam_beta1: f64,
    /// Decay of AdamW's running mean of the squared gradient, in [0, 1). Default 0.999.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub adam_beta2: f64,
    /// Added to AdamW's denominator, above 0. Default 1e-8.
    pub adam_epsilon: f64,
    /// The optimizer: AdamW with its running means in float32 or in 8 bits. Default `adamw`.
    pub optim: Optim,
    /// How often all samples are seen, above 0; a fraction stops within an epoch. Not with `max_steps`. Default 3.
    pub num_train_epochs: Option<f64>,
    /// The number of updates, 1 or more, over as many epochs as that takes. Not with `num_train_epochs`.
    /// Default: what `num_train_epochs` comes to.
    #[schemars(range(min = 1))]
    pub max_steps: Option<u64>,
    /// Samples in a batch, 1 or more. An update takes `gradient_accumulation_steps` batches; all its samples are
    /// computed packed together, so only the product of the two matters. Default 8.
    #[schemars(range(min = 1))]
    pub per_device_train_batch_size: u64,
    /// Batches in an update, 1 or more. Default 1.
    #[schemars(range(min = 1))]
    pub gradient_accumulation_steps: u64,
    /// The most tokens to compute in one pass, 1 or more. An update of more tokens is split between samples; a longer
    /// sample still runs whole. Bounds the memory of activations; another split rounds differently. Default 4096.
    #[schemars(range(min = 1))]
    pub max_tokens_per_pass: u64,
    /// Keep only each layer's input and compute the rest a second time, which saves memory and gives the same bytes.
    /// Default false.
    #[schemars(extend("x-execution-only" = true))]
    pub gradient_checkpointing: bool,
    /// The most memory of the GPU that the process may take, as if the card had no more: `16GB`, `7.5 GB`, `8GiB`, or a
    /// number of bytes. What stays in memory and what is computed again is chosen for it; a run that cannot fit is refused
    /// before it begins. The CPU has no limit. Default: what the card has free.
    #[schemars(extend("type" = ["string", "integer", "null"], "pattern" = MEMORY_PATTERN, "x-execution-only" = true))]
    pub memory_limit: Option<String>,
    /// Compute in bfloat16 where a Transformers run under autocast does; the trained tensors and the optimizer stay
    /// in float32. False computes in float32 throughout. Default false.
    pub bf16: bool,
    /// Compute in float16 instead, with the loss scaled as `torch.amp.GradScaler` does: by 65536 at first, by half of
    /// it behind each update whose gradients are not finite, which is left out, and by twice as much behind 2000 good
    /// ones. Not with `bf16`, which needs no scale and is faster. Default false.
    pub fp16: bool,
    /// Hold the linear layers of the base in 8 bits with a scale for each row, as bitsandbytes stores them (LLM.int8,
    /// arXiv:2208.07339): they are quantised when the base, which must not be quantised yet, is loaded. They are
    /// unpacked to multiply, which is more exact than bitsandbytes: it rounds the inputs to 8 bits too. Default false.
    pub load_in_8bit: bool,
    /// Let CUDA multiply float32 matrices in TF32. Default false.
    pub tf32: bool,
    /// Let cuDNN time its convolution algorithms. A decoder has no convolution, so it changes nothing. Default false.
    #[schemars(extend("x-execution-only" = true))]
    pub cudnn_benchmark: bool,
    /// Noise on the embedding's output while training (NEFTune, arXiv:2310.05914), above 0; 5 is common. A value is uniform
    /// in `±alpha / sqrt(L * hidden_size)` with the sample's own length `L`, where Transformers takes that of the padded
    /// batch. Evaluations have none. Default: none.
    pub neftune_noise_alpha: Option<f64>,
    /// See the samples of each epoch in a new random order. False keeps their order. Default true.
    pub shuffle: bool,
    /// Seeds dropout, noise, the start of the adapter, and the order of samples unless `data_seed` is given; 0 to 2^32 - 1.
    /// Default 42.
    pub seed: u32,
    /// Seeds the order of samples, 0 to 2^32 - 1. Default: `seed`.
    pub data_seed: Option<u32>,
    /// Updates between two reports of loss, learning rate and memory, 1 or more; `metrics.jsonl` has every update.
    /// Default 10 (Transformers: 500).
    #[schemars(range(min = 1), extend("x-execution-only" = true))]
    pub logging_steps: u64,
    /// Say in each of these reports what memory is in use: that of the card by the allocator and by the driver, and that
    /// of the process. Default true.
    #[schemars(extend("x-execution-only" = true))]
    pub monitor_gpu_memory: bool,
    /// Updates between two evaluations on the input `eval` and of `prompts`, 1 or more. Both are also evaluated
    /// before the first update and after the last. Default: only then.
    #[schemars(range(min = 1))]
    pub eval_steps: Option<u64>,
    /// Prompts to answer greedily at every evaluation: each is put as a user's message into the base's chat template,
    /// or taken as it is where the base has none. Default: none.
    pub prompts: Vec<String>,
    /// The most tokens of an answer, 1 or more. Default 64.
    #[schemars(range(min = 1))]
    pub max_new_tokens: u64,
    /// Updates between two checkpoints, 1 or more. A stopped run goes on from the last one and ends with the same
    /// bytes as one that was never stopped. Default 500.
    #[schemars(range(min = 1), extend("x-execution-only" = true))]
    pub save_steps: u64,
    /// Checkpoints to keep, 1 or more. Default 2 (Transformers: all).
    #[schemars(range(min = 1), extend("x-execution-only" = true))]
    pub save_total_limit: u64,
    /// Taken for compatibility: the samples are in memory, so no process need load them. Default 0.
    #[schemars(extend("x-execution-only" = true))]
    pub dataloader_num_workers: u64,
    /// Taken for compatibility: a batch is a few kilobytes, so pinned memory would gain nothing. Default true.
    #[schemars(extend("x-execution-only" = true))]
    pub dataloader_pin_memory: bool,
}

/// The shape of the adapter, under PEFT's names: `y = W x + s B(A(dropout(x)))`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Lora {
    /// The rank, 1 or more. Default 8.
    #[schemars(range(min = 1))]
    pub r: u64,
    /// Scales the adapter: `s = lora_alpha / r`, or `lora_alpha / sqrt(r)` with `use_rslora`. Above 0. Default 8.
    pub lora_alpha: f64,
    /// The linear layers to adapt in every block, of `q_proj`, `k_proj`, `v_proj`, `o_proj`, `gate_proj`, `up_proj`
    /// and `down_proj`. Default `[q_proj, v_proj]`.
    pub target_modules: Vec<String>,
    /// The share of the adapter's input that dropout sets to zero, in [0, 1). Default 0.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub lora_dropout: f64,
    /// Rank-stabilised scaling (arXiv:2312.03732). Default false.
    pub use_rslora: bool,
    /// Modules to train whole: `embed_tokens`, `lm_head`. A model that ties the two trains one tensor for both and
    /// takes both names or neither. Default: none.
    pub modules_to_save: Vec<String>,
}

/// How the learning rate falls after warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LrSchedulerType {
    /// On a straight line to 0.
    Linear,
    /// On half a cosine wave to 0.
    Cosine,
}

/// The optimizer: AdamW. The first three names mean the same, states in float32; so do the two behind them, states in 8
/// bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Optim {
    /// AdamW.
    Adamw,
    /// Transformers' name for PyTorch's AdamW.
    AdamwTorch,
    /// Transformers' name for PyTorch's AdamW in fused kernels.
    AdamwTorchFused,
    /// AdamW whose running means are codes of 8 bits with a scale for 256 values (arXiv:2110.02861): 2 bytes a trained
    /// value instead of 8. Of every tensor; bitsandbytes keeps those of fewer than 4096 values, and Transformers those
    /// of embeddings, in float32.
    #[serde(rename = "adamw_8bit")]
    Adamw8bit,
    /// Transformers' other name for the same.
    #[serde(rename = "adamw_bnb_8bit")]
    AdamwBnb8bit,
    /// Known so that it can be refused with help: nothing here is paged out to the host.
    #[serde(rename = "paged_adamw_8bit")]
    #[schemars(skip)]
    PagedAdamw8bit,
}

impl Optim {
    /// Whether the running means are kept in 8 bits.
    pub fn has_8bit_states(self) -> bool {
        matches!(self, Self::Adamw8bit | Self::AdamwBnb8bit | Self::PagedAdamw8bit)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lora: Lora::default(),
            learning_rate: 5e-5,
            lr_scheduler_type: LrSchedulerType::Linear,
            warmup_ratio: None,
            warmup_steps: None,
            weight_decay: 0.0,
            max_grad_norm: 1.0,
            adam_beta1: 0.9,
            adam_beta2: 0.999,
            adam_epsilon: 1e-8,
            optim: Optim::Adamw,
            num_train_epochs: None,
            max_steps: None,
            per_device_train_batch_size: 8,
            gradient_accumulation_steps: 1,
            max_tokens_per_pass: 4096,
            gradient_checkpointing: false,
            memory_limit: None,
            bf16: false,
            fp16: false,
            load_in_8bit: false,
            tf32: false,
            cudnn_benchmark: false,
            neftune_noise_alpha: None,
            shuffle: true,
            seed: 42,
            data_seed: None,
            logging_steps: 10,
            monitor_gpu_memory: true,
            eval_steps: None,
            prompts: Vec::new(),
            max_new_tokens: 64,
            save_steps: 500,
            save_total_limit: 2,
            dataloader_num_workers: 0,
            dataloader_pin_memory: true,
        }
    }
}

impl Default for Lora {
    fn default() -> Self {
        Self {
            r: 8,
            lora_alpha: 8.0,
            target_modules: vec!["q_proj".into(), "v_proj".into()],
            lora_dropout: 0.0,
            use_rslora: false,
            modules_to_save: Vec::new(),
        }
    }
}

impl Validate for Config {
    fn validate(&self, inputs: &BTreeSet<String>, problems: &mut Problems) {
        self.lora.validate(problems);
        self.validate_schedule(problems);
        self.validate_optimizer(problems);
        self.validate_evaluation(inputs, problems);
        for (field, value) in [
            ("per_device_train_batch_size", self.per_device_train_batch_size),
            ("gradient_accumulation_steps", self.gradient_accumulation_steps),
            ("max_tokens_per_pass", self.max_tokens_per_pass),
            ("logging_steps", self.logging_steps),
            ("save_steps", self.save_steps),
            ("save_total_limit", self.save_total_limit),
        ] {
            problems.require(value >= 1, field, format!("must be 1 or more, not {value}"));
        }
        let update = self.per_device_train_batch_size.checked_mul(self.gradient_accumulation_steps);
        problems.require(
            update.is_some_and(|samples| samples <= u64::from(u32::MAX)),
            "gradient_accumulation_steps",
            "makes updates of more than 4 billion samples",
        );
        if let Some(Err(Refused(message, help))) = self.memory_limit.as_deref().map(parse_bytes) {
            problems.at_with_help("memory_limit", message, help);
        }
        if self.fp16 && self.bf16 {
            problems.at_with_help(
                "fp16",
                "stands beside `bf16`",
                "keep one of the two; `bf16` where the device has it",
            );
        }
    }
}

impl Config {
    /// Samples in one update.
    pub fn samples_per_update(&self) -> u64 {
        self.per_device_train_batch_size.saturating_mul(self.gradient_accumulation_steps)
    }

    /// Updates of a run over samples that come to so many updates in an epoch.
    pub(crate) fn updates(&self, sampler: &Sampler) -> u64 {
        match self.max_steps {
            Some(steps) => steps,
            None => sampler.updates_in(self.num_train_epochs.unwrap_or(DEFAULT_EPOCHS)),
        }
    }

    /// What the samples of each epoch are shuffled with; `None` keeps their order.
    pub(crate) fn order(&self) -> Option<u64> {
        self.shuffle.then(|| u64::from(self.data_seed.unwrap_or(self.seed)))
    }

    /// `memory_limit` in bytes.
    pub(crate) fn memory_limit_bytes(&self) -> Option<u64> {
        self.memory_limit.as_deref().and_then(|limit| parse_bytes(limit).ok())
    }

    /// The fields that decide the artifact, in the order of the declaration.
    ///
    /// # Errors
    /// Never for a configuration that came from YAML or JSON.
    pub fn semantic(&self) -> Result<serde_json::Map<String, serde_json::Value>, serde_json::Error> {
        let mut fields: serde_json::Map<_, _> = serde_json::from_value(serde_json::to_value(self)?)?;
        fields.retain(|name, _| !EXECUTION_ONLY.contains(&name.as_str()));
        Ok(fields)
    }

    fn validate_schedule(&self, problems: &mut Problems) {
        require_above_zero(problems, "learning_rate", self.learning_rate);
        if let Some(ratio) = self.warmup_ratio {
            problems.require(
                (0.0..1.0).contains(&ratio),
                "warmup_ratio",
                format!("must be at least 0 and below 1, not {ratio}"),
            );
            if self.warmup_steps.is_some() {
                problems.at_with_help("warmup_ratio", "stands beside `warmup_steps`", "keep one of the two");
            }
        }
        if let Some(epochs) = self.num_train_epochs {
            require_above_zero(problems, "num_train_epochs", epochs);
            if self.max_steps.is_some() {
                problems.at_with_help("num_train_epochs", "stands beside `max_steps`", "keep one of the two");
            }
        }
        problems.require(self.max_steps != Some(0), "max_steps", "must be 1 or more, not 0");
    }

    fn validate_optimizer(&self, problems: &mut Problems) {
        for (field, value) in [("weight_decay", self.weight_decay), ("max_grad_norm", self.max_grad_norm)] {
            problems.require(value.is_finite() && value >= 0.0, field, format!("must be 0 or more, not {value}"));
        }
        for (field, value) in [("adam_beta1", self.adam_beta1), ("adam_beta2", self.adam_beta2)] {
            problems.require(
                (0.0..1.0).contains(&value),
                field,
                format!("must be at least 0 and below 1, not {value}"),
            );
        }
        require_above_zero(problems, "adam_epsilon", self.adam_epsilon);
        if self.optim == Optim::PagedAdamw8bit {
            problems.at_with_help(
                "optim",
                "states that the driver moves between the device and the host are not built",
                "write `adamw_8bit`: the same numbers, all on the device",
            );
        }
        if let Some(alpha) = self.neftune_noise_alpha {
            require_above_zero(problems, "neftune_noise_alpha", alpha);
        }
    }

    fn validate_evaluation(&self, inputs: &BTreeSet<String>, problems: &mut Problems) {
        if let Some(steps) = self.eval_steps {
            problems.require(steps >= 1, "eval_steps", "must be 1 or more, not 0");
            if !inputs.contains("eval") && self.prompts.is_empty() {
                problems.at_with_help(
                    "eval_steps",
                    "there is nothing to evaluate",
                    "add an input `eval` with held-out samples, or `prompts`",
                );
            }
        }
        for (index, prompt) in self.prompts.iter().enumerate() {
            problems.require(!prompt.trim().is_empty(), "prompts", format!("prompt {} is empty", index + 1));
        }
        problems.require(self.max_new_tokens >= 1, "max_new_tokens", "must be 1 or more, not 0");
    }
}

impl Lora {
    fn validate(&self, problems: &mut Problems) {
        problems.require(
            (1..=u64::from(u16::MAX)).contains(&self.r),
            "lora.r",
            format!("must be from 1 to 65535, not {}", self.r),
        );
        require_above_zero(problems, "lora.lora_alpha", self.lora_alpha);
        problems.require(
            (0.0..1.0).contains(&self.lora_dropout),
            "lora.lora_dropout",
            format!("must be at least 0 and below 1, not {}", self.lora_dropout),
        );
        problems.require(!self.target_modules.is_empty(), "lora.target_modules", "names no module");
        require_names(problems, "lora.target_modules", &self.target_modules, &LINEAR_MODULES);
        require_names(problems, "lora.modules_to_save", &self.modules_to_save, &SAVEABLE_MODULES);
    }
}

fn require_above_zero(problems: &mut Problems, field: &str, value: f64) {
    problems.require(value.is_finite() && value > 0.0, field, format!("must be above 0, not {value}"));
}

fn require_names(problems: &mut Problems, field: &str, names: &[String], known: &[&str]) {
    for (index, name) in names.iter().enumerate() {
        if !known.contains(&name.as_str()) {
            problems.at_with_help(field, format!("unknown module `{name}`"), format!("one of: {}", known.join(", ")));
        }
        problems.require(!names[..index].contains(name), field, format!("names `{name}` twice"));
    }
}
