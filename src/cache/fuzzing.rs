//! The readers of hints, behind their checksums. For the fuzz targets and their tests only.

use super::{stamp, state};

/// Reads `content` as each sort of hint: what is read is written and read back as the same.
pub(crate) fn hints(content: &[u8]) {
    stamp::fuzz(content);
    state::fuzz(content);
}
