//! A folder as text: the canonical list of its files, whose digest is the folder's digest.
//!
//! ```text
//! pipe manifest 1
//! 7e1c...0f - 1234 adapter_config.json
//! 9ab0...44 x 56 tools/run.sh
//! ```
//! One line a file, sorted by the bytes of the path: digest, `x` if it is executable, size in bytes, path. No times, no
//! owners, no empty folders: what a copy would not keep is not part of the content.

use pipe_stage::Digest;

const HEADER: &str = "pipe manifest 1";

/// The files of an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    entries: Vec<Entry>,
}

/// A file of an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the artifact, `/` between the parts: UTF-8, no control characters, never out of the folder.
    pub path: String,
    /// Of its bytes.
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    /// Whether its owner may execute it.
    pub executable: bool,
}

/// Text that is no manifest.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a manifest (line {line})")]
pub struct InvalidManifest {
    /// Counted from 1.
    pub line: usize,
}

impl Manifest {
    /// The manifest of these files, whose paths must differ and be storable.
    pub(super) fn new(mut entries: Vec<Entry>) -> Self {
        entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Self { entries }
    }

    /// The files, sorted by path.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The size of all files together.
    pub fn total_bytes(&self) -> u64 {
        self.entries.iter().fold(0, |total, entry| total.saturating_add(entry.size))
    }

    /// The canonical text.
    pub fn to_text(&self) -> String {
        let mut text = format!("{HEADER}\n");
        for Entry { path, digest, size, executable } in &self.entries {
            let mode = if *executable { 'x' } else { '-' };
            text.push_str(&format!("{digest} {mode} {size} {path}\n"));
        }
        text
    }

    /// Reads the canonical text, and nothing but it.
    ///
    /// # Errors
    /// On any text that [`Manifest::to_text`] does not write: in particular, no path that leaves the folder passes.
    pub fn parse(text: &str) -> Result<Self, InvalidManifest> {
        let lines = text.strip_suffix('\n').ok_or(InvalidManifest { line: 1 })?;
        let mut entries: Vec<Entry> = Vec::new();
        for (i, line) in lines.split('\n').enumerate() {
            let invalid = InvalidManifest { line: i + 1 };
            if i == 0 {
                if line != HEADER {
                    return Err(invalid);
                }
                continue;
            }
            let entry = parse_entry(line).ok_or(invalid)?;
            if entries.last().is_some_and(|last| last.path >= entry.path) {
                return Err(InvalidManifest { line: i + 1 });
            }
            entries.push(entry);
        }
        Ok(Self { entries })
    }
}

/// Whether a relative path may stand in a manifest: UTF-8 parts that are not empty, `.` or `..`, no control characters.
pub(super) fn is_storable(path: &str) -> bool {
    path.split('/').all(|part| !matches!(part, "" | "." | "..")) && !path.contains(char::is_control)
}

fn parse_entry(line: &str) -> Option<Entry> {
    let mut fields = line.splitn(4, ' ');
    let digest = fields.next()?.parse().ok()?;
    let executable = match fields.next()? {
        "x" => true,
        "-" => false,
        _ => return None,
    };
    let size_text = fields.next()?;
    let size: u64 = size_text.parse().ok()?;
    let path = fields.next()?.to_owned();
    let canonical = size.to_string() == size_text && is_storable(&path);
    canonical.then_some(Entry { path, digest, size, executable })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn entry(path: &str) -> Entry {
        Entry {
            path: path.to_owned(),
            digest: Digest::of(path.as_bytes()),
            size: 12,
            executable: path.ends_with(".sh"),
        }
    }

    #[test]
    fn the_text_is_canonical_and_comes_back() {
        let manifest = Manifest::new(vec![entry("b"), entry("a/名 前.sh"), entry("a-b"), entry("a")]);
        let text = manifest.to_text();
        let paths: Vec<_> = manifest.entries().iter().map(|entry| entry.path.as_str()).collect();
        assert_eq!(paths, ["a", "a-b", "a/名 前.sh", "b"]);
        assert_eq!(Manifest::parse(&text).unwrap(), manifest);
        assert_eq!(Manifest::parse(&text).unwrap().to_text(), text);
        assert_eq!(manifest.total_bytes(), 48);
    }

    #[test]
    fn the_digest_of_a_folder_never_changes() {
        let manifest = Manifest::new(vec![entry("config.json"), entry("run.sh")]);
        let digest = Digest::of(manifest.to_text().as_bytes());
        assert_eq!(digest.to_string(), "3f97d2a29a72a030477a7e08eb42d49e1179a1ef6926157e57987e93d909c9cc");
    }

    #[test]
    fn nothing_but_the_canonical_text_passes() {
        let digest = Digest::of(b"");
        let line = format!("{digest} - 0 a");
        for text in [
            String::new(),
            HEADER.to_owned(),
            format!("pipe manifest 2\n{line}\n"),
            format!("{HEADER}\n{line}"),
            format!("{HEADER}\n{line}\n\n"),
            format!("{HEADER}\n{line}\n{line}\n"),
            format!("{HEADER}\n{digest} - 0 b\n{line}\n"),
            format!("{HEADER}\n{digest} - 00 a\n"),
            format!("{HEADER}\n{digest} - +1 a\n"),
            format!("{HEADER}\n{digest} r 0 a\n"),
            format!("{HEADER}\n{digest} - 0\n"),
            format!("{HEADER}\n{digest} - 0 \n"),
            format!("{HEADER}\n{digest} - 0 ../a\n"),
            format!("{HEADER}\n{digest} - 0 /a\n"),
            format!("{HEADER}\n{digest} - 0 a/\n"),
            format!("{HEADER}\n{digest} - 0 a/./b\n"),
            format!("{HEADER}\n{digest} - 0 a\r\n"),
        ] {
            assert!(Manifest::parse(&text).is_err(), "{text:?}");
        }
        assert_eq!(Manifest::parse(&format!("{HEADER}\n{line}\n{digest} - 0 \n")), Err(InvalidManifest { line: 3 }));
    }
}
