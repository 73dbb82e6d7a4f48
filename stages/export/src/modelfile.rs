//! Modelfile
use std::path::Path;

use pipe_hf::ModelConfig;
use pipe_stage::Context;

use crate::{Error, dialogue::Dialogue};

pub(crate) fn write(
    _model: &Path,
    _config: &ModelConfig,
    _dialogue: &Dialogue,
    _folder: &Path,
    _context: &Context,
) -> Result<(), Error> {
    Ok(())
}
