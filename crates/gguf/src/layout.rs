//! Where the parameters of a model are in a GGUF file: their names, and the order of their rows.

use pipe_hf::{Architecture, ModelConfig, Parameter};

/// Parts of a name in a layer: Hugging Face's, GGUF's.
const LAYER_PARTS: [(&str, &str); 11] = [
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];
const TOP_PARTS: [(&str, &str); 3] =
    [("model.embed_tokens", "token_embd"), ("model.norm", "output_norm"), ("lm_head", "output")];

/// The mapping for one model.
///
/// llama.cpp turns pairs of neighbouring channels in a Llama model where transformers turns the halves of a head, so its
/// converter interleaves the rows of queries and keys: row `half * d / 2 + pair` of a head becomes `2 pair + half`.
/// Qwen2 and Qwen3 keep their order.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// Width of a head, where rows are interleaved.
    interleaved_head: Option<usize>,
}

impl Layout {
    /// The mapping for a model.
    pub fn new(model: &ModelConfig) -> Self {
        Self { interleaved_head: (model.architecture == Architecture::Llama).then_some(model.head_dim) }
    }

    /// The name in GGUF of a parameter `model.layers.0.self_attn.q_proj.weight`; `None` if it has none.
    pub fn gguf_name(&self, name: &str) -> Option<String> {
        let (path, end) = name.rsplit_once('.').filter(|(_, end)| matches!(*end, "weight" | "bias"))?;
        if let Some((_, part)) = TOP_PARTS.iter().find(|(known, _)| *known == path) {
            return Some(format!("{part}.{end}"));
        }
        let (layer, part) = path.strip_prefix("model.layers.")?.split_once('.')?;
        let layer: u32 = layer.parse().ok()?;
        let (_, part) = LAYER_PARTS.iter().find(|(known, _)| *known == part)?;
        Some(format!("blk.{layer}.{part}.{end}"))
    }

    /// The place in GGUF of row `row` of a parameter.
    pub fn gguf_row(&self, parameter: &Parameter, row: usize) -> usize {
        match self.interleaved_head {
            Some(head) if is_interleaved(&parameter.name) => {
                let (start, within) = (row - row % head, row % head);
                let (half, pair) = (within / (head / 2), within % (head / 2));
                start + 2 * pair + half
            }
            _ => row,
        }
    }

    /// Whether the rows of a parameter have the same order in both.
    pub fn keeps_rows(&self, parameter: &Parameter) -> bool {
        self.interleaved_head.is_none() || !is_interleaved(&parameter.name)
    }
}

fn is_interleaved(name: &str) -> bool {
    let module = name.rsplit_once('.').map_or(name, |(module, _)| module);
    module.ends_with(".q_proj") || module.ends_with(".k_proj")
}

#[cfg(test)]
mod tests {
    use pipe_hf::Role;

    use super::*;

    #[test]
    fn rows_of_a_head_are_interleaved_and_every_place_is_taken_once() {
        let layout = Layout { interleaved_head: Some(4) };
        let name = "model.layers.3.self_attn.k_proj.weight".to_owned();
        let parameter = Parameter { name, shape: vec![8, 2], role: Role::Linear };
        let rows: Vec<usize> = (0..8).map(|row| layout.gguf_row(&parameter, row)).collect();
        assert_eq!(rows, [0, 2, 1, 3, 4, 6, 5, 7]);
        let other = Parameter { name: "model.layers.3.self_attn.v_proj.weight".to_owned(), ..parameter };
        assert!(layout.keeps_rows(&other) && layout.gguf_row(&other, 1) == 1);
    }

    #[test]
    fn names_are_those_of_llama_cpp() {
        let layout = Layout { interleaved_head: None };
        let cases = [
            ("model.embed_tokens.weight", Some("token_embd.weight")),
            ("lm_head.weight", Some("output.weight")),
            ("model.layers.12.post_attention_layernorm.weight", Some("blk.12.ffn_norm.weight")),
            ("model.layers.0.self_attn.q_proj.bias", Some("blk.0.attn_q.bias")),
            ("model.layers.x.mlp.up_proj.weight", None),
            ("model.layers.0.mlp.experts.weight", None),
        ];
        for (name, expected) in cases {
            assert_eq!(layout.gguf_name(name).as_deref(), expected, "{name}");
        }
    }
}
