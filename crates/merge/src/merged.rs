//! Base and adapter as one model.

use std::path::Path;

use pipe_hf::{Checkpoint, ModelConfig, Parameter, Role};

use crate::{Adapter, Error, base::Source, product::Factors};

const EMBEDDING: &str = "model.embed_tokens";
const HEAD: &str = "lm_head";

/// Which weights an adapter is added to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MergeInto {
    /// Those before quantisation.
    Original,
    /// Those that a quantised model stands for, which the adapter was trained on: `code * scale` in float32, not rounded.
    Dequantized,
}

/// A model with an adapter merged in.
#[derive(Debug)]
pub struct Merged {
    config: ModelConfig,
    weights: Checkpoint,
    /// Whether `weights` keep the head as the embedding, whatever the result does.
    base_tied: bool,
    adapter: Option<Adapter>,
    parameters: Vec<Parameter>,
    into: MergeInto,
}

impl Merged {
    /// Opens `model` and the adapter that was trained on it; without an adapter the result is the model itself,
    /// dequantised. `into` is by default what was trained on. `original` holds the weights that a quantised model was
    /// made from, for [`MergeInto::Original`].
    ///
    /// A tied model stays tied unless the adapter has an embedding and a head that differ, or only one of the two.
    ///
    /// # Errors
    /// If a folder is not what it should be, or model and adapter do not fit each other.
    pub fn open(
        model: &Path,
        original: Option<&Path>,
        adapter: Option<&Path>,
        into: Option<MergeInto>,
    ) -> Result<Self, Error> {
        let mut config = ModelConfig::open(model)?;
        let quantised = config.quantization.is_some();
        let into = into.unwrap_or(if quantised { MergeInto::Dequantized } else { MergeInto::Original });
        let weights = match (into, quantised) {
            (MergeInto::Dequantized, true) | (MergeInto::Original, false) => {
                let weights = Checkpoint::open(model)?;
                weights.check(&config)?;
                weights
            }
            (MergeInto::Dequantized, false) => return Err(Error::NotQuantised { path: model.to_owned() }),
            (MergeInto::Original, true) => {
                let path = original.ok_or_else(|| Error::NoOriginal { path: model.to_owned() })?;
                open_original(&config, model, path)?
            }
        };
        let adapter = adapter.map(Adapter::open).transpose()?;
        let base_tied = config.tie_word_embeddings;
        if let Some(adapter) = &adapter {
            config.tie_word_embeddings = base_tied && stays_tied(adapter)?;
        }
        let parameters = config.parameters();
        let merged = Self { config, weights, base_tied, adapter, parameters, into };
        merged.check_modules()?;
        Ok(merged)
    }

    /// The configuration of the result, but that it may still name a quantisation and a type of weights. Tying is that of
    /// the result.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Every parameter of the result, from the embedding to the head.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Which weights the adapter is added to.
    pub fn into_weights(&self) -> MergeInto {
        self.into
    }

    /// The adapter.
    pub fn adapter(&self) -> Option<&Adapter> {
        self.adapter.as_ref()
    }

    /// The weights that the adapter is added to.
    pub fn base(&self) -> &Checkpoint {
        &self.weights
    }

    /// Gets a parameter ready to be read: its factors, and the codes of a weight in NF4, are then in memory.
    ///
    /// # Errors
    /// If there is no such parameter, or something cannot be read.
    pub fn tensor(&self, name: &str) -> Result<Tensor<'_>, Error> {
        let parameter = self.parameters.iter().find(|parameter| parameter.name == name);
        let parameter = parameter.ok_or_else(|| Error::NoParameter { name: name.to_owned() })?;
        let module = name.strip_suffix(".weight").unwrap_or(name);
        let source = match self.saved(module) {
            Some((adapter, key)) => Source::File { checkpoint: &adapter.tensors, name: key },
            None if module == HEAD && self.base_tied => Source::open(&self.weights, &format!("{EMBEDDING}.weight"))?,
            None => Source::open(&self.weights, name)?,
        };
        let found = source.shape()?;
        if found != parameter.shape {
            let path = match &self.adapter {
                Some(adapter) if self.saved(module).is_some() => adapter.tensors.path().to_owned(),
                _ => self.weights.path().to_owned(),
            };
            let (found, expected) = (found.to_vec(), parameter.shape.clone());
            return Err(Error::Shape { path, key: name.to_owned(), found, expected });
        }
        let factors = match (&self.adapter, parameter.shape.as_slice()) {
            (Some(adapter), [outputs, inputs]) => {
                adapter.pair(module, *outputs, *inputs)?.map(|pair| Factors::new(pair, adapter.settings.scale()))
            }
            _ => None,
        };
        Ok(Tensor { parameter, source, factors })
    }

    /// Where the whole weight of a module is, if the adapter has it. In a tied result one name may stand for both.
    fn saved(&self, module: &str) -> Option<(&Adapter, String)> {
        let adapter = self.adapter.as_ref()?;
        let other = (module == EMBEDDING && self.config.tie_word_embeddings).then_some(HEAD);
        let key = adapter.saved_key(module).or_else(|| adapter.saved_key(other?))?;
        Some((adapter, key))
    }

    /// Every tensor of the adapter must have its place in the model.
    fn check_modules(&self) -> Result<(), Error> {
        let Some(adapter) = &self.adapter else { return Ok(()) };
        let has = |module: &str, role: fn(Role) -> bool| {
            let name = format!("{module}.weight");
            self.parameters.iter().any(|parameter| parameter.name == name && role(parameter.role))
                || (module == HEAD && self.config.tie_word_embeddings)
        };
        let unknown = |module: &str| {
            Err(Error::UnknownModule { path: adapter.tensors.path().to_owned(), module: module.to_owned() })
        };
        if let Some(module) =
            adapter.adapted().find(|module| !has(module, |role| matches!(role, Role::Linear | Role::Head)))
        {
            return unknown(module);
        }
        match adapter.saved().find(|module| !has(module, |_| true)) {
            Some(module) => unknown(module),
            None => Ok(()),
        }
    }
}

fn open_original(config: &ModelConfig, model: &Path, path: &Path) -> Result<Checkpoint, Error> {
    let original = ModelConfig::open(path)?;
    if original.quantization.is_some() {
        return Err(Error::QuantisedOriginal { path: path.to_owned() });
    }
    let field = if original.architecture != config.architecture {
        Some("model_type")
    } else if original.tie_word_embeddings != config.tie_word_embeddings {
        Some("tie_word_embeddings")
    } else if original.parameters() != config.parameters() {
        Some("the shape")
    } else {
        None
    };
    if let Some(field) = field {
        return Err(Error::OtherModel { path: model.to_owned(), other: path.to_owned(), field });
    }
    let weights = Checkpoint::open(path)?;
    weights.check(&original)?;
    Ok(weights)
}

/// Whether a tied model is still tied with this adapter. PEFT without `ensure_weight_tying` trains two copies.
fn stays_tied(adapter: &Adapter) -> Result<bool, Error> {
    if adapter.adapts(HEAD) {
        return Ok(false);
    }
    match (adapter.saved_key(EMBEDDING), adapter.saved_key(HEAD)) {
        (None, None) => Ok(true),
        (Some(embedding), Some(head)) => Ok(adapter.tensors.same_bytes(&embedding, &head)?),
        _ => Ok(adapter.settings.ensure_weight_tying),
    }
}

/// A parameter of the result that is ready to be read. Reads from several threads do not disturb each other.
#[derive(Debug)]
pub struct Tensor<'a> {
    /// Its name, shape and role.
    pub parameter: &'a Parameter,
    source: Source<'a>,
    factors: Option<Factors>,
}

impl Tensor<'_> {
    /// Whether its weights come from NF4.
    pub fn is_quantised(&self) -> bool {
        matches!(self.source, Source::Nf4 { .. })
    }

    /// The values of whole rows from `first_row` on, in float32; a vector is one row.
    ///
    /// # Shapes
    /// `values: [rows, columns]`
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn read_rows(&self, first_row: usize, values: &mut [f32]) -> Result<(), Error> {
        self.read_base_rows(first_row, values)?;
        if let Some(factors) = &self.factors {
            factors.add_to(values, first_row);
        }
        Ok(())
    }

    /// The same without what LoRA adds.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn read_base_rows(&self, first_row: usize, values: &mut [f32]) -> Result<(), Error> {
        let columns = self.parameter.shape.last().copied().unwrap_or(1);
        self.source.read(first_row * columns, values)
    }
}
