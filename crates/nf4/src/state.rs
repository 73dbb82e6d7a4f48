//! `quant_state`: the JSON object that bitsandbytes stores beside a quantised tensor.

use serde::Deserialize;

/// More bytes than a state can take, for a shape of up to four dimensions.
pub const MAX_STATE_BYTES: usize = 320;

/// The type that a tensor had before it was quantised. Backward passes of the original restore it to this type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
pub enum SourceType {
    /// float32
    #[serde(rename = "float32")]
    Float32,
    /// bfloat16
    #[serde(rename = "bfloat16")]
    Bfloat16,
    /// float16
    #[serde(rename = "float16")]
    Float16,
}

impl SourceType {
    /// Its name in torch.
    pub fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Bfloat16 => "bfloat16",
            Self::Float16 => "float16",
        }
    }
}

/// How a tensor was quantised.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantState {
    /// Elements that share a scale.
    pub block: usize,
    /// The type before.
    pub source: SourceType,
    /// The shape before; the packed tensor does not show it.
    pub shape: Vec<usize>,
    /// How the scales were quantised, if they were.
    pub nested: Option<NestedState>,
}

/// How the scales of a tensor were quantised.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NestedState {
    /// Scales that share a scale.
    pub block: usize,
    /// What was taken off the scales.
    pub offset: f32,
}

#[derive(Deserialize)]
struct Fields {
    quant_type: String,
    blocksize: usize,
    dtype: SourceType,
    shape: Vec<usize>,
    nested_blocksize: Option<usize>,
    nested_dtype: Option<String>,
    nested_offset: Option<f64>,
}

impl QuantState {
    /// The JSON text, with the order and spacing of Python's `json.dumps`.
    pub fn to_json(&self) -> String {
        let shape = self.shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let mut text = format!(
            r#"{{"quant_type": "nf4", "blocksize": {}, "dtype": "{}", "shape": [{shape}]"#,
            self.block,
            self.source.name(),
        );
        if let Some(nested) = self.nested {
            text += &format!(
                r#", "nested_blocksize": {}, "nested_dtype": "float32", "nested_offset": {}"#,
                nested.block,
                python_repr(f64::from(nested.offset)),
            );
        }
        text + "}"
    }

    /// Reads the JSON text.
    ///
    /// # Errors
    /// If it is no such object; `Err(Ok(problem))` if it asks for something that is not supported.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, Result<String, serde_json::Error>> {
        let fields: Fields = serde_json::from_slice(text).map_err(Err)?;
        if fields.quant_type != "nf4" {
            return Err(Ok(format!("quant_type `{}` is not supported, only nf4 is", fields.quant_type)));
        }
        let valid_block = |block: usize| block.is_power_of_two() && (2..=1 << 16).contains(&block);
        if !valid_block(fields.blocksize) {
            return Err(Ok(format!("blocksize {} is not a power of two from 2 to 65536", fields.blocksize)));
        }
        let nested = match (fields.nested_blocksize, fields.nested_offset) {
            (None, None) => None,
            (Some(block), Some(offset)) => {
                if !valid_block(block) {
                    return Err(Ok(format!("nested_blocksize {block} is not a power of two from 2 to 65536")));
                }
                if let Some(other) = fields.nested_dtype.filter(|name| name != "float32") {
                    return Err(Ok(format!("nested_dtype `{other}` is not supported, only float32 is")));
                }
                // Written from a float32, so nothing is lost.
                let offset = offset as f32;
                if !offset.is_finite() {
                    return Err(Ok("nested_offset is not a finite float32".to_owned()));
                }
                Some(NestedState { block, offset })
            }
            _ => return Err(Ok("nested_blocksize and nested_offset must stand together".to_owned())),
        };
        Ok(Self { block: fields.blocksize, source: fields.dtype, shape: fields.shape, nested })
    }
}

/// A float as Python's `repr` writes it: the shortest digits that read back the same, with an exponent (of at least two
/// digits) where the decimal point would be more than four zeros or sixteen digits away.
fn python_repr(value: f64) -> String {
    let scientific = format!("{value:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    match exponent.parse::<i32>() {
        Ok(exponent) if !(-4..16).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
        }
        _ => format!("{value:?}"),
    }
}
