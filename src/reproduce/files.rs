//! The files of an artifact, then and now.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, BufRead, BufReader},
    path::Path,
};

use pipe_stage::{Digest, manifest::Entry, manifest::Manifest};
use serde::Serialize;

use super::{
    tensors::{self, TensorDiff},
    values::ValueDiff,
};

/// Larger documents are not compared value by value.
const DOCUMENT_BYTES: u64 = 64 << 20;

/// A file that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FileChange {
    /// Its path in the artifact.
    pub path: String,
    /// What it was; `None` if it is new.
    pub recorded: Option<FileSide>,
    /// What it is; `None` if it is gone.
    pub now: Option<FileSide>,
    /// How the contents differ. `None` if the recorded file is not in the bundle.
    pub detail: Option<FileDetail>,
}

/// A file as an artifact's list has it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FileSide {
    /// Of its bytes.
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    /// Whether it can be executed.
    pub executable: bool,
}

/// How the contents of two files differ.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "as", rename_all = "snake_case")]
pub enum FileDetail {
    /// Both hold tensors.
    Tensors(TensorDiff),
    /// Both hold JSON, or lines of JSON.
    Values(ValueDiff),
    /// Anything else.
    Bytes {
        /// Where the first byte that differs is, counted from 0.
        first: u64,
        /// The line that it is in, counted from 1, if both are text up to there.
        line: Option<u64>,
    },
}

impl From<&Entry> for FileSide {
    fn from(entry: &Entry) -> Self {
        Self { digest: entry.digest, size: entry.size, executable: entry.executable }
    }
}

/// The files that differ.
pub(super) fn compare(recorded: &Manifest, now: &Manifest) -> Vec<FileChange> {
    let side = |files: &Manifest, path: &str| {
        let index = files.entries().binary_search_by(|entry| entry.path.as_str().cmp(path)).ok()?;
        Some(FileSide::from(&files.entries()[index]))
    };
    let paths: BTreeSet<&str> = recorded.entries().iter().chain(now.entries()).map(|file| file.path.as_str()).collect();
    let changes = paths.into_iter().map(|path| FileChange {
        path: path.to_owned(),
        recorded: side(recorded, path),
        now: side(now, path),
        detail: None,
    });
    changes.filter(|change| change.recorded != change.now).collect()
}

/// Looks into two files that differ.
pub(super) fn look_into(path: &str, recorded: &Path, now: &Path) -> io::Result<FileDetail> {
    let extension = Path::new(path).extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    if extension == "safetensors"
        && let Ok(diff) = tensors::compare(recorded, now)
        && !diff.differ.is_empty()
    {
        return Ok(FileDetail::Tensors(diff));
    }
    let small = || Ok::<_, io::Error>(fs::metadata(recorded)?.len().max(fs::metadata(now)?.len()) <= DOCUMENT_BYTES);
    if matches!(extension, "json" | "jsonl") && small()? {
        let diff = ValueDiff::of(&fs::read(recorded)?, &fs::read(now)?, extension == "jsonl");
        // With the same values, the difference is one of the text.
        if let Some(diff) = diff.filter(|diff| diff.differ > 0) {
            return Ok(FileDetail::Values(diff));
        }
    }
    first_difference(BufReader::new(File::open(recorded)?), BufReader::new(File::open(now)?))
}

fn first_difference(mut recorded: impl BufRead, mut now: impl BufRead) -> io::Result<FileDetail> {
    let (mut first, mut line, mut text) = (0, 1, true);
    loop {
        let (one, other) = (recorded.fill_buf()?, now.fill_buf()?);
        let both = one.len().min(other.len());
        let same = one.iter().zip(other).take_while(|(one, other)| one == other).count();
        text &= !one[..same].contains(&0);
        line += one[..same].iter().filter(|&&byte| byte == b'\n').count() as u64;
        first += same as u64;
        if same < both || both == 0 {
            return Ok(FileDetail::Bytes { first, line: text.then_some(line) });
        }
        recorded.consume(both);
        now.consume(both);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn list(files: &[(&str, &str, bool)]) -> Manifest {
        let entry = |(path, bytes, executable): &(&str, &str, bool)| Entry {
            path: (*path).to_owned(),
            digest: Digest::of(bytes.as_bytes()),
            size: bytes.len() as u64,
            executable: *executable,
        };
        Manifest::new(files.iter().map(entry).collect())
    }

    #[test]
    fn files_are_found_that_are_new_gone_or_other() {
        let recorded = list(&[("a", "1", false), ("b", "2", false), ("c", "3", false), ("d", "4", false)]);
        let now = list(&[("a", "1", false), ("b", "9", false), ("c", "3", true), ("e", "5", false)]);
        let changes = compare(&recorded, &now);
        let told: Vec<_> = changes
            .iter()
            .map(|change| (change.path.as_str(), change.recorded.is_some(), change.now.is_some()))
            .collect();
        assert_eq!(told, [("b", true, true), ("c", true, true), ("d", true, false), ("e", false, true)]);
        assert_eq!(compare(&now, &now), []);
    }

    #[test]
    fn contents_are_compared_by_what_they_are() {
        let temp = tempfile::tempdir().unwrap();
        let look = |name: &str, one: &[u8], other: &[u8]| {
            fs::write(temp.path().join("one"), one).unwrap();
            fs::write(temp.path().join("other"), other).unwrap();
            look_into(name, &temp.path().join("one"), &temp.path().join("other")).unwrap()
        };
        assert!(matches!(look("r.json", b"{\"a\":1}", b"{\"a\":2}"), FileDetail::Values(diff) if diff.differ == 1));
        assert!(matches!(look("r.jsonl", b"1\n2\n", b"1\n3\n"), FileDetail::Values(diff) if diff.differ == 1));
        let bytes = |first, line| FileDetail::Bytes { first, line };
        assert_eq!(look("r.json", b"{\"a\":1}", b"{\"a\": 1}"), bytes(5, Some(1)));
        assert_eq!(look("r.txt", b"one\ntwo", b"one\ntwo\n"), bytes(7, Some(2)));
        assert_eq!(look("r.bin", b"\0\n1", b"\0\n2"), bytes(2, None));
        assert_eq!(look("r.safetensors", b"no tensors", b"no Tensors"), bytes(3, Some(1)));
    }
}
