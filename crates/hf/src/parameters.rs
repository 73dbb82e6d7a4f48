//! The parameters that a decoder has, by name, in the order of the model.

use crate::ModelConfig;

/// What a parameter is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// `model.embed_tokens.weight`
    Embedding,
    /// The weight of a linear layer in a block.
    Linear,
    /// The bias of a linear layer in a block.
    Bias,
    /// The weight of an RMS norm.
    Norm,
    /// `lm_head.weight`, where it is not the embedding.
    Head,
}

/// A parameter of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Its name in a checkpoint.
    pub name: String,
    /// Its shape; `[out, in]` for a linear layer.
    pub shape: Vec<usize>,
    /// What it is for.
    pub role: Role,
}

impl ModelConfig {
    /// Every parameter, from the embedding to the head. A tied head is not listed.
    pub fn parameters(&self) -> Vec<Parameter> {
        let mut list = List::default();
        let hidden = self.hidden_size;
        list.add("model.embed_tokens.weight".to_owned(), &[self.vocab_size, hidden], Role::Embedding);
        for layer in 0..self.num_hidden_layers {
            self.layer_parameters(layer, &mut list);
        }
        list.add("model.norm.weight".to_owned(), &[hidden], Role::Norm);
        if !self.tie_word_embeddings {
            list.add("lm_head.weight".to_owned(), &[self.vocab_size, hidden], Role::Head);
        }
        list.0
    }

    fn layer_parameters(&self, layer: usize, list: &mut List) {
        let hidden = self.hidden_size;
        let queries = self.num_attention_heads.saturating_mul(self.head_dim);
        let keys = self.num_key_value_heads.saturating_mul(self.head_dim);
        let prefix = format!("model.layers.{layer}");
        list.add(format!("{prefix}.input_layernorm.weight"), &[hidden], Role::Norm);
        for (name, rows, columns, bias) in [
            ("q_proj", queries, hidden, self.qkv_bias),
            ("k_proj", keys, hidden, self.qkv_bias),
            ("v_proj", keys, hidden, self.qkv_bias),
            ("o_proj", hidden, queries, self.output_bias),
        ] {
            list.add(format!("{prefix}.self_attn.{name}.weight"), &[rows, columns], Role::Linear);
            if bias {
                list.add(format!("{prefix}.self_attn.{name}.bias"), &[rows], Role::Bias);
            }
        }
        if self.qk_norm {
            for name in ["q_norm", "k_norm"] {
                list.add(format!("{prefix}.self_attn.{name}.weight"), &[self.head_dim], Role::Norm);
            }
        }
        list.add(format!("{prefix}.post_attention_layernorm.weight"), &[hidden], Role::Norm);
        for (name, rows, columns) in [
            ("gate_proj", self.intermediate_size, hidden),
            ("up_proj", self.intermediate_size, hidden),
            ("down_proj", hidden, self.intermediate_size),
        ] {
            list.add(format!("{prefix}.mlp.{name}.weight"), &[rows, columns], Role::Linear);
        }
    }
}

#[derive(Default)]
struct List(Vec<Parameter>);

impl List {
    fn add(&mut self, name: String, shape: &[usize], role: Role) {
        self.0.push(Parameter { name, shape: shape.to_vec(), role });
    }
}
