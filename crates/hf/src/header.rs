//! The header of a safetensors file. It is checked before anything believes it.

use std::{fs::File, os::unix::fs::FileExt, path::Path};

use safetensors::tensor::Metadata;

use crate::Error;

/// Longest header that the format allows, bytes.
const LIMIT_BYTES: u64 = 100_000_000;

/// Reads the header and where the data starts. Its offsets leave no gap, and end where the file ends.
pub(crate) fn read_header(path: &Path, file: &File) -> Result<(u64, Metadata), Error> {
    let wrong = |problem: String| Error::Header { path: path.to_owned(), problem };
    let stat = file.metadata().map_err(Error::read(path))?;
    if !stat.is_file() {
        return Err(wrong("it is not a regular file".to_owned()));
    }
    let file_bytes = stat.len();
    let mut prefix = [0; 8];
    if file_bytes < 8 {
        return Err(wrong(format!("it has only {file_bytes} bytes")));
    }
    file.read_exact_at(&mut prefix, 0).map_err(Error::read(path))?;
    let header_bytes = u64::from_le_bytes(prefix);
    if header_bytes > LIMIT_BYTES || header_bytes > file_bytes - 8 {
        return Err(wrong(format!("its header claims {header_bytes} bytes of {file_bytes}")));
    }
    // At most LIMIT_BYTES, so the conversion cannot lose anything.
    let mut header = vec![0; header_bytes as usize];
    file.read_exact_at(&mut header, 8).map_err(Error::read(path))?;
    let metadata: Metadata = serde_json::from_slice(&header).map_err(|error| wrong(error.to_string()))?;
    let data_start = 8 + header_bytes;
    let found = file_bytes - data_start;
    let expected = metadata.data_len() as u64;
    if found != expected {
        let cut = if found < expected { "; it is cut short: fetch it again" } else { "" };
        return Err(wrong(format!("its tensors need {expected} bytes, it has {found}{cut}")));
    }
    Ok((data_start, metadata))
}
