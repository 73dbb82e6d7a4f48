//! What is to be trained, as far as memory depends on it.

use pipe_hf::{Dtype, ModelConfig};

/// Values of a block of NF4 that share a scale, and scales that share one with double quantisation.
pub(crate) const NF4_BLOCK: u64 = 64;
pub(crate) const NESTED_BLOCK: u64 = 256;

/// How the linear layers of the blocks are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BaseFormat {
    /// In the type of the computation.
    Dense,
    /// Four bits a value and a scale for 64, which double quantisation takes down to eight bits.
    Nf4 {
        /// Whether the scales are quantised too.
        double_quant: bool,
    },
    /// Eight bits a value and a float32 scale a row.
    Int8,
}

/// The type of products and of what they take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compute {
    /// Four bytes.
    Float32,
    /// Two bytes; a trained table lies in the two halves of its words.
    Bfloat16,
    /// Two bytes; a trained table is copied for products.
    Float16,
}

impl Compute {
    /// Bytes of a value.
    pub(crate) fn bytes(self) -> u64 {
        if self == Self::Float32 { 4 } else { 2 }
    }
}

/// How the optimizer keeps its two running means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum States {
    /// Eight bytes a trained value.
    Float32,
    /// Two bytes a trained value, and two scales for 256.
    EightBit,
}

/// What is trained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trained {
    /// Rank of the adapters.
    pub rank: u64,
    /// Linear layers with an adapter, by name: `q_proj`.
    pub target_modules: Vec<String>,
    /// Of `embed_tokens` and `lm_head` those that are trained whole.
    pub modules_to_save: Vec<String>,
}

/// A pass, at its largest in every respect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pass {
    /// Tokens.
    pub tokens: u64,
    /// Positions with a label that is predicted.
    pub labels: u64,
    /// Tokens of the longest sample.
    pub longest: u64,
    /// Samples.
    pub samples: u64,
}

/// The samples of a run: the largest that there is, respect by respect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Run {
    /// The largest pass.
    pub pass: Pass,
    /// Labels of the update that has the most, over all its passes.
    pub update_labels: u64,
    /// Different tokens of the update that has the most.
    pub distinct_tokens: u64,
    /// The largest pass over held-out samples, if there are any.
    pub evaluation: Option<Pass>,
}

impl Run {
    /// The same with passes of at most `tokens` tokens; a longer sample stays a pass of its own.
    #[must_use]
    pub(crate) fn with_tokens(self, tokens: u64) -> Self {
        let bounded = |pass: Pass| {
            let most = tokens.max(pass.longest).min(pass.tokens);
            Pass { tokens: most, labels: pass.labels.min(most), ..pass }
        };
        Self { pass: bounded(self.pass), evaluation: self.evaluation.map(bounded), ..self }
    }
}

/// What decides how much memory training takes.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// The shape of the base.
    pub model: ModelConfig,
    /// How its linear layers are stored.
    pub base: BaseFormat,
    /// The type of the computation.
    pub compute: Compute,
    /// What is trained.
    pub trained: Trained,
    /// How the optimizer keeps its states.
    pub states: States,
    /// Whether noise is added to the embedding's output.
    pub neftune: bool,
    /// The samples.
    pub run: Run,
}

impl Workload {
    pub(crate) fn width(&self) -> u64 {
        self.model.hidden_size as u64
    }

    pub(crate) fn vocabulary(&self) -> u64 {
        self.model.vocab_size as u64
    }

    pub(crate) fn tied(&self) -> bool {
        self.model.tie_word_embeddings
    }

    fn saves(&self, module: &str) -> bool {
        self.trained.modules_to_save.iter().any(|name| name == module)
    }

    /// Whether the embedding is trained; where it is the head too, either name trains both.
    pub(crate) fn trains_embedding(&self) -> bool {
        self.saves("embed_tokens") || self.tied() && self.saves("lm_head")
    }

    /// Whether the head is trained.
    pub(crate) fn trains_head(&self) -> bool {
        if self.tied() { self.trains_embedding() } else { self.saves("lm_head") }
    }

    /// Bytes of a value of a frozen table. Rows of one that is not stored in bfloat16 are read in float32.
    pub(crate) fn table_bytes(&self, rows_are_read: bool) -> u64 {
        let wide = rows_are_read && !matches!(self.model.dtype, None | Some(Dtype::BF16));
        if wide { 4 } else { self.compute.bytes() }
    }

    /// How a linear layer is stored: `model.layers.0.mlp.up_proj`.
    pub(crate) fn format(&self, module: &str) -> BaseFormat {
        match &self.model.quantization {
            Some(quantization) if quantization.skips(module) => BaseFormat::Dense,
            _ => self.base,
        }
    }

    /// The linear layers of a block that share an input.
    pub(crate) fn groups(&self) -> Groups {
        let model = &self.model;
        let (width, inner) = (self.width(), model.intermediate_size as u64);
        let queries = (model.num_attention_heads * model.head_dim) as u64;
        let keys = (model.num_key_value_heads * model.head_dim) as u64;
        let group = |input, outputs, modules: &[&str], bias| self.group(input, outputs, modules, bias);
        Groups {
            qkv: group(width, queries + 2 * keys, &["q_proj", "k_proj", "v_proj"], model.qkv_bias),
            output: group(queries, width, &["o_proj"], model.output_bias),
            gate_up: group(width, 2 * inner, &["gate_proj", "up_proj"], false),
            down: group(inner, width, &["down_proj"], false),
        }
    }

    /// As `pipe_kernels::ops::Layout`: columns for adapters and a bias behind the input's own, eight at a time.
    fn group(&self, width: u64, outputs: u64, modules: &[&str], bias: bool) -> Group {
        let adapters = modules.iter().filter(|module| self.trained.target_modules.iter().any(|name| name == **module));
        let extra = adapters.count() as u64 * self.trained.rank + u64::from(bias);
        let columns = if extra == 0 { width } else { (width + extra).next_multiple_of(8) };
        // A dense layer alone is its own matrix.
        let shared = self.base == BaseFormat::Dense && modules.len() == 1 && extra == 0;
        Group { width, columns, outputs, matrix: if shared { 0 } else { outputs * columns * self.compute.bytes() } }
    }
}

/// The four groups of a block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Groups {
    pub(crate) qkv: Group,
    pub(crate) output: Group,
    pub(crate) gate_up: Group,
    pub(crate) down: Group,
}

/// Linear layers that share an input.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Group {
    /// Columns of the input that are its own.
    pub(crate) width: u64,
    /// All of them.
    pub(crate) columns: u64,
    /// Rows of the matrix.
    pub(crate) outputs: u64,
    /// Bytes of the matrix that a product takes; 0 where that is the weight itself.
    pub(crate) matrix: u64,
}
