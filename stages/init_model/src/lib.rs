//! The kind `init_model`: a Qwen3 model with freshly drawn weights, from its shape and a seed.
//!
//! For quickstarts, tests at real shapes, and training from scratch. The same configuration gives the same bytes on any
//! machine and any number of threads.

mod config;
mod draw;
mod shape;
mod tokenizer;
mod write;

pub use config::{Config, Preset, ShapeFields, WeightType};
pub use draw::Normal;
use pipe_stage::{Context, Failure, Kind, Port, Stage};

/// The kind `init_model`.
pub struct InitModel;

impl Kind for InitModel {
    type Config = Config;
    const KIND: &'static str = "init_model";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Makes a Qwen3 model with freshly drawn weights";
    const INPUTS: &'static [Port] = &[Port::optional("tokenizer", "a folder with tokenizer.json")];

    fn model(config: &Config) -> Option<serde_json::Map<String, serde_json::Value>> {
        config.model().ok().map(|model| model.raw)
    }
}

impl Stage for InitModel {
    fn run(config: &Config, context: &Context) -> Result<(), Failure> {
        write::run(config, context)
    }
}
