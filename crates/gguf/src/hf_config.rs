//! `config.json` from the metadata of a GGUF file.

use pipe_hf::Architecture;
use serde_json::{Map, Value as Json, json};

use crate::{Error, GgufReader, Value};

/// The fields of a `config.json` for the model in a file, but for the type of its weights.
///
/// # Errors
/// If the file holds no Qwen3, Qwen2 or Llama model, a key is missing, or it asks for what is not supported.
pub fn config_object(file: &GgufReader) -> Result<Map<String, Json>, Error> {
    let keys = Keys { file };
    let name = keys.text("general.architecture")?;
    let architecture = [Architecture::Qwen3, Architecture::Qwen2, Architecture::Llama]
        .into_iter()
        .find(|architecture| architecture.model_type() == name)
        .ok_or_else(|| {
            keys.wrong("general.architecture", format!("`{name}` is not supported; qwen3, qwen2 and llama are"))
        })?;
    refuse_unsupported(&keys, name)?;
    let count = |key: &str| keys.count(&format!("{name}.{key}"));
    let (hidden_size, heads) = (count("embedding_length")?, count("attention.head_count")?);
    let head_dim = match keys.optional_count(&format!("{name}.attention.key_length"))? {
        Some(head_dim) => head_dim,
        None => hidden_size / heads.max(1),
    };
    if let Some(turned) = keys.optional_count(&format!("{name}.rope.dimension_count"))?
        && turned != head_dim
    {
        let problem = format!("is {turned}, a head has {head_dim}; a partial rotary embedding is not supported");
        return Err(keys.wrong(&format!("{name}.rope.dimension_count"), problem));
    }
    let embedding = file.entry("token_embd.weight")?;
    let theta = keys.float(&format!("{name}.rope.freq_base"))?;
    let id = |key: &str| file.metadata().get(&format!("tokenizer.ggml.{key}_token_id")).and_then(Value::as_u64);
    let object = json!({
        "architectures": [architecture.class_name()],
        "attention_bias": architecture != Architecture::Qwen2 && file.contains("blk.0.attn_q.bias"),
        "attention_dropout": 0.0,
        "bos_token_id": id("bos"),
        "eos_token_id": id("eos"),
        "head_dim": head_dim,
        "hidden_act": "silu",
        "hidden_size": hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": count("feed_forward_length")?,
        "max_position_embeddings": count("context_length")?,
        "model_type": name,
        "num_attention_heads": heads,
        "num_hidden_layers": count("block_count")?,
        "num_key_value_heads": keys.optional_count(&format!("{name}.attention.head_count_kv"))?.unwrap_or(heads),
        "pad_token_id": id("padding"),
        "rms_norm_eps": keys.float(&format!("{name}.attention.layer_norm_rms_epsilon"))?,
        "rope_theta": theta,
        "tie_word_embeddings": !file.contains("output.weight"),
        "use_cache": true,
        "vocab_size": embedding.shape.first().copied().unwrap_or(0),
    });
    match object {
        Json::Object(object) => Ok(object),
        _ => Ok(Map::new()),
    }
}

fn refuse_unsupported(keys: &Keys<'_>, name: &str) -> Result<(), Error> {
    let metadata = keys.file.metadata();
    let text = |key: &str| metadata.get(key).and_then(Value::as_str);
    if let Some(kind) = text("general.type").filter(|kind| *kind != "model") {
        return Err(keys.wrong("general.type", format!("`{kind}` is no whole model")));
    }
    let scaling = format!("{name}.rope.scaling.type");
    if let Some(kind) = text(&scaling).filter(|kind| *kind != "none") {
        return Err(keys.wrong(&scaling, format!("`{kind}` is not supported, only an unscaled rotary embedding is")));
    }
    if keys.file.contains("rope_freqs.weight") {
        return Err(keys.wrong("rope_freqs.weight", "a scaled rotary embedding is not supported".to_owned()));
    }
    for key in [format!("{name}.expert_count"), "split.count".to_owned()] {
        if metadata.get(&key).and_then(Value::as_u64).is_some_and(|count| count > 1) {
            return Err(keys.wrong(&key, "mixtures of experts and split files are not supported".to_owned()));
        }
    }
    Ok(())
}

/// Typed access to keys.
struct Keys<'a> {
    file: &'a GgufReader,
}

impl<'a> Keys<'a> {
    fn text(&self, key: &str) -> Result<&'a str, Error> {
        let value = self.file.metadata().get(key).and_then(Value::as_str);
        value.ok_or_else(|| self.wrong(key, "is missing or no text".to_owned()))
    }

    fn optional_count(&self, key: &str) -> Result<Option<u64>, Error> {
        match self.file.metadata().get(key) {
            None => Ok(None),
            Some(value) => match value.as_u64().filter(|count| (1..=u64::from(u32::MAX)).contains(count)) {
                Some(count) => Ok(Some(count)),
                None => Err(self.wrong(key, "is no count of 1 or more".to_owned())),
            },
        }
    }

    fn count(&self, key: &str) -> Result<u64, Error> {
        self.optional_count(key)?.ok_or_else(|| self.wrong(key, "is missing".to_owned()))
    }

    /// A float32 as the decimal that it was rounded from: 0.00001, not 0.000009999999747378752.
    fn float(&self, key: &str) -> Result<f64, Error> {
        let value = self.file.metadata().get(key).and_then(Value::as_f64);
        let value = value.ok_or_else(|| self.wrong(key, "is missing or no float".to_owned()))?;
        Ok((value as f32).to_string().parse().unwrap_or(value))
    }

    fn wrong(&self, key: &str, problem: String) -> Error {
        Error::Key { path: self.file.path().to_owned(), key: key.to_owned(), problem }
    }
}
