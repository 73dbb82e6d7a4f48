//! The file's bytes to a text.

use std::{
    fs::File,
    io::{ErrorKind, Read},
    path::Path,
    sync::Arc,
};

use pipe_yaml::{MAX_BYTES, Problem, Span};

use super::{ConfigError, Source};

/// Reads a pipeline file, never more of it than a pipeline may have.
pub(super) fn text(path: &Path) -> Result<String, ConfigError> {
    let read = |source| ConfigError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(|source| match source.kind() {
        ErrorKind::NotFound => ConfigError::Missing { path: path.to_owned() },
        _ => read(source),
    })?;
    let metadata = file.metadata().map_err(read)?;
    if metadata.is_dir() {
        return Err(ConfigError::Directory { path: path.to_owned() });
    }
    let mut bytes = Vec::new();
    // Not the size that the file system tells: a pipe has none.
    file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(read)?;
    if bytes.len() > MAX_BYTES {
        return Err(ConfigError::TooLarge { path: path.to_owned(), bytes: metadata.len().max(bytes.len() as u64) });
    }
    String::from_utf8(bytes).map_err(|error| not_utf8(path, &error))
}

/// Points at the first byte that is wrong: up to there, the text that is shown has the same bytes.
fn not_utf8(path: &Path, error: &std::string::FromUtf8Error) -> ConfigError {
    let start = error.utf8_error().valid_up_to();
    let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
    let span = Span { start, end: start + char::REPLACEMENT_CHARACTER.len_utf8() };
    let help = "save the file as UTF-8; if it is GBK: `iconv -f GBK -t UTF-8`".to_owned();
    let problem = Problem { span: Some(span), message: "the file is not UTF-8 text".to_owned(), help: Some(help) };
    ConfigError::invalid(Arc::new(Source::new(path, text)), vec![problem])
}
