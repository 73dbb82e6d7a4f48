//! Every kind of stage, one line each. The only file of `pipe` that names the stage crates.

use pipe_stage::{Declaration, Runner};

/// Lists kinds as `program: type`. `torch` kinds are declared here and run by `pipe-torch`.
macro_rules! kinds {
    ($($program:ident: $kind:ty,)*) => {
        /// What the engine knows of each kind.
        pub static KINDS: &[Declaration] = &[$(Declaration::of::<$kind>()),*];
        static RUNNERS: &[Option<Runner>] = &[$(runner!($program, $kind)),*];
    };
}

macro_rules! runner {
    (pipe, $kind:ty) => {
        Some(Runner::of::<$kind>())
    };
    (torch, $kind:ty) => {
        None
    };
}

kinds! {
    pipe: stage_download::Download,
    pipe: stage_tokenize::Tokenize,
    pipe: stage_filter::Filter,
    pipe: stage_split::Split,
    pipe: stage_mix::Mix,
    pipe: stage_init_model::InitModel,
    pipe: stage_import_gguf::ImportGguf,
    pipe: stage_quantize::Quantize,
    torch: stage_train::Train,
    torch: stage_evaluate::Evaluate,
    pipe: stage_export::Export,
    pipe: stage_command::Command,
}

/// The kinds that `pipe worker` runs.
pub fn runners() -> Vec<Runner> {
    RUNNERS.iter().flatten().copied().collect()
}
